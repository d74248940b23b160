//! The exact scan: every vector that is in question against the query.
//!
//! The scan ranks in the vectors' own precision and keeps a few more than asked for; these are
//! measured again in double precision, which settles order and distances. Where rounding could have
//! kept a row out, a second scan takes all that are within it, so that the answers of any size are
//! the beginning of one order. Rows that a filter leaves out are never candidates: of blocks that few
//! rows pass only those are measured.

use std::cmp::Ordering;
use std::ops::Range;

use super::{BLOCK_ROWS, BlockView, Candidate, Metric, Query, Real, RowSet, TopK};
use crate::parallel;

/// Candidates kept beyond `top_k`, so that a second scan is seldom needed: at least so many, or
/// one for so many of `top_k`.
const SLACK: usize = 16;
const ROWS_PER_SLACK: usize = 32;

/// How much larger the rounding of a row that was not kept may be than the largest seen among
/// those that were.
const ROUNDING_MARGIN: f64 = 4.0;

/// Below this much data a second thread costs more than it saves.
const BYTES_PER_THREAD: usize = 16 << 20;

/// Rows that several queries are compared with while they are in the CPU's cache.
const TILE_BYTES: usize = 256 << 10;

/// A block of which fewer rows than one in this many pass is not read whole.
const SPARSE: usize = 4;

/// Which rows are in question.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The clock: rows that have expired by then are passed over.
    pub now: i64,
    /// Rows of an event time before this are passed over.
    pub not_before: i64,
    /// The rows that pass the filter; all of them if there is none.
    pub rows: Option<&'a RowSet>,
}

impl Default for Scope<'_> {
    fn default() -> Self {
        Self { now: i64::MIN, not_before: i64::MIN, rows: None }
    }
}

/// A row of the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The row.
    pub row_id: i64,
    /// Its distance; always finite.
    pub distance: f64,
}

impl Hit {
    /// The order of answers: the nearer row first, and of equals that with the lower id.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.row_id.cmp(&other.row_id))
    }
}

/// The nearest rows, best first; rows at the same distance in the order of their ids.
///
/// A row whose distance is not a finite number, because its vector holds NaN or infinity, has no
/// rank and is left out. Uses up to `threads` threads where there is enough to scan.
pub fn scan<T: Real>(
    blocks: &[BlockView<'_, T>],
    query: &Query<T>,
    scope: &Scope<'_>,
    threads: usize,
) -> Vec<Hit> {
    let Some(first) = blocks.first() else {
        return Vec::new();
    };
    let rows: usize = blocks.iter().map(BlockView::len).sum();
    let bytes = rows * first.stride * size_of::<T>();
    let threads = threads.min(bytes / BYTES_PER_THREAD).clamp(1, blocks.len());
    let share = blocks.len().div_ceil(threads);
    let queries = std::slice::from_ref(query);
    let best = |limit| {
        let parts: Vec<_> = blocks.chunks(share).enumerate().collect();
        let tops =
            parallel::map(parts, |(at, part)| scan_blocks(part, at * share, queries, scope, limit));
        tops.into_iter().flatten().reduce(|mut all, part| {
            all.merge(part);
            all
        })
    };
    complete(blocks, query, best(None), best)
}

/// What [`scan`] gives for each of the queries. The queries are shared out among the threads, and
/// those of a thread are compared with the same rows while these are in its cache.
pub fn scan_many<T: Real>(
    blocks: &[BlockView<'_, T>],
    queries: &[Query<T>],
    scope: &Scope<'_>,
    threads: usize,
) -> Vec<Vec<Hit>> {
    if queries.len() < threads.max(2) {
        return queries.iter().map(|query| scan(blocks, query, scope, threads)).collect();
    }
    let share = queries.len().div_ceil(threads.max(1));
    let parts: Vec<_> = queries.chunks(share).collect();
    let answers = parallel::map(parts, |queries| {
        let tops = scan_blocks(blocks, 0, queries, scope, None);
        let complete_one = |(query, top)| {
            let one = std::slice::from_ref(query);
            complete(blocks, query, Some(top), |limit| {
                scan_blocks(blocks, 0, one, scope, limit).pop()
            })
        };
        queries.iter().zip(tops).map(complete_one).collect::<Vec<_>>()
    });
    answers.into_iter().flatten().collect()
}

/// The candidates of each query among the blocks, the first of which has the number `number`: the
/// best, or all whose keys are not above the `limit`.
fn scan_blocks<T: Real>(
    blocks: &[BlockView<'_, T>],
    number: usize,
    queries: &[Query<T>],
    scope: &Scope<'_>,
    limit: Option<f64>,
) -> Vec<TopK> {
    let stride = blocks.first().map_or(1, |block| block.stride);
    let mut running: Vec<Running<'_, T>> =
        queries.iter().map(|query| Running::new(query, stride, limit)).collect();
    let tile = match queries.len() {
        1 => BLOCK_ROWS,
        _ => (TILE_BYTES / (stride * size_of::<T>())).clamp(1, BLOCK_ROWS),
    };
    for (offset, block) in blocks.iter().enumerate() {
        let number = (number + offset) as u32;
        let mask = scope.rows.map(|rows| block.passing(rows));
        for start in (0..block.len()).step_by(tile) {
            // Whoever told it to stop does not look at the answer.
            if parallel::is_cancelled() {
                break;
            }
            let slots = start..(start + tile).min(block.len());
            let Some(mask) = &mask else {
                for running in &mut running {
                    running.offer_all(block, number, slots.clone(), scope, |_| true);
                }
                continue;
            };
            let passes = |slot: usize| mask[slot / 64] >> (slot % 64) & 1 == 1;
            let is_sparse =
                slots.clone().filter(|slot| passes(*slot)).count() * SPARSE < slots.len();
            for running in &mut running {
                if is_sparse {
                    for run in runs(mask, slots.clone()) {
                        running.offer_all(block, number, run, scope, |_| true);
                    }
                } else {
                    running.offer_all(block, number, slots.clone(), scope, passes);
                }
            }
        }
    }
    running.into_iter().map(|running| running.top).collect()
}

/// The runs of set bits among the slots.
fn runs(mask: &[u64; BLOCK_ROWS / 64], slots: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    // The first slot from `from` on whose bit is `wanted`, or the end.
    let next = move |from: usize, wanted: bool| {
        let mut at = from;
        while at < slots.end {
            let word = if wanted { mask[at / 64] } else { !mask[at / 64] };
            let rest = word >> (at % 64);
            if rest != 0 {
                return (at + rest.trailing_zeros() as usize).min(slots.end);
            }
            at = (at / 64 + 1) * 64;
        }
        slots.end
    };
    let end = slots.end;
    let mut at = slots.start;
    std::iter::from_fn(move || {
        let start = next(at, true);
        at = next(start, false);
        (start < end).then_some(start..at)
    })
}

/// A query on its way through the blocks.
struct Running<'a, T> {
    query: &'a Query<T>,
    prepared: Vec<T>,
    kernel: super::RowsKernel<T>,
    scores: Box<[T; BLOCK_ROWS]>,
    top: TopK,
    /// No row of a key above this is taken.
    most: f64,
}

impl<'a, T: Real> Running<'a, T> {
    fn new(query: &'a Query<T>, stride: usize, limit: Option<f64>) -> Self {
        let kept = if limit.is_none() { kept(query.top_k()) } else { usize::MAX };
        let kernels = T::kernels();
        Self {
            query,
            prepared: query.prepared(stride),
            kernel: match query.metric() {
                Metric::L2 => kernels.l2_squared,
                Metric::L1 => kernels.l1,
                Metric::Cosine | Metric::InnerProduct => kernels.dot,
            },
            scores: Box::new([T::ZERO; BLOCK_ROWS]),
            top: TopK::new(kept),
            most: limit.unwrap_or(f64::INFINITY),
        }
    }

    /// Measures the rows in these slots, and takes those that pass and are good enough.
    fn offer_all(
        &mut self,
        block: &BlockView<'_, T>,
        number: u32,
        slots: Range<usize>,
        scope: &Scope<'_>,
        passes: impl Fn(usize) -> bool,
    ) {
        let scores = &mut self.scores[..slots.len()];
        let rows = &block.rows[slots.start * block.stride..slots.end * block.stride];
        (self.kernel)(&self.prepared, rows, scores);
        let mut threshold = self.top.threshold().min(self.most);
        for (slot, score) in slots.zip(scores) {
            let mut key = match self.query.metric() {
                Metric::L2 | Metric::L1 => score.to_f64(),
                Metric::InnerProduct => -score.to_f64(),
                Metric::Cosine => -score.to_f64() * block.inverse_norms[slot].to_f64(),
            };
            if !key.is_finite() {
                key = key_of(self.query.metric(), self.query.measure(block.vector(slot)));
                if !key.is_finite() {
                    continue;
                }
            }
            if key <= threshold
                && block.expires_at[slot] > scope.now
                && block.events[slot] >= scope.not_before
                && !block.is_dead(slot)
                && passes(slot)
            {
                let position = (number, slot as u32);
                self.top.offer(Candidate { key, row_id: block.row_ids[slot], position });
                threshold = self.top.threshold().min(self.most);
            }
        }
    }
}

/// How many candidates a scan keeps.
fn kept(top_k: usize) -> usize {
    top_k.saturating_add(SLACK.max(top_k / ROWS_PER_SLACK))
}

/// What the scan ranks by, from a distance.
fn key_of(metric: Metric, distance: f64) -> f64 {
    match metric {
        Metric::L2 => distance * distance,
        Metric::InnerProduct | Metric::L1 => distance,
        Metric::Cosine => distance - 1.0,
    }
}

/// The nearest rows by exact distance, of the `best` that a scan has kept. Where one that it has
/// not kept may be among them, `again` gives all within a limit.
fn complete<T: Real>(
    blocks: &[BlockView<'_, T>],
    query: &Query<T>,
    best: Option<TopK>,
    again: impl FnOnce(Option<f64>) -> Option<TopK>,
) -> Vec<Hit> {
    let (mut hits, limit) = settle(blocks, query, best);
    if limit.is_some() {
        hits = settle(blocks, query, again(limit)).0;
    }
    hits.truncate(query.top_k());
    hits
}

/// The candidates by exact distance; and the limit of another scan, if rows that were not kept may
/// come before the last of the `top_k` by it.
fn settle<T: Real>(
    blocks: &[BlockView<'_, T>],
    query: &Query<T>,
    top: Option<TopK>,
) -> (Vec<Hit>, Option<f64>) {
    let Some(top) = top else {
        return (Vec::new(), None);
    };
    // No row that was not kept has a lower key than this.
    let least_left_out = top.threshold();
    let mut rounding = 0f64;
    let mut hits: Vec<Hit> = top
        .into_candidates()
        .into_iter()
        .map(|candidate| {
            let (block, slot) = candidate.position;
            let distance = query.measure(blocks[block as usize].vector(slot as usize));
            rounding = rounding.max((candidate.key - key_of(query.metric(), distance)).abs());
            Hit { row_id: candidate.row_id, distance }
        })
        .collect();
    hits.sort_unstable_by(Hit::compare);
    let last =
        hits.get(query.top_k().saturating_sub(1)).map(|hit| key_of(query.metric(), hit.distance));
    let limit = last.map(|last| last + ROUNDING_MARGIN * (rounding + last.abs() * f64::EPSILON));
    let limit = limit.filter(|limit| *limit >= least_left_out);
    (hits, limit)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
