//! Arrays of native types as serialized messages: the inverse of [`super::typed`].

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit};
use std::sync::Arc;

use super::conversions::cast;
use super::exact;
use super::messages::{Messages, each, nulls};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::check::NULL_TIMESTAMP;
use crate::proto::wire;
use crate::schema::ValueKind;

/// What is written for values that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A null for a null, and everything else as it is. Lists may hold no nulls.
    AsIs,
    /// What Feast 0.67 writes (`feast.type_map`): null for not-a-number, the least timestamp there
    /// is for a null one, and in lists not-a-number, false or an empty text.
    AsFeastDoes,
}

/// Serialized `Value`s of a Feast type (named as in `feast.ValueType`), one for each element, empty
/// for a null. `None` where Feast's own conversion has to judge: maps, structs and so on; and, of
/// what Feast makes of values, sets, JSON and arrays of a type that does not obviously hold such
/// values.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] for a value that the type cannot hold; its row is counted from
/// `first_row`.
pub fn serialize_values(
    feast_type: &str,
    array: &ArrayRef,
    missing: Missing,
    first_row: u64,
) -> Result<Option<ArrayRef>> {
    let kind = ValueKind::from_feast_type(feast_type);
    match missing {
        Missing::AsIs => exact::serialize(kind, array, first_row),
        Missing::AsFeastDoes => as_feast_does(kind, array),
    }
}

fn as_feast_does(kind: ValueKind, array: &ArrayRef) -> Result<Option<ArrayRef>> {
    if *array.data_type() == DataType::Null {
        return nulls(array.len()).map(Some);
    }
    if kind == ValueKind::UnixTimestampList {
        // Of what pandas makes of these, Feast takes some for nanoseconds and some for seconds.
        return Ok(None);
    }
    let Some(target) = target(kind, array.data_type()) else {
        return Ok(None);
    };
    let array = match (&target, kind) {
        (DataType::Int32 | DataType::Int64, _) if array.data_type().is_floating() => {
            whole(array, &target)?
        }
        _ => cast(array, &target)?,
    };
    if matches!(target, DataType::LargeList(_)) {
        let holds_nulls = items(&array).is_some_and(|items| items.null_count() > 0);
        if holds_nulls && matches!(kind, ValueKind::Int32List | ValueKind::Int64List) {
            return Ok(None);
        }
        return serialize_lists(kind, &array).map(Some);
    }
    serialize_scalars(kind, &array).map(Some)
}

fn serialize_scalars(kind: ValueKind, array: &ArrayRef) -> Result<ArrayRef> {
    match kind {
        ValueKind::Int32 => {
            scalars::<Int32Type>(array, None, |x, out| wire::varint(kind, x.into(), out))
        }
        ValueKind::Int64 => scalars::<Int64Type>(array, None, |x, out| wire::varint(kind, x, out)),
        ValueKind::UnixTimestamp => {
            let per_second = ticks_per_second(array.data_type());
            let numbers = cast(array, &DataType::Int64)?;
            scalars::<Int64Type>(&numbers, Some(NULL_TIMESTAMP), |x, out| {
                let seconds = if x == NULL_TIMESTAMP { x } else { x.div_euclid(per_second) };
                wire::varint(kind, seconds, out);
            })
        }
        ValueKind::Double => scalars::<Float64Type>(array, None, |x, out| {
            if !x.is_nan() {
                wire::double(x, out);
            }
        }),
        ValueKind::Float => scalars::<Float64Type>(array, None, |x, out| {
            if !x.is_nan() {
                wire::float(x as f32, out);
            }
        }),
        ValueKind::Bool => {
            let array = array.as_boolean();
            each(array, |at, out| wire::varint(kind, array.value(at).into(), out))
        }
        ValueKind::Bytes => {
            let array = array.as_binary::<i64>();
            each(array, |at, out| wire::bytes(kind, array.value(at), out))
        }
        _ => {
            let array = array.as_string::<i64>();
            each(array, |at, out| wire::bytes(kind, array.value(at).as_bytes(), out))
        }
    }
}

fn serialize_lists(kind: ValueKind, array: &ArrayRef) -> Result<ArrayRef> {
    let array = array.as_list::<i64>();
    let lists =
        |put: &dyn Fn(&ArrayRef, &mut Vec<u8>)| each(array, |at, out| put(&array.value(at), out));
    match kind {
        ValueKind::FloatList => {
            lists(&|items, out| floats::<Float32Type>(kind, f32::NAN, items, out))
        }
        ValueKind::DoubleList => {
            lists(&|items, out| floats::<Float64Type>(kind, f64::NAN, items, out))
        }
        ValueKind::Int32List => lists(&|items, out| {
            let items = items.as_primitive::<Int32Type>().values();
            wire::packed_varints(kind, items.iter().map(|x| i64::from(*x)), out);
        }),
        ValueKind::Int64List => lists(&|items, out| {
            let items = items.as_primitive::<Int64Type>().values();
            wire::packed_varints(kind, items.iter().copied(), out);
        }),
        ValueKind::UnixTimestampList => lists(&|items, out| {
            let per_second = ticks_per_second(items.data_type());
            let data = items.to_data();
            let items = data.buffer::<i64>(0)[..items.len()].iter();
            wire::packed_varints(kind, items.map(|x| x.div_euclid(per_second)), out);
        }),
        ValueKind::BoolList => lists(&|items, out| {
            let items = items.as_boolean().iter().map(|x| x.unwrap_or(false).into());
            wire::packed_varints(kind, items, out);
        }),
        _ => lists(&|items, out| {
            let mut list = Vec::new();
            for text in items.as_string::<i64>() {
                wire::field(1, text.unwrap_or_default().as_bytes(), &mut list);
            }
            wire::bytes(kind, &list, out);
        }),
    }
}

/// Serialized `EntityKey` messages of rows whose join keys are given by column: names, and
/// serialized `Value`s of as many rows each.
pub fn serialize_entity_keys(names: &[String], columns: &[ArrayRef]) -> Result<ArrayRef> {
    let wrong = |message: String| Err(Error::new(ErrorKind::InvalidKey, message));
    if names.len() != columns.len() {
        return wrong(format!(
            "there are {} join keys, and columns of {}; pass a column for each",
            names.len(),
            columns.len()
        ));
    }
    let rows = columns.first().map_or(0, Array::len);
    for (name, column) in names.iter().zip(columns) {
        if column.len() != rows {
            return wrong(format!(
                "the columns of join keys differ in length: '{}' has {rows} rows, and '{name}' {}",
                names[0],
                column.len()
            ));
        }
        if *column.data_type() != DataType::Binary {
            return wrong(format!(
                "the column of join key '{name}' is of Arrow's type {}, and has to be of binary: \
                 serialized values",
                column.data_type()
            ));
        }
        if let Some(row) = (0..rows).find(|row| column.is_null(*row)) {
            return wrong(format!("row {row} has no value of join key '{name}'"));
        }
    }
    let columns: Vec<_> = columns.iter().map(AsArray::as_binary::<i32>).collect();
    let mut messages = Messages::new(rows);
    for row in 0..rows {
        messages.push(|out| {
            for name in names {
                wire::field(1, name.as_bytes(), out);
            }
            for column in &columns {
                wire::field(2, column.value(row), out);
            }
        })?;
    }
    Ok(messages.finish())
}

/// The type to which an array of that type is cast, if its elements are values of the kind.
fn target(kind: ValueKind, from: &DataType) -> Option<DataType> {
    let is_text = |from: &DataType| match from {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => {
            matches!(**values, DataType::Utf8 | DataType::LargeUtf8)
        }
        _ => false,
    };
    let item = match from {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type())
        }
        _ => None,
    };
    let scalar = |fits: bool, target: DataType| fits.then_some(target);
    let list = |fits: fn(&DataType) -> bool, target: DataType| {
        let fits = item.is_some_and(|item| fits(item) || *item == DataType::Null);
        fits.then(|| DataType::LargeList(Arc::new(Field::new_list_field(target, true))))
    };
    let number = from.is_integer() || from.is_floating();
    let target = match kind {
        ValueKind::Int32 => scalar(number, DataType::Int32),
        ValueKind::Int64 => scalar(number, DataType::Int64),
        ValueKind::Float | ValueKind::Double => scalar(number, DataType::Float64),
        ValueKind::Bool => scalar(*from == DataType::Boolean, DataType::Boolean),
        ValueKind::UnixTimestamp => match from {
            DataType::Timestamp(unit, _) => Some(DataType::Timestamp(*unit, None)),
            DataType::Int64 => Some(DataType::Int64),
            _ => None,
        },
        ValueKind::String | ValueKind::Uuid | ValueKind::TimeUuid | ValueKind::Decimal => {
            scalar(is_text(from), DataType::LargeUtf8)
        }
        ValueKind::Bytes => scalar(from.is_binary(), DataType::LargeBinary),
        ValueKind::FloatList => list(DataType::is_floating, DataType::Float32),
        ValueKind::DoubleList => list(DataType::is_floating, DataType::Float64),
        ValueKind::Int32List => list(DataType::is_integer, DataType::Int32),
        ValueKind::Int64List => list(DataType::is_integer, DataType::Int64),
        ValueKind::UnixTimestampList => match item {
            Some(DataType::Timestamp(unit, _)) => list(|_| true, DataType::Timestamp(*unit, None)),
            _ => None,
        },
        ValueKind::BoolList => list(|item| *item == DataType::Boolean, DataType::Boolean),
        ValueKind::StringList
        | ValueKind::UuidList
        | ValueKind::TimeUuidList
        | ValueKind::DecimalList => list(
            |item| matches!(item, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
            DataType::LargeUtf8,
        ),
        _ => None,
    };
    target.filter(|target| can_cast_types(from, target))
}

/// The elements of all lists; of large lists alone, to which all are cast.
fn items(array: &ArrayRef) -> Option<ArrayRef> {
    let list = array.as_list_opt::<i64>()?;
    let offsets = list.value_offsets();
    let (start, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    Some(list.values().slice(start, end - start))
}

/// Floating-point numbers as whole ones: their integral part, as Feast takes it.
fn whole(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let numbers = cast(array, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>().iter();
    let taken: PrimitiveArray<Float64Type> =
        numbers.map(|x| x.filter(|x| !x.is_nan()).map(f64::trunc)).collect();
    cast(&(Arc::new(taken) as ArrayRef), target)
}

/// How many units of that type are a second.
fn ticks_per_second(timestamp: &DataType) -> i64 {
    match timestamp {
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000_000,
        _ => 1,
    }
}

/// A message for each number; for a null that of `null`, if there is one.
fn scalars<P: ArrowPrimitiveType>(
    array: &ArrayRef,
    null: Option<P::Native>,
    put: impl Fn(P::Native, &mut Vec<u8>),
) -> Result<ArrayRef> {
    let mut messages = Messages::new(array.len());
    for value in array.as_primitive::<P>() {
        messages.push(|out| {
            if let Some(value) = value.or(null) {
                put(value, out);
            }
        })?;
    }
    Ok(messages.finish())
}

/// A list of floating-point numbers, whose little-endian bytes are the message's own.
fn floats<P: ArrowPrimitiveType>(
    kind: ValueKind,
    null: P::Native,
    items: &ArrayRef,
    out: &mut Vec<u8>,
) where
    P::Native: bytemuck::Pod,
{
    let items = items.as_primitive::<P>();
    if items.null_count() == 0 {
        wire::packed(kind, bytemuck::cast_slice(items.values()), out);
        return;
    }
    let filled: Vec<P::Native> = items.iter().map(|item| item.unwrap_or(null)).collect();
    wire::packed(kind, bytemuck::cast_slice(&filled), out);
}
