//! How much one call may ask for. Whatever checks a limit names its option, its number, and what was
//! found.

use std::fmt::Display;

use crate::error::{Error, ErrorKind};

/// Bounds of one call, which are options of the configuration under `limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a query text.
    pub query_bytes: usize,
    /// Different words, or groups of joined ones, of a query text.
    pub query_words: usize,
    /// Words of a query text that is one phrase.
    pub phrase_words: usize,
    /// Words joined by punctuation that are looked for side by side; more are cut into pieces of so
    /// many. At least 2.
    pub joined_words: usize,
    /// Conditions of a filter, after those that are one test were put together.
    pub filter_conditions: usize,
    /// Values that a filter compares with, each condition counting as one at least.
    pub filter_values: usize,
    /// Queries of one call.
    pub queries: usize,
    /// Rows that one call ranks for its answer: `top_k` and `offset` together, for each query.
    pub rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            query_bytes: 64 << 10,
            query_words: 256,
            phrase_words: 256,
            joined_words: 32,
            filter_conditions: 1024,
            filter_values: 100_000,
            queries: 100_000,
            rows: 10_000_000,
        }
    }
}

/// The error of a call that goes beyond a limit: what was `found`, the `most` that `option` allows,
/// and what to do instead.
pub(crate) fn exceeded(
    kind: ErrorKind,
    found: impl Display,
    option: &str,
    most: usize,
    advice: &str,
) -> Error {
    Error::new(
        kind,
        format!(
            "{found}, and the most is {most} (`limits.{option}` in the online_store section of \
             feature_store.yaml); {advice}, or raise the limit"
        ),
    )
}
