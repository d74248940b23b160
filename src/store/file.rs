//! A connection and its log, and which files they are.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::files;
use super::lock::FileIdentity;
use super::open::{self, ToRead};
use super::options::StoreOptions;
use super::process::{OpenFile, Own};
use crate::error::{Error, ErrorKind, Result};

/// How often a file is opened again that is replaced meanwhile.
pub(super) const TRIES: usize = 5;

/// A connection, and which file it is connected to.
#[derive(Debug)]
pub(super) struct FileConnection {
    pub(super) connection: Own<Connection>,
    pub(super) file: Option<FileIdentity>,
    /// Set if SQLite takes the file for one that nobody changes.
    frozen: Option<Frozen>,
    /// Dropped after the connection.
    _open: OpenFile,
}

/// A file that cannot be written here. What was read of it holds while it has this modification time
/// and length, and no log beside it.
#[derive(Debug, PartialEq, Eq)]
struct Frozen(Option<SystemTime>, u64);

impl Frozen {
    fn of(database: &Path) -> Option<Self> {
        if files::with_suffix(database, "-wal").exists() {
            return None;
        }
        let found = std::fs::metadata(database).ok()?;
        Some(Self(found.modified().ok(), found.len()))
    }
}

/// The write-ahead log that a connection writes to.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<FileIdentity>,
}

impl Log {
    pub(super) fn of(database: &Path) -> Self {
        let path = files::with_suffix(database, "-wal");
        Self { file: FileIdentity::of(&path), path }
    }

    /// An error if it is there no more: what is in a deleted log is lost.
    pub(super) fn check(&self) -> Result<()> {
        if self.file.is_none() || FileIdentity::of(&self.path) == self.file {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            format!(
                "another program has deleted or replaced the write-ahead log '{}' while it was in \
                 use. This batch, and others of the last minutes, may be lost: write them again. \
                 Where the file system or the system has POSIX locks only, that happens after \
                 anything in this process opens and closes the database",
                self.path.display()
            ),
        ))
    }
}

impl FileConnection {
    /// Opens one that writes, creating or migrating the database as needed.
    pub(super) fn open(options: &StoreOptions) -> Result<Self> {
        for _ in 0..TRIES {
            if let Some(opened) = Self::try_open(options, |options| {
                Ok(ToRead { connection: open::connect(options)?, is_ours: true })
            })? {
                return Ok(opened);
            }
        }
        Err(replaced())
    }

    /// Opens one that reads, and creates nothing: where there is no database, it is connected to an
    /// empty one in memory, and where a database has no tables of ours, to empty ones in memory. Its
    /// `file` is none then, so that the next use looks again.
    pub(super) fn open_to_read(options: &StoreOptions) -> Result<Self> {
        for _ in 0..TRIES {
            if let Some(nothing) = open::connect_to_nothing(options)? {
                let (connection, open) = (Own::new(nothing), OpenFile::new(&options.path)?);
                return Ok(Self { connection, file: None, frozen: None, _open: open });
            }
            let opened = match Self::try_open(options, open::connect_to_existing) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::CannotOpen | ErrorKind::ReadOnly) =>
                {
                    Self::open_frozen(options, error)?
                }
                opened => opened?,
            };
            if let Some(opened) = opened {
                return Ok(opened);
            }
        }
        Err(replaced())
    }

    /// `None` if the file was created or replaced meanwhile: who sees the same one before and after
    /// is connected to it.
    fn try_open(
        options: &StoreOptions,
        connect: fn(&StoreOptions) -> Result<ToRead>,
    ) -> Result<Option<Self>> {
        let before = FileIdentity::of(&options.path);
        let open = OpenFile::new(&options.path)?;
        let ToRead { connection, is_ours } = connect(options)?;
        let connection = Own::new(connection);
        let is_it = before.is_some() && before == FileIdentity::of(&options.path);
        let file = before.filter(|_| is_ours);
        Ok(is_it.then_some(Self { connection, file, frozen: None, _open: open }))
    }

    /// Opens a database beside which SQLite can make no files, as in a read-only folder; `error` is
    /// what it said.
    pub(super) fn open_frozen(options: &StoreOptions, error: Error) -> Result<Option<Self>> {
        let file = FileIdentity::of(&options.path);
        let open = OpenFile::new(&options.path)?;
        let frozen = Frozen::of(&options.path);
        let Some(ToRead { connection, is_ours }) = open::connect_frozen(options)? else {
            return Err(error);
        };
        let is_it = file.is_some() && frozen.is_some() && frozen == Frozen::of(&options.path);
        let is_it = is_it && file == FileIdentity::of(&options.path);
        let connection = Own::new(connection);
        let (file, frozen) = if is_ours { (file, frozen) } else { (None, None) };
        Ok(is_it.then_some(Self { connection, file, frozen, _open: open }))
    }

    /// When the connection is closed, the log is not copied into the file.
    pub(super) fn keep_log_on_close(&self) -> Result<()> {
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(())
    }

    /// An error if a file that cannot be written here was written elsewhere while it was read.
    pub(super) fn check_frozen(&self, path: &Path) -> Result<()> {
        if self.frozen.is_none() || self.is_current(path) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Busy,
            "the database, which cannot be written here, was written elsewhere while it was read; \
             try again",
        ))
    }

    /// Whether the path still leads to the file that this is connected to: somebody may have
    /// moved or deleted it, and what is written to a deleted file is lost.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        self.file.is_some()
            && FileIdentity::of(path) == self.file
            && (self.frozen.is_none() || self.frozen == Frozen::of(path))
    }

    pub(super) fn check_current(&self, path: &Path) -> Result<()> {
        if self.is_current(path) { Ok(()) } else { Err(replaced()) }
    }
}

/// The error of who finds another file in the place of the one that was opened.
pub(super) fn replaced() -> Error {
    Error::new(
        ErrorKind::Io,
        "the database file was replaced or deleted by another program meanwhile; nothing of this \
         batch is in the file that is there now. Try again",
    )
}
