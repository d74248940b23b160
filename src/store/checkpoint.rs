//! Checkpoints: what the write-ahead log holds is copied into the database file while nobody waits
//! for it, instead of at the end of the commit that made the log long.
//!
//! A log begins again from its start when all of it is copied and no reader looks into it. Where
//! readers overlap all the time that moment never comes by itself: once the log is long, a
//! checkpoint holds the next writer off until the readers of before have finished. Readers are
//! held off by nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use super::options::StoreOptions;
use super::process::PerProcess;
use super::swap;
use crate::error::Result;

/// Pages in the log that are worth a checkpoint: SQLite's own default.
const WORTHWHILE: i32 = 1000;

/// Pages in the log from which on readers are waited for, so that it begins again.
const LONG: i32 = 4 * WORTHWHILE;

/// How long they are waited for, for each [`LONG`] that the log is.
const PATIENCE: Duration = Duration::from_millis(250);

/// The longest wait of all.
const MOST_PATIENCE: Duration = Duration::from_secs(3);

/// At most one checkpoint at a time, in a thread of its own.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicI32>,
    marks: Arc<Marks>,
    /// A forked child has no such thread.
    thread: PerProcess<Mutex<Option<JoinHandle<()>>>>,
}

impl Default for Checkpointer {
    fn default() -> Self {
        let thread = PerProcess::new(Mutex::default);
        Self { pages: Arc::default(), marks: Arc::default(), thread }
    }
}

/// How long the log was at the last checkpoints; 0 where it began again.
#[derive(Debug, Default)]
struct Marks {
    copied: AtomicI32,
    /// When readers were waited for in vain.
    waited: AtomicI32,
}

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpointed {
    /// Pages in the log.
    pub(super) in_log: i32,
    /// Whether the next writer writes at its start.
    pub(super) begins_again: bool,
}

impl Marks {
    /// Whether a log of so many pages is worth a checkpoint.
    fn is_due(&self, in_log: i32) -> bool {
        let copied = self.copied.load(Relaxed);
        // A log that is shorter than it was has begun again.
        in_log >= WORTHWHILE && (in_log < copied || in_log - copied >= WORTHWHILE)
    }

    /// How long to wait for readers.
    fn patience(&self, in_log: i32) -> Option<Duration> {
        let waited = self.waited.load(Relaxed);
        let is_long = in_log >= LONG && (in_log < waited || in_log - waited >= LONG);
        is_long.then(|| (PATIENCE * (in_log / LONG).unsigned_abs()).min(MOST_PATIENCE))
    }

    fn note(&self, done: Checkpointed, has_waited: bool) {
        let length = if done.begins_again { 0 } else { done.in_log };
        self.copied.store(length, Relaxed);
        if has_waited {
            self.waited.store(length, Relaxed);
        }
    }
}

impl Checkpointer {
    /// Takes the place of SQLite's automatic checkpoints on a connection that writes.
    pub(super) fn watch(&self, connection: &mut Connection) -> Result<()> {
        let pages = Arc::clone(&self.pages);
        connection.wal_hook(Some(move |_: &mut _, in_log| {
            pages.store(in_log, Relaxed);
            Ok(())
        }))?;
        Ok(())
    }

    /// Starts a checkpoint, if there is enough in the log.
    pub(super) fn start_if_due(&self, options: &StoreOptions) {
        let in_log = self.pages.swap(0, Relaxed);
        if !self.marks.is_due(in_log) {
            return;
        }
        let patience = self.marks.patience(in_log);
        let (options, marks) = (options.clone(), Arc::clone(&self.marks));
        let spawned =
            thread::Builder::new().name("feast-vector checkpoint".to_owned()).spawn(move || {
                // What cannot be copied stays in the log, from which it is read, and is tried again.
                if let Ok(done) = checkpoint(&options, patience) {
                    marks.note(done, patience.is_some());
                }
            });
        if let Ok(thread) = spawned {
            *self.thread.lock() = Some(thread);
        }
    }

    /// Waits for the checkpoint under way. A writer that does so finds the log empty and begins it
    /// again; otherwise it would grow for as long as somebody writes.
    pub(super) fn finish(&self) {
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Copies the log on a connection of its own, which makes no file where there is none any more.
/// Has it begin again if readers leave it in time.
pub(super) fn checkpoint(
    options: &StoreOptions,
    patience: Option<Duration>,
) -> rusqlite::Result<Checkpointed> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(opening) = swap::opening(&options.path) else {
        return Ok(Checkpointed { in_log: 0, begins_again: false });
    };
    let connection = Connection::open_with_flags(&options.path, flags)?;
    connection.pragma_update(None, "synchronous", options.durability.pragma())?;
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    drop(opening);
    let run = |mode: &str| {
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok((row.get::<_, i32>(0)?, row.get::<_, i32>(1)?, row.get::<_, i32>(2)?))
        })
    };
    // Most is copied while others write.
    let (_, in_log, copied) = run("PASSIVE")?;
    let Some(patience) = patience else {
        // If nobody reads in it by then.
        return Ok(Checkpointed { in_log, begins_again: copied == in_log });
    };
    connection.busy_timeout(patience)?;
    let (busy, in_log, _) = run("RESTART")?;
    Ok(Checkpointed { in_log, begins_again: busy == 0 })
}
