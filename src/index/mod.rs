//! What is resident in memory, following the commits of every process through the store's change
//! log: `resident`, the vectors of a (view, feature, length); `rows`, the scalars of a view that
//! filters compare.

mod resident;
mod rows;

pub use resident::{Resident, VectorSet, measure};
pub use rows::{Cell, CellColumn, Rows};
