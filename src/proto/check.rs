//! What readers can make a value of: a UUID that is none, or a time past Python's last year, would
//! make every answer fail that has it.

use prost::encoding::{WireType, decode_key, decode_varint};

use super::value::{Number, Val, decode_value};
use crate::error::{Error, ErrorKind, Result};

/// The first second of year 1.
pub const FIRST_SECOND: i64 = -62_135_596_800;
/// The last second of year 9999.
pub const LAST_SECOND: i64 = 253_402_300_799;
/// What Feast writes for a timestamp that is null.
pub const NULL_TIMESTAMP: i64 = i64::MIN;

const DAY: i64 = 86_400;
const MICROS: i64 = 1_000_000;

/// Protobuf's readers follow messages 100 deep.
const MOST_NESTED: u32 = 96;

/// Digits of an exponent that Python's decimals can have.
const EXPONENT_DIGITS: usize = 18;

/// Units that numbers of seconds are mistaken for.
const FINER_THAN_SECONDS: [(i64, &str); 3] =
    [(1_000, "milliseconds"), (1_000_000, "microseconds"), (1_000_000_000, "nanoseconds")];

/// Whether a row's time is one that Python has: in the years 1 to 9999.
pub fn is_time(micros: i64) -> bool {
    is_second(micros.div_euclid(MICROS))
}

fn is_second(seconds: i64) -> bool {
    (FIRST_SECOND..=LAST_SECOND).contains(&seconds)
}

/// Refuses a row's time, in microseconds since 1970, that Python does not have.
pub fn check_time(what: &str, micros: i64) -> Result<()> {
    if is_time(micros) {
        return Ok(());
    }
    Err(out_of_range(what, micros, "microseconds", &[(1_000, "nanoseconds")]))
}

/// Refuses a number that is a time outside of the years 1 to 9999.
pub fn check_number(number: Number) -> Result<()> {
    match number {
        Number::UnixTimestamp(seconds) => check_seconds(seconds),
        _ => Ok(()),
    }
}

/// Refuses a value that Feast's reader cannot make a Python value of.
pub fn check_value(value: &Val) -> Result<()> {
    check_nested(value, 0)
}

/// Refuses a text that is no UUID.
pub fn check_uuid(text: &str) -> Result<()> {
    // As Python's `uuid.UUID` takes it, but for digits: `int` takes more than those.
    let bare = text.replace("urn:", "").replace("uuid:", "");
    let mut digits = bare.trim_matches(['{', '}']).bytes().filter(|byte| *byte != b'-');
    let mut count = 0;
    if digits.all(|digit| {
        count += 1;
        digit.is_ascii_hexdigit()
    }) && count == 32
    {
        return Ok(());
    }
    Err(invalid(format!("{} is not a UUID", shown(text))))
}

/// Refuses a text that is no decimal number.
pub fn check_decimal(text: &str) -> Result<()> {
    if is_decimal(text) {
        return Ok(());
    }
    Err(invalid(format!("{} is not a decimal number", shown(text))))
}

fn check_nested(value: &Val, depth: u32) -> Result<()> {
    match value {
        Val::UnixTimestamp(seconds) => check_seconds(*seconds),
        Val::UnixTimestampList(list) | Val::UnixTimestampSet(list) => {
            list.val.iter().try_for_each(|seconds| check_seconds(*seconds))
        }
        Val::Uuid(text) | Val::TimeUuid(text) => check_uuid(text),
        Val::UuidList(list)
        | Val::TimeUuidList(list)
        | Val::UuidSet(list)
        | Val::TimeUuidSet(list) => list.val.iter().try_for_each(|text| check_uuid(text)),
        Val::Decimal(text) => check_decimal(text),
        Val::DecimalList(list) | Val::DecimalSet(list) => {
            list.val.iter().try_for_each(|text| check_decimal(text))
        }
        Val::Map(map) | Val::Struct(map) => check_map(map, depth),
        Val::MapList(list) | Val::StructList(list) => each_field(list, |tag, map| match tag {
            1 => check_map(map, depth + 1),
            _ => Ok(()),
        }),
        Val::ValueList(list) | Val::ValueSet(list) => each_field(list, |tag, value| match tag {
            1 => check_message(value, depth + 1),
            _ => Ok(()),
        }),
        Val::ScalarMap(map) => each_field(map, |tag, entry| match tag {
            1 => each_field(entry, |tag, part| match tag {
                1 => check_map_key(part),
                2 => check_message(part, depth + 2),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }),
        Val::ZonedTimestamp(message) => check_zoned(message),
        _ => Ok(()),
    }
}

/// A message `Map {1: repeated {1: string key, 2: Value value}}`.
fn check_map(map: &[u8], depth: u32) -> Result<()> {
    each_field(map, |tag, entry| match tag {
        1 => each_field(entry, |tag, part| match tag {
            2 => check_message(part, depth + 2),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

fn check_message(message: &[u8], depth: u32) -> Result<()> {
    if depth > MOST_NESTED {
        return Err(invalid("values are nested too deeply for Feast to read them"));
    }
    match decode_value(message)? {
        Some(value) => check_nested(&value, depth + 1),
        None => Ok(()),
    }
}

/// A message `MapKey`: a oneof, of whose members these can be wrong.
fn check_map_key(mut message: &[u8]) -> Result<()> {
    while let Some((tag, field)) = next_field(&mut message)? {
        match (tag, field) {
            (6, Field::Varint(seconds)) => check_seconds(seconds.cast_signed())?,
            (8 | 9, Field::Bytes(text)) => check_uuid(utf8(text)?)?,
            (10, Field::Bytes(text)) => check_decimal(utf8(text)?)?,
            _ => {}
        }
    }
    Ok(())
}

/// A message `ZonedTimestamp {1: int64 unix_timestamp, 2: string zone}`.
fn check_zoned(mut message: &[u8]) -> Result<()> {
    while let Some((tag, field)) = next_field(&mut message)? {
        if let (1, Field::Varint(seconds)) = (tag, field) {
            let seconds = seconds.cast_signed();
            // In its own zone it may be another day.
            if seconds != NULL_TIMESTAMP
                && !(FIRST_SECOND + DAY..=LAST_SECOND - DAY).contains(&seconds)
            {
                return Err(out_of_range("the time", seconds, "seconds", &FINER_THAN_SECONDS));
            }
        }
    }
    Ok(())
}

fn check_seconds(seconds: i64) -> Result<()> {
    if seconds == NULL_TIMESTAMP || is_second(seconds) {
        return Ok(());
    }
    Err(out_of_range("the time", seconds, "seconds", &FINER_THAN_SECONDS))
}

/// `finer` are units that such a number may be in by mistake, and how many of them are one.
fn out_of_range(what: &str, ticks: i64, unit: &str, finer: &[(i64, &str)]) -> Error {
    let in_seconds = |ticks: i64| if unit == "seconds" { ticks } else { ticks / MICROS };
    let guess = finer
        .iter()
        .find(|(per_tick, _)| is_second(in_seconds(ticks / per_tick)))
        .map(|(_, name)| format!("; is it in {name}?"))
        .unwrap_or_default();
    invalid(format!("{what} {ticks} ({unit} since 1970) is outside of the years 1 to 9999{guess}"))
}

fn is_decimal(text: &str) -> bool {
    let bare: String = text.trim().chars().filter(|char| *char != '_').collect();
    let unsigned = bare.strip_prefix(['-', '+']).unwrap_or(&bare);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let lower = unsigned.to_ascii_lowercase();
    if matches!(&*lower, "inf" | "infinity") {
        return true;
    }
    if let Some(payload) = lower.strip_prefix("snan").or_else(|| lower.strip_prefix("nan")) {
        return digits(payload);
    }
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let significant = exponent.trim_start_matches('0').len();
    !(whole.is_empty() && fraction.is_empty())
        && digits(whole)
        && digits(fraction)
        && !exponent.is_empty()
        && digits(exponent)
        && significant <= EXPONENT_DIGITS
}

fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("'{}'", short.escape_debug())
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| invalid("a text that is not UTF-8"))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidValue, message)
}

/// A field of a message.
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The next field of a message, and its tag.
fn next_field<'a>(message: &mut &'a [u8]) -> Result<Option<(u32, Field<'a>)>> {
    let broken = |_| invalid("not a serialized Feast Value");
    if message.is_empty() {
        return Ok(None);
    }
    let (tag, wire_type) = decode_key(message).map_err(broken)?;
    let field = match wire_type {
        WireType::Varint => Field::Varint(decode_varint(message).map_err(broken)?),
        WireType::LengthDelimited => {
            let length = decode_varint(message).map_err(broken)?;
            Field::Bytes(take(message, length)?)
        }
        WireType::SixtyFourBit => take(message, 8).map(|_| Field::Other)?,
        WireType::ThirtyTwoBit => take(message, 4).map(|_| Field::Other)?,
        WireType::StartGroup | WireType::EndGroup => {
            return Err(invalid("not a serialized Feast Value"));
        }
    };
    Ok(Some((tag, field)))
}

fn take<'a>(message: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let parts = usize::try_from(length).ok().and_then(|length| message.split_at_checked(length));
    let Some((taken, rest)) = parts else {
        return Err(invalid("a serialized Feast Value that is cut short"));
    };
    *message = rest;
    Ok(taken)
}

/// Calls `check` with the tag and the bytes of each field that has bytes.
fn each_field(mut message: &[u8], check: impl Fn(u32, &[u8]) -> Result<()>) -> Result<()> {
    while let Some((tag, field)) = next_field(&mut message)? {
        if let Field::Bytes(bytes) = field {
            check(tag, bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::wire;
    use crate::schema::ValueKind;

    #[test]
    fn decimals_are_those_of_python() {
        for text in [
            "1",
            " -1.50\n",
            "+.5",
            "5.",
            "1_0e1_0",
            "1E+999999999999999999",
            "NaN12",
            "-sNaN",
            "inf",
            "+Infinity",
            "0e007",
        ] {
            assert!(check_decimal(text).is_ok(), "{text}");
        }
        for text in
            ["", "x", ".", "1e", "e5", "1,5", "1e9999999999999999999", "--1", "0x10", "nanx"]
        {
            assert!(check_decimal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uuids_are_those_of_python() {
        let plain = "12345678-1234-5678-1234-567812345678";
        for text in [
            plain.to_owned(),
            plain.replace('-', ""),
            format!("{{{plain}}}"),
            format!("urn:uuid:{plain}"),
            plain.to_uppercase(),
        ] {
            assert!(check_uuid(&text).is_ok(), "{text}");
        }
        for text in ["", "x", &plain[1..], &format!("{plain}0"), &plain.replace('1', "g")] {
            assert!(check_uuid(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_those_of_python() {
        for seconds in [FIRST_SECOND, 0, LAST_SECOND, NULL_TIMESTAMP] {
            assert!(check_value(&Val::UnixTimestamp(seconds)).is_ok());
        }
        for seconds in [FIRST_SECOND - 1, LAST_SECOND + 1, i64::MAX, NULL_TIMESTAMP + 1] {
            assert!(check_number(Number::UnixTimestamp(seconds)).is_err());
        }
        assert!(is_time(LAST_SECOND * MICROS + MICROS - 1) && !is_time(NULL_TIMESTAMP));
        let error = check_value(&Val::UnixTimestamp(1_700_000_000_000)).unwrap_err();
        assert!(error.message().contains("milliseconds?"), "{error}");
    }

    /// A map of one key to a value, as the wire has it.
    fn map_of(value: &[u8]) -> Vec<u8> {
        let (mut entry, mut map) = (Vec::new(), Vec::new());
        wire::field(1, b"key", &mut entry);
        wire::field(2, value, &mut entry);
        wire::field(1, &entry, &mut map);
        map
    }

    #[test]
    fn values_within_values_are_checked() {
        let (mut bad, mut good) = (Vec::new(), Vec::new());
        wire::bytes(ValueKind::Uuid, b"x", &mut bad);
        wire::varint(ValueKind::UnixTimestamp, 5, &mut good);
        assert!(check_value(&Val::Map(map_of(&good))).is_ok());
        assert!(check_value(&Val::Struct(map_of(&bad))).is_err());
        let mut list = Vec::new();
        wire::field(1, &map_of(&bad), &mut list);
        assert!(check_value(&Val::MapList(list)).is_err());
        let mut values = Vec::new();
        wire::field(1, &bad, &mut values);
        assert!(check_value(&Val::ValueList(values)).is_err());
        for cut in 1..4 {
            assert!(check_value(&Val::Map(map_of(&good)[..cut].to_vec())).is_err());
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_ends() {
        let mut value = Vec::new();
        wire::varint(ValueKind::Int64, 1, &mut value);
        for _ in 0..200 {
            let mut outer = Vec::new();
            wire::bytes(ValueKind::Map, &map_of(&value), &mut outer);
            value = outer;
        }
        let value = decode_value(&value).unwrap().unwrap();
        assert!(check_value(&value).unwrap_err().message().contains("nested"));
    }
}
