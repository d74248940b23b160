//! Reading rows as Arrow arrays of wire bytes.

use std::fmt::Write as _;

use arrow::array::{ArrayBuilder, ArrayRef, BinaryBuilder, TimestampMicrosecondBuilder};
use rusqlite::types::ValueRef;
use std::sync::Arc;

use super::Micros;
use super::cell;
use super::connections::Snapshot;
use super::states::CellStates;
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;
use crate::proto::{self, check};
use crate::schema::{Column, TableSchema, quote};

/// Rows that are read between two looks whether to go on: some hundred microseconds.
const ROWS_BETWEEN_LOOKS: usize = 32;

/// How rows are named.
#[derive(Debug, Clone, Copy)]
pub enum RowKey<'a> {
    /// By keys as the column `entity_key` has them.
    Keys(&'a [&'a [u8]]),
    /// By `row_id`.
    RowIds(&'a [i64]),
}

/// Rows in the order in which they were asked for.
#[derive(Debug)]
pub struct Rows {
    /// The rows' keys as the column `entity_key` has them; only where rows were named by `row_id`.
    pub entity_keys: ArrayRef,
    /// Event timestamps, UTC; null where there is no such row.
    pub event_timestamps: ArrayRef,
    /// For each feature a binary array of serialized `Value`s; null where the feature is absent,
    /// empty where its value is null.
    pub features: Vec<ArrayRef>,
}

impl Snapshot<'_> {
    /// Reads features of rows. A feature that the table does not have is absent in every row, and
    /// rows that expired by `now` are not there.
    pub fn rows(
        &self,
        schema: &TableSchema,
        keys: RowKey<'_>,
        features: &[&str],
        now: Micros,
    ) -> Result<Rows> {
        let columns: Vec<Option<&Column>> =
            features.iter().map(|feature| schema.column(feature)).collect();
        let by_row_id = matches!(keys, RowKey::RowIds(_));
        let sql = select(schema, &columns, by_row_id);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut out = Builders::new(features.len());
        let mut push = |statement: &mut rusqlite::Statement<'_>, key: Option<&[u8]>| {
            let mut rows = statement.raw_query();
            let row = rows.next()?;
            out.push(row, &columns, by_row_id, now).map_err(|error| {
                let key = key.or_else(|| row?.get_ref("entity_key").ok()?.as_blob().ok());
                let key = key.and_then(|key| proto::decode_key(key).ok());
                let entity = key.map(|key| format!(", the row of {key}")).unwrap_or_default();
                error.at(format_args!("{}{entity}", schema.view))
            })
        };
        match keys {
            RowKey::Keys(keys) => {
                for (at, key) in keys.iter().enumerate() {
                    look(at)?;
                    statement.raw_bind_parameter(1, key)?;
                    push(&mut statement, Some(key))?;
                }
            }
            RowKey::RowIds(row_ids) => {
                for (at, row_id) in row_ids.iter().enumerate() {
                    look(at)?;
                    statement.raw_bind_parameter(1, row_id)?;
                    push(&mut statement, None)?;
                }
            }
        }
        Ok(out.finish())
    }
}

impl Snapshot<'_> {
    /// How many rows there are, expired ones among them.
    pub fn count(&self, schema: &TableSchema) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {}", quote(&schema.sql_name));
        let count: i64 = self.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }
}

impl Snapshot<'_> {
    /// The ids of all rows.
    pub fn row_ids(&self, schema: &TableSchema) -> Result<Vec<i64>> {
        let sql = format!("SELECT row_id FROM {}", quote(&schema.sql_name));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let row_ids = statement.query_map([], |row| row.get(0))?;
        Ok(row_ids.collect::<rusqlite::Result<_>>()?)
    }

    /// Forgets what is known of rows that are not in the table.
    pub fn strike_missing<T>(
        &self,
        schema: &TableSchema,
        row_ids: &[i64],
        known: &mut [Option<T>],
    ) -> Result<()> {
        let sql = format!("SELECT 1 FROM {} WHERE row_id = ?1", quote(&schema.sql_name));
        let mut statement = self.connection.prepare_cached(&sql)?;
        for (at, (row_id, known)) in row_ids.iter().zip(known).enumerate() {
            look(at)?;
            if known.is_some() && !statement.exists([row_id])? {
                *known = None;
            }
        }
        Ok(())
    }
}

/// Looks now and then whether to go on. SQLite looks, too, but only in statements that take long.
fn look(at: usize) -> Result<()> {
    if at.is_multiple_of(ROWS_BETWEEN_LOOKS) { parallel::check() } else { Ok(()) }
}

/// What [`Snapshot::rows`] gives for a view that has no table.
pub(crate) fn no_rows(count: usize, features: usize) -> Rows {
    let mut out = Builders::new(features);
    for _ in 0..count {
        out.push_missing();
    }
    out.finish()
}

fn select(schema: &TableSchema, columns: &[Option<&Column>], by_row_id: bool) -> String {
    let mut sql = "SELECT event_timestamp, expires_at, cell_states".to_owned();
    for column in columns.iter().flatten() {
        let _ = write!(sql, ", {}", quote(&column.sql_name));
    }
    let (also, key) = if by_row_id { (", entity_key", "row_id") } else { ("", "entity_key") };
    let _ = write!(sql, "{also} FROM {} WHERE {key} = ?1", quote(&schema.sql_name));
    sql
}

struct Builders {
    keys: BinaryBuilder,
    events: TimestampMicrosecondBuilder,
    features: Vec<BinaryBuilder>,
    scratch: Vec<u8>,
}

impl Builders {
    fn new(features: usize) -> Self {
        Self {
            keys: BinaryBuilder::new(),
            events: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            features: (0..features).map(|_| BinaryBuilder::new()).collect(),
            scratch: Vec::new(),
        }
    }

    fn push(
        &mut self,
        row: Option<&rusqlite::Row<'_>>,
        columns: &[Option<&Column>],
        by_row_id: bool,
        now: Micros,
    ) -> Result<()> {
        let Some(row) = row else {
            self.push_missing();
            return Ok(());
        };
        if row.get::<_, Option<Micros>>(1)?.is_some_and(|at| at <= now) {
            self.push_missing();
            return Ok(());
        }
        let event = row.get(0)?;
        if !check::is_time(event) {
            let message = format!(
                "its event timestamp {event} (microseconds since 1970) is outside of the years 1 \
                 to 9999; write the row again, or delete it"
            );
            return Err(Error::new(ErrorKind::Damaged, message));
        }
        self.events.append_value(event);
        let states = row.get_ref(2)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
        let states = CellStates::decode(states)?;
        let mut at = 3;
        for (column, builder) in columns.iter().zip(&mut self.features) {
            let Some(column) = column else {
                builder.append_null();
                continue;
            };
            self.scratch.clear();
            let state = states.get(column.id);
            let present = cell::decode(column.kind, row.get_ref(at)?, state, &mut self.scratch)
                .map_err(|error| error.at(format_args!("feature '{}'", column.feature)))?;
            at += 1;
            if present {
                if !has_room(builder, self.scratch.len()) {
                    let error = too_large(builder.len(), builder.values_slice().len());
                    return Err(error.at(format_args!("feature '{}'", column.feature)));
                }
                builder.append_value(&self.scratch);
            } else {
                builder.append_null();
            }
        }
        match (by_row_id, row.get_ref(at.min(row.as_ref().column_count() - 1))?) {
            (true, ValueRef::Blob(key)) if has_room(&self.keys, key.len()) => {
                self.keys.append_value(key);
            }
            (true, ValueRef::Blob(_)) => {
                return Err(too_large(self.keys.len(), self.keys.values_slice().len()));
            }
            _ => self.keys.append_null(),
        }
        Ok(())
    }

    fn push_missing(&mut self) {
        self.events.append_null();
        self.keys.append_null();
        for builder in &mut self.features {
            builder.append_null();
        }
    }

    fn finish(mut self) -> Rows {
        Rows {
            entity_keys: Arc::new(self.keys.finish()),
            event_timestamps: Arc::new(self.events.finish()),
            features: self
                .features
                .iter_mut()
                .map(|builder| Arc::new(builder.finish()) as ArrayRef)
                .collect(),
        }
    }
}

/// Whether so many bytes more fit into one column of an answer.
pub(crate) fn has_room(builder: &BinaryBuilder, bytes: usize) -> bool {
    builder.values_slice().len().saturating_add(bytes) <= MOST_BYTES
}

/// Bytes that one column of an answer holds: Arrow's offsets are of 32 bits.
pub(crate) const MOST_BYTES: usize = i32::MAX as usize;

/// The error of an answer whose column has no room after so many rows.
pub(crate) fn too_large(rows: usize, bytes: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!(
            "the first {rows} rows of the answer take {bytes} bytes in one column, and one answer \
             holds {MOST_BYTES}; ask for fewer rows at a time"
        ),
    )
}

impl From<rusqlite::types::FromSqlError> for Error {
    fn from(cause: rusqlite::types::FromSqlError) -> Self {
        rusqlite::Error::from(cause).into()
    }
}
