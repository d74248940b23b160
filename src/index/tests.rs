//! Segments against exact scans.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::fuzzing::options;
use super::*;
use crate::schema::Element;
use crate::vector::{Hit, Metric, Query, Real, RowMeta, RowSet, Scope, SplitMix64, scan};

pub(super) const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::InnerProduct];

/// Vectors around a few centres, as embeddings are.
pub(super) fn clustered(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = SplitMix64(seed);
    let mut number = || (random.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
    let centres: Vec<Vec<f32>> =
        (0..=count / 50).map(|_| (0..dim).map(|_| number() + 0.5).collect()).collect();
    (0..count)
        .map(|row| centres[row * 7 % centres.len()].iter().map(|x| x + 0.4 * number()).collect())
        .collect()
}

/// Keys of many lengths.
fn key_of(row_id: i64) -> String {
    "k".repeat(row_id.rem_euclid(9) as usize) + &row_id.to_string()
}

pub(super) fn stage<T: Real>(folder: &Path, rows: &[(RowMeta, Vec<f32>)]) -> Staged<T> {
    super::fuzzing::stage(folder, rows, key_of)
}

pub(super) fn built<T: Real>(
    folder: &Path,
    rows: &[(RowMeta, Vec<f32>)],
    metric: Metric,
    lists: Option<usize>,
) -> Built {
    build(&stage::<T>(folder, rows), &options(folder, metric, lists)).unwrap().unwrap()
}

pub(super) fn plain(vectors: Vec<Vec<f32>>) -> Vec<(RowMeta, Vec<f32>)> {
    // Ids with gaps, and not from 0.
    (0..).map(|row| RowMeta::plain(1000 + row * 3)).zip(vectors).collect()
}

pub(super) fn how(scope: Scope<'_>) -> How<'_> {
    How { scope, threads: 1, exact: false, reach: Reach::Measured }
}

pub(super) fn query<T: Real>(vector: &[f32], metric: Metric, top_k: usize) -> Query<T> {
    Query::new(vector.iter().map(|x| f64::from(*x)), metric, top_k)
}

/// The share of the rows of the exact answer that the set finds, for these queries. All distances
/// have to be right.
pub(super) fn recall<T: Real>(set: &VectorSet<T>, queries: &[Query<T>], scope: Scope<'_>) -> f64 {
    let (mut found, mut all) = (0, 0);
    let (answers, _) = set.search(queries, &how(scope)).unwrap();
    let exact = How { exact: true, ..how(scope) };
    let (truths, strategy) = set.search(queries, &exact).unwrap();
    assert_eq!(strategy, Strategy::Exact);
    for (answer, truth) in answers.iter().zip(&truths) {
        assert_eq!(answer.len(), truth.len());
        assert!(answer.is_sorted_by(|a, b| a.distance <= b.distance));
        let worst = truth.last().map_or(0.0, |hit| hit.distance);
        found += answer.iter().filter(|hit| hit.distance <= worst).count();
        all += truth.len();
    }
    found as f64 / all.max(1) as f64
}

#[test]
fn one_list_is_as_good_as_exact_and_lists_as_good_as_wanted() {
    let folder = tempfile::tempdir().unwrap();
    for dim in [1, 2, 3, 15, 16, 17, 100] {
        let mut vectors = clustered(2100, dim, dim as u64);
        let asked = vectors.split_off(2000);
        let rows = plain(vectors);
        for metric in METRICS {
            for (lists, floor) in [(None, 0.995), (Some(40), 0.985)] {
                let built = built::<f32>(folder.path(), &rows, metric, lists);
                let set = VectorSet::<f32>::new(Vec::new(), vec![built.part]);
                for top_k in [1, 10, 100] {
                    let queries: Vec<_> =
                        asked.iter().map(|vector| query(vector, metric, top_k)).collect();
                    let recall = recall(&set, &queries, Scope::default());
                    // A hundred answers of one row are no better known than that.
                    let floor = if top_k == 1 { floor - 0.04 } else { floor };
                    assert!(recall >= floor, "{dim}, {metric:?}, {lists:?}, {top_k}: {recall}");
                }
            }
        }
    }
}

#[test]
fn steps_make_the_order_that_their_searches_make() {
    let folder = tempfile::tempdir().unwrap();
    for (dim, seed) in [(3, 1), (20, 2), (100, 3)] {
        let mut vectors = clustered(4060, dim, seed);
        let asked = vectors.split_off(4000);
        let rows = plain(vectors);
        let some: Vec<i64> = rows.iter().map(|(meta, _)| meta.row_id).step_by(3).collect();
        let passing = RowSet::of(&some);
        for (metric, lists) in METRICS.into_iter().flat_map(|m| [(m, None), (m, Some(60))]) {
            let built = built::<f32>(folder.path(), &rows, metric, lists);
            let set = VectorSet::<f32>::new(Vec::new(), vec![built.part]);
            for scope in [Scope::default(), Scope { rows: Some(&passing), ..Scope::default() }] {
                for vector in &asked {
                    let found = |top_k: usize| {
                        let query = [query(vector, metric, top_k)];
                        set.search(&query, &how(scope)).unwrap().0.remove(0)
                    };
                    let mut expected = Vec::new();
                    for top_k in [10, 100, 1000] {
                        super::set::append(&mut expected, &found(top_k));
                    }
                    for depth in [1, 10, 70, 1000] {
                        let query = [query(vector, metric, 1)];
                        let steps = [10, 100, 1000];
                        let (orders, _) =
                            set.search_in_steps(&query, &how(scope), &steps, depth).unwrap();
                        assert!(orders[0].len() >= depth.min(expected.len()));
                        let depth = orders[0].len().min(depth);
                        assert_eq!(orders[0][..depth], expected[..depth], "{metric:?} {lists:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn double_precision_is_searched_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut vectors = clustered(1050, 20, 3);
    let asked = vectors.split_off(1000);
    let built = built::<f64>(folder.path(), &plain(vectors), Metric::L2, Some(20));
    let set = VectorSet::<f64>::new(Vec::new(), vec![built.part]);
    let queries: Vec<_> = asked.iter().map(|vector| query(vector, Metric::L2, 10)).collect();
    assert!(recall(&set, &queries, Scope::default()) >= 0.985);
}

#[test]
fn filters_keep_exactness() {
    let folder = tempfile::tempdir().unwrap();
    let mut vectors = clustered(4050, 24, 5);
    let asked = vectors.split_off(4000);
    let rows = plain(vectors);
    let ids: Vec<i64> = rows.iter().map(|(meta, _)| meta.row_id).collect();
    for (lists, floor) in [(None, 0.995), (Some(60), 0.98)] {
        let built = built::<f32>(folder.path(), &rows, Metric::L2, lists);
        let set = VectorSet::<f32>::new(Vec::new(), vec![built.part.clone()]);
        let queries: Vec<_> = asked.iter().map(|vector| query(vector, Metric::L2, 10)).collect();
        for every in [2, 10, 100, 1000, 100_000] {
            let some: Vec<i64> = ids.iter().copied().step_by(every).collect();
            let passing = RowSet::of(&some);
            let scope = Scope { rows: Some(&passing), ..Scope::default() };
            let recall = recall(&set, &queries, scope);
            let floor = if every >= 100 { 1.0 } else { floor };
            assert!(recall >= floor, "{lists:?}, 1 in {every}: {recall}");
        }
        // Rows that pass are all in lists that are far from the query.
        let mut far: Vec<(f64, i64)> = set
            .search(
                &[query(&asked[0], Metric::L2, 4000)],
                &How { exact: true, ..how(Scope::default()) },
            )
            .unwrap()
            .0[0]
            .iter()
            .map(|hit| (hit.distance, hit.row_id))
            .collect();
        far.sort_by(|a, b| b.0.total_cmp(&a.0));
        let far: Vec<i64> = far[..1500].iter().map(|(_, id)| *id).collect();
        let passing = RowSet::of(&far);
        let scope = Scope { rows: Some(&passing), ..Scope::default() };
        assert!(recall(&set, &[query(&asked[0], Metric::L2, 10)], scope) >= 0.9);
        assert!(recall(&set, &[query(&asked[0], Metric::L2, 1500)], scope) >= 1.0);
    }
}

#[test]
fn rows_that_are_gone_expired_or_old_are_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = clustered(1500, 16, 9);
    let rows: Vec<_> = vectors
        .iter()
        .enumerate()
        .map(|(row, vector)| {
            let meta = RowMeta {
                row_id: row as i64,
                expires_at: if row % 3 == 0 { 50 } else { i64::MAX },
                event: row as i64 % 5,
            };
            (meta, vector.clone())
        })
        .collect();
    for lists in [None, Some(30)] {
        let mut part = built::<f32>(folder.path(), &rows, Metric::Cosine, lists).part;
        let gone =
            (0..1500).step_by(7).map(|row| row..row + 1).chain(std::iter::once(99_999..i64::MAX));
        part.bury(gone.clone().skip(50)).unwrap();
        part.bury(gone).unwrap();
        assert_eq!(part.live, 1500 - 1500usize.div_ceil(7));
        let set = VectorSet::<f32>::new(Vec::new(), vec![part]);
        assert_eq!(set.row(7), Ok(None));
        assert_eq!(set.row(8), Ok(Some((3, key_of(8).as_bytes()))));
        let scope = Scope { now: 50, not_before: 2, rows: None };
        let answer = set.search(&[query(&vectors[0], Metric::Cosine, 2000)], &how(scope)).unwrap();
        let mut ids: Vec<i64> = answer.0[0].iter().map(|hit| hit.row_id).collect();
        ids.sort_unstable();
        let expected: Vec<i64> =
            (0..1500).filter(|row| row % 3 != 0 && row % 5 >= 2 && row % 7 != 0).collect();
        assert_eq!(ids, expected);
        let queries: Vec<_> =
            vectors[..40].iter().map(|vector| query(vector, Metric::Cosine, 10)).collect();
        assert!(recall(&set, &queries, scope) >= 0.98, "{lists:?}");
    }
}

#[test]
fn segments_and_resident_vectors_are_one_answer() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = clustered(3000, 12, 11);
    let all = plain(vectors.clone());
    let first = built::<f32>(folder.path(), &all[..1400], Metric::L2, Some(20)).part;
    let other = tempfile::tempdir().unwrap();
    let second = built::<f32>(other.path(), &all[1400..2500], Metric::L2, None).part;
    let mut resident = Resident::<f32>::new(12);
    for (meta, vector) in &all[2500..] {
        assert!(resident.put(*meta, Element::F32, bytemuck::cast_slice(vector)));
    }
    let set = VectorSet::<f32>::new(resident.blocks(), vec![first, second]);
    assert_eq!(set.len(), 3000);
    for (at, (meta, _)) in all.iter().enumerate() {
        let expected = (at < 2500).then(|| (meta.event, key_of(meta.row_id)));
        let found = set.row(meta.row_id).unwrap();
        assert_eq!(
            found.map(|(event, key)| (event, String::from_utf8_lossy(key).into())),
            expected
        );
    }
    let queries: Vec<_> =
        vectors.iter().step_by(50).map(|vector| query(vector, Metric::L2, 20)).collect();
    assert!(recall(&set, &queries, Scope::default()) >= 0.98);
    let mut blocks = Resident::<f32>::new(12);
    for (meta, vector) in &all {
        assert!(blocks.put(*meta, Element::F32, bytemuck::cast_slice(vector)));
    }
    let blocks = blocks.blocks();
    let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
    let exact = How { exact: true, ..how(Scope::default()) };
    for query in &queries {
        let ours = set.search(std::slice::from_ref(query), &exact).unwrap().0;
        assert_eq!(ours[0], scan(&views, query, &Scope::default(), 1));
    }
    // Many queries on several threads are answered as each alone.
    let many = How { threads: 3, ..how(Scope::default()) };
    let together = set.search(&queries, &many).unwrap().0;
    for (query, answer) in queries.iter().zip(together) {
        let alone = set.search(std::slice::from_ref(query), &how(Scope::default())).unwrap().0;
        assert_eq!(alone[0], answer);
    }
    // Another metric than the index's is answered exactly.
    let (answers, strategy) =
        set.search(&[query(&vectors[0], Metric::Cosine, 3)], &how(Scope::default())).unwrap();
    assert_eq!((answers[0].len(), strategy), (3, Strategy::Exact));
}

#[test]
fn recall_is_measured_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix64(17);
    let mut number = || (random.next() >> 40) as f32;
    let rows = plain((0..3000).map(|_| (0..6).map(|_| number()).collect()).collect());
    let built = built::<f32>(folder.path(), &rows, Metric::L2, Some(50));
    let curve = built.report["curve"].as_array().unwrap();
    assert!(curve.iter().any(|point| point["recall"].as_f64() >= Some(0.99)));
    let tens: Vec<f64> = curve
        .iter()
        .filter(|point| point["top_k"] == 10)
        .map(|point| point["recall"].as_f64().unwrap())
        .collect();
    assert!(tens.len() > 2 && tens[0] < 0.99);
    let (few, many) = (built.part.probes.probe(10.0).lists, built.part.probes.probe(100.0).lists);
    assert!(few >= 1 && few <= many && many <= 60, "{few} {many}");
    assert_eq!(built.report["lists"].as_u64().unwrap() as usize, built.part.segment.header().lists);
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = clustered(1500, 32, 19);
    let built = built::<f32>(folder.path(), &plain(vectors.clone()), Metric::L2, Some(12));
    let path = folder.path().join(&built.file);
    let whole = fs::read(&path).unwrap();
    let answers = |path: &Path| -> Result<Vec<Vec<Hit>>, Damage> {
        let segment = Arc::new(Segment::open(path, 42)?);
        let part = Part::new(segment, Probes::default(), false);
        part.segment.verify()?;
        let set = VectorSet::<f32>::new(Vec::new(), vec![part]);
        set.search(&[query(&vectors[3], Metric::L2, 5)], &how(Scope::default()))
            .map(|found| found.0)
    };
    assert!(answers(&path).is_ok());
    // Every chunk and the places around its edges; the padding between sections counts too.
    for at in (0..whole.len()).step_by(4099).chain([whole.len() - 1]) {
        let mut broken = whole.clone();
        broken[at] ^= 4;
        fs::write(&path, &broken).unwrap();
        assert!(answers(&path).is_err(), "byte {at}");
    }
    for length in [0, 100, 4096, 70_000, whole.len() - 1, whole.len() + 1] {
        let mut cut = whole.clone();
        cut.resize(length, 0);
        fs::write(&path, &cut).unwrap();
        assert!(answers(&path).is_err(), "{length} bytes");
    }
    fs::write(&path, &whole).unwrap();
    assert!(answers(&path).is_ok());
    assert!(Segment::open(&path, 43).unwrap_err().to_string().contains("another index file"));
    let segment = Segment::open(&path, 42).unwrap();
    assert!(segment.is_unchanged());
    fs::remove_file(&path).unwrap();
    assert!(!segment.is_unchanged());
    assert!(Segment::open(&path, 42).unwrap_err().is_missing());
}

#[test]
fn a_search_notices_the_damage_that_it_meets() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = clustered(3000, 256, 23);
    let built = built::<f32>(folder.path(), &plain(vectors.clone()), Metric::L2, None);
    let path = folder.path().join(&built.file);
    let mut bytes = fs::read(&path).unwrap();
    // Codes that every search scans, past the chunk that opening reads.
    bytes[80_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let part = Part::new(Arc::new(Segment::open(&path, 42).unwrap()), Probes::default(), false);
    let set = VectorSet::<f32>::new(Vec::new(), vec![part]);
    let damage =
        set.search(&[query(&vectors[0], Metric::L2, 5)], &how(Scope::default())).unwrap_err();
    assert!(damage.to_string().contains("checksum"), "{damage}");
}
