use super::super::RowMeta;
use super::*;
use crate::vector::{Block, distance};

fn views<T: Real>(blocks: &[Block<T>]) -> Vec<BlockView<'_, T>> {
    blocks.iter().map(Block::view).collect()
}

fn blocks<T: Real>(vectors: &[Vec<f64>]) -> Vec<Block<T>> {
    let mut blocks = Vec::new();
    for (number, chunk) in vectors.chunks(BLOCK_ROWS).enumerate() {
        let mut block = Block::new(vectors[0].len());
        for (slot, vector) in chunk.iter().enumerate() {
            let vector: Vec<T> = vector.iter().map(|x| T::from_f64(*x)).collect();
            block.push(RowMeta::plain((number * BLOCK_ROWS + slot) as i64), &vector);
        }
        blocks.push(block);
    }
    blocks
}

fn brute_force<T: Real>(
    vectors: &[Vec<f64>],
    query: &[f64],
    metric: Metric,
    k: usize,
    passes: impl Fn(i64) -> bool,
) -> Vec<Hit> {
    let round = |v: &[f64]| v.iter().map(|x| T::from_f64(*x)).collect::<Vec<T>>();
    let mut hits: Vec<Hit> = vectors
        .iter()
        .enumerate()
        .map(|(row, v)| Hit {
            row_id: row as i64,
            distance: distance(metric, &round(query), &round(v)),
        })
        .filter(|hit| hit.distance.is_finite() && passes(hit.row_id))
        .collect();
    hits.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row_id.cmp(&b.row_id)));
    hits.truncate(k);
    hits
}

fn agrees<T: Real>(vectors: &[Vec<f64>], query: &[f64], k: usize, threads: usize) {
    for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct, Metric::L1] {
        let ours = scan(
            &views(&blocks::<T>(vectors)),
            &Query::new(query.iter().copied(), metric, k),
            &Scope::default(),
            threads,
        );
        assert_eq!(ours, brute_force::<T>(vectors, query, metric, k, |_| true), "{metric:?}");
    }
}

proptest::proptest! {
    #[test]
    fn agrees_with_brute_force(
        vectors in proptest::collection::vec(proptest::collection::vec(-3i8..3, 5), 1..60),
        query in proptest::collection::vec(-3i8..3, 5),
        k in 1usize..70,
    ) {
        proptest::prop_assume!(query.iter().any(|x| *x != 0));
        let wide = |v: &Vec<i8>| v.iter().map(|x| f64::from(*x) * 0.3).collect::<Vec<_>>();
        let vectors: Vec<_> = vectors.iter().map(wide).collect();
        agrees::<f32>(&vectors, &wide(&query), k, 1);
        agrees::<f64>(&vectors, &wide(&query), k, 1);
    }
}

/// Many rows whose distances differ less than single precision can tell.
#[test]
fn near_ties_are_one_order_whatever_is_asked_for() {
    let mut state = 1u64;
    let mut element = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from((state >> 33) as u32 % 7) - 3.0
    };
    let vectors: Vec<Vec<f64>> = (0..3000).map(|_| (0..16).map(|_| element()).collect()).collect();
    let query: Vec<f64> = vectors[0].iter().map(|x| x + 0.1).collect();
    for k in [1, 7, 100, 993, 2999] {
        agrees::<f32>(&vectors, &query, k, 1);
        agrees::<f64>(&vectors, &query, k, 1);
    }
    let blocks = blocks::<f32>(&vectors);
    for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct, Metric::L1] {
        let queries = [7, 900].map(|k| Query::new(query.iter().copied(), metric, k));
        let alone = queries.iter().map(|query| scan(&views(&blocks), query, &Scope::default(), 1));
        let together = scan_many(&views(&blocks), &queries, &Scope::default(), 1);
        assert_eq!(together, alone.collect::<Vec<_>>());
    }
}

#[test]
fn several_threads_give_the_same_answer() {
    let vectors: Vec<Vec<f64>> = (0..70_000u32)
        .map(|row| (0..128u32).map(|i| f64::from((row * 31 + i * 17) % 97) - 48.0).collect())
        .collect();
    // More than a thread has rows, too.
    for k in [10, 60_000] {
        agrees::<f32>(&vectors, &vectors[777].clone(), k, 2);
    }
}

#[test]
fn huge_and_tiny_numbers_keep_their_rank_and_infinities_have_none() {
    let vectors = [
        vec![1e30, 1e30],
        vec![f64::from(f32::MAX), 0.0],
        vec![1e-30, 0.0],
        vec![f64::NAN, 0.0],
        vec![0.0, f64::INFINITY],
        vec![0.0, 0.0],
        vec![1.0, 2.0],
    ];
    for query in [[1e25, 1e20], [1.0, 1.0], [1e-20, 1e-20]] {
        agrees::<f32>(&vectors, &query, 10, 1);
    }
    agrees::<f64>(&[vec![1e200, 1.0], vec![1e-200, 1.0], vec![1.0, 0.0]], &[1e180, 1.0], 3, 1);
}

#[test]
fn filters_and_batches_agree_with_brute_force() {
    let vectors: Vec<Vec<f64>> = (0..5_000u32)
        .map(|row| (0..40u32).map(|i| f64::from((row * 31 + i * i * 17) % 97) - 48.0).collect())
        .collect();
    let blocks = blocks::<f32>(&vectors);
    let blocks = views(&blocks);
    for keep in [0, 1, 13, 60, 100] {
        let passes = |row: i64| row * 7 % 100 < keep;
        let ids: Vec<i64> = (0..5_000).filter(|row| passes(*row)).collect();
        let rows = RowSet::of(&ids);
        let scope = Scope { rows: Some(&rows), ..Scope::default() };
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct, Metric::L1] {
            let queries: Vec<_> = vectors[..7]
                .iter()
                .map(|vector| Query::new(vector.iter().copied(), metric, 9))
                .collect();
            let expected: Vec<_> = vectors[..7]
                .iter()
                .map(|query| brute_force::<f32>(&vectors, query, metric, 9, passes))
                .collect();
            for threads in [1, 2, 3, 8] {
                assert_eq!(scan_many(&blocks, &queries, &scope, threads), expected);
            }
        }
    }
}

#[test]
fn expired_and_old_rows_are_passed_over() {
    let mut block = Block::<f32>::new(1);
    block.push(RowMeta { row_id: 1, expires_at: 100, event: 50 }, &[0.0]);
    block.push(RowMeta { row_id: 2, expires_at: 101, event: 50 }, &[5.0]);
    block.push(RowMeta { row_id: 3, expires_at: 101, event: 49 }, &[1.0]);
    let query = Query::new([0.0].into_iter(), Metric::L2, 2);
    let scope = Scope { now: 100, not_before: 50, rows: None };
    let hits = scan(&[block.view()], &query, &scope, 1);
    assert_eq!(hits, [Hit { row_id: 2, distance: 5.0 }]);
}
