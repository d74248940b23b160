//! SQLite: the only truth, and the only module that writes SQL.
//!
//! * `options`; `connections`, `open`, `leave`: opening, sharing and closing connections; `format`: the
//!   catalog's tables, migrations; `lock`: one writer at a time; `left_log`: the log of a file that was replaced;
//! * `locks`: SQLite's own locks, made such that nothing in the process drops them; `process`: what
//!   belongs to which process;
//! * `planted`: what somebody else may have put into the file, and what becomes of it;
//! * `catalog` and `ddl`: which tables there are, and how they change with their views;
//! * `cell`: Feast values to cells and back; `states`: what a cell alone cannot say;
//! * `write`, `delete`, `expiry`, `read`, `vectors`, `scalars`: rows; `changes`: the log of what changed,
//!   in `runs` of row ids;
//! * `segments`: the manifest of index files; `index_folder`: where these are;
//! * `backup`, `restore`, `manifest`, `files`, `swap`: copies of the whole, and back;
//! * `verify`, `verify_rows`, `verify_text`, `findings`: checks of everything; `compact`: space given back;
//! * `text`: the full-text index; `text_search`: searching it; `sql`: SQL that a caller brings,
//!   and `allowed`: what it may use.
//!
//! Vectors are bytes here. Nothing of ours opens the database file other than through this module:
//! where `locks` has to leave SQLite's POSIX locks, closing any other descriptor drops them.

mod allowed;
mod backup;
mod catalog;
mod cell;
mod changes;
mod checkpoint;
mod compact;
mod connections;
mod ddl;
mod delete;
mod errors;
mod expiry;
mod file;
mod files;
mod findings;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod index_folder;
mod leave;
mod left_log;
mod lock;
#[cfg_attr(
    not(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
    )),
    path = "locks/none.rs"
)]
mod locks;
mod manifest;
mod open;
mod options;
mod path;
mod planted;
mod process;
mod progress;
mod read;
mod restore;
mod runs;
mod scalars;
mod segments;
mod sql;
mod statements;
mod states;
mod swap;
mod text;
mod text_search;
mod transaction;
mod unfilled;
mod validate;
mod vectors;
mod verify;
mod verify_rows;
mod verify_text;
mod write;

#[cfg(test)]
mod backup_tests;
#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod opening_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;

pub use backup::check_backup;
pub use catalog::{AsOf, Layouts, TableState};
pub use changes::Changes;
pub use connections::{Snapshot, Store, WriteTxn};
pub use findings::{Finding, Findings};
pub use lock::BuilderLock;
pub use open::FORMAT_VERSION;
pub use options::{ChangeLogOptions, Durability, StoreOptions};
pub(crate) use process::{Birth, Operation, PerProcess, forks_are_safe};
pub use progress::Progress;
pub(crate) use read::{MOST_BYTES, has_room, no_rows, too_large};
pub use read::{RowKey, Rows};
pub use runs::RowRuns;
pub use segments::{IndexId, IndexState, SegmentEntry};
pub use sql::{SqlLimits, SqlValue};
pub use text_search::{WeightedPhrase, text_expression};
pub use unfilled::StaleValues;
pub use validate::RowWrite;
pub use vectors::StoredVector;
pub use write::{Conflict, Given, RowWriter, WriteCounts, WriteOptions};

/// The database's clock: microseconds since 1970-01-01 UTC.
pub type Micros = i64;
