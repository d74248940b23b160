//! Restoring a backup, under processes that use the database.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value as Json, json};

use super::backup::differs;
use super::connections::{Snapshot, Store};
use super::files::{self, Stage, Sum, Temporary, cannot};
use super::lock::{LockFile, busy};
use super::manifest::{DATABASE, INDEX, Manifest, damaged};
use super::open;
use super::options::StoreOptions;
use super::planted;
use super::progress::Progress;
use super::swap;
use crate::error::{Error, ErrorKind, Result};

/// How long the log of the old file is waited for, which keeps its own changes otherwise.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(500);

/// How long a build of an index is waited for.
const BUILD_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at whether to go on waiting.
const SLICE: Duration = Duration::from_millis(50);

/// The stage's name for whoever hears of the progress.
const STAGE: &str = "files";

impl Store {
    /// Puts the content of a backup in the place of the database, which may be in use: the next
    /// operation of every process is answered from it. Nothing is changed unless every file of the
    /// backup is what its manifest says. The old file stays beside the new one, if `keep`, under a
    /// name that the report gives.
    pub fn restore(&self, source: &Path, keep: bool, progress: &Progress) -> Result<Json> {
        let manifest = Manifest::read(source)?;
        let path = &self.options.path;
        let database = fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let database = database.map_err(|cause| cannot("use", path, &cause))?;
        open::prepare_folder(&database)?;
        if !files::parent(&database).is_dir() {
            let message = format!(
                "'{}' cannot be restored to: its folder is not there; create it",
                database.display()
            );
            return Err(Error::new(ErrorKind::CannotOpen, message));
        }
        remove_leftovers(&database);
        let name = files::random_name();
        let (staging, new) = swap::staging(&database, &name);
        let staging = Temporary::create(staging, &database)?;
        // Held as long as this restore lives, so that others know it from a leftover.
        let _alive = File::open(&staging.0).inspect(|folder| drop(folder.try_lock()));
        // In a folder of its own, which is locked while the copy is opened.
        let copy = files::parent(&new);
        fs::create_dir(copy).map_err(|cause| cannot("create", copy, &cause))?;
        copy_from(source, &manifest, copy, &self.model(&database, &staging.0), progress)?;
        let restored = self.settle_copy(source, &new)?;
        let report = self.take_place(&database, &name, &copy.join(INDEX), keep, progress)?;
        self.disconnect();
        self.schemas.lock().clear();
        Ok(json!({
            "created": manifest.created,
            "restored": restored,
            "replaced": report.0,
            "kept": report.1.map(|kept| kept.display().to_string()),
            "missing_index_files": manifest.missing,
        }))
    }

    /// A file whose permissions the copies take.
    fn model(&self, database: &Path, staging: &Path) -> PathBuf {
        if database.exists() {
            return database.to_owned();
        }
        let model = staging.join("model");
        // Without it, copies are private to their owner.
        let _ = crate::fs::create_database(&model, self.options.file_mode);
        model
    }

    /// Opens the copy once, which brings an older format to this version's, and leaves one file.
    fn settle_copy(&self, source: &Path, new: &Path) -> Result<Json> {
        let options = StoreOptions { path: new.to_owned(), ..self.options.clone() };
        #[allow(
            clippy::redundant_closure_for_method_calls,
            reason = "a method is not general enough"
        )]
        let sizes = Store::new(options).read_whole(|snapshot| snapshot.sizes());
        let sizes = sizes.map_err(|error| match error.kind() {
            ErrorKind::NewerFormat => error,
            _ => damaged(source, &format!("its database cannot be read ({error})")),
        })?;
        let log = files::with_suffix(new, "-wal");
        if fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
            return Err(Error::new(ErrorKind::Io, "the copy's log could not be merged into it"));
        }
        files::sync(new)?;
        Ok(sizes)
    }

    /// Reads on a connection that is closed afterwards.
    fn read_whole<T>(&self, work: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        let connection = open::connect(&self.options)?;
        let answer = work(&Snapshot { store: self, connection: &connection, uncommitted: None })?;
        connection.close().map_err(|(_, cause)| Error::from(cause))?;
        Ok(answer)
    }

    /// The short part, while nobody writes, builds or opens: what is replaced, and where it stays.
    fn take_place(
        &self,
        database: &Path,
        name: &str,
        index: &Path,
        keep: bool,
        progress: &Progress,
    ) -> Result<(Json, Option<PathBuf>)> {
        // A build that lasts longer is thrown away when it finds the other file.
        let patience = self.options.busy_timeout.min(BUILD_PATIENCE);
        let _builder = until(patience, progress, || self.lock_builder(SLICE))?;
        let lock = LockFile::open(database)?;
        let writer = until(self.options.busy_timeout, progress, || {
            match lock.acquire(Instant::now() + SLICE) {
                Err(error) if error.kind() == ErrorKind::Busy => Ok(None),
                acquired => acquired.map(Some),
            }
        })?;
        let Some(_writer) = writer else {
            return Err(busy());
        };
        let replaced = if database.exists() { self.last_words(database) } else { Json::Null };
        let kept = (keep && database.exists()).then(|| {
            files::with_suffix(database, &format!(".before-restore-{}", files::random_name()))
        });
        progress.at("swap", 0, 1)?;
        self.place_index_files(index)?;
        let _folder = swap::swapping(database, Instant::now() + BUILD_PATIENCE)?;
        swap::swap(database, name, kept.as_deref())?;
        Ok((replaced, kept))
    }

    /// Moves restored index files to where searches look for them. A file of the same name has the
    /// same content, or was damaged. What no index names any more, the next builder deletes.
    fn place_index_files(&self, from: &Path) -> Result<()> {
        let entries = fs::read_dir(from).map_err(|cause| cannot("read", from, &cause))?;
        let entries: Vec<_> = entries.flatten().collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.create_index_folder()?;
        let folder = self.index_folder();
        for entry in entries {
            let target = folder.join(entry.file_name());
            fs::rename(entry.path(), &target).map_err(|cause| cannot("create", &target, &cause))?;
        }
        files::sync_folder(&folder);
        Ok(())
    }

    /// What the database holds that is about to be replaced; null where it cannot be read. Its log
    /// is merged into it, as far as readers let it.
    fn last_words(&self, database: &Path) -> Json {
        let look = || -> Result<Json> {
            let _opening = swap::opening(database)?;
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(database, flags)?;
            connection.busy_timeout(CHECKPOINT_PATIENCE)?;
            planted::disarm(&connection)?;
            let snapshot = Snapshot { store: self, connection: &connection, uncommitted: None };
            let sizes = snapshot.sizes()?;
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(sizes)
        };
        look().unwrap_or(Json::Null)
    }
}

/// Tries until there is something or the time is up.
fn until<T>(
    patience: Duration,
    progress: &Progress,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + patience;
    loop {
        let found = attempt()?;
        if found.is_some() || Instant::now() >= deadline {
            return Ok(found);
        }
        progress.at("waiting for others", 0, u64::MAX)?;
    }
}

/// Copies a backup's files, and compares what was copied with the manifest.
fn copy_from(
    source: &Path,
    manifest: &Manifest,
    staging: &Path,
    like: &Path,
    progress: &Progress,
) -> Result<()> {
    let mut stage = Stage { progress, name: STAGE, done: 0, total: manifest.bytes() };
    let mut copy = |from: PathBuf, to: PathBuf, expected: Sum| {
        let file = crate::fs::open_regular(&from).map_err(|cause| {
            let name = from.strip_prefix(source).unwrap_or(&from).display();
            damaged(source, &format!("'{name}' cannot be read ({cause})"))
        })?;
        let found = files::copy(file, &from, &to, like, &mut stage)?;
        if found == expected { Ok(()) } else { Err(differs(source, &from)) }
    };
    copy(source.join(DATABASE), staging.join(DATABASE), manifest.database)?;
    let index = staging.join(INDEX);
    fs::create_dir(&index).map_err(|cause| cannot("create", &index, &cause))?;
    for (name, sum) in &manifest.index_files {
        copy(source.join(INDEX).join(name), index.join(name), *sum)?;
    }
    files::sync_folder(&index);
    Ok(())
}

/// Removes what restores left behind whose process was killed.
pub(super) fn remove_leftovers(database: &Path) {
    let Ok(entries) = fs::read_dir(files::parent(database)) else {
        return;
    };
    for entry in entries.flatten() {
        let is_leftover = swap::is_staging(database, &entry.file_name().to_string_lossy());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_leftover
            && is_folder
            && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
