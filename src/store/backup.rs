//! Backups: a folder with a copy of the database and of the index files that it names, all of one
//! moment, taken while others read and write.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use serde_json::{Value as Json, json};

use super::connections::{Snapshot, Store};
use super::files::{self, Stage, Temporary, cannot};
use super::manifest::{self, DATABASE, INDEX, MANIFEST, Manifest};
use super::open;
use super::path;
use super::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{is_index_file_name, quote};

/// Pages that are copied between two looks at whether to go on.
const PAGES: i32 = 512;

/// How often another snapshot is taken, because a file that the last one named was gone: whoever
/// had built an index in its place deletes it.
const TRIES: usize = 5;

/// Index files by name, and the names of those that are missing.
type OpenedFiles = (Vec<(String, File)>, Vec<String>);

impl Store {
    /// Copies the database and its index files into the folder `target`, which appears under that
    /// name when it is complete. `replace` puts it in the place of an older backup. Gives the
    /// manifest.
    ///
    /// The copy is what one read transaction sees. Readers and writers go on; the write-ahead log
    /// grows until the database is copied.
    pub fn backup(&self, target: &Path, replace: bool, progress: &Progress) -> Result<Json> {
        self.must_exist()?;
        let target = std::path::absolute(target).map_err(|cause| cannot("use", target, &cause))?;
        check_target(&target, replace)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let folder = files::parent(&target);
        let staging = folder.join(format!(".{name}.{}.tmp", files::random_name()));
        let staging = Temporary::create(staging, &self.options.path)?;
        let manifest = self.copy_to(&staging.0, progress).map_err(|error| self.with_path(error))?;
        manifest.write(&staging.0)?;
        if target.exists() && replace {
            // The older backup keeps its content under another name until the new one is there.
            let older = folder.join(format!(".{name}.{}.old", files::random_name()));
            fs::rename(&target, &older).map_err(|cause| cannot("replace", &target, &cause))?;
            let older = Temporary(older);
            if let Err(cause) = fs::rename(&staging.0, &target) {
                let _ = fs::rename(&older.0, &target);
                return Err(cannot("create", &target, &cause));
            }
        } else {
            fs::rename(&staging.0, &target).map_err(|cause| cannot("create", &target, &cause))?;
        }
        files::sync_folder(folder);
        Ok(manifest.to_json())
    }

    fn copy_to(&self, folder: &Path, progress: &Progress) -> Result<Manifest> {
        let source = open::connect(&self.options)?;
        let (index_files, missing) = self.hold_snapshot(&source)?;
        let snapshot = Snapshot { store: self, connection: &source, uncommitted: None };
        let created =
            source.query_row("SELECT strftime('%Y-%m-%dT%H:%M:%SZ')", [], |row| row.get(0))?;
        let format_version = source.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let views = snapshot.sizes()?;
        let database = folder.join(DATABASE);
        copy_database(&source, &database, &self.options.path, progress)?;
        source.execute_batch("COMMIT")?;
        drop(source);
        files::sync(&database)?;

        let bytes = |file: &File| file.metadata().map_or(0, |found| found.len());
        let total =
            bytes(&File::open(&database).map_err(|cause| cannot("read", &database, &cause))?)
                + index_files.iter().map(|(_, file)| bytes(file)).sum::<u64>();
        let mut stage = Stage { progress, name: "files", done: 0, total };
        let database = files::sum(&database, &mut stage)?;
        let copies = folder.join(INDEX);
        crate::fs::create_index_folder(&copies, &self.options.path)
            .map_err(|cause| cannot("create", &copies, &cause))?;
        let mut copied = Vec::with_capacity(index_files.len());
        for (name, file) in index_files {
            let source = self.index_folder().join(&name);
            let sum =
                files::copy(file, &source, &copies.join(&name), &self.options.path, &mut stage)?;
            copied.push((name, sum));
        }
        Ok(Manifest { created, format_version, database, index_files: copied, missing, views })
    }

    /// Begins a read transaction and opens every index file that it names; says which are not
    /// there. A file that is open stays readable when it is deleted.
    fn hold_snapshot(&self, source: &Connection) -> Result<OpenedFiles> {
        let mut before: Option<HashSet<String>> = None;
        for attempt in 1.. {
            source.execute_batch("BEGIN")?;
            let names =
                Snapshot { store: self, connection: source, uncommitted: None }.segment_files()?;
            let mut opened = Vec::with_capacity(names.len());
            let mut missing = HashSet::new();
            for name in names {
                // Nothing else is even opened, wherever the name leads.
                if !is_index_file_name(&name) {
                    missing.insert(name);
                    continue;
                }
                let path = self.index_folder().join(&name);
                match crate::fs::open_regular(&path) {
                    Ok(file) => opened.push((name, file)),
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                        missing.insert(name);
                    }
                    Err(cause) => return Err(cannot("read", &path, &cause)),
                }
            }
            // What a later snapshot still names, nobody has deleted for a new index.
            if missing.is_empty() || before.as_ref() == Some(&missing) || attempt == TRIES {
                return Ok((opened, missing.into_iter().collect()));
            }
            before = Some(missing);
            source.execute_batch("ROLLBACK")?;
        }
        Ok((Vec::new(), Vec::new()))
    }

    /// Refuses to work on a file that is not there, rather than to create it.
    pub fn must_exist(&self) -> Result<()> {
        if self.options.path.is_file() {
            return Ok(());
        }
        path::check(&self.options.path)?;
        let message = format!("there is no database '{}'", self.options.path.display());
        Err(Error::new(ErrorKind::CannotOpen, message))
    }
}

impl Snapshot<'_> {
    /// The tables, with their numbers of rows.
    pub(super) fn sizes(&self) -> Result<Json> {
        let mut statement = self.connection.prepare(
            "SELECT project, view, version, table_name FROM _feast_vector_tables
             ORDER BY project, view, version",
        )?;
        let mut rows = statement.query([])?;
        let mut views = Vec::new();
        while let Some(row) = rows.next()? {
            let table: String = row.get(3)?;
            let count = format!("SELECT count(*) FROM {}", quote(&table));
            let count: i64 = self.connection.query_row(&count, [], |row| row.get(0))?;
            views.push(json!({
                "project": row.get::<_, String>(0)?,
                "view": row.get::<_, String>(1)?,
                "version": row.get::<_, i64>(2)?,
                "rows": count,
            }));
        }
        Ok(Json::Array(views))
    }
}

/// Copies the pages that the source's read transaction sees. As long as that is open, no write
/// makes the copy start again.
fn copy_database(
    source: &Connection,
    target: &Path,
    like: &Path,
    progress: &Progress,
) -> Result<()> {
    crate::fs::create_new(target, like).map_err(|cause| cannot("create", target, &cause))?;
    let mut copy = Connection::open(target)?;
    // An interrupted copy is deleted, and a complete one is synchronized as a file.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    {
        let backup = Backup::new(source, &mut copy)?;
        loop {
            let step = backup.step(PAGES)?;
            let at = backup.progress();
            let total = at.pagecount as u64;
            progress.at("database", total - at.remaining as u64, total)?;
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                _ => return Err(Error::new(ErrorKind::Busy, "the copy of the database is locked")),
            }
        }
    }
    copy.close().map_err(|(_, cause)| cause)?;
    Ok(())
}

fn check_target(target: &Path, replace: bool) -> Result<()> {
    let refuse = |what: &str| {
        let message = format!("'{}' {what}", target.display());
        Err(Error::new(ErrorKind::InvalidArgument, message))
    };
    let folder = files::parent(target);
    if target.file_name().is_none() || !folder.is_dir() {
        return refuse(&format!("cannot be created: there is no folder '{}'", folder.display()));
    }
    let Ok(found) = fs::symlink_metadata(target) else {
        return Ok(());
    };
    if !found.is_dir() {
        return refuse("is there already, and is not a folder; choose another name");
    }
    let is_empty = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty {
        return Ok(());
    }
    match (replace, target.join(MANIFEST).is_file()) {
        (true, true) => Ok(()),
        (true, false) => refuse("is not a backup, and is not replaced; choose another name"),
        (false, _) => refuse("is there already; choose another name, or replace it with --force"),
    }
}

/// Checks that the files of a backup are what its manifest says; gives the manifest.
pub fn check_backup(folder: &Path, progress: &Progress) -> Result<Json> {
    let manifest = Manifest::read(folder)?;
    let mut stage = Stage { progress, name: "files", done: 0, total: manifest.bytes() };
    let check = |path: &Path, expected, stage: &mut Stage<'_>| {
        let found = files::sum(path, stage).map_err(|error| match error.kind() {
            ErrorKind::Interrupted => error,
            _ => manifest::damaged(folder, &error.to_string()),
        })?;
        if found == expected { Ok(()) } else { Err(differs(folder, path)) }
    };
    check(&folder.join(DATABASE), manifest.database, &mut stage)?;
    for (name, sum) in &manifest.index_files {
        check(&folder.join(INDEX).join(name), *sum, &mut stage)?;
    }
    Ok(manifest.to_json())
}

/// The error of a file that is not what the manifest says.
pub(super) fn differs(folder: &Path, path: &Path) -> Error {
    let name = path.strip_prefix(folder).unwrap_or(path);
    let what = format!("the size or the checksum of '{}' is wrong", name.display());
    manifest::damaged(folder, &what)
}
