//! Feast's wire messages: `Value` and `EntityKey`, read and written without protobuf's runtime.
//!
//! Pure. Field numbers are those of `feast/types/Value.proto` and `EntityKey.proto` of Feast 0.67.

mod entity_key;
mod value;
pub mod wire;

pub use entity_key::{DecodedKey, decode_key, encode_key};
pub use value::{
    BoolSeq, DoubleSeq, FloatSeq, Int32Seq, Int64Seq, StringSeq, Val, Value, decode_value,
};
