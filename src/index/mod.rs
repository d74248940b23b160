//! What is resident in memory, following the commits of every process through the store's change
//! log, and the index files.
//!
//! * `resident`: the vectors of a (view, feature, length) that no index file has;
//! * `rows`: the scalars of a view that filters compare;
//! * `segment`, `format`, `file`, `map`: index files; `lookup`: where rows are in them;
//! * `options`, `staging`, `frame`, `build`, `write`, `measure`, `probes`: making them; `plan`: when what is built;
//! * `aimed`, `search`, `finish`, `effort`: searching them; `set`: segments and resident vectors together.

mod aimed;
mod build;
mod check;
mod effort;
mod file;
mod finish;
mod format;
mod frame;
mod lookup;
mod map;
mod measure;
mod options;
mod plan;
mod probes;
mod resident;
mod rows;
mod search;
mod segment;
mod set;
mod staging;
mod steps;
mod write;

pub use build::{Built, build, can_index, is_build_name};
pub use check::row_differs;
pub use effort::{Effort, Reach};
pub use format::Header;
pub use options::{BuildOptions, IndexType};
pub use plan::{MIN_BYTES, Plan, SegmentSize, plan};
pub use probes::Probes;
pub use resident::{Resident, measure};
pub use rows::{Cell, CellColumn, Rows};
pub use segment::Segment;
pub use set::{How, Part, Strategy, VectorSet};
pub use staging::{Staged, Staging};

use crate::error::is_shortage;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

#[cfg(test)]
mod build_tests;
#[cfg(test)]
mod lies;
#[cfg(test)]
mod odd_vectors_tests;
#[cfg(test)]
mod tests;

/// What is wrong with an index file. Nothing is lost by it: all that is in one can be made anew
/// from the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    message: String,
    kind: DamageKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DamageKind {
    Damaged,
    Missing,
    Unavailable,
}

impl Damage {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: DamageKind::Damaged }
    }

    pub(crate) fn missing() -> Self {
        Self { message: "it is not there".to_owned(), kind: DamageKind::Missing }
    }

    /// What kept a file from being opened.
    pub(crate) fn of(cause: &std::io::Error) -> Self {
        if cause.kind() == std::io::ErrorKind::NotFound {
            return Self::missing();
        }
        let kind = if is_shortage(cause) { DamageKind::Unavailable } else { DamageKind::Damaged };
        Self { message: format!("it cannot be read ({cause})"), kind }
    }

    /// Whether nothing is wrong with the file: the process is short of descriptors or memory for
    /// the moment, or may not read it.
    pub fn is_unavailable(&self) -> bool {
        self.kind == DamageKind::Unavailable
    }

    /// Whether the file is not there at all: perhaps another process has just replaced it.
    pub fn is_missing(&self) -> bool {
        self.kind == DamageKind::Missing
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Damage {}
