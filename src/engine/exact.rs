//! Arrow values as Feast's, exactly or not at all.
//!
//! Integers stay what they are in every type that holds them. A floating-point feature takes the
//! nearest number of its width, as Feast does, but no finite number becomes infinite.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeListArray, UInt64Array, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type};

use super::conversions::{arrow_error, cast, invalid, unsupported, values};
use super::messages::{each, nulls};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::wire;
use crate::schema::ValueKind;

/// Serialized `Value`s of the kind, one for each element, empty for a null. `None` where Feast's
/// own conversion has to judge: maps, structs, and JSON that is not text.
///
/// # Errors
/// For a type that does not hold such values, and for a value that the kind cannot hold; that
/// names its row, counted from `first_row`.
pub(super) fn serialize(
    kind: ValueKind,
    array: &ArrayRef,
    first_row: u64,
) -> Result<Option<ArrayRef>> {
    let error = match convert(kind, array) {
        Err(error) if error.kind() == ErrorKind::InvalidValue => error,
        Err(error) => return Err(Error::new(ErrorKind::InvalidValue, error.message())),
        converted => return converted,
    };
    for row in 0..array.len() {
        if let Err(error) = convert(kind, &array.slice(row, 1)) {
            return Err(error.at(format_args!("row {}", first_row + row as u64)));
        }
    }
    Err(error)
}

fn convert(kind: ValueKind, array: &ArrayRef) -> Result<Option<ArrayRef>> {
    let array = unpacked(array)?;
    if *array.data_type() == DataType::Null {
        return nulls(array.len()).map(Some);
    }
    let Some((item, is_set)) = item_of(kind) else {
        let Some(values) = values(kind, &array)? else { return Ok(None) };
        return scalars(kind, &values).map(Some);
    };
    let Some(lists) = lists(&array)? else {
        return match kind {
            ValueKind::JsonList => Ok(None),
            _ => Err(unsupported("lists")),
        };
    };
    let items = unpacked(lists.values())?;
    if items.logical_null_count() > 0 {
        return Err(invalid("a list holds null, which Feast's lists cannot"));
    }
    let items = match items.data_type() {
        DataType::Null => Some(empty(item)),
        _ => values(item, &items)?,
    };
    let Some(items) = items else { return Ok(None) };
    serialize_lists(kind, item, is_set, &lists, &items).map(Some)
}

/// The kind of a list's or set's elements, and whether it is a set.
fn item_of(kind: ValueKind) -> Option<(ValueKind, bool)> {
    use ValueKind as K;
    Some(match kind {
        K::BytesList => (K::Bytes, false),
        K::StringList => (K::String, false),
        K::Int32List => (K::Int32, false),
        K::Int64List => (K::Int64, false),
        K::DoubleList => (K::Double, false),
        K::FloatList => (K::Float, false),
        K::BoolList => (K::Bool, false),
        K::UnixTimestampList => (K::UnixTimestamp, false),
        K::JsonList => (K::Json, false),
        K::UuidList => (K::Uuid, false),
        K::TimeUuidList => (K::TimeUuid, false),
        K::DecimalList => (K::Decimal, false),
        K::BytesSet => (K::Bytes, true),
        K::StringSet => (K::String, true),
        K::Int32Set => (K::Int32, true),
        K::Int64Set => (K::Int64, true),
        K::DoubleSet => (K::Double, true),
        K::FloatSet => (K::Float, true),
        K::BoolSet => (K::Bool, true),
        K::UnixTimestampSet => (K::UnixTimestamp, true),
        K::UuidSet => (K::Uuid, true),
        K::TimeUuidSet => (K::TimeUuid, true),
        K::DecimalSet => (K::Decimal, true),
        _ => return None,
    })
}

/// The values of dictionaries and of runs.
fn unpacked(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Dictionary(_, values) => unpacked(&cast(array, values)?),
        DataType::RunEndEncoded(_, values) => unpacked(&cast(array, values.data_type())?),
        _ => Ok(Arc::clone(array)),
    }
}

/// Lists of any layout as one; elements of null lists are nobody's, and left out.
fn lists(array: &ArrayRef) -> Result<Option<LargeListArray>> {
    let (DataType::List(item)
    | DataType::LargeList(item)
    | DataType::FixedSizeList(item, _)
    | DataType::ListView(item)
    | DataType::LargeListView(item)) = array.data_type()
    else {
        return Ok(None);
    };
    let item = Arc::new(Field::new_list_field(item.data_type().clone(), true));
    let lists = cast(array, &DataType::LargeList(Arc::clone(&item)))?;
    let lists = lists.as_list::<i64>();
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let lengths = (0..lists.len())
        .map(|row| if lists.is_valid(row) { lists.value_length(row) as usize } else { 0 });
    let kept = OffsetBuffer::from_lengths(lengths);
    let values = if kept[kept.len() - 1] == last - first {
        lists.values().slice(first as usize, (last - first) as usize)
    } else {
        let valid = (0..lists.len()).filter(|row| lists.is_valid(*row));
        let kept = valid.flat_map(|row| offsets[row] as u64..offsets[row + 1] as u64);
        take(lists.values(), &kept.collect::<UInt64Array>(), None)
            .map_err(|cause| arrow_error(&cause))?
    };
    LargeListArray::try_new(item, kept, values, lists.nulls().cloned())
        .map(Some)
        .map_err(|cause| arrow_error(&cause))
}

/// No values, in the type that the kind is written from.
fn empty(kind: ValueKind) -> ArrayRef {
    new_empty_array(&match kind {
        ValueKind::Int32 => DataType::Int32,
        ValueKind::Int64 | ValueKind::UnixTimestamp => DataType::Int64,
        ValueKind::Float => DataType::Float32,
        ValueKind::Double => DataType::Float64,
        ValueKind::Bool => DataType::Boolean,
        ValueKind::Bytes => DataType::LargeBinary,
        _ => DataType::LargeUtf8,
    })
}

fn scalars(kind: ValueKind, array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Int32 => {
            let array = array.as_primitive::<Int32Type>();
            each(array, |at, out| wire::varint(kind, array.value(at).into(), out))
        }
        DataType::Int64 => {
            let array = array.as_primitive::<Int64Type>();
            each(array, |at, out| wire::varint(kind, array.value(at), out))
        }
        DataType::Float32 => {
            let array = array.as_primitive::<Float32Type>();
            each(array, |at, out| wire::float(array.value(at), out))
        }
        DataType::Float64 => {
            let array = array.as_primitive::<Float64Type>();
            each(array, |at, out| wire::double(array.value(at), out))
        }
        DataType::Boolean => {
            let array = array.as_boolean();
            each(array, |at, out| wire::varint(kind, array.value(at).into(), out))
        }
        DataType::LargeBinary => {
            let array = array.as_binary::<i64>();
            each(array, |at, out| wire::bytes(kind, array.value(at), out))
        }
        _ => {
            let array = array.as_string::<i64>();
            each(array, |at, out| wire::bytes(kind, array.value(at).as_bytes(), out))
        }
    }
}

/// The elements, each once if they are a set.
fn once<T: Copy, K: Hash + Eq>(items: &[T], is_set: bool, key: impl Fn(T) -> K) -> Vec<T> {
    let mut seen = HashSet::new();
    items.iter().copied().filter(|item| !is_set || seen.insert(key(*item))).collect()
}

fn serialize_lists(
    kind: ValueKind,
    item: ValueKind,
    is_set: bool,
    lists: &LargeListArray,
    items: &ArrayRef,
) -> Result<ArrayRef> {
    let offsets = lists.value_offsets();
    let range = |at: usize| offsets[at] as usize..offsets[at + 1] as usize;
    let texts = |list: Vec<&[u8]>, out: &mut Vec<u8>| {
        let mut message = Vec::new();
        for item in list {
            wire::field(1, item, &mut message);
        }
        wire::bytes(kind, &message, out);
    };
    match item {
        ValueKind::Float => {
            let items = items.as_primitive::<Float32Type>().values();
            each(lists, |at, out| {
                if is_set {
                    let items = once(&items[range(at)], true, f32::to_bits);
                    wire::packed(kind, bytemuck::cast_slice(&items), out);
                } else {
                    wire::packed(kind, bytemuck::cast_slice(&items[range(at)]), out);
                }
            })
        }
        ValueKind::Double => {
            let items = items.as_primitive::<Float64Type>().values();
            each(lists, |at, out| {
                if is_set {
                    let items = once(&items[range(at)], true, f64::to_bits);
                    wire::packed(kind, bytemuck::cast_slice(&items), out);
                } else {
                    wire::packed(kind, bytemuck::cast_slice(&items[range(at)]), out);
                }
            })
        }
        ValueKind::Int32 => {
            let items = items.as_primitive::<Int32Type>().values();
            each(lists, |at, out| {
                let items = once(&items[range(at)], is_set, |item| item);
                wire::packed_varints(kind, items.into_iter().map(i64::from), out);
            })
        }
        ValueKind::Int64 | ValueKind::UnixTimestamp => {
            let items = items.as_primitive::<Int64Type>().values();
            each(lists, |at, out| {
                let items = once(&items[range(at)], is_set, |item| item);
                wire::packed_varints(kind, items.into_iter(), out);
            })
        }
        ValueKind::Bool => {
            let items = items.as_boolean();
            let items: Vec<bool> = (0..items.len()).map(|at| items.value(at)).collect();
            each(lists, |at, out| {
                let items = once(&items[range(at)], is_set, |item| item);
                wire::packed_varints(kind, items.into_iter().map(i64::from), out);
            })
        }
        ValueKind::Bytes => {
            let items = items.as_binary::<i64>();
            each(lists, |at, out| {
                let items: Vec<&[u8]> = range(at).map(|at| items.value(at)).collect();
                texts(once(&items, is_set, |item| item), out);
            })
        }
        _ => {
            let items = items.as_string::<i64>();
            each(lists, |at, out| {
                let items: Vec<&[u8]> = range(at).map(|at| items.value(at).as_bytes()).collect();
                texts(once(&items, is_set, |item| item), out);
            })
        }
    }
}
