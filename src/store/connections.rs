//! Connections: a pool of readers, one writer, and the transactions that callers work in.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use parking_lot::Mutex;
use rusqlite::Connection;

use super::allowed;
use super::checkpoint::Checkpointer;
use super::file::{FileConnection, Log, TRIES, replaced};
use super::left_log;
use super::lock::{self, BuilderLock, LockFile};
use super::locks;
use super::options::StoreOptions;
use super::path;
use super::sql::{SqlLimits, SqlValue};
use super::transaction::Transaction;
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;
use crate::schema::{TableSchema, ViewId};

/// Idle readers that are kept; more are opened for a burst and closed after it.
const IDLE_READERS: usize = 16;

/// Layouts of tables, by view.
pub(super) type SchemaCache = Mutex<HashMap<ViewId, Arc<TableSchema>>>;

/// A database file: cheap to create, connected on first use, safe to share between threads.
#[derive(Debug)]
pub struct Store {
    pub(super) options: StoreOptions,
    pub(super) readers: Mutex<Vec<FileConnection>>,
    /// Readers for SQL that callers bring, which others would have to be cleaned for.
    pub(super) sql_readers: Mutex<Vec<FileConnection>>,
    pub(super) writer: Mutex<Option<Writer>>,
    /// Dropped after the connections; the last of them to close leaves no log.
    pub(super) checkpointer: Checkpointer,
    pub(super) schemas: SchemaCache,
    /// Layouts that were read from the catalog.
    pub(super) loaded: AtomicU64,
    /// Whether the file was there before, and was connected to.
    was_open: AtomicBool,
    /// Whether it was said that there is no file.
    said_missing: AtomicBool,
    notices: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: FileConnection,
    lock: LockFile,
    log: Log,
    /// Whether the lock file says which log that is.
    is_noted: bool,
}

/// A read transaction: everything read through it is of one moment.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub(super) store: &'a Store,
    pub(super) connection: &'a Connection,
    /// Layouts that a write transaction has read or made: others know them once it is committed.
    pub(super) uncommitted: Option<&'a SchemaCache>,
}

/// A write transaction. It sees its own changes.
#[derive(Debug)]
pub struct WriteTxn<'a> {
    snapshot: Snapshot<'a>,
}

impl<'a> Deref for WriteTxn<'a> {
    type Target = Snapshot<'a>;

    fn deref(&self) -> &Snapshot<'a> {
        &self.snapshot
    }
}

impl Store {
    /// A store over the file; nothing is opened yet.
    pub fn new(options: StoreOptions) -> Self {
        Self {
            options,
            readers: Mutex::new(Vec::new()),
            sql_readers: Mutex::new(Vec::new()),
            writer: Mutex::new(None),
            checkpointer: Checkpointer::default(),
            schemas: SchemaCache::default(),
            loaded: AtomicU64::new(0),
            was_open: AtomicBool::new(false),
            said_missing: AtomicBool::new(false),
            notices: Mutex::default(),
        }
    }

    /// Another over the same file, with connections of its own.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self::new(self.options.clone())
    }

    /// What people should know of the file, since the last call.
    pub fn take_notices(&self) -> Vec<String> {
        let mut notices = std::mem::take(&mut *self.notices.lock());
        notices.extend(left_log::take_notices(&self.options.path));
        notices
    }

    /// The database file: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Whether nothing else in the process can drop the locks on the database.
    pub fn holds_locks(&self) -> bool {
        let mut folders = self.options.path.ancestors().skip(1);
        let folder = folders.find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
        locks::hold_in(folder)
    }

    /// The builder's lock, unless another builder holds it for all that time.
    pub fn lock_builder(&self, patience: Duration) -> Result<Option<BuilderLock>> {
        BuilderLock::acquire(&self.options.path, Instant::now() + patience)
            .map_err(|error| self.with_path(error))
    }

    /// Runs `work` in a read transaction.
    pub fn read<T>(&self, work: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        self.try_read(work).map_err(|error| self.with_path(error))
    }

    /// Runs one reading statement of the caller's, and gives the names and columns of its answer.
    ///
    /// A column is an array of int64, float64, text or binary, whichever its values are; integers
    /// among reals become reals. Where texts or BLOBs stand among others, all are text, BLOBs as
    /// SQL writes them (`X'00ff'`). Anything but reading is refused.
    ///
    /// It may read every project in the file, within `limits`.
    pub fn sql(
        &self,
        sql: &str,
        parameters: &[SqlValue],
        limits: &SqlLimits,
    ) -> Result<Vec<(String, ArrayRef)>> {
        let mut reader = self.take_sql_reader().map_err(|error| self.with_path(error))?;
        let connection = &mut reader.connection;
        let answer = super::sql::read_only(connection, sql, parameters, limits);
        let answer = answer.and_then(|answer| {
            reader.check_frozen(&self.options.path)?;
            Ok(answer)
        });
        let mut readers = self.sql_readers.lock();
        if answer.is_ok() && readers.len() < IDLE_READERS {
            readers.push(reader);
        }
        answer.map_err(|error| self.with_path(error))
    }

    fn take_sql_reader(&self) -> Result<FileConnection> {
        let idle = self.sql_readers.lock().pop();
        if let Some(reader) = idle.filter(|reader| reader.is_current(&self.options.path)) {
            return Ok(reader);
        }
        let reader = self.open_reader()?;
        allowed::drop_modules(&reader.connection)?;
        Ok(reader)
    }

    fn try_read<T>(&self, work: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        let reader = self.take_reader()?;
        // A reader that a panic unwinds through is closed, not given back.
        let answer = Transaction::begin(&reader.connection, "BEGIN").and_then(|transaction| {
            let connection = &reader.connection;
            let answer = work(&Snapshot { store: self, connection, uncommitted: None })?;
            transaction.commit()?;
            reader.check_frozen(&self.options.path)?;
            Ok(answer)
        });
        // After an error of the call the connection is as good as before; after others perhaps not.
        if answer.as_ref().map_or_else(Error::is_callers, |_| true) {
            self.give_back(reader);
        } else if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io) {
            let _ = reader.keep_log_on_close();
            drop(reader);
            self.leave_all();
        }
        answer
    }

    fn give_back(&self, reader: FileConnection) {
        let mut readers = self.readers.lock();
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
    }

    /// Runs `work` in a write transaction, which is committed if `work` succeeds and rolled back
    /// if it does not. Waits for other writers up to the store's `busy_timeout`.
    pub fn write<T>(&self, work: impl FnOnce(&WriteTxn<'_>) -> Result<T>) -> Result<T> {
        self.try_write(work).map_err(|error| self.with_path(error))
    }

    fn try_write<T>(&self, work: impl FnOnce(&WriteTxn<'_>) -> Result<T>) -> Result<T> {
        self.with_writer(|file| {
            let connection = &file.connection;
            let made = SchemaCache::default();
            let transaction = Transaction::begin(connection, "BEGIN IMMEDIATE")?;
            let snapshot = Snapshot { store: self, connection, uncommitted: Some(&made) };
            let answer = work(&WriteTxn { snapshot })?;
            file.check_current(&self.options.path)?;
            transaction.commit()?;
            // What is acknowledged is in the file that everybody reads.
            file.check_current(&self.options.path)?;
            self.schemas.lock().extend(made.into_inner());
            Ok(answer)
        })
    }

    /// Gives the disk back what dropped tables took.
    pub fn compact(&self) -> Result<()> {
        self.with_writer(|file| {
            Ok(file.connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?)
        })
        .map_err(|error| self.with_path(error))
    }

    /// Runs `work` on the writing connection while no other process writes.
    pub(super) fn with_writer_mut<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        self.with_writer(|file| work(&mut file.connection))
    }

    /// The same, for what looks at the file.
    fn with_writer<T>(&self, work: impl FnOnce(&mut FileConnection) -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + self.options.busy_timeout;
        let writer = parallel::lock_until(&self.writer, deadline)?;
        let mut slot = writer.ok_or_else(lock::busy)?;
        self.checkpointer.finish();
        for _ in 0..TRIES {
            // Taken out, so that one that a panic unwinds through is closed.
            let mut writer = match slot.take() {
                Some(writer) if writer.connection.is_current(&self.options.path) => writer,
                lost => {
                    drop(lost);
                    self.open_writer()?
                }
            };
            let held = writer.lock.acquire(deadline);
            if held.is_ok()
                && !(writer.connection.is_current(&self.options.path) && writer.lock.is_current())
            {
                // Both may have been replaced while we waited.
                continue;
            }
            if held.is_ok() && !writer.is_noted {
                writer.lock.note_log(&self.options.path);
                writer.is_noted = true;
            }
            let (file, log) = (&mut writer.connection, &writer.log);
            let answer = held.and_then(|_held| {
                // SQLite's own lock is free now unless a foreign program writes.
                let patience = deadline.saturating_duration_since(Instant::now());
                file.connection.busy_timeout(patience.max(Duration::from_millis(1)))?;
                let answer = work(file);
                // A child that the caller's code forked leaves the log to its parent.
                let log = if file.connection.birth().is_here() { log.check() } else { Ok(()) };
                Ok((answer, log))
            });
            let is_here = writer.connection.connection.birth().is_here();
            let answer = match answer {
                Ok((answer, Err(lost))) => {
                    // Others' changes may be in the file that the lost log knows nothing of.
                    let _ = writer.connection.keep_log_on_close();
                    self.leave_readers();
                    return answer.and(Err(lost));
                }
                Ok((answer, Ok(()))) => {
                    if is_here {
                        self.checkpointer.start_if_due(&self.options);
                    }
                    answer
                }
                Err(error) => Err(error),
            };
            *slot = Some(writer);
            return answer;
        }
        Err(replaced())
    }

    fn open_writer(&self) -> Result<Writer> {
        let path = &self.options.path;
        path::check(path)?;
        if self.was_open.load(Relaxed) && !path.exists() {
            let folder = path.parent().unwrap_or(path);
            if !folder.is_dir() {
                return Err(Error::new(
                    ErrorKind::CannotOpen,
                    format!(
                        "the folder '{}' was there when the store was opened, and is gone; nothing \
                         was written. Put it back, or create it if the store is to start empty",
                        folder.display()
                    ),
                ));
            }
            self.notices.lock().push(format!(
                "the online store '{}' is gone since it was opened; this write creates an empty one",
                path.display()
            ));
        }
        if path.exists() {
            // Says more clearly than SQLite that nothing can be written here.
            LockFile::open(path)?;
        }
        let mut connection = FileConnection::open(&self.options)?;
        self.checkpointer.watch(&mut connection.connection)?;
        let lock = LockFile::open(path)?;
        self.note_open();
        Ok(Writer { connection, lock, log: Log::of(path), is_noted: false })
    }

    fn open_reader(&self) -> Result<FileConnection> {
        let reader = FileConnection::open_to_read(&self.options)?;
        if reader.file.is_some() {
            self.note_open();
        } else if !self.said_missing.swap(true, Relaxed) {
            let path = self.options.path.display();
            let fill = "Check `path` in the online_store section of feature_store.yaml, or fill the \
                        store with `feast apply` and `feast materialize`";
            self.notices.lock().push(if self.options.path.exists() {
                format!(
                    "the file '{path}' has no tables of feast-vector yet; reads answer as an empty \
                     store does. {fill}"
                )
            } else if self.was_open.load(Relaxed) {
                format!(
                    "the online store '{path}' is gone since it was opened; reads answer as an \
                     empty store does, until it is back or something is written"
                )
            } else {
                format!(
                    "the online store '{path}' does not exist; reads answer as an empty store \
                     does. {fill}"
                )
            });
        }
        Ok(reader)
    }

    fn note_open(&self) {
        self.was_open.store(true, Relaxed);
        self.said_missing.store(false, Relaxed);
    }

    fn take_reader(&self) -> Result<FileConnection> {
        loop {
            let Some(reader) = self.readers.lock().pop() else {
                return self.open_reader();
            };
            if reader.is_current(&self.options.path) {
                return Ok(reader);
            }
        }
    }

    /// Leads errors of the file, rather than of the call, by its path.
    pub(super) fn with_path(&self, error: Error) -> Error {
        if error.is_callers() {
            return error;
        }
        error.at(format_args!("online store '{}'", self.options.path.display()))
    }
}
