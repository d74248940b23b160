//! Feast's `GetOnlineFeaturesResponse`, written column by column.
//!
//! `{1: metadata {1: feature_names {1: repeated string}}, 2: repeated FeatureVector {1: repeated
//! Value, 2: repeated FieldStatus (packed), 3: repeated Timestamp}}`, as
//! `feast/serving/ServingService.proto` has it.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// `FieldStatus` of a feature that a row has, be it null.
const PRESENT: u8 = 1;
/// `FieldStatus` of a feature or row that is not there.
const NOT_FOUND: u8 = 3;

/// A response on its way.
#[derive(Debug, Default)]
pub struct FeaturesMessage {
    out: Vec<u8>,
    scratch: Vec<u8>,
}

impl FeaturesMessage {
    /// Appends the names of features whose vectors follow.
    pub fn put_names(&mut self, names: &[String]) {
        let mut list = Vec::new();
        for name in names {
            put_bytes(1, name.as_bytes(), &mut list);
        }
        let mut metadata = Vec::with_capacity(list.len() + 8);
        put_bytes(1, &list, &mut metadata);
        put_bytes(1, &metadata, &mut self.out);
    }

    /// Appends the vector of a join key: a serialized `RepeatedValue` of so many values, which are
    /// all there and have no time.
    pub fn put_entities(&mut self, values: &[u8], count: usize) {
        self.scratch.clear();
        self.scratch.extend_from_slice(values);
        put_bytes(2, &vec![PRESENT; count], &mut self.scratch);
        let times = EventTimes::new(std::iter::repeat_n(None, count));
        self.scratch.extend_from_slice(&times.field);
        put_bytes(2, &self.scratch, &mut self.out);
    }

    /// Appends a feature's vector: for each row its serialized `Value`, if it has the feature, and
    /// its time from `times`. Returns how many have it.
    pub fn put_vector<'a>(
        &mut self,
        values: impl Iterator<Item = Option<&'a [u8]>>,
        times: &EventTimes,
    ) -> u64 {
        self.scratch.clear();
        let mut statuses = Vec::with_capacity(times.count);
        let mut present = 0;
        for value in values {
            statuses.push(if value.is_some() { PRESENT } else { NOT_FOUND });
            present += u64::from(value.is_some());
            put_bytes(1, value.unwrap_or_default(), &mut self.scratch);
        }
        put_bytes(2, &statuses, &mut self.scratch);
        self.scratch.extend_from_slice(&times.field);
        put_bytes(2, &self.scratch, &mut self.out);
        present
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The serialized message.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// The `event_timestamps` of a feature vector: the same for every feature of a view.
#[derive(Debug, Default)]
pub struct EventTimes {
    field: Vec<u8>,
    count: usize,
}

impl EventTimes {
    /// The times of rows, in microseconds since 1970; none for a row that is not there.
    pub fn new(times: impl Iterator<Item = Option<i64>>) -> Self {
        let mut all = Self::default();
        let mut message = Vec::new();
        for time in times {
            message.clear();
            if let Some(micros) = time {
                let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
                put_varint(1, seconds.cast_unsigned(), &mut message);
                put_varint(2, rest.cast_unsigned() * 1000, &mut message);
            }
            put_bytes(3, &message, &mut all.field);
            all.count += 1;
        }
        all
    }
}

/// A number; zero is left out, as proto3 does.
fn put_varint(field: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + encoded_len_varint(bytes.len() as u64) + 1);
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
