//! Space given back to the disk.

use std::fs;

use super::connections::Store;
use super::files;
use super::progress::Progress;
use super::restore::remove_leftovers;
use crate::error::Result;

impl Store {
    /// Bytes of the database, its log and its index files.
    pub fn disk_usage(&self) -> u64 {
        let size = |path| fs::metadata(path).map_or(0, |found| found.len());
        let log = files::with_suffix(&self.options.path, "-wal");
        let index = fs::read_dir(self.index_folder()).into_iter().flatten().flatten();
        let index: u64 = index.map(|entry| entry.metadata().map_or(0, |found| found.len())).sum();
        size(self.options.path.clone()) + size(log) + index
    }

    /// Writes the database without gaps. Readers go on, writers wait; space for a second copy is
    /// needed meanwhile. An interrupted one changes nothing.
    pub fn vacuum(&self, progress: &Progress) -> Result<()> {
        remove_leftovers(&self.options.path);
        // On a writing connection of its own, because the progress is a connection's.
        let store = self.sibling();
        store
            .with_writer_mut(|connection| {
                progress.watch(connection, "database")?;
                connection.execute_batch("VACUUM")?;
                connection.progress_handler(0, None::<fn() -> bool>)?;
                // What readers still need of the log stays in it, for the next checkpoint.
                Ok(connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?)
            })
            .map_err(|error| self.with_path(error))
    }
}
