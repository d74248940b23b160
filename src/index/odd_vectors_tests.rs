//! Vectors of zeros, without bounds, and the same many times over.

use super::tests::{METRICS, built, clustered, how, plain, query, recall};
use super::*;
use crate::vector::{Metric, Scope};

#[test]
fn strange_vectors_are_no_problem() {
    let folder = tempfile::tempdir().unwrap();
    let mut vectors = clustered(700, 8, 13);
    for (at, strange) in [0.0, f32::NAN, f32::INFINITY, 1e30, 1e-30].into_iter().enumerate() {
        vectors[at * 100] = vec![strange; 8];
    }
    for duplicate in 0..200 {
        vectors[duplicate * 3 + 1] = vectors[50].clone();
    }
    let rows = plain(vectors.clone());
    for metric in METRICS {
        for lists in [None, Some(10)] {
            let built = built::<f32>(folder.path(), &rows, metric, lists);
            let set = VectorSet::<f32>::new(Vec::new(), vec![built.part]);
            let queries: Vec<_> = vectors
                .iter()
                .filter(|vector| vector.iter().all(|x| x.is_finite() && *x != 0.0))
                .map(|vector| query(vector, metric, 10))
                .collect();
            let recall = recall(&set, &queries, Scope::default());
            assert!(recall >= 0.98, "{metric:?}, {lists:?}: {recall}");
        }
    }
}

#[test]
fn few_rows_and_rows_that_are_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for count in [1, 2, 31, 32, 33, 1000] {
        for metric in METRICS {
            for lists in [None, Some(5)] {
                let rows = plain(vec![vec![0.5, -1.0, 2.0]; count]);
                let built = built::<f32>(folder.path(), &rows, metric, lists);
                let set = VectorSet::<f32>::new(Vec::new(), vec![built.part]);
                let (answers, _) = set
                    .search(&[query(&[0.5, -1.0, 2.0], metric, 7)], &how(Scope::default()))
                    .unwrap();
                let ids: Vec<i64> = answers[0].iter().map(|hit| hit.row_id).collect();
                let expected: Vec<i64> =
                    (0..count.min(7) as i64).map(|row| 1000 + row * 3).collect();
                assert_eq!(ids, expected, "{count}, {metric:?}, {lists:?}");
            }
        }
    }
}

#[test]
fn zeros_cost_nothing_and_many_duplicates_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = clustered(3000, 20, 21);
    let (zero, twin) = (vec![0f32; 20], vectors[0].clone());
    // Nine rows of ten are the same, so that most centroids begin as the same.
    for same in [&zero, &twin] {
        let mut vectors = vectors.clone();
        for (_, vector) in vectors.iter_mut().enumerate().filter(|(row, _)| row % 10 != 1) {
            vector.clone_from(same);
        }
        let rows = plain(vectors.clone());
        for metric in METRICS {
            for lists in [None, Some(60)] {
                let Built { part, .. } = built::<f32>(folder.path(), &rows, metric, lists);
                let coded = if *same == zero { 300 } else { 3000 };
                assert_eq!(part.segment.header().coded, coded, "{metric:?}, {lists:?}");
                let set = VectorSet::<f32>::new(Vec::new(), vec![part]);
                let far = vec![-9f32; 20];
                let asked = vectors.iter().skip(1).step_by(10).chain([&twin, &far]);
                let queries: Vec<_> = asked.map(|vector| query(vector, metric, 10)).collect();
                let recall = recall(&set, &queries, Scope::default());
                assert!(recall >= 0.98, "{coded} {metric:?}, {lists:?}: {recall}");
                if metric == Metric::L2 {
                    // Of rows at the same distance those with the lowest ids are answered.
                    let near: Vec<f32> = same.iter().map(|x| x + 1e-3).collect();
                    let near = [query::<f32>(&near, metric, 7)];
                    let (answers, Strategy::Index(effort)) =
                        set.search(&near, &how(Scope::default())).unwrap()
                    else {
                        panic!("there is an index");
                    };
                    let ids: Vec<i64> = answers[0].iter().map(|hit| hit.row_id).collect();
                    let first = (0..).filter(|row| row % 10 != 1).map(|row| 1000 + row * 3);
                    assert_eq!(ids, first.take(7).collect::<Vec<i64>>(), "{lists:?}");
                    assert!(*same != zero || effort.measured <= 300, "{effort:?}");
                }
            }
        }
    }
}
