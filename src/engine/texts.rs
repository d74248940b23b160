//! Rankings by text that took long, remembered as long as their table does not change.
//!
//! FTS5 ranks some three rows a microsecond, so a word that is in most rows of a large table takes
//! tens of milliseconds, each time. The rows that match, with their ranks, are the same until the
//! next commit.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::schema::ViewId;
use crate::store::{AsOf, TableState};

/// A row and its BM25 rank.
pub(super) type Ranked = (i64, f64);

/// Rankings of fewer rows are quick to make.
const WORTH_KEEPING: usize = 4096;

/// Rows that are remembered of a view; then all are forgotten. 16 bytes each.
const MOST_ROWS: usize = 1 << 21;

/// Rankings by view.
#[derive(Debug, Default)]
pub(super) struct TextCaches(Mutex<HashMap<ViewId, TextCache>>);

/// Rankings by FTS5 expression, as of one change of their table.
#[derive(Debug, Default)]
struct TextCache {
    as_of: AsOf,
    rows: usize,
    rankings: HashMap<String, Arc<Vec<Ranked>>>,
}

impl TextCaches {
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn views(&self) -> Vec<ViewId> {
        self.0.lock().keys().cloned().collect()
    }

    pub(super) fn forget(&self, view: &ViewId) {
        self.0.lock().remove(view);
    }

    /// The rows that match, in the order of their ids, if they are remembered.
    pub(super) fn get(&self, table: &TableState, expression: &str) -> Option<Arc<Vec<Ranked>>> {
        let caches = self.0.lock();
        let cache = caches.get(&table.schema.view).filter(|cache| cache.as_of == table.as_of())?;
        cache.rankings.get(expression).cloned()
    }

    /// Remembers the rows that match, if there are so many that it is worth it.
    pub(super) fn put(&self, table: &TableState, expression: &str, ranking: &Arc<Vec<Ranked>>) {
        if ranking.len() < WORTH_KEEPING {
            return;
        }
        let mut caches = self.0.lock();
        let cache = caches.entry(table.schema.view.clone()).or_default();
        if cache.as_of != table.as_of() || cache.rows + ranking.len() > MOST_ROWS {
            *cache = TextCache { as_of: table.as_of(), ..TextCache::default() };
        }
        cache.rows += ranking.len();
        cache.rankings.insert(expression.to_owned(), Arc::clone(ranking));
    }
}
