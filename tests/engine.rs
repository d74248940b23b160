//! The engine end to end, without Python: Arrow in, SQLite between, Arrow out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, RecordBatch, TimestampMicrosecondArray,
    TimestampSecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimestampMicrosecondType};
use feast_vector::ErrorKind;
use feast_vector::engine::{
    Engine, EngineOptions, ForkedEngine, Form, SearchRequest, VectorQuery, WriteRequest,
};
use feast_vector::proto::{DecodedKey, FloatSeq, Val, Value};
use feast_vector::query::Fusion;
use feast_vector::schema::{FeatureSpec, JoinKeySpec, ViewId, ViewSpec};
use feast_vector::store::{Conflict, StoreOptions};
use feast_vector::vector::Metric;
use ndarray::ArrayView2;
use prost::Message;

const DIM: usize = 24;

fn view() -> ViewSpec {
    let feature = |name: &str, feast_type: &str, vector_length| FeatureSpec {
        name: name.to_owned(),
        feast_type: feast_type.to_owned(),
        vector_length,
    };
    ViewSpec {
        id: ViewId::new("shop", "items"),
        join_keys: vec![JoinKeySpec { name: "id".into(), feast_type: "INT64".into() }],
        features: vec![
            feature("title", "STRING", None),
            feature("embedding", "FLOAT_LIST", Some(DIM as u32)),
        ],
        text_features: Vec::new(),
        vector_indexes: Vec::new(),
    }
}

fn engine_at(path: &Path, search_threads: usize) -> Engine {
    let options = EngineOptions { search_threads, ..EngineOptions::default() };
    Engine::new(StoreOptions::new(path), options)
}

fn entity(id: i64) -> Vec<u8> {
    DecodedKey { parts: vec![("id".to_owned(), Val::Int64(id))] }.to_message()
}

fn value(val: Val) -> Vec<u8> {
    Value { val: Some(val) }.encode_to_vec()
}

/// Vector of an item, the same on every run; each changes with the round that wrote it.
fn embedding(id: i64, round: i64) -> Vec<f32> {
    (0..DIM as i64).map(|i| ((id * 31 + i * 17 + round % 23 * 7) % 23) as f32 - 11.0).collect()
}

fn rows(ids: &[i64], round: i64) -> RecordBatch {
    let binary =
        |items: Vec<Vec<u8>>| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(items)) };
    let times = |time: Option<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![time; ids.len()]).with_timezone("UTC"))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("entity_key", binary(ids.iter().map(|id| entity(*id)).collect())),
        ("event_timestamp", times(Some(round))),
        ("created_timestamp", times(None)),
        ("title", binary(ids.iter().map(|id| value(Val::String(format!("t{id}")))).collect())),
        (
            "embedding",
            binary(
                ids.iter()
                    .map(|id| value(Val::FloatList(FloatSeq { val: embedding(*id, round) })))
                    .collect(),
            ),
        ),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn write(engine: &Engine, ids: &[i64], round: i64) {
    let batch = rows(ids, round);
    let request =
        WriteRequest { conflict: Conflict::NewestEventWins, ttl_seconds: None, first_row: 0 };
    let schema = batch.schema();
    let counts = engine.write(&view(), &schema, [Ok(batch)].into_iter(), request).unwrap();
    assert_eq!(counts.written, ids.len() as u64);
}

fn request<'a>(
    view: &'a ViewSpec,
    query: &'a [f64],
    metric: Metric,
    top_k: usize,
) -> SearchRequest<'a> {
    static FEATURES: std::sync::LazyLock<Vec<String>> =
        std::sync::LazyLock::new(|| vec!["title".to_owned()]);
    SearchRequest {
        view,
        vectors: Some(VectorQuery {
            feature: "embedding",
            queries: ArrayView2::from_shape((1, query.len()), query).unwrap(),
            metric,
            max_distance: None,
        }),
        texts: None,
        fusion: Fusion::default(),
        filter: None,
        not_before: None,
        top_k,
        offset: 0,
        features: Some(&FEATURES),
        exact: false,
        explain: false,
        numbers_queries: false,
        form: Form::Wire,
        cpu: None,
    }
}

fn search(engine: &Engine, query: &[f64], metric: Metric, top_k: usize) -> Vec<(String, f64)> {
    let batch = engine.search(&request(&view(), query, metric, top_k)).unwrap().rows;
    let titles = batch.column(4).as_binary::<i32>();
    let distances = batch.column(2).as_primitive::<Float64Type>();
    (0..batch.num_rows())
        .map(|row| match Value::decode(titles.value(row)).unwrap().val {
            Some(Val::String(title)) => (title, distances.value(row)),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn brute_force(
    rounds: &[(i64, i64)],
    query: &[f64],
    metric: Metric,
    top_k: usize,
) -> Vec<(String, f64)> {
    let mut all: Vec<(i64, f64)> = rounds
        .iter()
        .map(|&(id, round)| {
            let vector = embedding(id, round);
            let vector: Vec<f64> = vector.iter().map(|x| f64::from(*x)).collect();
            let distance = feast_vector::vector::distance(metric, query, &vector);
            (id, distance)
        })
        .collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    all.into_iter().take(top_k).map(|(id, distance)| (format!("t{id}"), distance)).collect()
}

#[test]
fn searches_agree_with_brute_force_through_writes_of_two_engines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("online.db");
    let engines = [engine_at(&path, 1), engine_at(&path, 2)];
    let ids: Vec<i64> = (0..3_000).collect();
    write(&engines[0], &ids, 0);
    let mut rounds: Vec<(i64, i64)> = ids.iter().map(|id| (*id, 0)).collect();
    let query: Vec<f64> = (0..DIM).map(|i| (i as f64 * 1.25).sin()).collect();
    for round in 1..30 {
        let touched: Vec<i64> = (0..40).map(|i| (i * 73 + round * 411) % 3_000).collect();
        write(&engines[round as usize % 2], &touched, round);
        for id in touched {
            rounds[id as usize].1 = round;
        }
        for engine in &engines {
            for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
                assert_eq!(
                    search(engine, &query, metric, 25),
                    brute_force(
                        &rounds,
                        &query.iter().map(|x| f64::from(*x as f32)).collect::<Vec<_>>(),
                        metric,
                        25
                    )
                );
            }
        }
    }
}

#[test]
fn reads_answer_in_the_order_of_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine_at(&folder.path().join("online.db"), 0);
    write(&engine, &[1, 2, 3], 5);
    let keys = [entity(3), entity(9), entity(1)];
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let batch = engine.read(&view(), &keys, None, Form::Wire, None).unwrap();
    assert_eq!(
        batch.schema().field(0).data_type(),
        &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))
    );
    let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.is_null(1), times.value(2)), (5, true, 5));
    let titles = batch.column(1).as_binary::<i32>();
    assert_eq!(titles.value(0), value(Val::String("t3".into())));
    assert!(titles.is_null(1));
}

#[test]
fn closing_and_forking_hooks_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreOptions::new(folder.path().join("online.db"));
    let engine = ForkedEngine::new(store, EngineOptions::default());
    write(&engine, &[1, 2, 3], 0);
    engine.close().unwrap();
    engine.before_fork();
    engine.after_fork_in_parent();
    assert_eq!(search(&engine, &[1.0; DIM], Metric::L2, 9).len(), 3);
}

#[test]
fn times_that_python_does_not_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine_at(&folder.path().join("online.db"), 0);
    // Nanoseconds taken for microseconds.
    let batch = rows(&[1], 1_700_000_000_000_000_000);
    let request =
        WriteRequest { conflict: Conflict::NewestEventWins, ttl_seconds: None, first_row: 7 };
    let schema = batch.schema();
    let error = engine.write(&view(), &schema, [Ok(batch)].into_iter(), request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    for part in ["row 7", "id=1", "event timestamp 1700000000000000000", "nanoseconds?"] {
        assert!(error.message().contains(part), "{error}");
    }
    write(&engine, &[1], 5);
    // Seconds that are more than microseconds hold.
    let seconds = TimestampSecondArray::from(vec![i64::MAX / 1000]).with_timezone("UTC");
    let batch = rows(&[1], 6);
    let mut columns = batch.columns().to_vec();
    columns[2] = Arc::new(seconds);
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields[2] = Arc::new(Field::new("created_timestamp", columns[2].data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    assert!(engine.write(&view(), &schema, [Ok(batch)].into_iter(), request).is_err());
}
