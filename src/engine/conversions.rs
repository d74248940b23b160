//! Arrow values of any type in the one type that values of a kind are written from, exactly.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, LargeListArray,
    LargeStringArray, new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float64Type, Int64Type, TimeUnit, UInt64Type,
};
use arrow::error::ArrowError;

use crate::error::{Error, ErrorKind, Result};
use crate::proto::Number;
use crate::proto::check::{check_decimal, check_number, check_uuid};
use crate::schema::ValueKind;

const SECONDS_PER_DAY: i64 = 86_400;

/// The values in the one Arrow type that the kind is written from; `None` for Feast to judge.
pub(super) fn values(kind: ValueKind, array: &ArrayRef) -> Result<Option<ArrayRef>> {
    Ok(Some(match kind {
        ValueKind::Int32 => cast(&integers(array)?, &DataType::Int32)?,
        ValueKind::Int64 => integers(array)?,
        ValueKind::Float => float32s(array)?,
        ValueKind::Double => float64s(array)?,
        ValueKind::Bool => booleans(array)?,
        ValueKind::UnixTimestamp => seconds(array)?,
        ValueKind::String if array.data_type().is_integer() => cast(array, &DataType::LargeUtf8)?,
        ValueKind::String => {
            texts(array)?.ok_or_else(|| unsupported("strings, UTF-8 bytes and integers"))?
        }
        ValueKind::Uuid | ValueKind::TimeUuid => uuids(array)?,
        ValueKind::Decimal => decimals(array)?,
        ValueKind::Json => {
            let from = array.data_type();
            let Some(texts) = texts(array)? else {
                let is_json = from.is_nested() || from.is_integer() || from.is_floating();
                if is_json || *from == DataType::Boolean {
                    return Ok(None);
                }
                return Err(unsupported("strings of JSON, structs, maps, lists and numbers"));
            };
            let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
            if !texts.as_string::<i64>().iter().flatten().all(is_json) {
                // Python's parser takes some that others do not.
                return Ok(None);
            }
            texts
        }
        ValueKind::Bytes => match array.data_type() {
            from if is_binary(from) => cast(array, &DataType::LargeBinary)?,
            _ => return Err(unsupported("binary values")),
        },
        _ => return Ok(None),
    }))
}

/// Integers, and other numbers that are whole.
fn integers(array: &ArrayRef) -> Result<ArrayRef> {
    let from = array.data_type();
    if from.is_integer() {
        return cast(array, &DataType::Int64);
    }
    if from.is_floating() {
        let numbers = cast(array, &DataType::Float64)?;
        let whole = numbers.as_primitive::<Float64Type>().iter().map(|number| {
            let Some(number) = number else { return Ok(None) };
            // 2^63 and above do not fit; -2^63 does.
            let fits = number >= i64::MIN as f64 && number < -(i64::MIN as f64);
            match (number.fract() == 0.0, fits) {
                (true, true) => Ok(Some(number as i64)),
                (true, false) => Err(invalid(format!("{number:?} is out of range"))),
                (false, _) => Err(invalid(format!("{number:?} is not a whole number"))),
            }
        });
        return Ok(Arc::new(whole.collect::<Result<Int64Array>>()?));
    }
    let Some(texts) = decimal_texts(array) else {
        return Err(unsupported("integers, and floating-point and decimal numbers that are whole"));
    };
    let whole = texts.into_iter().map(|text| {
        let Some(text) = text else { return Ok(None) };
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        if fraction.bytes().any(|digit| digit != b'0') {
            return Err(invalid(format!("{text} is not a whole number")));
        }
        whole.parse().map(Some).map_err(|_| invalid(format!("{text} is out of range")))
    });
    Ok(Arc::new(whole.collect::<Result<Int64Array>>()?))
}

fn float32s(array: &ArrayRef) -> Result<ArrayRef> {
    let from = array.data_type();
    let too_large = |number: &dyn std::fmt::Debug| {
        invalid(format!("{number:?} is too large for a 32-bit floating-point number"))
    };
    let numbers: Result<Float32Array> = match from {
        DataType::Float16 | DataType::Float32 => return cast(array, &DataType::Float32),
        DataType::Float64 => {
            let narrow = |number: f64| match number as f32 {
                narrow if narrow.is_infinite() && number.is_finite() => Err(too_large(&number)),
                narrow => Ok(narrow),
            };
            array.as_primitive::<Float64Type>().iter().map(|n| n.map(narrow).transpose()).collect()
        }
        from if from.is_integer() => wide_integers(array)?
            .into_iter()
            .map(|number| {
                number
                    .map(|number| match number as f32 {
                        float if float as i128 == number => Ok(float),
                        _ => Err(inexact(number, 32)),
                    })
                    .transpose()
            })
            .collect(),
        _ => {
            let Some(texts) = decimal_texts(array) else {
                return Err(unsupported("numbers"));
            };
            let parse = |text: String| match text.parse::<f32>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err(too_large(&text)),
            };
            texts.into_iter().map(|text| text.map(parse).transpose()).collect()
        }
    };
    Ok(Arc::new(numbers?))
}

fn float64s(array: &ArrayRef) -> Result<ArrayRef> {
    let from = array.data_type();
    if from.is_floating() {
        return cast(array, &DataType::Float64);
    }
    let numbers: Result<Float64Array> = if from.is_integer() {
        let exact = |number: i128| match number as f64 {
            float if float as i128 == number => Ok(float),
            _ => Err(inexact(number, 64)),
        };
        let numbers = wide_integers(array)?;
        numbers.into_iter().map(|number| number.map(exact).transpose()).collect()
    } else {
        let Some(texts) = decimal_texts(array) else {
            return Err(unsupported("numbers"));
        };
        let parse =
            |text: String| text.parse().map_err(|_| invalid(format!("{text} is not a number")));
        texts.into_iter().map(|text| text.map(parse).transpose()).collect()
    };
    Ok(Arc::new(numbers?))
}

fn inexact(number: i128, bits: u32) -> Error {
    invalid(format!("{number} is not exact as a {bits}-bit floating-point number"))
}

fn wide_integers(array: &ArrayRef) -> Result<Vec<Option<i128>>> {
    if let Some(array) = array.as_primitive_opt::<UInt64Type>() {
        return Ok(array.iter().map(|number| number.map(i128::from)).collect());
    }
    let array = cast(array, &DataType::Int64)?;
    Ok(array.as_primitive::<Int64Type>().iter().map(|number| number.map(i128::from)).collect())
}

fn booleans(array: &ArrayRef) -> Result<ArrayRef> {
    if *array.data_type() == DataType::Boolean {
        return Ok(Arc::clone(array));
    }
    if !array.data_type().is_integer() {
        return Err(unsupported("booleans, and the integers 0 and 1"));
    }
    let truth = |number: i128| match number {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(invalid(format!("{number} is not a boolean"))),
    };
    let numbers = wide_integers(array)?.into_iter();
    let truths = numbers.map(|number| number.map(truth).transpose());
    Ok(Arc::new(truths.collect::<Result<BooleanArray>>()?))
}

/// Times as seconds since 1970; what is finer is cut off, as Feast does.
fn seconds(array: &ArrayRef) -> Result<ArrayRef> {
    let seconds: Int64Array = match array.data_type() {
        DataType::Timestamp(unit, _) => {
            let per_second = ticks_per_second(*unit);
            let ticks = cast(array, &DataType::Int64)?;
            ticks.as_primitive::<Int64Type>().unary(|tick| tick.div_euclid(per_second))
        }
        DataType::Date32 => {
            array.as_primitive::<Date32Type>().unary(|days| i64::from(days) * SECONDS_PER_DAY)
        }
        DataType::Date64 => array.as_primitive::<Date64Type>().unary(|ms| ms.div_euclid(1000)),
        from if from.is_integer() || from.is_floating() => {
            integers(array)?.as_primitive::<Int64Type>().clone()
        }
        _ => return Err(unsupported("timestamps, dates and integers (seconds since 1970)")),
    };
    for seconds in seconds.iter().flatten() {
        check_number(Number::UnixTimestamp(seconds))?;
    }
    Ok(Arc::new(seconds))
}

fn ticks_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Strings, and bytes that are UTF-8, as files written by Impala, Hive or Spark have them; `None`
/// for other types.
fn texts(array: &ArrayRef) -> Result<Option<ArrayRef>> {
    if is_text(array.data_type()) {
        return cast(array, &DataType::LargeUtf8).map(Some);
    }
    if !is_binary(array.data_type()) {
        return Ok(None);
    }
    let bytes = cast(array, &DataType::LargeBinary)?;
    let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| invalid("bytes that are not UTF-8"));
    let texts = bytes.as_binary::<i64>().iter().map(|bytes| bytes.map(utf8).transpose());
    Ok(Some(Arc::new(texts.collect::<Result<LargeStringArray>>()?)))
}

/// UUIDs as texts, or as their 16 bytes.
fn uuids(array: &ArrayRef) -> Result<ArrayRef> {
    if is_text(array.data_type()) {
        let texts = cast(array, &DataType::LargeUtf8)?;
        texts.as_string::<i64>().iter().flatten().try_for_each(check_uuid)?;
        return Ok(texts);
    }
    if !is_binary(array.data_type()) {
        return Err(unsupported("strings and 16 bytes"));
    }
    let bytes = cast(array, &DataType::LargeBinary)?;
    let text = |bytes: &[u8]| {
        if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
            let hex = format!("{:032x}", u128::from_be_bytes(bytes));
            let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
            return Ok(parts.join("-"));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| invalid("bytes that are neither UTF-8 nor 16 bytes"))?;
        check_uuid(text).map(|()| text.to_owned())
    };
    let texts = bytes.as_binary::<i64>().iter().map(|bytes| bytes.map(text).transpose());
    Ok(Arc::new(texts.collect::<Result<LargeStringArray>>()?))
}

fn decimals(array: &ArrayRef) -> Result<ArrayRef> {
    if array.data_type().is_integer() {
        return cast(array, &DataType::LargeUtf8);
    }
    if let Some(texts) = decimal_texts(array) {
        return Ok(Arc::new(texts.into_iter().collect::<LargeStringArray>()));
    }
    let texts =
        texts(array)?.ok_or_else(|| unsupported("decimal numbers, integers and strings"))?;
    texts.as_string::<i64>().iter().flatten().try_for_each(check_decimal)?;
    Ok(texts)
}

/// Arrow's decimal numbers, written out; `None` for other types.
fn decimal_texts(array: &ArrayRef) -> Option<Vec<Option<String>>> {
    fn written<D: DecimalType>(array: &ArrayRef) -> Option<Vec<Option<String>>> {
        let array = array.as_primitive_opt::<D>()?;
        let text = |at| array.is_valid(at).then(|| array.value_as_string(at));
        Some((0..array.len()).map(text).collect())
    }
    written::<Decimal128Type>(array)
        .or_else(|| written::<Decimal256Type>(array))
        .or_else(|| written::<Decimal64Type>(array))
        .or_else(|| written::<Decimal32Type>(array))
}

fn is_text(from: &DataType) -> bool {
    matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(from: &DataType) -> bool {
    from.is_binary() || matches!(from, DataType::BinaryView | DataType::FixedSizeBinary(_))
}

pub(super) fn cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    if array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    if let (DataType::FixedSizeList(_, 0), DataType::LargeList(item)) = (array.data_type(), target)
    {
        // There are no values to count them by, which is how Arrow counts the lists.
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(0, array.len()));
        let values = new_empty_array(item.data_type());
        let lists =
            LargeListArray::try_new(Arc::clone(item), offsets, values, array.nulls().cloned());
        return Ok(Arc::new(lists.map_err(|cause| arrow_error(&cause))?));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let taken = cast_with_options(array, target, &options).map_err(|cause| arrow_error(&cause))?;
    if taken.len() != array.len() {
        let message = format!(
            "{} cannot be converted to {target}, {} values became {}; cast the column first",
            array.data_type(),
            array.len(),
            taken.len()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(taken)
}

pub(super) fn arrow_error(cause: &ArrowError) -> Error {
    invalid(cause.to_string())
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidValue, message)
}

/// That no value of the array's type will do, whichever it is.
pub(super) fn unsupported(taken: &str) -> Error {
    let message = format!("such a feature takes {taken}; cast the column first");
    Error::new(ErrorKind::InvalidArgument, message)
}
