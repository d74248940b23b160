//! A write-ahead log that another file's was left beside the database.
//!
//! SQLite finds a log by the database's name. Where a file is put in the database's place by a plain
//! rename, and the old file's log stays, SQLite copies the old file's pages into the new one. So who
//! writes notes in the lock file which log is which database's, and who opens the database
//! compares: a log that is another file's is set aside. In a copy of the folder the log is another
//! file than the one that was noted, and is taken for what it is.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::files;
use crate::error::{Error, ErrorKind, Result};

/// What tells a file from every other, also from one that was deleted before: device, inode, and
/// nanoseconds of its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity([u64; 3]);

/// A database and its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    database: Identity,
    log: Identity,
}

impl Identity {
    /// `None` if there is no such file, or the system does not tell when it was created.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let born = found.created().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let (device, inode) = numbers(&found)?;
        Some(Self([device, inode, u64::try_from(born.as_nanos()).ok()?]))
    }
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "others have no such numbers")]
fn numbers(found: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((found.dev(), found.ino()))
}

/// Elsewhere an open file cannot be replaced.
#[cfg(not(unix))]
fn numbers(_found: &Metadata) -> Option<(u64, u64)> {
    None
}

impl Pair {
    fn of(database: &Path) -> Option<Self> {
        let log = Identity::of(&log_of(database))?;
        Some(Self { database: Identity::of(database)?, log })
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.strip_suffix('\n')?;
        let numbers: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        let [a, b, c, d, e, f] = numbers[..] else { return None };
        Some(Self { database: Identity([a, b, c]), log: Identity([d, e, f]) })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Identity([a, b, c]), Identity([d, e, g])) = (self.database, self.log);
        writeln!(f, "{a} {b} {c} {d} {e} {g}")
    }
}

fn log_of(database: &Path) -> PathBuf {
    files::with_suffix(database, "-wal")
}

/// What the lock file says, if it is to be believed.
fn noted(database: &Path) -> Option<Pair> {
    let lock = files::with_suffix(database, ".lock");
    Pair::parse(&crate::fs::read_trusted(&lock, database)?)
}

/// Notes which log the database has now; by whoever holds the lock file locked. Where it cannot be
/// noted, it is as if nobody had ever written.
#[cfg(unix)]
pub(super) fn note(lock: &File, database: &Path) {
    use std::os::unix::fs::FileExt;
    let Some(pair) = Pair::of(database) else { return };
    if noted(database) == Some(pair) {
        return;
    }
    let text = pair.to_string();
    // A shorter file does not parse, should this process be killed in between.
    let _ = lock.set_len(0);
    let _ = lock.write_all_at(text.as_bytes(), 0);
}

#[cfg(not(unix))]
pub(super) fn note(_lock: &File, _database: &Path) {}

/// Whether the log beside the database is that of a file that is no more, or is elsewhere; or was
/// deleted by itself, when what SQLite shares in `-shm` still leads into it.
pub(super) fn is_left(database: &Path) -> bool {
    let is_missing = |path: &Path| fs::symlink_metadata(path).is_err_and(is_not_found);
    if is_missing(&log_of(database)) {
        return !is_missing(&files::with_suffix(database, "-shm"));
    }
    let is_logs = |pair: &Pair| Identity::of(&log_of(database)) == Some(pair.log);
    let is_others = |pair: Pair| Identity::of(database) != Some(pair.database);
    noted(database).filter(is_logs).is_some_and(is_others)
}

#[allow(clippy::needless_pass_by_value, reason = "it is called with one")]
fn is_not_found(cause: io::Error) -> bool {
    cause.kind() == io::ErrorKind::NotFound
}

/// Moves the log away, and tells the user; while nobody opens the database.
pub(super) fn set_aside(database: &Path) -> Result<()> {
    let log = log_of(database);
    // Nothing is in one that is not there either.
    let is_empty = fs::metadata(&log).map_or(true, |found| found.len() == 0);
    let aside = files::with_suffix(&log, &format!(".of-replaced-{}", files::random_name()));
    let shared = files::remove(&files::with_suffix(database, "-shm"));
    let moved = shared.and_then(|()| {
        if is_empty {
            return files::remove(&log);
        }
        fs::rename(&log, &aside).map_err(|cause| files::cannot("rename", &log, &cause))
    });
    moved.map_err(|cause| {
        let message = format!(
            "another file was put in the place of the database, and the log '{}' of the old one \
             stayed, which would damage it: {cause}. Remove the log, and the file '-shm' beside it",
            log.display()
        );
        Error::new(ErrorKind::CannotOpen, message)
    })?;
    if !is_empty {
        tell(database, &aside);
    }
    Ok(())
}

/// What is not told yet, by database.
static NOTICES: Mutex<Vec<(PathBuf, String)>> = Mutex::new(Vec::new());
static HAS_NOTICES: AtomicBool = AtomicBool::new(false);

/// How long a forked child waits for a lock that a thread of its parent's may have held.
const PATIENCE: Duration = Duration::from_millis(200);

fn tell(database: &Path, aside: &Path) {
    let notice = format!(
        "another file was put in the place of the online store '{}' while its write-ahead log stayed; \
         that was set aside as '{}'. It holds the last changes of the old file: if you keep that, \
         name the log like it, with '-wal' at the end. `feast-vector restore` replaces a store \
         with its log",
        database.display(),
        aside.display()
    );
    if let Some(mut notices) = NOTICES.try_lock_for(PATIENCE) {
        notices.push((database.to_owned(), notice));
        HAS_NOTICES.store(true, SeqCst);
    }
}

/// What was not told yet of a database.
pub(super) fn take_notices(database: &Path) -> Vec<String> {
    if !HAS_NOTICES.load(SeqCst) {
        return Vec::new();
    }
    let Some(mut notices) = NOTICES.try_lock_for(PATIENCE) else { return Vec::new() };
    let found = notices.extract_if(.., |(other, _)| other == database).map(|(_, text)| text);
    let found = found.collect();
    HAS_NOTICES.store(!notices.is_empty(), SeqCst);
    found
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a database and its log, as noted in the lock file.
    fn noted_in(folder: &Path) -> PathBuf {
        let database = folder.join("online.db");
        fs::write(&database, "old").unwrap();
        fs::write(log_of(&database), "changes").unwrap();
        note(&File::create(folder.join("online.db.lock")).unwrap(), &database);
        database
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_log_is_left_when_its_database_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let database = noted_in(folder.path());
        if Pair::of(&database).is_none() {
            return; // a file system that does not tell when files were created
        }
        assert!(!is_left(&database));
        // Moved away, it has left its log; moved back, it has not.
        let saved = folder.path().join("saved.db");
        fs::rename(&database, &saved).unwrap();
        assert!(is_left(&database));
        fs::rename(&saved, &database).unwrap();
        assert!(!is_left(&database));
        fs::write(&saved, "new").unwrap();
        fs::rename(&saved, &database).unwrap();
        assert!(is_left(&database));
        fs::write(folder.path().join("online.db-shm"), "").unwrap();
        set_aside(&database).unwrap();
        assert!(!is_left(&database));
        let [_, log, _] = &names(folder.path())[..] else { panic!() };
        assert!(log.starts_with("online.db-wal.of-replaced-"), "{log}");
        assert_eq!(fs::read_to_string(folder.path().join(log)).unwrap(), "changes");
        let notices = take_notices(&database);
        assert!(notices[0].contains(&format!("{log}'. It holds")), "{notices:?}");
        assert_eq!(take_notices(&database), [""; 0]);
    }

    #[test]
    fn what_leads_into_a_deleted_log_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let database = noted_in(folder.path());
        let shared = folder.path().join("online.db-shm");
        fs::write(&shared, "").unwrap();
        assert!(!is_left(&database));
        fs::remove_file(log_of(&database)).unwrap();
        assert!(is_left(&database));
        set_aside(&database).unwrap();
        assert!(!is_left(&database) && !shared.exists());
        assert_eq!(take_notices(&database), [""; 0]);
    }

    #[test]
    fn a_copy_of_the_folder_keeps_its_log() {
        let folder = tempfile::tempdir().unwrap();
        noted_in(folder.path());
        let copy = tempfile::tempdir().unwrap();
        for name in names(folder.path()) {
            fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
        }
        assert!(!is_left(&copy.path().join("online.db")));
    }

    #[test]
    fn what_does_not_parse_is_no_note() {
        let folder = tempfile::tempdir().unwrap();
        let database = noted_in(folder.path());
        let lock = folder.path().join("online.db.lock");
        let Some(pair) = Pair::of(&database) else { return };
        assert_eq!(noted(&database), Some(pair));
        let text = fs::read_to_string(&lock).unwrap();
        for broken in ["", "\n", text.trim_end(), &text[1..], "1 2 3 4 5 x\n", "1 2 3 4 5 6 7\n"] {
            fs::write(&lock, broken).unwrap();
            assert_ne!(noted(&database), Some(pair), "{broken:?}");
        }
        // Never believed through a link.
        fs::write(folder.path().join("elsewhere"), &text).unwrap();
        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink("elsewhere", &lock).unwrap();
        assert_eq!(noted(&database), None);
    }
}
