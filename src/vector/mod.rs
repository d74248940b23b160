//! Vector mathematics: metrics, SIMD kernels, blocks of vectors, exact scans and top-k; and, for the
//! index, rotation, quantisation, scans of codes, and clustering.
//!
//! Knows no files, no SQL and no Python. All distances are lower-is-better, as Feast has them:
//! cosine is `1 - cos`, L2 is Euclidean (not squared), inner product is `-dot`.

mod block;
mod dispatch;
pub mod fastscan;
mod kernels;
mod kmeans;
mod metric;
mod query;
pub mod rabitq;
mod real;
mod rotation;
mod rowset;
mod scan;
mod topk;

pub use block::{BLOCK_ROWS, Block, BlockView, RowMeta, inverse_norm, stride};
pub use dispatch::prefetch;
pub use kernels::{Isa, Kernels, RowsKernel, kernels};
pub use kmeans::Centroids;
pub use metric::{Metric, distance};
pub use query::Query;
pub use real::Real;
pub use rotation::{Rotation, SplitMix64, padded};
pub use rowset::RowSet;
pub use scan::{Hit, Scope, scan, scan_many};
pub use topk::{Candidate, TopK};

#[cfg(test)]
mod code_tests;
