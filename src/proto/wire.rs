//! Writing `Value` messages straight from column cells, without building them first.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::schema::ValueKind;

/// A varint member: integers, booleans and timestamps.
pub fn varint(kind: ValueKind, value: i64, out: &mut Vec<u8>) {
    encode_key(kind.number(), WireType::Varint, out);
    encode_varint(value.cast_unsigned(), out);
}

/// A `double_val`.
pub fn double(value: f64, out: &mut Vec<u8>) {
    encode_key(ValueKind::Double.number(), WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A `float_val`.
pub fn float(value: f32, out: &mut Vec<u8>) {
    encode_key(ValueKind::Float.number(), WireType::ThirtyTwoBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A string or bytes member, or a message member whose bytes are at hand.
pub fn bytes(kind: ValueKind, value: &[u8], out: &mut Vec<u8>) {
    field(kind.number(), value, out);
}

/// A list of fixed-width elements whose little-endian bytes are the packed field's own.
pub fn packed(kind: ValueKind, elements: &[u8], out: &mut Vec<u8>) {
    encode_key(kind.number(), WireType::LengthDelimited, out);
    if elements.is_empty() {
        out.push(0);
        return;
    }
    let length = elements.len() as u64;
    encode_varint(1 + encoded_len_varint(length) as u64 + length, out);
    field(1, elements, out);
}

/// A list of varint elements.
pub fn packed_varints(kind: ValueKind, elements: impl Iterator<Item = i64>, out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    for element in elements {
        encode_varint(element.cast_unsigned(), &mut payload);
    }
    packed(kind, &payload, out);
}

/// A string, bytes or message field of any message.
pub fn field(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::{FloatSeq, Int64Seq, Val, Value};
    use super::*;

    fn twin(val: Val) -> Vec<u8> {
        Value { val: Some(val) }.encode_to_vec()
    }

    #[test]
    fn agrees_with_prost() {
        for value in [0, 1, -1, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            varint(ValueKind::Int64, value, &mut out);
            assert_eq!(out, twin(Val::Int64(value)));
        }
        for length in [0, 1, 31, 32, 384, 5000] {
            let floats: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let raw: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
            let mut out = Vec::new();
            packed(ValueKind::FloatList, &raw, &mut out);
            assert_eq!(out, twin(Val::FloatList(FloatSeq { val: floats })));

            let ints: Vec<i64> = (0..i64::from(length)).map(|i| i * -77).collect();
            let mut out = Vec::new();
            packed_varints(ValueKind::Int64List, ints.iter().copied(), &mut out);
            assert_eq!(out, twin(Val::Int64List(Int64Seq { val: ints })));
        }
        let (mut d, mut f, mut s) = (Vec::new(), Vec::new(), Vec::new());
        double(-0.0, &mut d);
        float(f32::INFINITY, &mut f);
        bytes(ValueKind::String, "é\0".as_bytes(), &mut s);
        assert_eq!(d, twin(Val::Double(-0.0)));
        assert_eq!(f, twin(Val::Float(f32::INFINITY)));
        assert_eq!(s, twin(Val::String("é\0".into())));
    }
}
