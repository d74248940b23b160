//! SQLite's errors in words, and what to do about each.

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind};
use crate::parallel;

impl From<rusqlite::Error> for Error {
    fn from(cause: rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(failure, _) = &cause else {
            return Self::new(ErrorKind::Io, format!("SQLite: {cause}"));
        };
        let (kind, advice) = match failure.code {
            ErrorCode::OperationInterrupted => return parallel::interrupted(),
            ErrorCode::OutOfMemory => (
                ErrorKind::OutOfResources,
                "there is not enough memory; ask for fewer rows at a time, or give the process \
                 more",
            ),
            ErrorCode::TooBig => {
                (ErrorKind::TooLarge, "a value or a row is larger than SQLite holds, which is 1 GB")
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (
                ErrorKind::Busy,
                "another process holds the database; try again, or raise `busy_timeout` in the \
                 online_store section of feature_store.yaml",
            ),
            ErrorCode::DiskFull => (
                ErrorKind::DiskFull,
                "the disk is full; nothing of this batch was written. Free some space and try \
                 again",
            ),
            ErrorCode::ReadOnly => (
                ErrorKind::ReadOnly,
                "the database or its folder is not writable for this user; mend the permissions, \
                 or set another `path` in the online_store section of feature_store.yaml",
            ),
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => (
                ErrorKind::CannotOpen,
                "the database cannot be opened or created there; check `path` in the online_store \
                 section of feature_store.yaml, and that its folder is writable",
            ),
            ErrorCode::NotADatabase => (
                ErrorKind::NotOurs,
                "the file is not a SQLite database; set another `path` in the online_store \
                 section of feature_store.yaml, or move the file away",
            ),
            ErrorCode::DatabaseCorrupt => (
                ErrorKind::Damaged,
                "the database is damaged; restore a backup, or move the file away and fill a new \
                 one with `feast apply` and `feast materialize`",
            ),
            _ => (ErrorKind::Io, "the operation was rolled back"),
        };
        Self::new(kind, format!("{advice} (SQLite: {cause})"))
    }
}
