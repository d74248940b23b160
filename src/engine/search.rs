//! Similarity search: finding the rows, and reading their features in the same snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use ndarray::ArrayView1;
use parking_lot::{Mutex, MutexGuard};

use super::{Engine, batch, now};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Resident, VectorSet};
use crate::schema::{Column, Element, TableSchema, ViewId};
use crate::store::{self, Changes, Micros, RowKey, Rows, Snapshot, StoredVector, TableState};
use crate::vector::{Hit, Metric};

/// What to search for.
#[derive(Debug)]
pub struct SearchRequest<'a> {
    /// The feature view.
    pub view: &'a ViewId,
    /// The feature that holds the vectors.
    pub feature: &'a str,
    /// The query; it is rounded to the precision of the stored vectors.
    pub query: ArrayView1<'a, f64>,
    /// How distance is measured.
    pub metric: Metric,
    /// The most rows that are answered, at least 1.
    pub top_k: usize,
    /// Features of the rows found.
    pub features: &'a [String],
}

/// Vectors in memory, by (view, feature, length).
#[derive(Debug, Default)]
pub(super) struct VectorCaches(Mutex<HashMap<CacheKey, Arc<Mutex<VectorCache>>>>);

type CacheKey = (ViewId, String, usize);

/// The vectors of one feature as of one change of its table.
#[derive(Debug, Default)]
struct VectorCache {
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

#[derive(Debug)]
enum Frozen {
    F32(VectorSet<f32>),
    F64(VectorSet<f64>),
}

impl VectorCaches {
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    fn entry(&self, key: CacheKey) -> Arc<Mutex<VectorCache>> {
        Arc::clone(self.0.lock().entry(key).or_default())
    }

    fn forget(&self, key: &CacheKey) {
        self.0.lock().remove(key);
    }
}

impl Engine {
    /// Finds the rows nearest to a query vector, best first.
    ///
    /// The answer's columns: `entity_key` (serialized `EntityKey` messages), `event_timestamp`,
    /// `distance` (float64, lower is nearer), then the features as [`Engine::read`] gives them.
    /// Rows without a vector, or with one of NaN or infinity, are not candidates.
    pub fn search(&self, request: &SearchRequest<'_>) -> Result<RecordBatch> {
        let _entered = self.gate.enter()?;
        check_query(request)?;
        let key = (request.view.clone(), request.feature.to_owned(), request.query.len());
        let entry = self.vectors.entry(key.clone());
        // The cache is locked before the snapshot is taken, so that it can only be behind it.
        let mut cache = entry.lock();
        let features: Vec<&str> = request.features.iter().map(String::as_str).collect();
        let answer = self.store.read(|snapshot| {
            let Some(table) = snapshot.table(request.view)? else {
                *cache = VectorCache::default();
                return answer(&[], &features, store::no_rows(0, features.len()));
            };
            let column = vector_column(&table.schema, request)?;
            let now = now();
            let frozen = follow(cache, snapshot, &table, column, request.query.len())?;
            let hits = self.scan(&frozen, request, now);
            let row_ids: Vec<i64> = hits.iter().map(|hit| hit.row_id).collect();
            let rows =
                snapshot.rows(&table.schema, RowKey::RowIds(&row_ids), &features, Micros::MIN)?;
            answer(&hits, &features, rows)
        });
        if answer.is_err() {
            self.vectors.forget(&key);
        }
        answer
    }

    fn scan(&self, vectors: &Frozen, request: &SearchRequest<'_>, now: Micros) -> Vec<Hit> {
        let threads = self.threads_for_one_search();
        let query = request.query.iter().copied();
        match vectors {
            Frozen::F32(set) => set.search(query, request.metric, request.top_k, now, threads),
            Frozen::F64(set) => set.search(query, request.metric, request.top_k, now, threads),
        }
    }

    /// The cores, shared among the operations under way.
    fn threads_for_one_search(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let most = if self.search_threads == 0 { cores() } else { self.search_threads };
        (most / self.gate.inside().max(1)).max(1)
    }
}

fn answer(hits: &[Hit], features: &[&str], rows: Rows) -> Result<RecordBatch> {
    let distances: ArrayRef =
        Arc::new(hits.iter().map(|hit| Some(hit.distance)).collect::<Float64Array>());
    let leading = vec![
        ("entity_key", rows.entity_keys),
        ("event_timestamp", rows.event_timestamps),
        ("distance", distances),
    ];
    batch(leading, features, rows.features)
}

fn check_query(request: &SearchRequest<'_>) -> Result<()> {
    let invalid =
        |message: String| Err(Error::new(ErrorKind::InvalidQuery, message).at(place(request)));
    if request.top_k == 0 {
        let error = Error::new(ErrorKind::InvalidArgument, "top_k has to be at least 1");
        return Err(error.at(place(request)));
    }
    if request.query.is_empty() {
        return invalid("the query vector is empty".to_owned());
    }
    if let Some((at, value)) = request.query.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        return invalid(format!(
            "the query vector holds {value} at position {at}; all its values have to be finite"
        ));
    }
    if request.metric == Metric::Cosine && request.query.iter().all(|x| *x == 0.0) {
        return invalid(
            "the query vector is all zeros, which has no direction and so no cosine distance; \
             use another query, or the metric 'L2' or 'inner_product'"
                .to_owned(),
        );
    }
    Ok(())
}

fn place(request: &SearchRequest<'_>) -> String {
    format!("{}, feature '{}'", request.view, request.feature)
}

fn vector_column<'a>(schema: &'a TableSchema, request: &SearchRequest<'_>) -> Result<&'a Column> {
    let Some(column) = schema.column(request.feature) else {
        let message = format!(
            "{} has no feature '{}'; its features are: {}",
            request.view,
            request.feature,
            schema.feature_names()
        );
        return Err(Error::new(ErrorKind::UnknownFeature, message));
    };
    let Some(element) = column.kind.vector_element() else {
        let message = format!(
            "features of type {} hold no vectors; searched can be lists of FLOAT, DOUBLE, INT32 \
             or INT64",
            column.feast_type
        );
        return Err(Error::new(ErrorKind::NotAVector, message).at(place(request)));
    };
    if element == Element::F32
        && let Some(value) = request.query.iter().find(|x| x.abs() > f32::MAX.into())
    {
        let message = format!("the query vector holds {value}, which float32 cannot hold");
        return Err(Error::new(ErrorKind::InvalidQuery, message).at(place(request)));
    }
    match column.vector_length {
        Some(length) if length as usize != request.query.len() => {
            Err(wrong_length(request.query.len(), length as usize).at(place(request)))
        }
        _ => Ok(column),
    }
}

fn wrong_length(query: usize, stored: usize) -> Error {
    Error::new(
        ErrorKind::InvalidQuery,
        format!("the query vector has {query} values, but the stored vectors have {stored}"),
    )
}

/// Brings the cache to the snapshot's state and gives the vectors as of then.
fn follow(
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
            for row_id in &row_ids {
                vectors.remove(*row_id);
            }
            snapshot.vectors_of(schema, column, &row_ids, &mut |vector| {
                vectors.put(&vector);
            })?;
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
        let StoredVector { row_id, expires_at, element, bytes } = *vector;
        match self {
            Self::F32(resident) => resident.put(row_id, expires_at, element, bytes),
            Self::F64(resident) => resident.put(row_id, expires_at, element, bytes),
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
