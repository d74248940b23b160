//! Entity keys: Feast's `EntityKey` message and its serialization version 3.
//!
//! The twin of `feast.infra.key_encoding_utils.serialize_entity_key`; the Python tests compare
//! the two. Version 3, all integers little-endian u32: the number of join keys; for each, in the
//! order of their names, the type STRING (2), the length and the name; then for each value its
//! type, length and bytes.

use prost::Message;

use super::{Val, Value, decode_value};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::ValueKind;

#[derive(Clone, PartialEq, Message)]
struct EntityKey {
    #[prost(string, repeated, tag = "1")]
    join_keys: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    entity_values: Vec<Value>,
}

/// `feast.types.RepeatedValue`.
#[derive(Clone, PartialEq, Message)]
struct RepeatedValue {
    #[prost(message, repeated, tag = "1")]
    val: Vec<Value>,
}

/// A parsed key: join keys with their values, in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedKey {
    /// Join keys and values.
    pub parts: Vec<(String, Val)>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidKey, message)
}

/// Turns a serialized `EntityKey` message into the bytes of serialization version 3.
pub fn encode_key(message: &[u8]) -> Result<Vec<u8>> {
    DecodedKey::from_message(message)?.encode()
}

/// The keys of rows whose join keys are given by column: a name, and a serialized `RepeatedValue`
/// of as many values as there are rows.
pub fn encode_key_columns(columns: &[(&str, &[u8])]) -> Result<Vec<Vec<u8>>> {
    let mut columns = columns
        .iter()
        .map(|(name, message)| {
            let values = RepeatedValue::decode(*message)
                .map_err(|cause| invalid(format!("join key '{name}': broken values ({cause})")))?;
            Ok((*name, values.val))
        })
        .collect::<Result<Vec<_>>>()?;
    columns.sort_by_key(|(name, _)| *name);
    let rows = columns.iter().map(|(_, values)| values.len()).min().unwrap_or(0);
    let mut names = Vec::new();
    put_names(columns.iter().map(|(name, _)| *name), &mut names);
    (0..rows)
        .map(|row| {
            let mut out = Vec::with_capacity(names.len() + 16 * columns.len());
            out.extend_from_slice(&names);
            for (name, values) in &columns {
                put_value(name, values[row].val.as_ref(), &mut out)?;
            }
            Ok(out)
        })
        .collect()
}

fn put_names<'a>(names: impl ExactSizeIterator<Item = &'a str>, out: &mut Vec<u8>) {
    put_u32(names.len(), out);
    for name in names {
        put_u32(ValueKind::String.number() as usize, out);
        put_u32(name.len(), out);
        out.extend_from_slice(name.as_bytes());
    }
}

fn put_u32(value: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(value as u32).to_le_bytes());
}

fn put_value(name: &str, value: Option<&Val>, out: &mut Vec<u8>) -> Result<()> {
    let mut put = |kind: ValueKind, bytes: &[u8]| {
        put_u32(kind.number() as usize, out);
        put_u32(bytes.len(), out);
        out.extend_from_slice(bytes);
    };
    match value {
        Some(Val::String(text)) => put(ValueKind::String, text.as_bytes()),
        Some(Val::Bytes(bytes)) => put(ValueKind::Bytes, bytes),
        Some(Val::Int32(number)) => put(ValueKind::Int32, &number.to_le_bytes()),
        Some(Val::Int64(number)) => put(ValueKind::Int64, &number.to_le_bytes()),
        Some(Val::UnixTimestamp(number)) => put(ValueKind::UnixTimestamp, &number.to_le_bytes()),
        other => return Err(not_a_key(name, other)),
    }
    Ok(())
}

fn not_a_key(name: &str, value: Option<&Val>) -> Error {
    let what = value.map_or("null", |val| val.kind().name());
    invalid(format!(
        "join key '{name}' has a value of type {what}; entity keys can be STRING, BYTES, INT32, \
         INT64 or UNIX_TIMESTAMP"
    ))
}

/// Parses the bytes of serialization version 3.
pub fn decode_key(key: &[u8]) -> Result<DecodedKey> {
    let mut rest = key;
    let count = take_u32(&mut rest)?;
    let mut names = Vec::new();
    for _ in 0..count {
        let (kind, bytes) = take_part(&mut rest)?;
        if kind != ValueKind::String.number() {
            return Err(invalid(format!("an entity key's join key has the type code {kind}")));
        }
        names.push(text(bytes)?);
    }
    let mut parts = Vec::with_capacity(names.len());
    for name in names {
        let (kind, bytes) = take_part(&mut rest)?;
        parts.push((name, value(kind, bytes)?));
    }
    if rest.is_empty() {
        Ok(DecodedKey { parts })
    } else {
        Err(invalid(format!("an entity key is followed by {} bytes too many", rest.len())))
    }
}

fn take_u32(rest: &mut &[u8]) -> Result<u32> {
    let (head, tail) =
        rest.split_first_chunk().ok_or_else(|| invalid("an entity key is cut short"))?;
    *rest = tail;
    Ok(u32::from_le_bytes(*head))
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8])> {
    let kind = take_u32(rest)?;
    let length = take_u32(rest)? as usize;
    let (head, tail) =
        rest.split_at_checked(length).ok_or_else(|| invalid("an entity key is cut short"))?;
    *rest = tail;
    Ok((kind, head))
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| invalid("an entity key holds broken UTF-8"))
}

fn value(kind: u32, bytes: &[u8]) -> Result<Val> {
    let width = |_| invalid(format!("an entity key's number has {} bytes", bytes.len()));
    let as_i64 = || bytes.try_into().map(i64::from_le_bytes).map_err(width);
    Ok(match kind {
        1 => Val::Bytes(bytes.to_vec()),
        2 => Val::String(text(bytes)?),
        3 => Val::Int32(bytes.try_into().map(i32::from_le_bytes).map_err(width)?),
        4 => Val::Int64(as_i64()?),
        8 => Val::UnixTimestamp(as_i64()?),
        _ => {
            return Err(invalid(format!("an entity key's value has the type code {kind}")));
        }
    })
}

impl DecodedKey {
    /// Parses a serialized `EntityKey` message.
    pub fn from_message(message: &[u8]) -> Result<Self> {
        Self::from_plain_message(message).map_or_else(|| Self::from_any_message(message), Ok)
    }

    fn from_any_message(message: &[u8]) -> Result<Self> {
        let key = EntityKey::decode(message)
            .map_err(|cause| invalid(format!("not a serialized Feast EntityKey ({cause})")))?;
        if key.join_keys.len() != key.entity_values.len() {
            return Err(invalid(format!(
                "an entity key has {} join keys but {} values",
                key.join_keys.len(),
                key.entity_values.len()
            )));
        }
        let mut parts = Vec::with_capacity(key.join_keys.len());
        for (name, value) in key.join_keys.into_iter().zip(key.entity_values) {
            let Some(val) = value.val else { return Err(not_a_key(&name, None)) };
            parts.push((name, val));
        }
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { parts })
    }

    /// A short key as protobuf writes it: names, then a value for each, every length in one byte.
    /// `None` for what has to be looked at more closely.
    fn from_plain_message(message: &[u8]) -> Option<Self> {
        const NAME: u8 = 0x0a;
        const VALUE: u8 = 0x12;
        fn take<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
            let (&[found, length @ 0..0x80], tail) = rest.split_first_chunk()? else { return None };
            let (field, tail) = tail.split_at_checked(length.into())?;
            (found == tag).then(|| {
                *rest = tail;
                field
            })
        }
        let mut rest = message;
        let mut parts = Vec::with_capacity(1);
        while let Some(name) = take(&mut rest, NAME) {
            parts.push((str::from_utf8(name).ok()?.to_owned(), Val::Null(0)));
        }
        for (_, val) in &mut parts {
            *val = decode_value(take(&mut rest, VALUE)?).ok()??;
        }
        if !rest.is_empty() {
            return None;
        }
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Self { parts })
    }

    /// The key in the bytes of serialization version 3.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(48 * self.parts.len());
        put_names(self.parts.iter().map(|(name, _)| name.as_str()), &mut out);
        for (name, val) in &self.parts {
            put_value(name, Some(val), &mut out)?;
        }
        Ok(out)
    }

    /// The key as a serialized `EntityKey` message.
    pub fn to_message(&self) -> Vec<u8> {
        let (join_keys, entity_values) = self
            .parts
            .iter()
            .map(|(name, val)| (name.clone(), Value { val: Some(val.clone()) }))
            .unzip();
        EntityKey { join_keys, entity_values }.encode_to_vec()
    }
}

impl std::fmt::Display for DecodedKey {
    /// The key as a person would write it: `id=5, name='x'`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, val)) in self.parts.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            match val {
                Val::String(text) => write!(f, "{name}='{text}'")?,
                Val::Int32(number) => write!(f, "{name}={number}")?,
                Val::Int64(number) | Val::UnixTimestamp(number) => write!(f, "{name}={number}")?,
                _ => write!(f, "{name} of type {}", val.kind().name())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
fn message(parts: &[(&str, Val)]) -> Vec<u8> {
    DecodedKey { parts: parts.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect() }
        .to_message()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn composite_keys_are_sorted_and_come_back() {
        let key =
            encode_key(&message(&[("user", Val::Int64(-5)), ("item", Val::String("é\0".into()))]))
                .unwrap();
        assert_eq!(key[..4], 2u32.to_le_bytes());
        let decoded = decode_key(&key).unwrap();
        let parts =
            vec![("item".into(), Val::String("é\0".into())), ("user".into(), Val::Int64(-5))];
        assert_eq!(decoded, DecodedKey { parts });
        assert_eq!(encode_key(&decoded.to_message()).unwrap(), key);
    }

    #[test]
    fn keys_by_column_are_the_keys_of_the_rows() {
        let column = |values: Vec<Val>| {
            let val = values.into_iter().map(|val| Value { val: Some(val) }).collect();
            RepeatedValue { val }.encode_to_vec()
        };
        let users = column(vec![Val::Int64(-5), Val::Int64(7)]);
        let items = column(vec![Val::String("é".into()), Val::Bytes(vec![0])]);
        let keys = encode_key_columns(&[("user", &users), ("item", &items)]).unwrap();
        let rows = [
            message(&[("user", Val::Int64(-5)), ("item", Val::String("é".into()))]),
            message(&[("user", Val::Int64(7)), ("item", Val::Bytes(vec![0]))]),
        ];
        assert_eq!(keys, rows.map(|row| encode_key(&row).unwrap()));
        let doubles = column(vec![Val::Double(1.0)]);
        let error = encode_key_columns(&[("score", &doubles)]).unwrap_err();
        assert!(error.message().contains("'score'") && error.message().contains("DOUBLE"));
        assert!(encode_key_columns(&[("user", &[0xff])]).is_err());
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        let error = encode_key(&message(&[("score", Val::Double(1.0))])).unwrap_err();
        assert!(error.message().contains("'score'") && error.message().contains("DOUBLE"));
    }

    fn any_part() -> impl Strategy<Value = (String, Val)> {
        let val = prop_oneof![
            any::<i64>().prop_map(Val::Int64),
            any::<i32>().prop_map(Val::Int32),
            any::<String>().prop_map(Val::String),
            "x{120,140}".prop_map(Val::String),
            any::<f64>().prop_map(Val::Double),
        ];
        ("[a-c]{1,3}", val)
    }

    proptest! {
        #[test]
        fn short_messages_are_what_prost_parses(
            parts in prop::collection::vec(any_part(), 0..4),
            cut in 0usize..40,
        ) {
            let key = DecodedKey { parts };
            let message = key.to_message();
            let mut sorted = key;
            sorted.parts.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(DecodedKey::from_message(&message).unwrap(), sorted);
            let cut = &message[..message.len().saturating_sub(cut)];
            let by_prost = DecodedKey::from_any_message(cut).ok();
            prop_assert_eq!(DecodedKey::from_message(cut).ok(), by_prost);
        }

        #[test]
        fn damaged_keys_are_errors(bytes in prop::collection::vec(0u8..9, 0..60)) {
            if let Ok(key) = decode_key(&bytes) {
                prop_assert_eq!(encode_key(&key.to_message()).unwrap().len(), bytes.len());
            }
        }
    }
}
