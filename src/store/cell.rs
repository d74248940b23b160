//! Feast values to cells, and cells to the wire bytes of values: exact both ways.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::states::CellState;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::{
    BoolSeq, DoubleSeq, FloatSeq, Int32Seq, Int64Seq, Number, StringSeq, Val, Value, check, wire,
};
use crate::schema::{Element, Storage, ValueKind};

/// What goes into a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// The cell for a value in a column made for `kind`. `message` is the value's own wire bytes,
/// which the cell becomes where the column cannot hold the value exactly.
pub(super) fn encode(kind: ValueKind, value: Option<Val>, message: &[u8]) -> (Cell, CellState) {
    match value {
        None if message.is_empty() => (Cell::Null, CellState::Null),
        Some(Val::Null(0)) => (Cell::Null, CellState::NullVal),
        Some(value) if value.kind() == kind => match plain(value) {
            Some(cell) => (cell, CellState::Plain),
            None if kind.storage() == Storage::Wire => {
                (Cell::Blob(message.to_vec()), CellState::Plain)
            }
            None => (Cell::Blob(message.to_vec()), CellState::Wire),
        },
        _ => (Cell::Blob(message.to_vec()), CellState::Wire),
    }
}

/// The cell for a number: what [`encode`] makes of its message.
pub(super) fn encode_number(kind: ValueKind, number: Number) -> (Cell, CellState) {
    let cell = match (kind, number) {
        (ValueKind::Double, Number::Double(number)) if !changes_in_sqlite(number) => {
            Cell::Real(number)
        }
        (ValueKind::Float, Number::Float(number)) if !changes_in_sqlite(number.into()) => {
            Cell::Real(number.into())
        }
        (ValueKind::Int64, Number::Int64(number))
        | (ValueKind::UnixTimestamp, Number::UnixTimestamp(number)) => Cell::Integer(number),
        (ValueKind::Int32, Number::Int32(number)) => Cell::Integer(number.into()),
        (ValueKind::Bool, Number::Bool(truth)) => Cell::Integer(truth.into()),
        _ => {
            let value = Value { val: Some(number.into()) };
            let message = prost::Message::encode_to_vec(&value);
            return encode(kind, value.val, &message);
        }
    };
    (cell, CellState::Plain)
}

/// The value in its kind's own storage, or `None` where that is, or has to be, wire bytes.
fn plain(value: Val) -> Option<Cell> {
    Some(match value {
        Val::Bytes(bytes) => Cell::Blob(bytes),
        Val::String(text)
        | Val::Json(text)
        | Val::Uuid(text)
        | Val::TimeUuid(text)
        | Val::Decimal(text) => Cell::Text(text),
        Val::Int32(number) => Cell::Integer(number.into()),
        Val::Int64(number) | Val::UnixTimestamp(number) => Cell::Integer(number),
        Val::Bool(truth) => Cell::Integer(truth.into()),
        Val::Double(number) if changes_in_sqlite(number) => {
            Cell::Blob(number.to_le_bytes().to_vec())
        }
        Val::Double(number) => Cell::Real(number),
        Val::Float(number) if changes_in_sqlite(number.into()) => {
            Cell::Blob(number.to_le_bytes().to_vec())
        }
        Val::Float(number) => Cell::Real(number.into()),
        Val::FloatList(list) => packed(&list.val, f32::to_le_bytes),
        Val::DoubleList(list) => packed(&list.val, f64::to_le_bytes),
        Val::Int32List(list) => packed(&list.val, i32::to_le_bytes),
        Val::Int64List(list) | Val::UnixTimestampList(list) => packed(&list.val, i64::to_le_bytes),
        Val::BoolList(list) => packed(&list.val, |x| [u8::from(x)]),
        Val::StringList(list)
        | Val::JsonList(list)
        | Val::UuidList(list)
        | Val::TimeUuidList(list)
        | Val::DecimalList(list)
        | Val::StringSet(list)
        | Val::UuidSet(list)
        | Val::TimeUuidSet(list)
        | Val::DecimalSet(list) => json(&list.val)?,
        Val::Int32Set(set) => json(&set.val)?,
        Val::Int64Set(set) | Val::UnixTimestampSet(set) => json(&set.val)?,
        Val::BoolSet(set) => json(&set.val)?,
        Val::DoubleSet(set) => {
            let cell = json(&set.val)?;
            let back: Vec<f64> = from_json(&cell)?;
            same_bits(back.iter().map(|x| x.to_bits()), set.val.iter().map(|x| x.to_bits()))
                .then_some(cell)?
        }
        Val::FloatSet(set) => {
            let cell = json(&set.val)?;
            let back: Vec<f32> = from_json(&cell)?;
            same_bits(
                back.iter().map(|x| x.to_bits().into()),
                set.val.iter().map(|x| x.to_bits().into()),
            )
            .then_some(cell)?
        }
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
        | Val::ZonedTimestamp(_) => return None,
    })
}

/// SQLite stores NaN as NULL and -0.0 as 0.0.
fn changes_in_sqlite(number: f64) -> bool {
    number.is_nan() || (number == 0.0 && number.is_sign_negative())
}

fn packed<T: Copy, const WIDTH: usize>(list: &[T], bytes: impl Fn(T) -> [u8; WIDTH]) -> Cell {
    Cell::Blob(list.iter().flat_map(|&element| bytes(element)).collect())
}

fn json<T: serde_json_element::Element>(list: &[T]) -> Option<Cell> {
    serde_json_element::to_text(list).map(Cell::Text)
}

fn from_json<T: serde_json_element::Element>(cell: &Cell) -> Option<Vec<T>> {
    match cell {
        Cell::Text(text) => serde_json_element::from_text(text),
        _ => None,
    }
}

fn same_bits(a: impl Iterator<Item = u64>, b: impl Iterator<Item = u64>) -> bool {
    a.eq(b)
}

/// JSON arrays of one element type.
mod serde_json_element {
    use serde_json::Value as Json;

    /// An element that JSON holds exactly, or says that it does not.
    pub(super) trait Element: Sized {
        fn to_json(&self) -> Option<Json>;
        fn from_json(json: &Json) -> Option<Self>;
    }

    impl Element for String {
        fn to_json(&self) -> Option<Json> {
            Some(Json::String(self.clone()))
        }
        fn from_json(json: &Json) -> Option<Self> {
            json.as_str().map(str::to_owned)
        }
    }

    impl Element for bool {
        fn to_json(&self) -> Option<Json> {
            Some(Json::Bool(*self))
        }
        fn from_json(json: &Json) -> Option<Self> {
            json.as_bool()
        }
    }

    impl Element for i64 {
        fn to_json(&self) -> Option<Json> {
            Some((*self).into())
        }
        fn from_json(json: &Json) -> Option<Self> {
            json.as_i64()
        }
    }

    impl Element for i32 {
        fn to_json(&self) -> Option<Json> {
            Some((*self).into())
        }
        fn from_json(json: &Json) -> Option<Self> {
            json.as_i64()?.try_into().ok()
        }
    }

    impl Element for f64 {
        fn to_json(&self) -> Option<Json> {
            serde_json::Number::from_f64(*self).map(Json::Number)
        }
        fn from_json(json: &Json) -> Option<Self> {
            json.as_f64()
        }
    }

    impl Element for f32 {
        fn to_json(&self) -> Option<Json> {
            f64::from(*self).to_json()
        }
        fn from_json(json: &Json) -> Option<Self> {
            json.as_f64().map(|number| number as Self)
        }
    }

    pub(super) fn to_text<T: Element>(list: &[T]) -> Option<String> {
        let items = list.iter().map(Element::to_json).collect::<Option<Vec<_>>>()?;
        Some(Json::Array(items).to_string())
    }

    pub(super) fn from_text<T: Element>(text: &str) -> Option<Vec<T>> {
        let json: Json = serde_json::from_str(text).ok()?;
        json.as_array()?.iter().map(Element::from_json).collect()
    }
}

/// Appends the wire bytes of the cell's value to `out`; false where the feature is absent.
pub(super) fn decode(
    kind: ValueKind,
    cell: ValueRef<'_>,
    state: CellState,
    out: &mut Vec<u8>,
) -> Result<bool> {
    match (state, cell) {
        (CellState::Null, _) => {}
        (CellState::NullVal, _) => wire::varint(ValueKind::Null, 0, out),
        (CellState::Plain, ValueRef::Null) => return Ok(false),
        (CellState::Wire, ValueRef::Blob(bytes)) => out.extend_from_slice(bytes),
        (CellState::Plain, cell) => decode_plain(kind, cell, out)?,
        (CellState::Wire, _) => return Err(unreadable(kind)),
    }
    Ok(true)
}

fn unreadable(kind: ValueKind) -> Error {
    Error::new(
        ErrorKind::Damaged,
        format!(
            "a cell of type {} does not hold such a value; was it edited by hand?",
            kind.name()
        ),
    )
}

/// A value that was stored by an earlier version, or by another program, and that no reader could
/// read.
fn unfit(cause: &Error) -> Error {
    let message = format!("{}; write the feature again, or delete the row", cause.message());
    Error::new(ErrorKind::Damaged, message)
}

fn check_text(kind: ValueKind, text: &[u8]) -> Result<()> {
    let check = match kind {
        ValueKind::Uuid | ValueKind::TimeUuid => check::check_uuid,
        ValueKind::Decimal => check::check_decimal,
        _ => return Ok(()),
    };
    check(std::str::from_utf8(text).map_err(|_| unreadable(kind))?).map_err(|cause| unfit(&cause))
}

fn decode_plain(kind: ValueKind, cell: ValueRef<'_>, out: &mut Vec<u8>) -> Result<()> {
    match (kind.storage(), cell) {
        (Storage::Integer, ValueRef::Integer(number)) => {
            if kind == ValueKind::UnixTimestamp {
                check::check_number(Number::UnixTimestamp(number))
                    .map_err(|cause| unfit(&cause))?;
            }
            wire::varint(kind, number, out);
        }
        (Storage::Real, cell) => decode_real(kind, cell, out)?,
        (Storage::Text, ValueRef::Text(text)) => {
            check_text(kind, text)?;
            wire::bytes(kind, text, out);
        }
        (Storage::Blob, ValueRef::Blob(bytes)) => wire::bytes(kind, bytes, out),
        (Storage::Wire, ValueRef::Blob(bytes)) => out.extend_from_slice(bytes),
        (Storage::Packed(element), ValueRef::Blob(bytes))
            if bytes.len().is_multiple_of(element.width()) =>
        {
            match element {
                Element::F32 | Element::F64 => wire::packed(kind, bytes, out),
                Element::I64 if kind == ValueKind::UnixTimestampList => {
                    let mut numbers = integers(element, bytes).map(Number::UnixTimestamp);
                    numbers.try_for_each(check::check_number).map_err(|cause| unfit(&cause))?;
                    wire::packed_varints(kind, integers(element, bytes), out);
                }
                _ => wire::packed_varints(kind, integers(element, bytes), out),
            }
        }
        (Storage::Json, ValueRef::Text(text)) => {
            let value = std::str::from_utf8(text).ok().and_then(|text| json_value(kind, text));
            let value = value.ok_or_else(|| unreadable(kind))?;
            check::check_value(&value).map_err(|cause| unfit(&cause))?;
            let value = Value { val: Some(value) };
            prost::Message::encode(&value, out).map_err(|_| unreadable(kind))?;
        }
        _ => return Err(unreadable(kind)),
    }
    Ok(())
}

fn decode_real(kind: ValueKind, cell: ValueRef<'_>, out: &mut Vec<u8>) -> Result<()> {
    match (kind, cell) {
        (ValueKind::Float, ValueRef::Real(number)) => wire::float(number as f32, out),
        (_, ValueRef::Real(number)) => wire::double(number, out),
        (ValueKind::Float, ValueRef::Blob(bits)) => {
            let bits = bits.try_into().map_err(|_| unreadable(kind))?;
            wire::float(f32::from_le_bytes(bits), out);
        }
        (_, ValueRef::Blob(bits)) => {
            let bits = bits.try_into().map_err(|_| unreadable(kind))?;
            wire::double(f64::from_le_bytes(bits), out);
        }
        _ => return Err(unreadable(kind)),
    }
    Ok(())
}

fn integers(element: Element, bytes: &[u8]) -> impl Iterator<Item = i64> {
    bytes.chunks_exact(element.width()).map(|chunk| {
        // Sign extension from the element's width.
        let mut wide = [if chunk[chunk.len() - 1] & 0x80 == 0 { 0 } else { 0xff }; 8];
        wide[..chunk.len()].copy_from_slice(chunk);
        i64::from_le_bytes(wide)
    })
}

fn json_value(kind: ValueKind, text: &str) -> Option<Val> {
    use serde_json_element::from_text;
    let strings = || from_text(text).map(|val| StringSeq { val });
    let int64s = || from_text(text).map(|val| Int64Seq { val });
    Some(match kind {
        ValueKind::StringList => Val::StringList(strings()?),
        ValueKind::JsonList => Val::JsonList(strings()?),
        ValueKind::UuidList => Val::UuidList(strings()?),
        ValueKind::TimeUuidList => Val::TimeUuidList(strings()?),
        ValueKind::DecimalList => Val::DecimalList(strings()?),
        ValueKind::StringSet => Val::StringSet(strings()?),
        ValueKind::UuidSet => Val::UuidSet(strings()?),
        ValueKind::TimeUuidSet => Val::TimeUuidSet(strings()?),
        ValueKind::DecimalSet => Val::DecimalSet(strings()?),
        ValueKind::Int32Set => Val::Int32Set(Int32Seq { val: from_text(text)? }),
        ValueKind::Int64Set => Val::Int64Set(int64s()?),
        ValueKind::UnixTimestampSet => Val::UnixTimestampSet(int64s()?),
        ValueKind::DoubleSet => Val::DoubleSet(DoubleSeq { val: from_text(text)? }),
        ValueKind::FloatSet => Val::FloatSet(FloatSeq { val: from_text(text)? }),
        ValueKind::BoolSet => Val::BoolSet(BoolSeq { val: from_text(text)? }),
        _ => return None,
    })
}

#[cfg(test)]
#[path = "cell_tests.rs"]
mod tests;
