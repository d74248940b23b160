//! One writer at a time across processes: an advisory lock on `<database>.lock`.
//!
//! SQLite has a lock of its own for that, but its waiters try again and again until one is lucky, and
//! where it is a POSIX lock it is lost when anything else in the process closes a descriptor of the
//! database file (<https://sqlite.org/howtocorrupt.html>, section 2.2). This lock is `flock`'s: it
//! belongs to the open file, and nothing else opens that file.

use std::fs::{File, TryLockError};
use std::io::ErrorKind as ErrorOfFile;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::left_log;
use super::locks;
use super::process::{Own, forked};
use crate::error::{Error, ErrorKind, Result};
use crate::fs;
use crate::parallel;

/// How long the first waits between two tries are; they double up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// Who has waited this long gets a turn: a process that writes without pause frees the lock for
/// microseconds only, in which nobody else who tries now and then is ever lucky.
const UNLUCKY: Duration = Duration::from_millis(50);

/// The lock file, open but not held.
#[derive(Debug)]
pub(super) struct LockFile {
    file: Own<OpenLockFile>,
    path: PathBuf,
}

/// A child that is forked closes its copy at once, or it would hold the lock on after its parent.
#[derive(Debug)]
struct OpenLockFile(File);

impl OpenLockFile {
    fn new(file: File) -> Self {
        #[cfg(unix)]
        locks::close_in_child(std::os::fd::AsRawFd::as_raw_fd(&file));
        Self(file)
    }
}

impl Drop for OpenLockFile {
    fn drop(&mut self) {
        #[cfg(unix)]
        locks::closed_here(std::os::fd::AsRawFd::as_raw_fd(&self.0));
    }
}

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct LockGuard<'a>(&'a LockFile);

impl LockFile {
    /// Opens or creates the lock file of a database.
    pub(super) fn open(database: &Path) -> Result<Self> {
        Self::open_beside(database, ".lock")
    }

    /// Opens or creates a lock file for those who may write the database.
    fn open_beside(database: &Path, suffix: &str) -> Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        let file = fs::open_lock(&path, database).map_err(|cause| {
            let kind = match cause.kind() {
                ErrorOfFile::PermissionDenied | ErrorOfFile::ReadOnlyFilesystem => {
                    ErrorKind::ReadOnly
                }
                _ => ErrorKind::CannotOpen,
            };
            Error::new(
                kind,
                format!(
                    "the store is not writable here: cannot open the lock file '{}' ({cause}); it has to be a file that this user \
                     may write, or not there in a folder that this user may write",
                    path.display()
                ),
            )
        })?;
        Ok(Self { file: Own::new(OpenLockFile::new(file)), path })
    }

    fn release(&self) {
        // In a forked child it is the parent's, and the descriptor perhaps another file's by now.
        if self.file.birth().is_here() {
            // Cannot fail on a lock that is held; closing the file would release it all the same.
            let _ = self.file.0.unlock();
        }
    }

    /// Whether the path still leads to this file; who locks another one does not wait for us.
    pub(super) fn is_current(&self) -> bool {
        FileIdentity::of(&self.path) == self.file.0.metadata().ok().as_ref().map(FileIdentity::new)
    }

    /// Notes which log the database has, for whoever opens it later; while this is held.
    pub(super) fn note_log(&self, database: &Path) {
        left_log::note(&self.file.0, database);
    }

    /// Waits for the lock until the deadline.
    pub(super) fn acquire(&self, deadline: Instant) -> Result<LockGuard<'_>> {
        let started = Instant::now();
        let mut pause = SHORTEST_PAUSE;
        let mut turn = None;
        loop {
            if !self.file.birth().is_here() {
                return Err(forked());
            }
            let tried = if turn.is_none() && locks::is_somebodys_turn(&self.file.0) {
                Err(TryLockError::WouldBlock)
            } else {
                self.file.0.try_lock()
            };
            match tried {
                Ok(()) => return Ok(LockGuard(self)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    parallel::check()?;
                    if turn.is_none() && started.elapsed() > UNLUCKY {
                        turn = locks::take_turn(&self.file.0);
                    }
                    std::thread::sleep(
                        pause.min(deadline.saturating_duration_since(Instant::now())),
                    );
                    let longest = if turn.is_some() { SHORTEST_PAUSE * 4 } else { LONGEST_PAUSE };
                    pause = (pause * 2).min(longest);
                }
                Err(TryLockError::WouldBlock) => return Err(busy()),
                Err(TryLockError::Error(cause)) => {
                    return Err(Error::new(
                        ErrorKind::Io,
                        format!("cannot lock '{}': {cause}", self.path.display()),
                    ));
                }
            }
        }
    }
}

/// What tells one file from another under the same path. Taken without opening the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl FileIdentity {
    /// That of the file that the path leads to, if there is one.
    pub(super) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::new)
    }

    #[cfg(unix)]
    pub(super) fn new(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device_and_inode: (metadata.dev(), metadata.ino()) }
    }

    /// Elsewhere an open file cannot be deleted or moved.
    #[cfg(not(unix))]
    pub(super) fn new(_metadata: &std::fs::Metadata) -> Self {
        Self {}
    }
}

/// What whoever builds index files holds, so that one does at a time across processes.
#[derive(Debug)]
pub struct BuilderLock(LockFile);

impl BuilderLock {
    /// The lock, unless another builder holds it until the deadline.
    pub(super) fn acquire(database: &Path, deadline: Instant) -> Result<Option<Self>> {
        let lock = LockFile::open_beside(database, ".index.lock")?;
        // The open file holds it on, until this is dropped.
        match lock.acquire(deadline).map(std::mem::forget) {
            Ok(()) => Ok(Some(Self(lock))),
            Err(error) if error.kind() == ErrorKind::Busy => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for BuilderLock {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// The error of a writer whose wait has ended.
pub(super) fn busy() -> Error {
    Error::new(
        ErrorKind::Busy,
        "another writer held the database for longer than `busy_timeout`; nothing of this batch \
         was written. Try again, or raise `busy_timeout` in the online_store section of \
         feature_store.yaml",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_waits_and_then_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("online.db");
        let (one, two) = (LockFile::open(&database).unwrap(), LockFile::open(&database).unwrap());
        let held = one.acquire(Instant::now()).unwrap();
        let start = Instant::now();
        let error = two.acquire(start + Duration::from_millis(50)).unwrap_err();
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.message().contains("longer than `busy_timeout`"), "{error}");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| two.acquire(start + Duration::from_secs(60)).map(drop));
            std::thread::sleep(Duration::from_millis(20));
            drop(held);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_writer_without_pause_lets_others_have_a_turn() {
        use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("online.db");
        let (busy, other) =
            (LockFile::open(&database).unwrap(), LockFile::open(&database).unwrap());
        let patience = Duration::from_secs(60);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    let _held = busy.acquire(Instant::now() + patience).unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            std::thread::sleep(Duration::from_millis(30));
            for _ in 0..5 {
                drop(other.acquire(Instant::now() + patience).unwrap());
            }
            is_over.store(true, SeqCst);
        });
    }
}
