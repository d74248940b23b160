//! Feast's values as arrays of native types.
//!
//! A value of another kind than its column's is converted where nothing is lost by it, and null
//! otherwise; reads through Feast give it exactly.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBuilder, FixedSizeListBuilder, Float32Array,
    Float32Builder, Float64Array, Float64Builder, Int32Array, Int32Builder, Int64Array,
    Int64Builder, ListBuilder, StringArray, StringBuilder, TimestampSecondArray,
    TimestampSecondBuilder,
};

use crate::error::Result;
use crate::proto::check::NULL_TIMESTAMP;
use crate::proto::{self, Val};
use crate::schema::{JoinKeySpec, ValueKind};
use crate::store::{MOST_BYTES, too_large};

/// A column for each join key, from keys as they are stored.
pub(super) fn join_keys<'a>(
    join_keys: &[JoinKeySpec],
    keys: impl Iterator<Item = Option<&'a [u8]>>,
) -> Result<Vec<(String, ArrayRef)>> {
    let mut columns: Vec<Vec<Option<Val>>> = vec![Vec::new(); join_keys.len()];
    for key in keys {
        let mut parts = match key {
            Some(key) => proto::decode_key(key)?.parts,
            None => Vec::new(),
        };
        for (join_key, column) in join_keys.iter().zip(&mut columns) {
            let at = parts.iter().position(|(name, _)| *name == join_key.name);
            column.push(at.map(|at| parts.swap_remove(at).1));
        }
    }
    for (join_key, values) in join_keys.iter().zip(&columns) {
        let bytes = values.iter().flatten().map(bytes_of).sum::<usize>();
        if bytes > MOST_BYTES {
            let error = too_large(values.len(), bytes);
            return Err(error.at(format_args!("join key '{}'", join_key.name)));
        }
    }
    let arrays = join_keys.iter().zip(columns).map(|(join_key, values)| {
        let kind = ValueKind::from_feast_type(&join_key.feast_type);
        (join_key.name.clone(), array(kind, None, values))
    });
    Ok(arrays.collect())
}

/// What a join key takes in an array of texts or bytes.
fn bytes_of(value: &Val) -> usize {
    match value {
        Val::String(text) => text.len(),
        Val::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// A feature from serialized `Value` messages. Vectors of a declared length are a fixed-size list;
/// maps, structs and what else has no native type stay serialized.
pub(super) fn feature(
    kind: ValueKind,
    vector_length: Option<u32>,
    messages: &BinaryArray,
) -> Result<ArrayRef> {
    if is_kept_serialized(kind) {
        let bytes = messages.iter().map(|message| message.filter(|bytes| !bytes.is_empty()));
        return Ok(Arc::new(bytes.collect::<BinaryArray>()));
    }
    let values = messages
        .iter()
        .map(|message| message.map_or(Ok(None), proto::decode_value))
        .collect::<Result<Vec<_>>>()?;
    Ok(array(kind, vector_length, values))
}

fn is_kept_serialized(kind: ValueKind) -> bool {
    matches!(
        kind,
        ValueKind::Null
            | ValueKind::Map
            | ValueKind::MapList
            | ValueKind::BytesList
            | ValueKind::BytesSet
            | ValueKind::Struct
            | ValueKind::StructList
            | ValueKind::ValueList
            | ValueKind::ValueSet
            | ValueKind::ScalarMap
            | ValueKind::ZonedTimestamp
            | ValueKind::Unknown
    )
}

/// The array of those values that are of the kind, or are it without loss.
fn array(kind: ValueKind, vector_length: Option<u32>, values: Vec<Option<Val>>) -> ArrayRef {
    use ValueKind as K;
    let values = values.into_iter().map(|value| value.map(|value| converted(kind, value)));
    macro_rules! scalars {
        ($array:ty, $($variant:ident)|+) => {
            values
                .map(|value| match value {
                    $(Some(Val::$variant(value)) => Some(value),)+
                    _ => None,
                })
                .collect::<$array>()
        };
    }
    macro_rules! lists {
        ($builder:expr, $($variant:ident)|+) => {{
            let mut builder = ListBuilder::new($builder);
            for value in values {
                match value {
                    $(Some(Val::$variant(list)) => {
                        for item in list.val {
                            builder.values().append_value(item);
                        }
                        builder.append(true);
                    })+
                    _ => builder.append(false),
                }
            }
            Arc::new(builder.finish())
        }};
    }
    match kind {
        K::Int32 => Arc::new(scalars!(Int32Array, Int32)),
        K::Int64 => Arc::new(scalars!(Int64Array, Int64)),
        K::Double => Arc::new(scalars!(Float64Array, Double)),
        K::Float => Arc::new(scalars!(Float32Array, Float)),
        K::Bool => Arc::new(scalars!(BooleanArray, Bool)),
        K::UnixTimestamp => {
            let seconds = values.map(|value| match value {
                Some(Val::UnixTimestamp(seconds)) => known_time(seconds),
                _ => None,
            });
            Arc::new(seconds.collect::<TimestampSecondArray>().with_timezone("UTC"))
        }
        K::Bytes => Arc::new(scalars!(BinaryArray, Bytes)),
        K::String | K::Json | K::Uuid | K::TimeUuid | K::Decimal => {
            Arc::new(scalars!(StringArray, String | Json | Uuid | TimeUuid | Decimal))
        }
        K::FloatList if let Some(length) = vector_length => {
            vectors(length as usize, values.collect())
        }
        K::FloatList | K::FloatSet => lists!(Float32Builder::new(), FloatList | FloatSet),
        K::DoubleList | K::DoubleSet => lists!(Float64Builder::new(), DoubleList | DoubleSet),
        K::Int32List | K::Int32Set => lists!(Int32Builder::new(), Int32List | Int32Set),
        K::Int64List | K::Int64Set => lists!(Int64Builder::new(), Int64List | Int64Set),
        K::BoolList | K::BoolSet => lists!(BooleanBuilder::new(), BoolList | BoolSet),
        K::UnixTimestampList | K::UnixTimestampSet => {
            let items = TimestampSecondBuilder::new().with_timezone("UTC");
            let mut builder = ListBuilder::new(items);
            for value in values {
                if let Some(Val::UnixTimestampList(list) | Val::UnixTimestampSet(list)) = value {
                    for seconds in list.val {
                        builder.values().append_option(known_time(seconds));
                    }
                    builder.append(true);
                } else {
                    builder.append(false);
                }
            }
            Arc::new(builder.finish())
        }
        _ => lists!(
            StringBuilder::new(),
            StringList
                | StringSet
                | JsonList
                | UuidList
                | UuidSet
                | TimeUuidList
                | TimeUuidSet
                | DecimalList
                | DecimalSet
        ),
    }
}

/// A time, if it is not what Feast writes for a null one.
fn known_time(seconds: i64) -> Option<i64> {
    (seconds != NULL_TIMESTAMP).then_some(seconds)
}

/// Vectors of one length; as lists of any length, should one have been written with another.
fn vectors(length: usize, values: Vec<Option<Val>>) -> ArrayRef {
    let fits = |value: &Option<Val>| match value {
        Some(Val::FloatList(list)) => list.val.len() == length,
        _ => true,
    };
    if length == 0 || !values.iter().all(fits) {
        return array(ValueKind::FloatList, None, values);
    }
    let mut builder = FixedSizeListBuilder::new(Float32Builder::new(), length as i32);
    for value in values {
        if let Some(Val::FloatList(list)) = value {
            builder.values().append_slice(&list.val);
            builder.append(true);
        } else {
            builder.values().append_nulls(length);
            builder.append(false);
        }
    }
    Arc::new(builder.finish())
}

/// The value as one of the kind, if nothing is lost by it; otherwise as it is.
#[allow(clippy::float_cmp, reason = "asks whether a conversion was exact")]
fn converted(kind: ValueKind, value: Val) -> Val {
    let as_whole = |value: &Val| match value {
        Val::Int32(number) => Some(i64::from(*number)),
        Val::Int64(number) => Some(*number),
        _ => None,
    };
    match (kind, &value) {
        (ValueKind::Int64, Val::Int32(number)) => Val::Int64((*number).into()),
        (ValueKind::Int32, Val::Int64(number)) => i32::try_from(*number).map_or(value, Val::Int32),
        (ValueKind::Double, Val::Float(number)) => Val::Double((*number).into()),
        (ValueKind::Float, Val::Double(number)) if f64::from(*number as f32) == *number => {
            Val::Float(*number as f32)
        }
        (ValueKind::Double, Val::Int32(_) | Val::Int64(_)) => match as_whole(&value) {
            Some(number) if (number as f64) as i64 == number => Val::Double(number as f64),
            _ => value,
        },
        (ValueKind::String, Val::Int32(_) | Val::Int64(_)) => {
            as_whole(&value).map_or(value, |number| Val::String(number.to_string()))
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Float32Type, Int64Type};

    use super::*;
    use crate::proto::FloatSeq;

    #[test]
    fn values_of_other_kinds_are_converted_where_nothing_is_lost() {
        let values =
            vec![Some(Val::Int64(1)), Some(Val::Int32(2)), Some(Val::String("3".into())), None];
        let array = array(ValueKind::Int64, None, values);
        let array = array.as_primitive::<Int64Type>();
        assert_eq!(array.iter().collect::<Vec<_>>(), [Some(1), Some(2), None, None]);
        assert_eq!(converted(ValueKind::Float, Val::Double(0.1)), Val::Double(0.1));
        assert_eq!(converted(ValueKind::Float, Val::Double(0.5)), Val::Float(0.5));
        assert_eq!(converted(ValueKind::Int32, Val::Int64(1 << 40)), Val::Int64(1 << 40));
    }

    #[test]
    fn vectors_of_a_declared_length_are_fixed_size_lists() {
        let vector = |val: &[f32]| Some(Val::FloatList(FloatSeq { val: val.to_vec() }));
        let fixed = array(ValueKind::FloatList, Some(2), vec![vector(&[1.0, 2.0]), None]);
        assert!(matches!(fixed.data_type(), DataType::FixedSizeList(_, 2)));
        let first = fixed.as_fixed_size_list().value(0);
        assert_eq!(first.as_primitive::<Float32Type>().values(), &[1.0, 2.0]);
        assert!(fixed.is_null(1));
        let odd = array(ValueKind::FloatList, Some(2), vec![vector(&[1.0])]);
        assert!(matches!(odd.data_type(), DataType::List(_)));
    }
}
