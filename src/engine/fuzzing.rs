//! What the engine makes of Arrow arrays and of the manifest of indexes, for [`crate::fuzzing`].

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};

use super::vectors::open_part;
use super::{Missing, serialize_entity_keys, serialize_values, typed};
use crate::fuzzing::bytes::Bytes;
use crate::index::fuzzing as index;
use crate::proto::decode_value;
use crate::schema::{ValueKind, index_file_name};
use crate::store::{IndexId, fuzzing as store};

/// Types within types.
const MOST_NESTED: usize = 3;

/// The entry of an index in the database, and searches that believe it as far as it is believed.
pub(crate) fn index_manifests(data: &[u8]) {
    let Some(state) = store::index_manifest(data) else { return };
    let id = IndexId { table_id: 1, column_id: 2, dim: 3 };
    for mut entry in state.segments {
        // Nothing is there, and nothing that is named otherwise is looked for.
        open_part(Path::new("/nowhere"), id, &entry, 4, None).expect_err("a file");
        let segment = index::segment();
        entry.file = index_file_name(id.table_id, id.column_id, entry.stamp);
        if let Ok(part) = open_part(Path::new("/nowhere"), id, &entry, 4, Some(segment)) {
            index::search(part);
        }
    }
}

/// Arrays of any type whose offsets, lengths, nulls and children are the input's. Those that are
/// valid become messages of every kind, or an error.
pub(crate) fn arrow_arrays(data: &[u8]) {
    let mut bytes = Bytes(data);
    let kind = ValueKind::ALL[bytes.small() % ValueKind::ALL.len()];
    let length = bytes.small() % 24;
    let data_type = type_of(&mut bytes, 0);
    let Some(data) = array_data(&data_type, length, &mut bytes) else { return };
    let array = make_array(data);
    let first = bytes.small() % (length + 1);
    let slice = array.slice(first, length - first);
    for array in [&array, &slice] {
        for missing in [Missing::AsIs, Missing::AsFeastDoes] {
            let Ok(Some(messages)) = serialize_values(kind.name(), array, missing, 7) else {
                continue;
            };
            assert_eq!(messages.len(), array.len());
            messages_are_values(kind, array, &messages, missing);
        }
        let name = ["id".to_owned()];
        if let Ok(keys) = serialize_entity_keys(&name, &[Arc::clone(array)]) {
            assert_eq!(keys.len(), array.len());
        }
    }
}

/// Each is a value, which comes back as an array of the kind's own type.
fn messages_are_values(kind: ValueKind, array: &ArrayRef, messages: &ArrayRef, missing: Missing) {
    let messages = messages.as_binary::<i32>();
    let nulls = array.logical_nulls();
    for (row, message) in messages.iter().enumerate() {
        let message = message.expect("a message");
        let value = decode_value(message).expect("a message that was written");
        let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        if missing == Missing::AsIs {
            // Neither becomes the other.
            assert_eq!(value.is_none(), is_null, "{kind:?} of {} in row {row}", array.data_type());
        }
    }
    let back = typed::feature(kind, None, messages).expect("messages that were written");
    assert_eq!(back.len(), messages.len());
}

fn type_of(bytes: &mut Bytes<'_>, nested: usize) -> DataType {
    use DataType as T;
    let item = |bytes: &mut Bytes<'_>| {
        let inner = if nested < MOST_NESTED { type_of(bytes, nested + 1) } else { T::Int32 };
        Arc::new(Field::new("item", inner, true))
    };
    let unit = |number: usize| {
        [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond]
            [number % 4]
    };
    let zone =
        |number: usize| [None, Some("UTC".into()), Some("no zone".into())][number % 3].clone();
    let number = bytes.small();
    let width = number / 48;
    match number % 48 {
        0 => T::Null,
        1 => T::Boolean,
        2 => T::Int8,
        3 => T::Int16,
        4 => T::Int32,
        5 | 45 => T::Int64,
        6 => T::UInt8,
        7 => T::UInt16,
        8 => T::UInt32,
        9 => T::UInt64,
        10 => T::Float16,
        11 => T::Float32,
        12 | 46 => T::Float64,
        13 => T::Timestamp(unit(width), zone(bytes.small())),
        14 => T::Date32,
        15 => T::Date64,
        16 => T::Time32([TimeUnit::Second, TimeUnit::Millisecond][width % 2]),
        17 => T::Time64([TimeUnit::Microsecond, TimeUnit::Nanosecond][width % 2]),
        18 => T::Duration(unit(width)),
        19 => T::Interval(IntervalUnit::MonthDayNano),
        20 | 47 => T::Binary,
        21 => T::LargeBinary,
        22 => T::BinaryView,
        23 | 44 => T::Utf8,
        24 => T::LargeUtf8,
        25 => T::Utf8View,
        26 => T::FixedSizeBinary([16, 0, 1, 3][width % 4]),
        27 => T::Decimal32(9, scale(bytes)),
        28 => T::Decimal64(18, scale(bytes)),
        29 => T::Decimal128(38, scale(bytes)),
        30 => T::Decimal256(76, scale(bytes)),
        31 | 32 => T::List(item(bytes)),
        33 => T::LargeList(item(bytes)),
        34 | 35 => T::FixedSizeList(item(bytes), [2, 0, 1, 5][width % 4]),
        36 => T::ListView(item(bytes)),
        37 => T::LargeListView(item(bytes)),
        38 => T::Struct(Fields::from(vec![
            Field::new("a", item(bytes).data_type().clone(), true),
            Field::new("b", T::Int32, true),
        ])),
        39 | 40 => T::Dictionary(
            Box::new([T::Int8, T::UInt8, T::Int32, T::UInt64][width % 4].clone()),
            Box::new(item(bytes).data_type().clone()),
        ),
        41 | 42 => T::RunEndEncoded(
            Arc::new(Field::new("run_ends", [T::Int16, T::Int32][width % 2].clone(), false)),
            Arc::new(Field::new("values", item(bytes).data_type().clone(), true)),
        ),
        43 => T::Map(
            Arc::new(Field::new(
                "entries",
                T::Struct(Fields::from(vec![
                    Field::new("keys", T::Utf8, false),
                    Field::new("values", item(bytes).data_type().clone(), true),
                ])),
                false,
            )),
            false,
        ),
        _ => unreachable!("a number below 48"),
    }
}

fn scale(bytes: &mut Bytes<'_>) -> i8 {
    [0, 2, 9, -3][bytes.small() % 4]
}

/// `None` if Arrow finds that it contradicts itself.
fn array_data(data_type: &DataType, length: usize, bytes: &mut Bytes<'_>) -> Option<ArrayData> {
    use DataType as T;
    // Of structs within these Arrow would take another part; `_arrow.py` hands over the whole.
    let is_whole = matches!(data_type, T::Struct(_) | T::FixedSizeList(..));
    let offset = if bytes.small() % 4 == 3 && !is_whole { bytes.small() % 4 } else { 0 };
    let nulls = (bytes.small() % 3 == 1).then(|| content(bytes, (length + offset).div_ceil(8)));
    let rows = length + offset;
    let mut buffers = Vec::new();
    let mut children = Vec::new();
    match data_type {
        T::Null | T::Struct(_) | T::FixedSizeList(..) | T::RunEndEncoded(..) => {}
        T::Boolean => buffers.push(content(bytes, rows.div_ceil(8))),
        T::Binary | T::Utf8 | T::List(_) | T::Map(..) => buffers.push(offsets(bytes, rows, 4)),
        T::LargeBinary | T::LargeUtf8 | T::LargeList(_) => buffers.push(offsets(bytes, rows, 8)),
        T::ListView(_) => (0..2).for_each(|_| buffers.push(numbers(bytes, rows, 4))),
        T::LargeListView(_) => (0..2).for_each(|_| buffers.push(numbers(bytes, rows, 8))),
        T::BinaryView | T::Utf8View => buffers.push(numbers(bytes, rows, 16)),
        T::Dictionary(keys, _) => {
            buffers.push(numbers(bytes, rows, keys.primitive_width().unwrap_or(1)));
        }
        T::FixedSizeBinary(width) => buffers.push(content(bytes, rows * *width as usize)),
        fixed => buffers.push(content(bytes, rows * fixed.primitive_width().unwrap_or(1))),
    }
    match data_type {
        T::Binary | T::Utf8 | T::LargeBinary | T::LargeUtf8 | T::BinaryView | T::Utf8View => {
            let length = bytes.small();
            buffers.push(content(bytes, length));
        }
        T::List(item)
        | T::LargeList(item)
        | T::ListView(item)
        | T::LargeListView(item)
        | T::Map(item, _) => {
            let length = bytes.small() % 40;
            children.push(array_data(item.data_type(), length, bytes)?);
        }
        T::FixedSizeList(item, width) => {
            children.push(array_data(item.data_type(), rows * *width as usize, bytes)?);
        }
        T::Struct(fields) => {
            for field in fields {
                children.push(array_data(field.data_type(), rows, bytes)?);
            }
        }
        T::Dictionary(_, values) => {
            let length = bytes.small() % 16;
            children.push(array_data(values, length, bytes)?);
        }
        T::RunEndEncoded(ends, values) => {
            let runs = bytes.small() % 8;
            let width = ends.data_type().primitive_width().unwrap_or(4);
            // They end after their first row, and so after the first offset.
            let buffer = offsets(bytes, runs, width).slice(width);
            let ends = ArrayData::try_new(
                ends.data_type().clone(),
                runs,
                None,
                0,
                vec![buffer],
                Vec::new(),
            );
            children.push(ends.ok()?);
            children.push(array_data(values.data_type(), runs, bytes)?);
        }
        _ => {}
    }
    ArrayData::try_new(data_type.clone(), length, nulls, offset, buffers, children).ok()
}

/// So many bytes of the input, and zeros where it has ended; sometimes a byte too few.
fn content(bytes: &mut Bytes<'_>, length: usize) -> Buffer {
    let missing = usize::from(bytes.small() == 255);
    let content: Vec<u8> =
        (0..length.saturating_sub(missing)).map(|_| bytes.next().unwrap_or_default()).collect();
    aligned(&content)
}

/// Numbers of this many bytes, one more than rows, each mostly a little more than the one before.
fn offsets(bytes: &mut Bytes<'_>, rows: usize, width: usize) -> Buffer {
    let mut at = 0i64;
    let mut out = Vec::new();
    for _ in 0..=rows {
        out.extend_from_slice(&at.to_le_bytes()[..width]);
        at = match bytes.small() {
            255 => bytes.eight(),
            step => at.wrapping_add(step as i64 % 8),
        };
    }
    aligned(&out)
}

/// Small numbers of this many bytes, or whatever the input has.
fn numbers(bytes: &mut Bytes<'_>, rows: usize, width: usize) -> Buffer {
    let mut out = Vec::new();
    for _ in 0..rows {
        let number = match bytes.small() {
            255 => i128::from(bytes.eight()) << (bytes.small() % 64),
            small => small as i128 % 16,
        };
        out.extend_from_slice(&number.to_le_bytes()[..width]);
    }
    aligned(&out)
}

/// At an address that suits every number.
fn aligned(bytes: &[u8]) -> Buffer {
    let words = bytes.len().div_ceil(16);
    let mut aligned = vec![0u128; words];
    bytemuck::cast_slice_mut(&mut aligned)[..bytes.len()].copy_from_slice(bytes);
    Buffer::from_vec(aligned).slice_with_length(0, bytes.len())
}
