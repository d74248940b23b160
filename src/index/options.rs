//! What is to be built, and where.

use std::path::PathBuf;

use crate::vector::Metric;

/// How a feature's vectors are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexType {
    /// Lists where there are enough rows for them to pay.
    #[default]
    Auto,
    /// One list: every search scans all codes.
    Flat,
    /// Lists, of which a search goes through the nearest.
    Ivf,
}

/// What is built, and where.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The folder of index files.
    pub folder: PathBuf,
    /// The database, whose permissions the file takes.
    pub database: PathBuf,
    /// The table.
    pub table_id: i64,
    /// The column.
    pub column_id: u32,
    /// The metric that searches will use.
    pub metric: Metric,
    /// Whether there are lists.
    pub index_type: IndexType,
    /// The number of lists, instead of what the number of rows suggests.
    pub lists: Option<usize>,
    /// The share of the true nearest rows that a search is to find.
    pub target_recall: f64,
    /// Tells the segment from every other.
    pub stamp: u64,
    /// The most threads.
    pub threads: usize,
}
