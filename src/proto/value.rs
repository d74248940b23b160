//! `feast.types.Value` as prost messages.
//!
//! Members that are stored as their own wire bytes (maps, structs, nested values, byte lists) are
//! declared as `bytes`: on the wire a message field is one, and it need not be parsed.

use prost::Message;

use crate::error::{Error, ErrorKind, Result};
use crate::schema::ValueKind;

macro_rules! sequences {
    ($($(#[$doc:meta])* $name:ident, $item:ty, $kind:ident;)*) => {
        $($(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $name {
            /// The elements, in the order in which they were written.
            #[prost($kind, repeated, tag = "1")]
            pub val: Vec<$item>,
        })*
    };
}

sequences! {
    /// `StringList` and `StringSet`.
    StringSeq, String, string;
    /// `Int32List` and `Int32Set`.
    Int32Seq, i32, int32;
    /// `Int64List` and `Int64Set`.
    Int64Seq, i64, int64;
    /// `DoubleList` and `DoubleSet`.
    DoubleSeq, f64, double;
    /// `FloatList` and `FloatSet`.
    FloatSeq, f32, float;
    /// `BoolList` and `BoolSet`.
    BoolSeq, bool, bool;
}

/// `feast.types.Value`.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// The member that is set; none is a null.
    #[prost(
        oneof = "Val",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, \
                25, 26, 27, 28, 29, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, \
                47, 48"
    )]
    pub val: Option<Val>,
}

/// The oneof of [`Value`]; the variants are named as [`ValueKind`]'s.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs, reason = "each variant is the ValueKind of its name")]
pub enum Val {
    #[prost(bytes = "vec", tag = "1")]
    Bytes(Vec<u8>),
    #[prost(string, tag = "2")]
    String(String),
    #[prost(int32, tag = "3")]
    Int32(i32),
    #[prost(int64, tag = "4")]
    Int64(i64),
    #[prost(double, tag = "5")]
    Double(f64),
    #[prost(float, tag = "6")]
    Float(f32),
    #[prost(bool, tag = "7")]
    Bool(bool),
    #[prost(int64, tag = "8")]
    UnixTimestamp(i64),
    #[prost(bytes = "vec", tag = "11")]
    BytesList(Vec<u8>),
    #[prost(message, tag = "12")]
    StringList(StringSeq),
    #[prost(message, tag = "13")]
    Int32List(Int32Seq),
    #[prost(message, tag = "14")]
    Int64List(Int64Seq),
    #[prost(message, tag = "15")]
    DoubleList(DoubleSeq),
    #[prost(message, tag = "16")]
    FloatList(FloatSeq),
    #[prost(message, tag = "17")]
    BoolList(BoolSeq),
    #[prost(message, tag = "18")]
    UnixTimestampList(Int64Seq),
    #[prost(int32, tag = "19")]
    Null(i32),
    #[prost(bytes = "vec", tag = "20")]
    Map(Vec<u8>),
    #[prost(bytes = "vec", tag = "21")]
    MapList(Vec<u8>),
    #[prost(bytes = "vec", tag = "22")]
    BytesSet(Vec<u8>),
    #[prost(message, tag = "23")]
    StringSet(StringSeq),
    #[prost(message, tag = "24")]
    Int32Set(Int32Seq),
    #[prost(message, tag = "25")]
    Int64Set(Int64Seq),
    #[prost(message, tag = "26")]
    DoubleSet(DoubleSeq),
    #[prost(message, tag = "27")]
    FloatSet(FloatSeq),
    #[prost(message, tag = "28")]
    BoolSet(BoolSeq),
    #[prost(message, tag = "29")]
    UnixTimestampSet(Int64Seq),
    #[prost(string, tag = "32")]
    Json(String),
    #[prost(message, tag = "33")]
    JsonList(StringSeq),
    #[prost(bytes = "vec", tag = "34")]
    Struct(Vec<u8>),
    #[prost(bytes = "vec", tag = "35")]
    StructList(Vec<u8>),
    #[prost(string, tag = "36")]
    Uuid(String),
    #[prost(string, tag = "37")]
    TimeUuid(String),
    #[prost(message, tag = "38")]
    UuidList(StringSeq),
    #[prost(message, tag = "39")]
    TimeUuidList(StringSeq),
    #[prost(message, tag = "40")]
    UuidSet(StringSeq),
    #[prost(message, tag = "41")]
    TimeUuidSet(StringSeq),
    #[prost(bytes = "vec", tag = "42")]
    ValueList(Vec<u8>),
    #[prost(bytes = "vec", tag = "43")]
    ValueSet(Vec<u8>),
    #[prost(string, tag = "44")]
    Decimal(String),
    #[prost(message, tag = "45")]
    DecimalList(StringSeq),
    #[prost(message, tag = "46")]
    DecimalSet(StringSeq),
    #[prost(bytes = "vec", tag = "47")]
    ScalarMap(Vec<u8>),
    #[prost(bytes = "vec", tag = "48")]
    ZonedTimestamp(Vec<u8>),
}

/// A value that is a number: what most features are, without what other values need.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "each variant is the ValueKind of its name")]
pub enum Number {
    Int32(i32),
    Int64(i64),
    Double(f64),
    Float(f32),
    Bool(bool),
    UnixTimestamp(i64),
}

impl From<Number> for Val {
    fn from(number: Number) -> Self {
        match number {
            Number::Int32(number) => Self::Int32(number),
            Number::Int64(number) => Self::Int64(number),
            Number::Double(number) => Self::Double(number),
            Number::Float(number) => Self::Float(number),
            Number::Bool(truth) => Self::Bool(truth),
            Number::UnixTimestamp(number) => Self::UnixTimestamp(number),
        }
    }
}

impl Val {
    /// The kind of the value.
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::Bytes(_) => ValueKind::Bytes,
            Self::String(_) => ValueKind::String,
            Self::Int32(_) => ValueKind::Int32,
            Self::Int64(_) => ValueKind::Int64,
            Self::Double(_) => ValueKind::Double,
            Self::Float(_) => ValueKind::Float,
            Self::Bool(_) => ValueKind::Bool,
            Self::UnixTimestamp(_) => ValueKind::UnixTimestamp,
            Self::BytesList(_) => ValueKind::BytesList,
            Self::StringList(_) => ValueKind::StringList,
            Self::Int32List(_) => ValueKind::Int32List,
            Self::Int64List(_) => ValueKind::Int64List,
            Self::DoubleList(_) => ValueKind::DoubleList,
            Self::FloatList(_) => ValueKind::FloatList,
            Self::BoolList(_) => ValueKind::BoolList,
            Self::UnixTimestampList(_) => ValueKind::UnixTimestampList,
            Self::Null(_) => ValueKind::Null,
            Self::Map(_) => ValueKind::Map,
            Self::MapList(_) => ValueKind::MapList,
            Self::BytesSet(_) => ValueKind::BytesSet,
            Self::StringSet(_) => ValueKind::StringSet,
            Self::Int32Set(_) => ValueKind::Int32Set,
            Self::Int64Set(_) => ValueKind::Int64Set,
            Self::DoubleSet(_) => ValueKind::DoubleSet,
            Self::FloatSet(_) => ValueKind::FloatSet,
            Self::BoolSet(_) => ValueKind::BoolSet,
            Self::UnixTimestampSet(_) => ValueKind::UnixTimestampSet,
            Self::Json(_) => ValueKind::Json,
            Self::JsonList(_) => ValueKind::JsonList,
            Self::Struct(_) => ValueKind::Struct,
            Self::StructList(_) => ValueKind::StructList,
            Self::Uuid(_) => ValueKind::Uuid,
            Self::TimeUuid(_) => ValueKind::TimeUuid,
            Self::UuidList(_) => ValueKind::UuidList,
            Self::TimeUuidList(_) => ValueKind::TimeUuidList,
            Self::UuidSet(_) => ValueKind::UuidSet,
            Self::TimeUuidSet(_) => ValueKind::TimeUuidSet,
            Self::ValueList(_) => ValueKind::ValueList,
            Self::ValueSet(_) => ValueKind::ValueSet,
            Self::Decimal(_) => ValueKind::Decimal,
            Self::DecimalList(_) => ValueKind::DecimalList,
            Self::DecimalSet(_) => ValueKind::DecimalSet,
            Self::ScalarMap(_) => ValueKind::ScalarMap,
            Self::ZonedTimestamp(_) => ValueKind::ZonedTimestamp,
        }
    }
}

/// Parses a serialized `Value`. A kind that this version does not know parses as no value.
pub fn decode_value(wire: &[u8]) -> Result<Option<Val>> {
    // Numbers are most of what is written, and need no parser of messages: tag and bytes.
    match *wire {
        [0x29, a, b, c, d, e, f, g, h] => {
            return Ok(Some(Val::Double(f64::from_le_bytes([a, b, c, d, e, f, g, h]))));
        }
        [0x35, a, b, c, d] => return Ok(Some(Val::Float(f32::from_le_bytes([a, b, c, d])))),
        [0x20, ref varint @ ..] => {
            let mut rest = varint;
            if let Ok(number) = prost::encoding::decode_varint(&mut rest)
                && rest.is_empty()
            {
                return Ok(Some(Val::Int64(number.cast_signed())));
            }
        }
        _ => {}
    }
    Value::decode(wire).map(|value| value.val).map_err(|cause| {
        Error::new(ErrorKind::InvalidValue, format!("not a serialized Feast Value ({cause})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_is_its_kinds_number() {
        for &kind in ValueKind::ALL {
            // A field of any number with an empty payload of each wire type; one of them fits.
            let candidates = [(2, vec![0]), (0, vec![0]), (1, vec![0; 8]), (5, vec![0; 4])];
            let found = candidates.into_iter().find_map(|(wire_type, payload)| {
                let mut wire = Vec::new();
                prost::encoding::encode_varint(
                    u64::from(kind.number() << 3 | wire_type),
                    &mut wire,
                );
                wire.extend(payload);
                decode_value(&wire).ok().flatten()
            });
            assert_eq!(found.map(|val| val.kind()), Some(kind));
        }
    }

    #[test]
    fn numbers_are_what_prost_parses() {
        for number in [0.0, -0.0, 1.5, f64::MIN_POSITIVE, f64::INFINITY, f64::MAX] {
            for val in [Val::Double(number), Val::Float(number as f32)] {
                let wire = Value { val: Some(val.clone()) }.encode_to_vec();
                assert_eq!(decode_value(&wire).unwrap(), Some(val));
                assert_eq!(Value::decode(&*wire).unwrap().val, decode_value(&wire).unwrap());
                assert!(decode_value(&wire[..wire.len() - 1]).is_err());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn integers_are_what_prost_parses(
            number in proptest::num::i64::ANY,
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..12),
        ) {
            let wire = Value { val: Some(Val::Int64(number)) }.encode_to_vec();
            proptest::prop_assert_eq!(decode_value(&wire).unwrap(), Some(Val::Int64(number)));
            let odd = [&[0x20], &*rest].concat();
            let parsed = Value::decode(&*odd).ok().map(|value| value.val);
            proptest::prop_assert_eq!(decode_value(&odd).ok(), parsed);
        }
    }

    #[test]
    fn broken_bytes_are_an_error_not_a_panic() {
        let error = decode_value(&[0x12, 0xff]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
    }
}
