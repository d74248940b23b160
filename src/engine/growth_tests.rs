//! What grows in memory and in the folder of index files, and the bounds that hold it.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use ndarray::ArrayView2;
use prost::Message;

use super::*;
use crate::proto::{DecodedKey, FloatSeq, Val, Value};
use crate::query::Fusion;
use crate::schema::{FeatureSpec, JoinKeySpec, VectorIndexSpec};
use crate::store::Conflict;
use crate::vector::Metric;

pub(super) fn engine(folder: &tempfile::TempDir) -> Engine {
    let options = EngineOptions { search_threads: 1, ..EngineOptions::default() };
    Engine::new(StoreOptions::new(folder.path().join("online.db")), options)
}

pub(super) fn view(name: &str, length: Option<u32>) -> ViewSpec {
    let feature = |name: &str, feast_type: &str, vector_length| FeatureSpec {
        name: name.to_owned(),
        feast_type: feast_type.to_owned(),
        vector_length,
    };
    ViewSpec {
        id: ViewId::new("p", name),
        join_keys: vec![JoinKeySpec { name: "id".into(), feast_type: "INT64".into() }],
        features: vec![feature("title", "STRING", None), feature("vec", "FLOAT_LIST", length)],
        text_features: Vec::new(),
        vector_indexes: vec![VectorIndexSpec {
            feature: "vec".into(),
            metric: "L2".into(),
            index_type: "flat".into(),
            target_recall: 0.99,
        }],
    }
}

pub(super) fn batch_of(ids: std::ops::Range<i64>, length: usize, event: i64) -> RecordBatch {
    let binary = |of: &dyn Fn(i64) -> Vec<u8>| -> ArrayRef {
        Arc::new(BinaryArray::from_iter_values(ids.clone().map(of)))
    };
    let value = |val| Value { val: Some(val) }.encode_to_vec();
    let count = (ids.end - ids.start) as usize;
    let times = |time: Option<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![time; count]).with_timezone("UTC"))
    };
    let key = |id| DecodedKey { parts: vec![("id".to_owned(), Val::Int64(id))] }.to_message();
    let vector = |id: i64| (0..length as i64).map(|at| ((id * 31 + at * 17) % 23) as f32).collect();
    batch(vec![
        ("entity_key".to_owned(), binary(&key)),
        ("event_timestamp".to_owned(), times(Some(event))),
        ("created_timestamp".to_owned(), times(None)),
        ("title".to_owned(), binary(&|id| value(Val::String(format!("title {id}"))))),
        ("vec".to_owned(), binary(&|id| value(Val::FloatList(FloatSeq { val: vector(id) })))),
    ])
    .unwrap()
}

pub(super) fn write(engine: &Engine, view: &ViewSpec, batch: RecordBatch, ttl: Option<u64>) {
    let request =
        WriteRequest { conflict: Conflict::NewestEventWins, ttl_seconds: ttl, first_row: 0 };
    let schema = batch.schema();
    engine.write(view, &schema, [Ok(batch)].into_iter(), request).unwrap();
}

/// A search for what a test adds to it.
pub(super) fn request(view: &ViewSpec) -> SearchRequest<'_> {
    SearchRequest {
        view,
        vectors: None,
        texts: None,
        fusion: Fusion::default(),
        filter: None,
        not_before: None,
        top_k: 5,
        offset: 0,
        features: None,
        exact: false,
        explain: false,
        numbers_queries: false,
        form: Form::Wire,
        cpu: None,
    }
}

pub(super) fn search(engine: &Engine, view: &ViewSpec, length: usize) -> Result<usize> {
    let query = vec![1.0; length];
    let queries = ArrayView2::from_shape((1, length), &query).unwrap();
    let vectors = VectorQuery { feature: "vec", queries, metric: Metric::L2, max_distance: None };
    let answer = engine.search(&SearchRequest { vectors: Some(vectors), ..request(view) })?;
    Ok(answer.rows.num_rows())
}

fn apply(engine: &Engine, views: &[ViewSpec], dropped: &[&str]) {
    let dropped: Vec<_> = dropped.iter().map(|name| ((*name).to_owned(), None)).collect();
    engine.apply("p", views, &dropped, &mut |_, _, _| {}).unwrap();
}

fn index_files(folder: &tempfile::TempDir) -> usize {
    std::fs::read_dir(folder.path().join("online.db.index")).map_or(0, |files| {
        files.flatten().filter(|f| f.path().extension().is_some_and(|e| e == "seg")).count()
    })
}

/// Enough vectors for an index.
const ROWS: i64 = 20_000;

#[test]
fn dropped_views_leave_the_memory_of_every_process() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (engine(&folder), engine(&folder));
    let stays = view("stays", Some(4));
    write(&one, &stays, batch_of(0..10, 4, 0), None);
    for number in 0..5 {
        let gone = view(&format!("gone{number}"), Some(4));
        write(&one, &gone, batch_of(0..10, 4, 0), None);
        for engine in [&one, &other] {
            assert_eq!(search(engine, &gone, 4).unwrap(), 5);
            assert_eq!(engine.count(&gone, None).unwrap(), 10);
        }
        apply(&one, &[], &[&gone.id.view]);
        assert_eq!((one.vectors.len(), one.rows.len()), (0, 0));
        assert_eq!(search(&other, &stays, 4).unwrap(), 5);
        assert_eq!((other.vectors.len(), other.rows.len()), (1, 0));
        assert_eq!(search(&other, &gone, 4).unwrap(), 0);
        assert_eq!((other.vectors.len(), other.rows.len()), (1, 0));
    }
}

#[test]
fn lengths_that_nothing_has_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder);
    let plain = view("v", None);
    search(&engine, &plain, 4).unwrap();
    assert_eq!(engine.vectors.len(), 0);
    write(&engine, &plain, batch_of(0..0, 4, 0), None);
    for length in 1..50 {
        assert_eq!(search(&engine, &plain, length).unwrap(), 0);
        assert_eq!(engine.vectors.len(), 0);
    }
}

#[test]
fn a_new_length_takes_the_index_of_the_old_one_away() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (engine(&folder), engine(&folder));
    let (old, new) = (view("v", Some(16)), view("v", Some(8)));
    write(&one, &old, batch_of(0..ROWS, 16, 0), None);
    one.optimize(&old, None).unwrap();
    assert_eq!(index_files(&folder), 1);
    for engine in [&one, &other] {
        assert_eq!(search(engine, &old, 16).unwrap(), 5);
    }
    apply(&one, std::slice::from_ref(&new), &[]);
    assert_eq!((index_files(&folder), one.vectors.len()), (0, 0));
    write(&one, &new, batch_of(0..ROWS, 8, 1), None);
    for engine in [&one, &other] {
        assert!(search(engine, &new, 16).is_err());
        assert_eq!(search(engine, &new, 8).unwrap(), 5);
        assert_eq!(engine.vectors.len(), 1);
    }
    one.optimize(&new, None).unwrap();
    assert_eq!(index_files(&folder), 1);
    // A feature that holds no vectors any more.
    let mut texts = new.clone();
    texts.features[1].feast_type = "STRING".into();
    texts.features[1].vector_length = None;
    texts.vector_indexes.clear();
    apply(&one, &[texts], &[]);
    assert_eq!((index_files(&folder), one.vectors.len()), (0, 0));
}

#[test]
fn a_length_that_was_never_declared_goes_with_its_last_vector() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder);
    let view = view("v", None);
    write(&engine, &view, batch_of(0..ROWS, 16, 0), None);
    engine.optimize(&view, None).unwrap();
    write(&engine, &view, batch_of(1..ROWS, 12, 1), None);
    let job = |engine: &Engine| engine.optimize(&view, None).unwrap();
    // One row is left of the old length, and it comes first.
    job(&engine);
    write(&engine, &view, batch_of(0..1, 12, 1), None);
    job(&engine);
    let indexes = engine.indexes(&view.id).unwrap();
    let lengths: Vec<_> = indexes.as_array().unwrap().iter().map(|i| &i["length"]).collect();
    assert_eq!(lengths, [12]);
    assert_eq!(index_files(&folder), 1);
}

#[test]
fn a_dropped_view_takes_its_index_files_along() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder);
    let view = view("v", Some(16));
    write(&engine, &view, batch_of(0..ROWS, 16, 0), None);
    engine.optimize(&view, None).unwrap();
    assert_eq!(index_files(&folder), 1);
    apply(&engine, &[], &["v"]);
    assert_eq!(index_files(&folder), 0);
}

/// A producer of three batches, which calls `each` after every one.
fn slow(each: impl Fn()) -> impl Iterator<Item = feed::NextBatch> {
    (0..3).map(move |part| {
        if part > 0 {
            each();
        }
        Ok(batch_of(part * 400..(part + 1) * 400, 4, 0))
    })
}

#[test]
fn a_slow_producer_holds_no_other_writer_off() {
    let folder = tempfile::tempdir().unwrap();
    let (one, view) = (engine(&folder), view("v", Some(4)));
    let mut impatient = StoreOptions::new(folder.path().join("online.db"));
    impatient.busy_timeout = std::time::Duration::from_millis(1_500);
    let other = Engine::new(impatient, EngineOptions::default());
    let request =
        WriteRequest { conflict: Conflict::NewestEventWins, ttl_seconds: None, first_row: 0 };
    let schema = batch_of(0..1, 4, 0).schema();
    // The other writer writes while the stream waits for it: in the other order neither ends.
    let others = std::cell::Cell::new(0);
    let batches = slow(|| {
        let from = 5_000 + others.replace(others.get() + 1);
        write(&other, &view, batch_of(from..from + 1, 4, 0), None);
        // The engine's own writers are no different.
        write(&one, &view, batch_of(from + 10..from + 11, 4, 0), None);
    });
    let counts = one.write(&view, &schema, batches, request).unwrap();
    assert_eq!((counts.written, others.get()), (1_200, 2));
    assert_eq!(other.count(&view, None).unwrap(), 1_204);
}

#[test]
fn a_stream_that_fails_after_a_stall_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, view) = (engine(&folder), view("v", Some(4)));
    let request =
        WriteRequest { conflict: Conflict::NewestEventWins, ttl_seconds: None, first_row: 0 };
    let schema = batch_of(0..1, 4, 0).schema();
    let pause = || std::thread::sleep(std::time::Duration::from_millis(250));
    let broken = arrow::error::ArrowError::ComputeError("on purpose".to_owned());
    let batches = slow(pause).chain(std::iter::once(Err(broken)));
    let error = engine.write(&view, &schema, batches, request).unwrap_err();
    assert!(error.message().contains("on purpose"), "{error}");
    assert_eq!(engine.count(&view, None).unwrap(), 0);
    assert_eq!(engine.write(&view, &schema, slow(pause), request).unwrap().written, 1_200);
    assert_eq!(engine.count(&view, None).unwrap(), 1_200);
}

#[test]
fn a_large_stream_refuses_its_producers_own_changes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, view) = (engine(&folder), view("v", Some(512)));
    let request =
        WriteRequest { conflict: Conflict::NewestEventWins, ttl_seconds: None, first_row: 0 };
    let schema = batch_of(0..1, 512, 0).schema();
    let rows = 4_000;
    let parts = (feed::MOST_KEPT / (rows as usize * 2_048)) as i64 + 2;
    let errors = std::cell::RefCell::new(Vec::new());
    let batches = (0..parts + 6).map(|part| {
        if part > parts + 1 {
            errors.borrow_mut().push(engine.delete(&view, &[]).unwrap_err());
        }
        Ok(batch_of(part * rows..(part + 1) * rows, 512, 0))
    });
    let counts = engine.write(&view, &schema, batches, request).unwrap();
    assert_eq!(counts.written, ((parts + 6) * rows) as u64);
    assert!(errors.borrow().len() > 2);
    for error in errors.take() {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("from within the stream"), "{error}");
    }
    engine.delete(&view, &[]).unwrap();
}

fn until_idle(engine: &Engine) {
    for _ in 0..2_000 {
        if engine.upkeep.is_idle() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the upkeep does not end");
}

fn stored(engine: &Engine) -> u64 {
    let id = ViewId::new("p", "v");
    engine.store.read(|s| s.count(&s.table(&id)?.unwrap().schema)).unwrap()
}

#[test]
fn a_writer_deletes_what_has_expired_beside_its_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, view) = (engine(&folder), view("v", Some(4)));
    write(&engine, &view, batch_of(0..5_000, 4, 0), Some(0));
    assert_eq!(stored(&engine), 5_000);
    write(&engine, &view, batch_of(6_000..6_001, 4, 0), None);
    until_idle(&engine);
    assert_eq!(stored(&engine), 1);
    write(&engine, &view, batch_of(0..5_000, 4, 0), Some(0));
    engine.upkeep.stop();
    engine.upkeep.resume();
    apply(&engine, std::slice::from_ref(&view), &[]);
    assert_eq!(stored(&engine), 1);
    assert_eq!(search(&engine, &view, 4).unwrap(), 1);
}

#[test]
fn a_text_index_is_completed_by_whoever_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, plain) = (engine(&folder), view("v", Some(4)));
    let mut with_texts = plain.clone();
    with_texts.text_features = vec!["title".into()];
    let is_complete = || {
        let table = engine.store.read(|s| s.table(&plain.id)).unwrap().unwrap();
        table.schema.has_text_index() && !table.schema.text_is_filling
    };
    write(&engine, &plain, batch_of(0..5_000, 4, 0), None);
    // After a write, beside the caller.
    write(&engine, &with_texts, batch_of(5_000..5_001, 4, 0), None);
    until_idle(&engine);
    assert!(is_complete());
    // By `apply`, which tells how far it is.
    apply(&engine, std::slice::from_ref(&plain), &[]);
    assert!(!is_complete());
    let mut told = Vec::new();
    engine
        .apply("p", std::slice::from_ref(&with_texts), &[], &mut |_, done, all| {
            told.push((done, all));
        })
        .unwrap();
    assert!(is_complete());
    assert_eq!((told.len(), told.last()), (4, Some(&(5_001, 5_001))));
    // By a search.
    apply(&engine, std::slice::from_ref(&plain), &[]);
    engine.ensure_text_index(&with_texts).unwrap();
    assert!(is_complete());
}
