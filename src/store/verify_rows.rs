//! Checks of one row: its key, and each cell against its column.

use rusqlite::types::{Type, ValueRef};

use super::cell::{self, Cell};
use super::findings::{Finding, Findings};
use super::states::{CellState, CellStates};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::{self, DecodedKey, Val};
use crate::schema::{Column, DUMMY_JOIN_KEY, Element, Storage, TableSchema, ValueKind};

/// Looks at one row after the other.
pub(super) struct RowChecker<'a> {
    pub(super) schema: &'a TableSchema,
    pub(super) expires: bool,
    pub(super) scratch: Vec<u8>,
}

impl RowChecker<'_> {
    pub(super) fn check(&mut self, row: &rusqlite::Row<'_>, findings: &mut Findings) -> Result<()> {
        let row_id: i64 = row.get(0)?;
        let view = Some(self.schema.view.clone());
        let key = match row.get_ref(1)? {
            ValueRef::Blob(bytes) => decode_whole(bytes),
            _ => Err("the entity key is not a BLOB".to_owned()),
        };
        let shown = key.as_ref().ok().map(ToString::to_string);
        let mut wrong = |check, feature: Option<&str>, message: String| {
            findings.add(Finding {
                check,
                message,
                view: view.clone(),
                feature: feature.map(str::to_owned),
                row_id: Some(row_id),
                key: shown.clone(),
                file: None,
            });
        };
        match &key {
            Ok(key) => {
                for (at, join_key) in self.schema.join_keys.iter().enumerate() {
                    let cell = row.get_ref(6 + at)?;
                    if !agrees(key, &join_key.name, &join_key.feast_type, cell) {
                        let message = format!(
                            "the column of join key '{}' differs from the entity key",
                            join_key.name
                        );
                        wrong("key", None, message);
                    }
                }
                let is_unknown = |name: &String| {
                    name != DUMMY_JOIN_KEY
                        && self.schema.join_keys.iter().all(|key| key.name != *name)
                };
                for (name, _) in key.parts.iter().filter(|(name, _)| is_unknown(name)) {
                    wrong("key", None, format!("the entity key has the unknown join key '{name}'"));
                }
            }
            Err(message) => wrong("key", None, message.clone()),
        }
        for (at, name, is_needed) in [
            (2, "event_timestamp", true),
            (3, "created_timestamp", false),
            (4, "expires_at", false),
        ] {
            match row.get_ref(at)? {
                ValueRef::Integer(_) => {}
                ValueRef::Null if !is_needed => {}
                _ => wrong("row", None, format!("{name} is not a time")),
            }
        }
        if !self.expires && row.get_ref(4)? != ValueRef::Null {
            wrong("row", None, "it expires, and the catalog says that no row does".to_owned());
        }
        let states = match row.get_ref(5)?.as_blob_or_null() {
            Ok(bytes) => CellStates::decode(bytes).map_err(|error| error.to_string()),
            Err(_) => Err("cell_states is not a BLOB".to_owned()),
        };
        let states = match states {
            Ok(states) => states,
            Err(message) => {
                wrong("row", None, message);
                return Ok(());
            }
        };
        let first = 6 + self.schema.join_keys.len();
        for (at, column) in self.schema.columns.iter().enumerate() {
            let cell = row.get_ref(first + at)?;
            if let Err(message) = check_cell(column, cell, states.get(column.id), &mut self.scratch)
            {
                wrong("cell", Some(&column.feature), message);
            }
        }
        Ok(())
    }
}

/// The key, if it is one and the only way to write it.
fn decode_whole(bytes: &[u8]) -> std::result::Result<DecodedKey, String> {
    let key = proto::decode_key(bytes).map_err(|error| error.to_string())?;
    match key.encode() {
        Ok(again) if again == bytes => Ok(key),
        _ => Err("the entity key is not in the form that Feast writes".to_owned()),
    }
}

/// Whether a join key's column says what the key says.
fn agrees(key: &DecodedKey, name: &str, feast_type: &str, cell: ValueRef<'_>) -> bool {
    let Some((_, val)) = key.parts.iter().find(|(part, _)| part == name) else {
        return cell == ValueRef::Null;
    };
    if val.kind() != ValueKind::from_feast_type(feast_type) {
        // SQLite made of it what the column's type says.
        return cell != ValueRef::Null;
    }
    let (expected, _) = cell::encode(val.kind(), Some(val.clone()), &[]);
    is_same(&expected, cell)
}

fn is_same(expected: &Cell, cell: ValueRef<'_>) -> bool {
    match (expected, cell) {
        (Cell::Null, ValueRef::Null) => true,
        (Cell::Integer(a), ValueRef::Integer(b)) => *a == b,
        (Cell::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
        (Cell::Text(a), ValueRef::Text(b)) => a.as_bytes() == b,
        (Cell::Blob(a), ValueRef::Blob(b)) => a == b,
        _ => false,
    }
}

/// Whether a cell holds what its column and its state say: no more than that, because what a value
/// was before it was damaged, nobody knows.
fn check_cell(
    column: &Column,
    cell: ValueRef<'_>,
    state: CellState,
    scratch: &mut Vec<u8>,
) -> std::result::Result<(), String> {
    let kind = column.kind;
    scratch.clear();
    if matches!(state, CellState::Null | CellState::NullVal) && cell != ValueRef::Null {
        return Err(format!("it holds {}, and its state is null", name_of(cell.data_type())));
    }
    let decoded = cell::decode(kind, cell, state, scratch);
    if !decoded.map_err(|error| describe(&error, kind, cell))? {
        return Ok(());
    }
    let is_text = matches!((kind.storage(), state, cell), (Storage::Text, CellState::Plain, _));
    let fits = match (state, kind, cell) {
        (CellState::Plain, ValueKind::Int32, ValueRef::Integer(number)) => {
            i32::try_from(number).is_ok()
        }
        (CellState::Plain, ValueKind::Bool, ValueRef::Integer(number)) => matches!(number, 0 | 1),
        (CellState::Plain, ValueKind::Float, ValueRef::Real(number)) => {
            f64::from(number as f32).to_bits() == number.to_bits()
        }
        (CellState::Plain, _, ValueRef::Blob(bytes))
            if kind.storage() == Storage::Packed(Element::Bool) =>
        {
            bytes.iter().all(|byte| *byte <= 1)
        }
        (CellState::Plain, _, ValueRef::Text(text)) if is_text => std::str::from_utf8(text).is_ok(),
        _ => true,
    };
    if !fits {
        return Err(format!("it is not a value of type {}", kind.name()));
    }
    if state == CellState::Wire || kind.storage() == Storage::Wire {
        let value = proto::decode_value(scratch)
            .map_err(|error| format!("its message cannot be parsed: {error}"))?;
        let found = value.as_ref().map_or(ValueKind::Unknown, Val::kind);
        if state == CellState::Plain && found != kind && kind != ValueKind::Unknown {
            return Err(format!("its message is not of type {}", kind.name()));
        }
    }
    Ok(())
}

fn describe(error: &Error, kind: ValueKind, cell: ValueRef<'_>) -> String {
    if error.kind() == ErrorKind::Damaged {
        return format!(
            "it is {}, which is not a value of type {}",
            name_of(cell.data_type()),
            kind.name()
        );
    }
    error.to_string()
}

fn name_of(kind: Type) -> &'static str {
    match kind {
        Type::Null => "NULL",
        Type::Integer => "an INTEGER",
        Type::Real => "a REAL",
        Type::Text => "a TEXT",
        Type::Blob => "a BLOB",
    }
}
