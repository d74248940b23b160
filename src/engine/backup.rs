//! Copies of the whole store, and back; space given back to the disk.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::Engine;
use super::indexing::sweep;
use crate::error::Result;
use crate::store::{Progress, Store};

impl Engine {
    /// Copies the database and its index files, all of one moment, into the new folder `target`,
    /// while others read and write. `replace` puts it in the place of an older backup. Gives the
    /// backup's manifest.
    pub fn backup(&self, target: &Path, replace: bool, progress: &Progress) -> Result<Json> {
        let _entered = self.gate.enter()?;
        self.store.sibling().backup(target, replace, progress)
    }

    /// Puts the content of a backup in the place of the database, under processes that use it.
    /// Nothing is changed unless every file of the backup is what its manifest says. Gives what is
    /// restored, what was replaced, and where that is `kept`.
    pub fn restore(&self, source: &Path, keep: bool, progress: &Progress) -> Result<Json> {
        let report = {
            let _entered = self.gate.enter()?;
            self.store.restore(source, keep, progress)?
        };
        self.close()?;
        Ok(report)
    }

    /// Writes the database without gaps, empties its log, and deletes what restores and builds left
    /// behind. Others read meanwhile; writers wait. Gives the bytes before and after.
    pub fn compact(&self, progress: &Progress) -> Result<Json> {
        let _entered = self.gate.enter()?;
        self.store.must_exist()?;
        let before = self.store.disk_usage();
        let mut is_swept = !self.store.check_index_folder()?;
        if !is_swept && let Some(_lock) = lock_builder(&self.store, progress)? {
            sweep(&self.store)?;
            is_swept = true;
        }
        self.store.vacuum(progress)?;
        let after = self.store.disk_usage();
        Ok(json!({ "before": before, "after": after, "index_files_swept": is_swept }))
    }
}

/// The builder's lock, unless a build lasts longer than a few seconds: what it leaves behind, it
/// deletes itself.
fn lock_builder(store: &Store, progress: &Progress) -> Result<Option<crate::store::BuilderLock>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let lock = store.lock_builder(Duration::from_millis(50))?;
        if lock.is_some() || Instant::now() > deadline {
            return Ok(lock);
        }
        progress.at("waiting for a build", 0, u64::MAX)?;
    }
}
