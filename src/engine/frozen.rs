//! The vectors of a feature as they were at one moment, in the precision of their column.

use std::collections::HashMap;

use ndarray::ArrayView2;

use crate::error::{Error, ErrorKind, Result};
use crate::index::{Damage, How, Part, Strategy, VectorSet, measure};
use crate::schema::Column;
use crate::store::{Micros, Snapshot, StoredVector, TableState};
use crate::vector::{Hit, Metric, Query, Real};

/// The vectors as they were at one moment.
#[derive(Debug)]
pub(super) enum Frozen {
    F32(VectorSet<f32>),
    F64(VectorSet<f64>),
}

impl Frozen {
    /// Number of vectors.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(set) => set.len(),
            Self::F64(set) => set.len(),
        }
    }

    /// The segments.
    pub(super) fn parts(&self) -> &[Part] {
        match self {
            Self::F32(set) => set.parts(),
            Self::F64(set) => set.parts(),
        }
    }

    /// The event time and the key of a row, as the column `entity_key` has it, if it is in a
    /// segment.
    pub(super) fn row(&self, row_id: i64) -> Result<Option<(Micros, &[u8])>> {
        match self {
            Self::F32(set) => set.row(row_id),
            Self::F64(set) => set.row(row_id),
        }
        .map_err(|damage| damaged(&damage))
    }

    /// The first `depth` rows of one order for each of the queries, whatever the depth; see
    /// [`VectorSet::search_in_steps`].
    pub(super) fn search_in_steps(
        &self,
        queries: &ArrayView2<'_, f64>,
        metric: Metric,
        steps: &[usize],
        depth: usize,
        how: &How<'_>,
    ) -> Result<(Vec<Vec<Hit>>, Strategy)> {
        match self {
            Self::F32(set) => set.search_in_steps(&prepared(queries, metric, 1), how, steps, depth),
            Self::F64(set) => set.search_in_steps(&prepared(queries, metric, 1), how, steps, depth),
        }
        .map_err(|damage| damaged(&damage))
    }

    /// The nearest rows to each of the queries, and how they were found.
    pub(super) fn search(
        &self,
        queries: &ArrayView2<'_, f64>,
        metric: Metric,
        top_k: usize,
        how: &How<'_>,
    ) -> Result<(Vec<Vec<Hit>>, Strategy)> {
        match self {
            Self::F32(set) => set.search(&prepared(queries, metric, top_k), how),
            Self::F64(set) => set.search(&prepared(queries, metric, top_k), how),
        }
        .map_err(|damage| damaged(&damage))
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

/// The error that a damaged index file is, until it is dealt with.
pub(super) fn damaged(damage: &Damage) -> Error {
    let kind =
        if damage.is_unavailable() { ErrorKind::IndexUnavailable } else { ErrorKind::IndexDamaged };
    Error::new(kind, damage.to_string())
}
