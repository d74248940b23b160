//! Rows as Arrow batches: wire bytes for Feast, native types for everybody else.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch};

use super::search::{Found, SearchRequest};
use super::{batch, typed};
use crate::error::Result;
use crate::schema::{TableSchema, ValueKind, ViewSpec};
use crate::store::{self, Micros, RowKey, Snapshot};

/// How features are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As serialized messages, with which Feast's protos are built.
    Wire,
    /// In Arrow's own types.
    Typed,
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

/// The rows found, with their features as of the snapshot.
pub(super) fn answer(
    snapshot: &Snapshot<'_>,
    request: &SearchRequest<'_>,
    schema: Option<&TableSchema>,
    features: &[&str],
    found: &[Found],
) -> Result<RecordBatch> {
    let row_ids: Vec<i64> = found.iter().map(|row| row.row_id).collect();
    let rows = match schema {
        Some(schema) => snapshot.rows(schema, RowKey::RowIds(&row_ids), features, Micros::MIN)?,
        None => store::no_rows(0, features.len()),
    };
    let numbers = |of: fn(&Found) -> Option<f64>| -> ArrayRef {
        Arc::new(found.iter().map(of).collect::<Float64Array>())
    };
    let event = rows.event_timestamps;
    let distance = numbers(|row| row.distance);
    let rank = numbers(|row| row.text_rank);
    if request.form == Form::Wire {
        let leading = [
            ("entity_key", rows.entity_keys),
            ("event_timestamp", event),
            ("distance", distance),
            ("text_rank", rank),
        ];
        let leading = leading.map(|(name, array)| (name.to_owned(), array));
        let names = features.iter().map(|name| (*name).to_owned());
        return batch(leading.into_iter().chain(names.zip(rows.features)).collect());
    }
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let keys = rows.entity_keys.as_binary::<i32>().iter();
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
