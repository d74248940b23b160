//! What a query asks besides nearness: filters, and the fusion of several rankings.
//!
//! * `filter`: the conditions as a caller states them;
//! * `resolve`: what they mean for the columns of a table, or why they mean nothing;
//! * `test`: one condition on one cell; `evaluate`: all of them on all rows;
//! * `decimal`: numbers that are kept as text; `fusion`: reciprocal rank fusion.

mod decimal;
mod evaluate;
mod filter;
mod fusion;
mod node;
mod resolve;
mod test;

pub use evaluate::matching;
pub use filter::{Condition, Filter, Literal, Operator};
pub use fusion::{Fusion, reciprocal_rank};
pub use resolve::Resolved;
