//! What one search holds while it is answered.

use std::collections::HashSet;
use std::sync::Arc;

use super::request::SearchRequest;
use super::texts::TextCaches;
use super::vectors::Followed;
use crate::limits::Limits;
use crate::schema::Column;
use crate::store::{Micros, Snapshot, TableState};
use crate::vector::{RowSet, Scope};

/// All that a search needs to know of its moment.
pub(super) struct Moment<'a, 'r, 's> {
    pub(super) request: &'a SearchRequest<'r>,
    pub(super) snapshot: &'a Snapshot<'s>,
    pub(super) table: &'a TableState,
    pub(super) vectors: Option<(&'a Column, Followed)>,
    pub(super) passing: Option<Arc<RowSet>>,
    pub(super) texts: &'a TextCaches,
    pub(super) limits: &'a Limits,
    /// Rows that turned out not to be there.
    pub(super) gone: &'a HashSet<i64>,
    pub(super) now: Micros,
    pub(super) threads: usize,
}

impl Moment<'_, '_, '_> {
    pub(super) fn scope(&self) -> Scope<'_> {
        Scope {
            now: self.now,
            not_before: self.request.not_before.unwrap_or(Micros::MIN),
            rows: self.passing.as_deref(),
        }
    }
}
