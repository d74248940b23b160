//! The core of feast-vector: one typed row per entity in SQLite, and SIMD similarity search over
//! the vectors among the columns.
//!
//! Modules, from the top down; a module uses only those below it:
//!
//! * [`engine`]: the facade, the only module that the Python boundary calls;
//! * [`query`]: filters over resident rows, and the fusion of rankings;
//! * [`index`]: vectors and scalars resident in memory, following the commits of every process;
//! * [`store`]: SQLite, and all SQL, live only here;
//! * [`vector`]: metrics, SIMD kernels, scans and top-k; knows no files and no SQL;
//! * [`text`]: what texts and queries are cut into; pure;
//! * [`schema`] and [`proto`]: column kinds, table layouts, and Feast's wire messages; pure;
//! * `fs`: files and folders that somebody else may have tampered with;
//! * [`parallel`]: threads, and how work under way is told to stop;
//! * [`limits`]: how much one call may ask for;
//! * [`error`]: what can go wrong, by what a caller would do about it.
//!
//! The Python extension module (`feast_vector._core`) is behind the cargo feature `python`.

pub mod engine;
pub mod error;
mod fs;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a panic is how a target fails"
)]
pub mod fuzzing;
pub mod index;
pub mod limits;
pub mod parallel;
pub mod proto;
pub mod query;
mod random;
pub mod schema;
pub mod store;
pub mod text;
pub mod vector;

#[cfg(feature = "python")]
mod py;

pub use error::{Error, ErrorKind, Result};
