//! Reading what filters compare: single values of rows in native types.

use std::borrow::Cow;

use rusqlite::types::ValueRef;

use super::Micros;
use super::cell;
use super::connections::Snapshot;
use super::states::{CellState, CellStates};
use crate::error::Result;
use crate::proto::{self, Val};
use crate::schema::{Attribute, Column, Scalar, Storage, TableSchema, ValueKind, quote};

/// Called with a row, when it expires, and a scalar for each attribute.
type EachRow<'a> = &'a mut dyn FnMut(i64, Option<Micros>, &[Scalar<'_>]);

impl Snapshot<'_> {
    /// Calls `each` for every row, or for those of `row_ids` that are there.
    pub fn scalars(
        &self,
        schema: &TableSchema,
        attributes: &[Attribute],
        row_ids: Option<&[i64]>,
        each: EachRow<'_>,
    ) -> Result<()> {
        let sources: Vec<Source<'_>> =
            attributes.iter().map(|attribute| Source::of(attribute, schema)).collect();
        let names =
            sources.iter().fold(String::new(), |names, source| names + ", " + &source.sql());
        let condition = if row_ids.is_some() { " WHERE row_id = ?1" } else { " ORDER BY row_id" };
        let sql = format!(
            "SELECT row_id, expires_at, cell_states{names} FROM {}{condition}",
            quote(&schema.sql_name)
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let Some(row_ids) = row_ids else {
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next()? {
                visit(row, &sources, each)?;
            }
            return Ok(());
        };
        for row_id in row_ids {
            statement.raw_bind_parameter(1, row_id)?;
            let mut rows = statement.raw_query();
            if let Some(row) = rows.next()? {
                visit(row, &sources, each)?;
            }
        }
        Ok(())
    }
}

/// Where an attribute comes from.
enum Source<'a> {
    Time(&'static str),
    JoinKey(&'a str),
    Feature(&'a Column),
    /// A feature that the table does not have any more.
    Nowhere,
}

impl<'a> Source<'a> {
    fn of(attribute: &'a Attribute, schema: &'a TableSchema) -> Self {
        match attribute {
            Attribute::EventTimestamp => Self::Time("event_timestamp"),
            Attribute::CreatedTimestamp => Self::Time("created_timestamp"),
            Attribute::JoinKey(name) => Self::JoinKey(name),
            Attribute::Feature(id) => schema
                .columns
                .iter()
                .find(|column| column.id == *id)
                .map_or(Self::Nowhere, Self::Feature),
        }
    }

    fn sql(&self) -> String {
        match self {
            Self::Time(name) => (*name).to_owned(),
            // The column of a join key is for people; the entity key is what counts.
            Self::JoinKey(_) => "entity_key".to_owned(),
            Self::Feature(column) => quote(&column.sql_name),
            Self::Nowhere => "NULL".to_owned(),
        }
    }
}

fn visit(row: &rusqlite::Row<'_>, sources: &[Source<'_>], each: EachRow<'_>) -> Result<()> {
    let states = CellStates::decode(row.get_ref(2)?.as_blob_or_null()?)?;
    let mut scalars = Vec::with_capacity(sources.len());
    for (at, source) in sources.iter().enumerate() {
        let cell = row.get_ref(at + 3)?;
        scalars.push(match (source, cell) {
            (Source::Time(_), ValueRef::Integer(micros)) => Scalar::Integer(micros),
            (Source::JoinKey(name), ValueRef::Blob(key)) => {
                let parts = proto::decode_key(key)?.parts;
                let part = parts.into_iter().find(|(part, _)| part == name);
                part.map_or(Scalar::Absent, |(_, val)| of_value(val))
            }
            (Source::Feature(column), cell) => feature(column.kind, states.get(column.id), cell)?,
            _ => Scalar::Absent,
        });
    }
    each(row.get(0)?, row.get(1)?, &scalars);
    Ok(())
}

fn feature(kind: ValueKind, state: CellState, cell: ValueRef<'_>) -> Result<Scalar<'_>> {
    Ok(match (state, kind.storage(), cell) {
        (CellState::Plain, Storage::Integer, ValueRef::Integer(number)) => Scalar::Integer(number),
        (CellState::Plain, Storage::Real, ValueRef::Real(number)) => Scalar::Real(number),
        (CellState::Plain, Storage::Text, ValueRef::Text(text)) => {
            Scalar::Text(String::from_utf8_lossy(text))
        }
        (CellState::Plain, Storage::Blob, ValueRef::Blob(bytes)) => Scalar::Bytes(bytes.into()),
        (CellState::Plain, _, ValueRef::Null) => Scalar::Absent,
        (state, _, cell) => {
            let mut message = Vec::new();
            cell::decode(kind, cell, state, &mut message)?;
            proto::decode_value(&message)?.map_or(Scalar::Absent, of_value)
        }
    })
}

fn of_value(value: Val) -> Scalar<'static> {
    let texts = |list: Vec<String>| {
        Scalar::List(list.into_iter().map(|text| Scalar::Text(Cow::Owned(text))).collect())
    };
    let integers =
        |list: Vec<i64>| Scalar::List(list.into_iter().map(Scalar::Integer).collect::<Vec<_>>());
    let reals =
        |list: Vec<f64>| Scalar::List(list.into_iter().map(Scalar::Real).collect::<Vec<_>>());
    match value {
        Val::Int32(number) => Scalar::Integer(number.into()),
        Val::Int64(number) | Val::UnixTimestamp(number) => Scalar::Integer(number),
        Val::Bool(truth) => Scalar::Integer(truth.into()),
        Val::Double(number) => Scalar::Real(number),
        Val::Float(number) => Scalar::Real(number.into()),
        Val::String(text)
        | Val::Json(text)
        | Val::Uuid(text)
        | Val::TimeUuid(text)
        | Val::Decimal(text) => Scalar::Text(text.into()),
        Val::Bytes(bytes) => Scalar::Bytes(bytes.into()),
        Val::StringList(list)
        | Val::StringSet(list)
        | Val::JsonList(list)
        | Val::UuidList(list)
        | Val::UuidSet(list)
        | Val::TimeUuidList(list)
        | Val::TimeUuidSet(list)
        | Val::DecimalList(list)
        | Val::DecimalSet(list) => texts(list.val),
        Val::Int32List(list) | Val::Int32Set(list) => {
            integers(list.val.into_iter().map(i64::from).collect())
        }
        Val::Int64List(list)
        | Val::Int64Set(list)
        | Val::UnixTimestampList(list)
        | Val::UnixTimestampSet(list) => integers(list.val),
        Val::BoolList(list) | Val::BoolSet(list) => {
            integers(list.val.into_iter().map(i64::from).collect())
        }
        Val::FloatList(list) | Val::FloatSet(list) => {
            reals(list.val.into_iter().map(f64::from).collect())
        }
        Val::DoubleList(list) | Val::DoubleSet(list) => reals(list.val),
        Val::Null(_)
        | Val::BytesList(_)
        | Val::BytesSet(_)
        | Val::Map(_)
        | Val::MapList(_)
        | Val::Struct(_)
        | Val::StructList(_)
        | Val::ValueList(_)
        | Val::ValueSet(_)
        | Val::ScalarMap(_)
        | Val::ZonedTimestamp(_) => Scalar::Absent,
    }
}
