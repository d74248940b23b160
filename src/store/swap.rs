//! Another file in the database's place, while processes use it.
//!
//! SQLite finds a database's log by name: one that opened the new file beside the old one's log, or
//! the other way round, would damage it. So whoever opens a connection holds the database's folder
//! locked (shared, by `flock`) until the log is open, and a swap holds it exclusively. What a swap
//! is about to do is in a file, `<database>.restoring`; where that is found, its writer was killed
//! in the middle, and whoever opens the database finishes the work first. Connections to the old
//! file keep it, and its log, until they are closed; SQLite deletes no log by name once the
//! database's name leads to another file.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::{self, cannot};
use super::left_log;
use super::manifest::DATABASE;
use crate::error::{Error, ErrorKind, Result};

/// Between two tries for the folder's lock.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a connection waits for whoever holds the folder, if that is no swap: anybody who may
/// read a folder can lock it.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a swap under way is waited for.
const SWAP_PATIENCE: Duration = Duration::from_secs(10);

/// What a staging folder is named after the database's name, and before a random one.
const STAGING: &str = ".restore-";

/// What belongs to a database under its name, and goes with it.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The folder's lock, held while a connection is opened or a file swapped.
#[derive(Debug)]
pub(super) struct FolderLock(Option<File>);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Explicitly, because a process forked meanwhile has the file open as well.
        if let Some(folder) = &self.0 {
            let _ = folder.unlock();
        }
    }
}

/// To be held while a connection is opened and reads for the first time. Finishes a swap whose
/// process was killed, and sets a log aside that another file's was.
pub(super) fn opening(database: &Path) -> Result<FolderLock> {
    open_with(database, |database| database.exists() && left_log::is_left(database))
}

/// The same for a connection that creates the database where there is none. A reader leaves the log
/// of a database that is not there where it is: perhaps it comes back.
pub(super) fn creating(database: &Path) -> Result<FolderLock> {
    open_with(database, left_log::is_left)
}

fn open_with(database: &Path, has_left_log: fn(&Path) -> bool) -> Result<FolderLock> {
    let lock = shared(database);
    if planned(database).is_none() && !has_left_log(database) {
        return Ok(lock);
    }
    drop(lock);
    let exclusive = swapping(database, Instant::now() + SWAP_PATIENCE)?;
    finish(database)?;
    // Unless somebody else has done it meanwhile.
    if has_left_log(database) {
        left_log::set_aside(database)?;
    }
    drop(exclusive);
    open_with(database, has_left_log)
}

fn shared(database: &Path) -> FolderLock {
    // Where folders cannot be opened or locked, open files cannot be replaced either, mostly.
    let Ok(folder) = File::open(files::parent(database)) else {
        return FolderLock(None);
    };
    let started = Instant::now();
    while let Err(refused) = folder.try_lock_shared() {
        let patience = if planned(database).is_some() { SWAP_PATIENCE } else { PATIENCE };
        if matches!(refused, fs::TryLockError::Error(_)) || started.elapsed() > patience {
            return FolderLock(None);
        }
        std::thread::sleep(PAUSE);
    }
    FolderLock(Some(folder))
}

/// A new folder beside the database, and the file in it that [`swap`] puts in the database's place.
pub(super) fn staging(database: &Path, name: &str) -> (PathBuf, PathBuf) {
    let folder = files::with_suffix(database, &format!("{STAGING}{name}"));
    let file = folder.join("copy").join(DATABASE);
    (folder, file)
}

/// Whether a name of a file beside the database is one of such a folder.
pub(super) fn is_staging(database: &Path, name: &str) -> bool {
    let database = database.file_name().unwrap_or_default().to_string_lossy();
    let random = name.strip_prefix(&*database).and_then(|rest| rest.strip_prefix(STAGING));
    random.is_some_and(is_random)
}

fn is_random(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// To be held while the file is swapped.
pub(super) fn swapping(database: &Path, deadline: Instant) -> Result<FolderLock> {
    let Ok(folder) = File::open(files::parent(database)) else {
        return Ok(FolderLock(None));
    };
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(FolderLock(Some(folder))),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            Err(fs::TryLockError::WouldBlock) => {
                let message = "other processes keep opening the database; try again";
                return Err(Error::new(ErrorKind::Busy, message));
            }
            Err(fs::TryLockError::Error(_)) => return Ok(FolderLock(None)),
        }
    }
}

/// Puts the file of the folder that [`staging`] names in the place of the database; under the
/// folder's exclusive lock, and while nobody writes. The old file, with what of it is still in its
/// log, stays as `kept`.
pub(super) fn swap(database: &Path, name: &str, kept: Option<&Path>) -> Result<()> {
    if let Some(kept) = kept
        && database.exists()
    {
        for companion in COMPANIONS.iter().filter(|name| **name != "-shm") {
            let log = files::with_suffix(database, companion);
            if fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
                keep(&log, &files::with_suffix(kept, companion))?;
            }
        }
        keep(database, kept)?;
    }
    let marker = marker(database);
    // One that is there is not to be trusted, or it would have been finished.
    files::remove(&marker)?;
    let (_, new) = staging(database, name);
    crate::fs::create_new(&marker, &new)
        .and_then(|mut file| {
            file.write_all(name.as_bytes())?;
            file.sync_all()
        })
        .map_err(|cause| cannot("write", &marker, &cause))?;
    files::sync_folder(files::parent(database));
    finish(database)
}

/// A second name for a file; its content, where the file system knows no second names.
fn keep(file: &Path, kept: &Path) -> Result<()> {
    match fs::hard_link(file, kept) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            fs::rename(file, kept).map_err(|cause| cannot("keep", file, &cause))
        }
        // What has the name already is somebody else's.
        linked => linked.map_err(|cause| cannot("keep", file, &cause)),
    }
}

/// Does what the marker says, from wherever it was left.
fn finish(database: &Path) -> Result<()> {
    let Some(name) = planned(database) else {
        return Ok(());
    };
    let (_, new) = staging(database, &name);
    if new.is_file() {
        for companion in COMPANIONS {
            files::remove(&files::with_suffix(database, companion))?;
        }
        fs::rename(&new, database).map_err(|cause| cannot("replace", database, &cause))?;
        files::sync_folder(files::parent(database));
    }
    files::remove(&marker(database))
}

/// The name that [`swap`] was called with whose work is not done.
fn planned(database: &Path) -> Option<String> {
    let path = marker(database);
    // Mostly there is none.
    path.symlink_metadata().ok()?;
    crate::fs::read_trusted(&path, database).filter(|name| is_random(name))
}

fn marker(database: &Path) -> PathBuf {
    files::with_suffix(database, ".restoring")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "0123456789abcdef";

    fn content(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    /// A folder with a database, and the path of what is to take its place.
    fn prepared(folder: &Path) -> (PathBuf, PathBuf) {
        let database = folder.join("online.db");
        fs::write(&database, "old").unwrap();
        let (_, new) = staging(&database, NAME);
        fs::create_dir_all(new.parent().unwrap()).unwrap();
        fs::write(&new, "new").unwrap();
        (database, new)
    }

    #[test]
    fn a_swap_that_was_killed_is_finished_by_whoever_opens() {
        let folder = tempfile::tempdir().unwrap();
        for removed in 0..=COMPANIONS.len() {
            let (database, _) = prepared(folder.path());
            fs::write(marker(&database), NAME).unwrap();
            for companion in &COMPANIONS[removed..] {
                fs::write(files::with_suffix(&database, companion), "old").unwrap();
            }
            drop(opening(&database).unwrap());
            assert_eq!(content(&database).as_deref(), Some("new"));
            assert!(!marker(&database).exists());
            for companion in COMPANIONS {
                assert!(!files::with_suffix(&database, companion).exists());
            }
        }
        // Killed when only the marker was left: the log is the new file's.
        let (database, new) = prepared(folder.path());
        fs::write(marker(&database), NAME).unwrap();
        fs::rename(new, &database).unwrap();
        fs::write(folder.path().join("online.db-wal"), "log").unwrap();
        drop(opening(&database).unwrap());
        assert_eq!(content(&folder.path().join("online.db-wal")).as_deref(), Some("log"));
        assert!(!marker(&database).exists());
    }

    #[test]
    fn a_plan_that_names_anything_else_is_no_plan() {
        let folder = tempfile::tempdir().unwrap();
        let (database, _) = prepared(folder.path());
        fs::write(folder.path().join("other"), "other").unwrap();
        for name in ["../other", "/etc/passwd", "", "0123456789abcdeX"] {
            fs::write(marker(&database), name).unwrap();
            drop(opening(&database).unwrap());
            assert_eq!(content(&database).as_deref(), Some("old"));
        }
        swap(&database, NAME, None).unwrap();
        assert_eq!(content(&database).as_deref(), Some("new"));
        assert!(!marker(&database).exists());
    }

    #[test]
    fn the_old_file_is_kept_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let (database, _) = prepared(folder.path());
        let at = |name: &str| folder.path().join(name);
        fs::write(at("online.db-wal"), "log").unwrap();
        swap(&database, NAME, Some(&at("kept"))).unwrap();
        assert_eq!(content(&database).as_deref(), Some("new"));
        assert_eq!(content(&at("kept")).as_deref(), Some("old"));
        assert_eq!(content(&at("kept-wal")).as_deref(), Some("log"));
        assert_eq!(content(&at("online.db-wal")), None);

        // A name that is taken is not overwritten.
        assert!(swap(&database, NAME, Some(&at("kept"))).is_err());
        assert_eq!(content(&at("kept")).as_deref(), Some("old"));
    }

    #[test]
    fn a_swap_waits_for_whoever_opens_and_they_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("online.db");
        let lock = opening(&database).unwrap();
        assert!(lock.0.is_some());
        let error = swapping(&database, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        drop(lock);
        let held = swapping(&database, Instant::now()).unwrap();
        assert!(held.0.is_some());
        assert!(opening(&database).unwrap().0.is_none());
    }
}
