//! Vector mathematics: metrics, SIMD kernels, blocks of vectors, exact scans and top-k.
//!
//! Knows no files, no SQL and no Python. All distances are lower-is-better, as Feast has them:
//! cosine is `1 - cos`, L2 is Euclidean (not squared), inner product is `-dot`.

mod block;
mod kernels;
mod metric;
mod real;
mod rowset;
mod scan;
mod topk;

pub use block::{BLOCK_ROWS, Block, RowMeta};
pub use kernels::{Isa, Kernels, RowsKernel, kernels};
pub use metric::{Metric, distance};
pub use real::Real;
pub use rowset::RowSet;
pub use scan::{Hit, Query, Scope, scan, scan_many};
pub use topk::{Candidate, TopK};
