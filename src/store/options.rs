//! Where a database is, and how it is used.

use std::path::PathBuf;
use std::time::Duration;

use super::path;

/// How much a commit waits for the disk (`PRAGMA synchronous`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// An acknowledged batch survives a power cut.
    Full,
    /// It survives a killed process; after a power cut the last batches may be missing.
    Normal,
    /// It survives a killed process; a power cut may damage the file.
    Off,
}

impl Durability {
    pub(super) fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
            Self::Off => "OFF",
        }
    }
}

/// Where the database is and how it is used.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The database file; the folder above its own has to exist. Absolute and without symbolic
    /// links, as [`StoreOptions::new`] makes it.
    pub path: PathBuf,
    /// What a commit guarantees.
    pub durability: Durability,
    /// How long a writer waits for other writers.
    pub busy_timeout: Duration,
    /// How long the change log of a table may grow.
    pub change_log: ChangeLogOptions,
    /// Permissions of a database that is created, as in `chmod`; if unset, they are private to the
    /// owner, or the group's too in a folder that a group shares. Other systems than Unix pass over
    /// it.
    pub file_mode: Option<u32>,
}

impl StoreOptions {
    /// The defaults: fully durable, 30 seconds of patience. The path is made absolute here, and its
    /// symbolic links are resolved.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path::real(&path.into()),
            durability: Durability::Full,
            busy_timeout: Duration::from_secs(30),
            change_log: ChangeLogOptions::default(),
            file_mode: None,
        }
    }
}

/// How long the change log of a table may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeLogOptions {
    /// Bytes of records that are kept for readers, whether an index needs them or not.
    pub keep_bytes: i64,
    /// Bytes of records that are kept at most; an index that needs more is not followed any more.
    pub most_bytes: i64,
    /// Records that one write drops or merges at most.
    pub records_per_write: usize,
    /// Bytes of row ids that records are merged up to.
    pub merged_bytes: i64,
}

impl Default for ChangeLogOptions {
    /// 4 MiB for readers, 16 MiB at most.
    fn default() -> Self {
        Self {
            keep_bytes: 4 << 20,
            most_bytes: 16 << 20,
            records_per_write: 256,
            merged_bytes: 64 << 10,
        }
    }
}
