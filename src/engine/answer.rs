//! Rows as Arrow batches: wire bytes for Feast, native types for everybody else.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, AsArray, BinaryBuilder, Float64Array, Int32Array, PrimitiveArray,
    RecordBatch, TimestampMicrosecondBuilder,
};
use arrow::datatypes::TimestampMicrosecondType;

use super::frozen::Frozen;
use super::request::{Form, SearchRequest};
use super::{batch, typed};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::decode_key;
use crate::schema::{TableSchema, ValueKind, ViewSpec};
use crate::store::{self, Micros, RowKey, Rows, Snapshot};

/// A row that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub(super) query: usize,
    pub(super) row_id: i64,
    pub(super) distance: Option<f64>,
    pub(super) text_rank: Option<f64>,
    /// The fused score, where there are two rankings.
    pub(super) score: Option<f64>,
}

/// The features asked for: all that the table has, or that the view declares, if none are named.
pub(super) fn features_of<'a>(
    view: &'a ViewSpec,
    schema: Option<&'a TableSchema>,
    asked: Option<&'a [String]>,
) -> Vec<&'a str> {
    match (asked, schema) {
        (Some(asked), _) => asked.iter().map(String::as_str).collect(),
        (None, Some(schema)) => schema.columns.iter().map(|c| c.feature.as_str()).collect(),
        (None, None) => view.features.iter().map(|feature| feature.name.as_str()).collect(),
    }
}

/// Features in native types, under their names.
pub(super) fn typed_features(
    view: &ViewSpec,
    schema: Option<&TableSchema>,
    features: &[&str],
    values: &[ArrayRef],
) -> Result<Vec<(String, ArrayRef)>> {
    let mut columns = Vec::with_capacity(features.len());
    for (name, values) in features.iter().zip(values) {
        let column = schema.and_then(|schema| schema.column(name));
        let declared = view.features.iter().find(|feature| feature.name == **name);
        let (kind, length) = match (column, declared) {
            (Some(column), _) => (column.kind, column.vector_length),
            (None, Some(feature)) => {
                (ValueKind::from_feast_type(&feature.feast_type), feature.vector_length)
            }
            (None, None) => (ValueKind::Null, None),
        };
        let array = typed::feature(kind, length, values.as_binary())
            .map_err(|error| error.at(format_args!("{}, feature '{name}'", view.id)))?;
        columns.push(((*name).to_owned(), array));
    }
    Ok(columns)
}

/// Which rows they are, and nothing else: the index knows that of its own rows.
fn identities(
    snapshot: &Snapshot<'_>,
    schema: &TableSchema,
    vectors: &Frozen,
    row_ids: &[i64],
) -> Result<Rows> {
    let mut known =
        row_ids.iter().map(|row_id| vectors.row(*row_id)).collect::<Result<Vec<_>>>()?;
    for (_, key) in known.iter().flatten() {
        // A key that is none is the index's fault, and the table has the right one.
        let damaged = |error: Error| Error::new(ErrorKind::IndexDamaged, error.message());
        decode_key(key).map_err(damaged)?;
    }
    // The index knows nothing of rows that another tool has deleted; the table does.
    snapshot.strike_missing(schema, row_ids, &mut known)?;
    let unknown: Vec<i64> =
        row_ids.iter().zip(&known).filter(|(_, row)| row.is_none()).map(|(id, _)| *id).collect();
    let read = snapshot.rows(schema, RowKey::RowIds(&unknown), &[], Micros::MIN)?;
    if unknown.len() == row_ids.len() {
        return Ok(read);
    }
    let events: &PrimitiveArray<TimestampMicrosecondType> = read.event_timestamps.as_primitive();
    let mut others = events.iter().zip(read.entity_keys.as_binary::<i32>());
    let mut keys = BinaryBuilder::new();
    let mut events = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    for row in known {
        let row = row.map(|(event, key)| (Some(event), Some(key)));
        let (event, key) = row.or_else(|| others.next()).unwrap_or_default();
        if !store::has_room(&keys, key.map_or(0, <[u8]>::len)) {
            return Err(store::too_large(keys.len(), keys.values_slice().len()));
        }
        events.append_option(event);
        keys.append_option(key);
    }
    Ok(Rows {
        entity_keys: Arc::new(keys.finish()),
        event_timestamps: Arc::new(events.finish()),
        features: Vec::new(),
    })
}

/// The rows found as of the snapshot, without a key where there is no such row any more.
pub(super) fn rows_of(
    snapshot: &Snapshot<'_>,
    schema: Option<&TableSchema>,
    vectors: Option<&Frozen>,
    features: &[&str],
    found: &[Found],
) -> Result<Rows> {
    let row_ids: Vec<i64> = found.iter().map(|row| row.row_id).collect();
    match (schema, vectors) {
        (None, _) => Ok(store::no_rows(0, features.len())),
        (Some(schema), Some(vectors)) if features.is_empty() => {
            identities(snapshot, schema, vectors, &row_ids)
        }
        (Some(schema), _) => snapshot.rows(schema, RowKey::RowIds(&row_ids), features, Micros::MIN),
    }
}

/// The rows found, with their features and what they were found by.
pub(super) fn answer(
    request: &SearchRequest<'_>,
    schema: Option<&TableSchema>,
    features: &[&str],
    found: &[Found],
    rows: Rows,
) -> Result<RecordBatch> {
    let numbers = |of: fn(&Found) -> Option<f64>| -> ArrayRef {
        Arc::new(found.iter().map(of).collect::<Float64Array>())
    };
    let event = rows.event_timestamps;
    let distance = numbers(|row| row.distance);
    let rank = numbers(|row| row.text_rank);
    let keys = rows.entity_keys.as_binary::<i32>().iter();
    if request.form == Form::Wire {
        let mut messages = BinaryBuilder::new();
        for key in keys {
            let message = key.map(decode_key).transpose()?.map(|key| key.to_message());
            if !store::has_room(&messages, message.as_ref().map_or(0, Vec::len)) {
                return Err(store::too_large(messages.len(), messages.values_slice().len()));
            }
            messages.append_option(message);
        }
        let leading = [
            ("entity_key", Arc::new(messages.finish()) as ArrayRef),
            ("event_timestamp", event),
            ("distance", distance),
            ("text_rank", rank),
        ];
        let leading = leading.map(|(name, array)| (name.to_owned(), array));
        let names = features.iter().map(|name| (*name).to_owned());
        return batch(leading.into_iter().chain(names.zip(rows.features)).collect());
    }
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let mut values = typed::join_keys(&request.view.join_keys, keys)?;
    values.extend(typed_features(request.view, schema, features, &rows.features)?);
    // A feature keeps its name; a column of ours by that name steps aside.
    let free = |wanted: &str| {
        let mut name = wanted.to_owned();
        while values.iter().any(|(taken, _)| *taken == name) {
            name.insert(0, '_');
        }
        name
    };
    if request.numbers_queries {
        let queries = found.iter().map(|row| row.query as i32).collect::<Vec<_>>();
        columns.push((free("query"), Arc::new(Int32Array::from(queries))));
    }
    let mut trailing = vec![(free("event_timestamp"), event)];
    if request.vectors.is_some() {
        trailing.push((free("distance"), distance));
    }
    if request.texts.is_some() {
        trailing.push((free("text_rank"), rank));
    }
    if request.vectors.is_some() && request.texts.is_some() {
        trailing.push((free("score"), numbers(|row| row.score)));
    }
    columns.extend(values);
    columns.extend(trailing);
    batch(columns)
}
