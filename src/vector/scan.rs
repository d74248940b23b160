//! The exact scan: every vector against the query.
//!
//! The scan ranks in the vectors' own precision and keeps a few more than asked for; these are
//! measured again in double precision, which settles order and distances.

use std::sync::Arc;

use super::{BLOCK_ROWS, Block, Candidate, Metric, Real, TopK, distance};

/// Candidates kept beyond `top_k`, so that rounding in the scan cannot push a winner out.
const SLACK: usize = 16;

/// Below this much data a second thread costs more than it saves.
const BYTES_PER_THREAD: usize = 16 << 20;

/// A query vector and what it asks.
#[derive(Debug, Clone)]
pub struct Query<T> {
    /// The query in the vectors' precision.
    vector: Vec<T>,
    metric: Metric,
    top_k: usize,
    /// The clock: rows that have expired by then are passed over.
    now: i64,
}

/// A row of the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The row.
    pub row_id: i64,
    /// Its distance; always finite.
    pub distance: f64,
}

impl<T: Real> Query<T> {
    /// A query for the `top_k` nearest. The vector is rounded to the precision of the stored ones,
    /// so that a vector finds itself at distance 0.
    pub fn new(vector: impl Iterator<Item = f64>, metric: Metric, top_k: usize, now: i64) -> Self {
        Self { vector: vector.map(T::from_f64).collect(), metric, top_k, now }
    }

    /// The query as the scan uses it: padded to the rows' stride, of length 1 under cosine.
    fn prepared(&self, stride: usize) -> Vec<T> {
        let mut vector: Vec<T> = match self.metric {
            Metric::Cosine => {
                let largest = self.vector.iter().map(|x| x.to_f64().abs()).fold(0.0, f64::max);
                let scaled = || self.vector.iter().map(|x| x.to_f64() / largest);
                let norm = scaled().map(|x| x * x).sum::<f64>().sqrt();
                scaled().map(|x| T::from_f64(x / norm)).collect()
            }
            Metric::L2 | Metric::InnerProduct => self.vector.clone(),
        };
        vector.resize(stride, T::ZERO);
        vector
    }

    /// The exact distance of one row.
    fn measure(&self, row: &[T]) -> f64 {
        let wide = |vector: &[T]| vector.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
        distance(self.metric, wide(&self.vector).into_iter(), wide(row).into_iter())
    }
}

/// The nearest rows, best first; rows at the same distance in the order of their ids.
///
/// A row whose distance is not a finite number, because its vector holds NaN or infinity, has no
/// rank and is left out. Uses up to `threads` threads where there is enough to scan.
pub fn scan<T: Real>(blocks: &[Arc<Block<T>>], query: &Query<T>, threads: usize) -> Vec<Hit> {
    let Some(first) = blocks.first() else {
        return Vec::new();
    };
    let rows: usize = blocks.iter().map(|block| block.len()).sum();
    let keep = query.top_k.saturating_add(SLACK).min(rows);
    let prepared = query.prepared(first.stride());
    let bytes = rows * first.stride() * size_of::<T>();
    let threads = threads.min(bytes / BYTES_PER_THREAD).clamp(1, blocks.len());

    let share = blocks.len().div_ceil(threads);
    let part = |at: usize, part: &[Arc<Block<T>>]| {
        let mut top = TopK::new(keep);
        for (offset, block) in part.iter().enumerate() {
            scan_block(block, (at * share + offset) as u32, query, &prepared, &mut top);
        }
        top
    };
    let top = if threads == 1 {
        part(0, blocks)
    } else {
        std::thread::scope(|scope| {
            let part = &part;
            let mut parts = blocks.chunks(share).enumerate();
            let own = parts.next();
            let others: Vec<_> =
                parts.map(|(at, blocks)| scope.spawn(move || part(at, blocks))).collect();
            let mut top = own.map_or_else(|| TopK::new(keep), |(at, blocks)| part(at, blocks));
            for other in others {
                match other.join() {
                    Ok(other) => top.merge(other),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            top
        })
    };
    settle(blocks, query, top)
}

fn scan_block<T: Real>(
    block: &Block<T>,
    number: u32,
    query: &Query<T>,
    prepared: &[T],
    top: &mut TopK,
) {
    let mut scores = [T::ZERO; BLOCK_ROWS];
    let scores = &mut scores[..block.len()];
    let kernels = T::kernels();
    match query.metric {
        Metric::L2 => (kernels.l2_squared)(prepared, block.rows(), scores),
        Metric::Cosine | Metric::InnerProduct => (kernels.dot)(prepared, block.rows(), scores),
    }
    let mut threshold = top.threshold();
    for (slot, score) in scores.iter().enumerate() {
        let mut key = match query.metric {
            Metric::L2 => score.to_f64(),
            Metric::InnerProduct => -score.to_f64(),
            Metric::Cosine => -score.to_f64() * block.inverse_norms()[slot].to_f64(),
        };
        if !key.is_finite() {
            key = key_of(query.metric, query.measure(block.vector(slot)));
            if !key.is_finite() {
                continue;
            }
        }
        if key <= threshold && block.expires_at()[slot] > query.now {
            let position = (number, slot as u32);
            top.offer(Candidate { key, row_id: block.row_ids()[slot], position });
            threshold = top.threshold();
        }
    }
}

/// What the scan ranks by, from a distance.
fn key_of(metric: Metric, distance: f64) -> f64 {
    match metric {
        Metric::L2 => distance * distance,
        Metric::InnerProduct => distance,
        Metric::Cosine => distance - 1.0,
    }
}

fn settle<T: Real>(blocks: &[Arc<Block<T>>], query: &Query<T>, top: TopK) -> Vec<Hit> {
    let mut hits: Vec<Hit> = top
        .into_candidates()
        .into_iter()
        .map(|candidate| {
            let (block, slot) = candidate.position;
            let vector = blocks[block as usize].vector(slot as usize);
            Hit { row_id: candidate.row_id, distance: query.measure(vector) }
        })
        .collect();
    hits.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row_id.cmp(&b.row_id)));
    hits.truncate(query.top_k);
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks<T: Real>(vectors: &[Vec<f64>]) -> Vec<Arc<Block<T>>> {
        let mut blocks = Vec::new();
        for (number, chunk) in vectors.chunks(BLOCK_ROWS).enumerate() {
            let mut block = Block::new(vectors[0].len());
            for (slot, vector) in chunk.iter().enumerate() {
                let vector: Vec<T> = vector.iter().map(|x| T::from_f64(*x)).collect();
                block.push((number * BLOCK_ROWS + slot) as i64, i64::MAX, &vector);
            }
            blocks.push(Arc::new(block));
        }
        blocks
    }

    fn brute_force<T: Real>(
        vectors: &[Vec<f64>],
        query: &[f64],
        metric: Metric,
        k: usize,
    ) -> Vec<Hit> {
        let round = |v: &[f64]| v.iter().map(|x| T::from_f64(*x).to_f64()).collect::<Vec<_>>();
        let mut hits: Vec<Hit> = vectors
            .iter()
            .enumerate()
            .map(|(row, v)| Hit {
                row_id: row as i64,
                distance: distance(metric, round(query).into_iter(), round(v).into_iter()),
            })
            .filter(|hit| hit.distance.is_finite())
            .collect();
        hits.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row_id.cmp(&b.row_id)));
        hits.truncate(k);
        hits
    }

    fn agrees<T: Real>(vectors: &[Vec<f64>], query: &[f64], k: usize, threads: usize) {
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
            let ours = scan(
                &blocks::<T>(vectors),
                &Query::new(query.iter().copied(), metric, k, 0),
                threads,
            );
            assert_eq!(ours, brute_force::<T>(vectors, query, metric, k), "{metric:?}");
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

    #[test]
    fn several_threads_give_the_same_answer() {
        let vectors: Vec<Vec<f64>> = (0..70_000u32)
            .map(|row| (0..128u32).map(|i| f64::from((row * 31 + i * 17) % 97) - 48.0).collect())
            .collect();
        agrees::<f32>(&vectors, &vectors[777].clone(), 10, 2);
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
    fn expired_rows_are_passed_over() {
        let mut block = Block::<f32>::new(1);
        block.push(1, 100, &[0.0]);
        block.push(2, 101, &[5.0]);
        let query = Query::new([0.0].into_iter(), Metric::L2, 2, 100);
        let hits = scan(&[Arc::new(block)], &query, 1);
        assert_eq!(hits, [Hit { row_id: 2, distance: 5.0 }]);
    }
}
