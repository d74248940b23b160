use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use rusqlite::Connection;

use super::*;
use crate::proto::decode_value;

/// Through a real SQLite column of the declared kind and back.
fn round_trip(declared: ValueKind, message: &[u8]) -> Vec<u8> {
    let connection = Connection::open_in_memory().unwrap();
    let sql_type = declared.storage().sql_type();
    connection.execute_batch(&format!("CREATE TABLE t (c {sql_type})")).unwrap();
    let (cell, state) = encode(declared, decode_value(message).unwrap(), message);
    connection.execute("INSERT INTO t VALUES (?1)", [cell]).unwrap();
    let mut out = Vec::new();
    connection
        .query_row("SELECT c FROM t", [], |row| {
            assert!(decode(declared, row.get_ref(0)?, state, &mut out).unwrap());
            Ok(())
        })
        .unwrap();
    out
}

fn message(val: Val) -> Vec<u8> {
    Value { val: Some(val) }.encode_to_vec()
}

#[allow(clippy::needless_pass_by_value, reason = "reads better at the calls")]
fn assert_survives(val: Val) {
    let bytes = message(val.clone());
    for &declared in ValueKind::ALL {
        assert_eq!(round_trip(declared, &bytes), bytes, "{val:?} in a column of {declared:?}");
    }
}

fn strings() -> impl Strategy<Value = StringSeq> {
    prop::collection::vec(any::<String>(), 0..5).prop_map(|val| StringSeq { val })
}

fn any_number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i32>().prop_map(Number::Int32),
        any::<i64>().prop_map(Number::Int64),
        any::<i64>().prop_map(Number::UnixTimestamp),
        any::<bool>().prop_map(Number::Bool),
        any::<u64>().prop_map(|bits| Number::Double(f64::from_bits(bits))),
        any::<u32>().prop_map(|bits| Number::Float(f32::from_bits(bits))),
        prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN)].prop_map(Number::Double),
        prop_oneof![Just(0.0), Just(-0.0), Just(f32::NAN)].prop_map(Number::Float),
    ]
}

proptest! {
    #[test]
    fn a_number_is_stored_as_its_message_would_be(number in any_number()) {
        let bytes = message(number.into());
        for &declared in ValueKind::ALL {
            let number = encode_number(declared, number);
            let by_message = encode(declared, decode_value(&bytes).unwrap(), &bytes);
            prop_assert_eq!(number, by_message);
        }
    }
}

/// Times that Python has, and what Feast writes for none.
fn seconds() -> impl Strategy<Value = i64> {
    prop_oneof![check::FIRST_SECOND..=check::LAST_SECOND, Just(check::NULL_TIMESTAMP)]
}

fn uuid() -> impl Strategy<Value = String> {
    "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
}

fn decimal() -> impl Strategy<Value = String> {
    "-?[0-9]{1,30}(\\.[0-9]{1,20})?(E-?[0-9]{1,3})?"
}

fn several(texts: impl Strategy<Value = String>) -> impl Strategy<Value = StringSeq> {
    vec(texts, 0..9).prop_map(|val| StringSeq { val })
}

fn any_val() -> impl Strategy<Value = Val> {
    let scalars = prop_oneof![
        any::<Vec<u8>>().prop_map(Val::Bytes),
        any::<String>().prop_map(Val::String),
        any::<i32>().prop_map(Val::Int32),
        any::<i64>().prop_map(Val::Int64),
        any::<u64>().prop_map(|bits| Val::Double(f64::from_bits(bits))),
        any::<u32>().prop_map(|bits| Val::Float(f32::from_bits(bits))),
        any::<bool>().prop_map(Val::Bool),
        seconds().prop_map(Val::UnixTimestamp),
        any::<String>().prop_map(Val::Json),
        uuid().prop_map(Val::Uuid),
        uuid().prop_map(Val::TimeUuid),
        decimal().prop_map(Val::Decimal),
        Just(Val::Null(0)),
    ];
    let lists = prop_oneof![
        strings().prop_map(Val::StringList),
        strings().prop_map(Val::JsonList),
        several(uuid()).prop_map(Val::UuidList),
        several(uuid()).prop_map(Val::TimeUuidList),
        several(decimal()).prop_map(Val::DecimalList),
        any::<Vec<i32>>().prop_map(|val| Val::Int32List(Int32Seq { val })),
        any::<Vec<i64>>().prop_map(|val| Val::Int64List(Int64Seq { val })),
        vec(seconds(), 0..9).prop_map(|val| Val::UnixTimestampList(Int64Seq { val })),
        any::<Vec<bool>>().prop_map(|val| Val::BoolList(BoolSeq { val })),
        any::<Vec<u32>>().prop_map(|bits| Val::FloatList(FloatSeq {
            val: bits.into_iter().map(f32::from_bits).collect()
        })),
        any::<Vec<u64>>().prop_map(|bits| Val::DoubleList(DoubleSeq {
            val: bits.into_iter().map(f64::from_bits).collect()
        })),
    ];
    let sets = prop_oneof![
        strings().prop_map(Val::StringSet),
        several(uuid()).prop_map(Val::UuidSet),
        several(uuid()).prop_map(Val::TimeUuidSet),
        several(decimal()).prop_map(Val::DecimalSet),
        any::<Vec<i32>>().prop_map(|val| Val::Int32Set(Int32Seq { val })),
        any::<Vec<i64>>().prop_map(|val| Val::Int64Set(Int64Seq { val })),
        vec(seconds(), 0..9).prop_map(|val| Val::UnixTimestampSet(Int64Seq { val })),
        any::<Vec<bool>>().prop_map(|val| Val::BoolSet(BoolSeq { val })),
        any::<Vec<u32>>().prop_map(|bits| Val::FloatSet(FloatSeq {
            val: bits.into_iter().map(f32::from_bits).collect()
        })),
        any::<Vec<u64>>().prop_map(|bits| Val::DoubleSet(DoubleSeq {
            val: bits.into_iter().map(f64::from_bits).collect()
        })),
    ];
    prop_oneof![scalars, lists, sets]
}

proptest! {
    #[test]
    fn any_value_survives_any_column(val in any_val()) {
        let bytes = message(val.clone());
        let own = val.kind();
        prop_assert_eq!(&round_trip(own, &bytes), &bytes);
        for declared in [ValueKind::String, ValueKind::Int64, ValueKind::Double, ValueKind::FloatList] {
            prop_assert_eq!(&round_trip(declared, &bytes), &bytes);
        }
    }
}

#[test]
fn edge_values_survive_every_column() {
    for number in [f64::NAN, -f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, 5e-324] {
        assert_survives(Val::Double(number));
        assert_survives(Val::Float(number as f32));
        assert_survives(Val::DoubleSet(DoubleSeq { val: vec![number] }));
        assert_survives(Val::FloatSet(FloatSeq { val: vec![number as f32, 0.1] }));
    }
    for number in [i64::MIN, -1, 0, i64::MAX] {
        assert_survives(Val::Int64(number));
        assert_survives(Val::Int64Set(Int64Seq { val: vec![number] }));
    }
    assert_survives(Val::String("a\0b".into()));
    assert_survives(Val::Bytes(vec![0xff, 0, 0xfe]));
    assert_survives(Val::FloatList(FloatSeq { val: vec![] }));
    assert_survives(Val::StringList(StringSeq { val: vec![] }));
    assert_survives(Val::FloatList(FloatSeq { val: vec![0.5; 3072] }));
    for raw in [Val::Map, Val::MapList, Val::Struct, Val::ValueList, Val::ScalarMap, Val::BytesSet]
    {
        assert_survives(raw(vec![]));
        assert_survives(raw(vec![10, 2, 8, 1]));
    }
}

#[test]
fn a_null_and_a_kind_of_the_future_survive() {
    assert_eq!(round_trip(ValueKind::Int64, &[]), Vec::<u8>::new());
    let future = [0xfa, 0x07, 1, 42];
    for &declared in ValueKind::ALL {
        assert_eq!(round_trip(declared, &future), future);
    }
    assert_eq!(round_trip(ValueKind::Unknown, &future), future);
}
