//! Checkpoints: what the write-ahead log holds is copied into the database file while nobody waits
//! for it, instead of at the end of the commit that made the log long.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use super::open::StoreOptions;
use super::process::PerProcess;
use crate::error::Result;

/// Pages in the log that are worth a checkpoint: SQLite's own default.
const WORTHWHILE: i32 = 1000;

/// At most one checkpoint at a time, in a thread of its own.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicI32>,
    /// A forked child has no such thread.
    thread: PerProcess<Mutex<Option<JoinHandle<()>>>>,
}

impl Default for Checkpointer {
    fn default() -> Self {
        Self { pages: Arc::default(), thread: PerProcess::new(Mutex::default) }
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
        if self.pages.swap(0, Relaxed) < WORTHWHILE {
            return;
        }
        let options = options.clone();
        let spawned = thread::Builder::new()
            .name("feast-vector checkpoint".to_owned())
            // What cannot be copied stays in the log, from which it is read, and is tried again.
            .spawn(move || drop(checkpoint(&options)));
        if let Ok(thread) = spawned {
            *self.thread.lock() = Some(thread);
        }
    }

    /// Waits for the checkpoint under way. A writer that does so finds the log empty and starts it
    /// anew; otherwise it would grow for as long as somebody writes.
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
pub(super) fn checkpoint(options: &StoreOptions) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags)?;
    connection.pragma_update(None, "synchronous", options.durability.pragma())?;
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
