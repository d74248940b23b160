//! Feast's wire messages: `Value`, `EntityKey` and the response to reads, read and written without
//! protobuf's runtime.
//!
//! Pure. Field numbers are those of `feast/types/Value.proto` and `EntityKey.proto` of Feast 0.67.

pub mod check;
mod entity_key;
mod response;
mod value;
pub mod wire;

pub use entity_key::{DecodedKey, decode_key, encode_key, encode_key_columns};
pub use response::{EventTimes, FeaturesMessage};
pub use value::{
    BoolSeq, DoubleSeq, FloatSeq, Int32Seq, Int64Seq, Number, StringSeq, Val, Value, decode_value,
};
