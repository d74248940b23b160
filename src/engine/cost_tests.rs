//! What a call may take of the processors: it is stopped, and what it has brought into memory stays.

use std::time::Duration;

use ndarray::ArrayView2;
use prost::Message;

use super::growth_tests::{batch_of, engine, request, view, write};
use super::*;
use crate::proto::{Val, Value, wire};
use crate::query::{Condition, Filter, Literal, Operator};
use crate::text::TextMatch;
use crate::vector::Metric;

const NONE: Option<Duration> = Some(Duration::ZERO);

/// What a search is made of, by name.
struct Asked<'a> {
    view: &'a ViewSpec,
    vector: bool,
    text: Option<&'a str>,
    filter: Option<&'a Filter>,
    top_k: usize,
}

fn search(engine: &Engine, asked: &Asked<'_>, cpu: Option<Duration>) -> Result<usize> {
    let texts: Vec<String> = asked.text.into_iter().map(str::to_owned).collect();
    let queries = ArrayView2::from_shape((1, 4), &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let vectors = VectorQuery { feature: "vec", queries, metric: Metric::L2, max_distance: None };
    let answer = engine.search(&SearchRequest {
        vectors: asked.vector.then_some(vectors),
        texts: asked.text.map(|_| TextQuery { queries: &texts, mode: TextMatch::Any }),
        filter: asked.filter,
        top_k: asked.top_k,
        cpu,
        ..request(asked.view)
    })?;
    Ok(answer.rows.num_rows())
}

fn filter(engine: &Engine) -> Filter {
    let compare = |number: i64| Condition::Compare {
        key: "title".into(),
        operator: Operator::Gt,
        values: vec![Literal::Text(format!("title {number}"))],
    };
    let mut conditions: Vec<_> = (0..100).map(compare).collect();
    conditions.push(Condition::Or(100));
    Filter::new(conditions, engine.limits()).unwrap()
}

const ROWS: i64 = 3000;

#[test]
fn a_search_is_stopped_and_leaves_the_next_what_it_has_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder);
    let mut view = view("v", Some(4));
    view.text_features = vec!["title".into()];
    write(&engine, &view, batch_of(0..ROWS, 4, 0), None);
    let filter = filter(&engine);
    let all = Asked { view: &view, vector: true, text: None, filter: None, top_k: usize::MAX };
    for asked in [
        Asked { ..all },
        Asked { filter: Some(&filter), top_k: 1, ..all },
        Asked { vector: false, text: Some("title"), ..all },
        Asked { text: Some("title 7"), filter: Some(&filter), ..all },
    ] {
        engine.close().unwrap();
        let stopped = search(&engine, &asked, NONE).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::TooCostly);
        let said = stopped.message();
        for part in ["'v'", "more than 0 seconds of a core", "`cpu_seconds`", "raise the limit"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(engine.vectors.len(), usize::from(asked.vector));
        assert_eq!(engine.rows.len(), usize::from(asked.filter.is_some() || asked.text.is_some()));
        let expected = if asked.top_k == 1 { 1 } else { ROWS as usize };
        assert!((1..=expected).contains(&search(&engine, &asked, None).unwrap()));
        let long = Some(Duration::from_secs(3600));
        assert_eq!(search(&engine, &asked, long), search(&engine, &asked, None));
    }
}

#[test]
fn what_was_stopped_answers_nothing_wrong_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder);
    let view = view("v", Some(4));
    write(&engine, &view, batch_of(0..ROWS, 4, 0), None);
    let filter = filter(&engine);
    let asked = Asked { view: &view, vector: true, text: None, filter: Some(&filter), top_k: 5000 };
    let expected = search(&engine, &asked, None).unwrap();
    for round in 1..20 {
        // Each time there is something to follow.
        write(&engine, &view, batch_of(0..10, 4, round), None);
        for micros in [0, 1, 10, 100, 1000] {
            match search(&engine, &asked, Some(Duration::from_micros(micros))) {
                Ok(found) => assert_eq!(found, expected),
                Err(error) => assert_eq!(error.kind(), ErrorKind::TooCostly),
            }
        }
        assert_eq!(search(&engine, &asked, None), Ok(expected));
    }
}

#[test]
fn reads_are_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder);
    let view = view("v", Some(4));
    let batch = batch_of(0..ROWS, 4, 0);
    write(&engine, &view, batch.clone(), None);
    let keys: &arrow::array::BinaryArray = batch.column(0).as_any().downcast_ref().unwrap();
    let keys: Vec<&[u8]> = keys.iter().flatten().collect();
    let read = |cpu| engine.read(&view, &keys, None, Form::Typed, cpu);
    let stopped = read(NONE).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::TooCostly);
    assert!(stopped.message().contains("fewer entities"), "{stopped}");
    assert_eq!(read(None).unwrap().num_rows(), ROWS as usize);
    let reads = FeatureReads {
        columns: vec!["id".into()],
        reads: vec![FeatureRead {
            view: view.id.clone(),
            join_keys: vec![("id".into(), 0)],
            features: vec!["title".into()],
            names: vec!["title".into()],
        }],
    };
    let mut entities = Vec::new();
    for id in 0..ROWS {
        let value = Value { val: Some(Val::Int64(id)) };
        wire::field(1, &value.encode_to_vec(), &mut entities);
    }
    let features = |cpu| engine.features(&reads, &[&entities], None, cpu);
    assert_eq!(features(NONE).unwrap_err().kind(), ErrorKind::TooCostly);
    assert_eq!(features(None).unwrap().present, [ROWS as u64]);
}
