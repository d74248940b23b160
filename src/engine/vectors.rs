//! Vectors in memory, as of a snapshot.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ndarray::ArrayView2;
use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, ErrorKind, Result};
use crate::index::{Resident, VectorSet, measure};
use crate::schema::{Column, Element, ViewId};
use crate::store::{Changes, Snapshot, StoredVector, TableState};
use crate::vector::{Hit, Metric, Query, Real, RowMeta, Scope};

/// Vectors in memory, by (view, feature, length).
#[derive(Debug, Default)]
pub(super) struct VectorCaches(Mutex<HashMap<CacheKey, Arc<Mutex<VectorCache>>>>);

pub(super) type CacheKey = (ViewId, String, usize);

/// The vectors of one feature as of one change of its table.
#[derive(Debug, Default)]
pub(super) struct VectorCache {
    table_id: i64,
    generation: i64,
    seq: i64,
    vectors: Option<Vectors>,
    /// The length of a vector that was left out for it, to say so in an error.
    other_length: Option<usize>,
}

/// In the precision of the column: integers in double precision.
#[derive(Debug)]
enum Vectors {
    F32(Resident<f32>),
    F64(Resident<f64>),
}

/// The vectors as they were at one moment.
#[derive(Debug)]
pub(super) enum Frozen {
    F32(VectorSet<f32>),
    F64(VectorSet<f64>),
}

impl VectorCaches {
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(super) fn entry(&self, key: CacheKey) -> Arc<Mutex<VectorCache>> {
        Arc::clone(self.0.lock().entry(key).or_default())
    }

    pub(super) fn forget(&self, key: &CacheKey) {
        self.0.lock().remove(key);
    }

    /// Forgets vectors of a length that there are none of; a query asked for them by mistake.
    pub(super) fn forget_if_none(&self, key: &CacheKey) {
        let mut caches = self.0.lock();
        let is_none = caches
            .get(key)
            .and_then(|entry| entry.try_lock())
            .is_some_and(|cache| cache.vectors.as_ref().is_none_or(Vectors::is_empty));
        if is_none {
            caches.remove(key);
        }
    }
}

impl Frozen {
    /// Number of vectors.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(set) => set.len(),
            Self::F64(set) => set.len(),
        }
    }

    /// The nearest rows to each of the queries.
    pub(super) fn search(
        &self,
        queries: &ArrayView2<'_, f64>,
        metric: Metric,
        top_k: usize,
        scope: &Scope<'_>,
        threads: usize,
    ) -> Vec<Vec<Hit>> {
        match self {
            Self::F32(set) => set.search(&prepared(queries, metric, top_k), scope, threads),
            Self::F64(set) => set.search(&prepared(queries, metric, top_k), scope, threads),
        }
    }

    /// The distances of rows that a search by text found; null for one without a vector.
    pub(super) fn measure(
        &self,
        snapshot: &Snapshot<'_>,
        table: &TableState,
        column: &Column,
        query: &ArrayView2<'_, f64>,
        metric: Metric,
        row_ids: &[i64],
    ) -> Result<HashMap<i64, f64>> {
        let mut distances = HashMap::new();
        let dim = query.ncols();
        let narrow = prepared::<f32>(query, metric, 1);
        let wide = prepared::<f64>(query, metric, 1);
        snapshot.vectors_of(&table.schema, column, row_ids, &mut |vector| {
            let StoredVector { row_id, element, bytes, .. } = vector;
            let distance = match self {
                Self::F32(_) => narrow.iter().find_map(|q| measure(q, dim, element, bytes)),
                Self::F64(_) => wide.iter().find_map(|q| measure(q, dim, element, bytes)),
            };
            distances.extend(distance.map(|distance| (row_id, distance)));
        })?;
        Ok(distances)
    }
}

fn prepared<T: Real>(queries: &ArrayView2<'_, f64>, metric: Metric, top_k: usize) -> Vec<Query<T>> {
    queries.outer_iter().map(|query| Query::new(query.iter().copied(), metric, top_k)).collect()
}

pub(super) fn wrong_length(query: usize, stored: usize) -> Error {
    Error::new(
        ErrorKind::InvalidQuery,
        format!("the query vector has {query} values, but the stored vectors have {stored}"),
    )
}

/// Brings the cache to the snapshot's state and gives the vectors as of then.
pub(super) fn follow(
    mut cache: MutexGuard<'_, VectorCache>,
    snapshot: &Snapshot<'_>,
    table: &TableState,
    column: &Column,
    length: usize,
) -> Result<Frozen> {
    let schema = &table.schema;
    let same_table = cache.table_id == schema.table_id && cache.generation == schema.generation;
    let changes = match &cache.vectors {
        Some(_) if same_table && cache.seq == table.last_seq => Changes::Rows(Vec::new()),
        Some(_) if same_table => snapshot.changes_since(table, cache.seq)?,
        _ => Changes::Unknown,
    };
    match changes {
        Changes::Rows(row_ids) if row_ids.is_empty() => {}
        Changes::Rows(row_ids) => {
            let mut vectors = cache.vectors.take().unwrap_or_else(|| Vectors::new(column, length));
            // Vectors that are still there stay in their place.
            let mut gone: HashSet<i64> = row_ids.iter().copied().collect();
            snapshot.vectors_of(schema, column, &row_ids, &mut |vector| {
                gone.remove(&vector.row_id);
                vectors.put(&vector);
            })?;
            for row_id in gone {
                vectors.remove(row_id);
            }
            cache.vectors = Some(vectors);
        }
        Changes::Unknown => {
            cache.vectors = None;
            cache.other_length = None;
            let mut vectors = Vectors::new(column, length);
            let mut other_length = None;
            snapshot.vectors(schema, column, &mut |vector| {
                if !vectors.put(&vector) {
                    other_length = Some(vector.bytes.len() / vector.element.width());
                }
            })?;
            cache.other_length = other_length;
            cache.vectors = Some(vectors);
        }
    }
    (cache.table_id, cache.generation, cache.seq) =
        (schema.table_id, schema.generation, table.last_seq);
    match (&cache.vectors, cache.other_length) {
        (Some(vectors), Some(stored)) if vectors.is_empty() => Err(wrong_length(length, stored)
            .at(format_args!("{}, feature '{}'", schema.view, column.feature))),
        (Some(vectors), _) => Ok(vectors.freeze()),
        (None, _) => Ok(Vectors::new(column, length).freeze()),
    }
}

impl Vectors {
    fn new(column: &Column, length: usize) -> Self {
        match column.kind.vector_element() {
            Some(Element::F32) => Self::F32(Resident::new(length)),
            _ => Self::F64(Resident::new(length)),
        }
    }

    fn put(&mut self, vector: &StoredVector<'_>) -> bool {
        let StoredVector { row_id, expires_at, event, element, bytes } = *vector;
        let row = RowMeta { row_id, expires_at: expires_at.unwrap_or(i64::MAX), event };
        match self {
            Self::F32(resident) => resident.put(row, element, bytes),
            Self::F64(resident) => resident.put(row, element, bytes),
        }
    }

    fn remove(&mut self, row_id: i64) {
        match self {
            Self::F32(resident) => resident.remove(row_id),
            Self::F64(resident) => resident.remove(row_id),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::F32(resident) => resident.is_empty(),
            Self::F64(resident) => resident.is_empty(),
        }
    }

    fn freeze(&self) -> Frozen {
        match self {
            Self::F32(resident) => Frozen::F32(resident.snapshot()),
            Self::F64(resident) => Frozen::F64(resident.snapshot()),
        }
    }
}
