//! Vectors resident in memory, one set for each (view, feature, length), following the commits of
//! every process through the store's change log.

mod resident;

pub use resident::{Resident, VectorSet};
