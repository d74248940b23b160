//! Column kinds, names and table layouts: what a feature view looks like as a SQL table.
//!
//! Pure: no I/O, no SQLite, no Python.

mod kind;
mod names;
mod scalar;
mod table;
mod view;

pub use kind::{Element, Storage, ValueKind};
pub use names::{free_name, index_file_name, is_index_file_name, is_stamp, quote, table_name};
pub use scalar::{Attribute, Scalar};
pub use table::{Column, JoinKey, RESERVED_COLUMNS, SchemaChange, TableSchema};
pub use view::{FeatureSpec, JoinKeySpec, VectorIndexSpec, ViewId, ViewSpec};

/// The join key that Feast gives to feature views without entities. It has no column.
pub const DUMMY_JOIN_KEY: &str = "__dummy_id";
