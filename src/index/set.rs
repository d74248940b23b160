//! All vectors of a feature as of one moment: those in segments, and those in memory.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::effort::{Effort, Reach};
use super::probes::Probes;
use super::{Damage, Segment};
use crate::parallel;
use crate::vector::{Block, BlockView, Hit, Metric, Query, Real, Scope, scan_many};

/// A segment, and which of its rows are still there.
#[derive(Debug, Clone)]
pub struct Part {
    /// The segment.
    pub segment: Arc<Segment>,
    /// A bit for each row that was deleted or written anew since; no words at all if none was.
    pub dead: Arc<Vec<u64>>,
    /// The rows that are still there.
    pub live: usize,
    /// How many lists a search goes through.
    pub probes: Arc<Probes>,
    /// Whether the codes were found not to do, so that every vector has to be compared.
    pub exact: bool,
}

impl Part {
    /// All rows of a segment.
    pub fn new(segment: Arc<Segment>, probes: Probes, exact: bool) -> Self {
        let live = segment.header().rows;
        Self { segment, dead: Arc::default(), live, probes: Arc::new(probes), exact }
    }

    /// Whether the row is not there any more.
    #[inline]
    pub fn is_dead(&self, position: usize) -> bool {
        self.dead.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    /// Takes note that the rows of these runs, in ascending order, were deleted or rewritten.
    pub fn bury(&mut self, runs: impl IntoIterator<Item = Range<i64>>) -> Result<(), Damage> {
        let words = self.segment.header().rows.div_ceil(64);
        let (dead, live) = (&mut self.dead, &mut self.live);
        self.segment.positions_in_runs(runs, |position| {
            let bit = 1 << (position % 64);
            if dead.get(position / 64).is_none_or(|word| word & bit == 0) {
                let dead = Arc::make_mut(dead);
                dead.resize(words, 0);
                dead[position / 64] |= bit;
                *live -= 1;
            }
        })
    }
}

/// The vectors as they were at one moment; cheap to take, unaffected by later changes.
#[derive(Debug, Clone)]
pub struct VectorSet<T> {
    blocks: Vec<Arc<Block<T>>>,
    parts: Vec<Part>,
}

/// How a set was searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// Every vector in question was compared.
    Exact,
    /// By index, with this effort for all queries together.
    Index(Effort),
}

/// Everything but the queries.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// Which rows are in question.
    pub scope: Scope<'a>,
    /// The most threads.
    pub threads: usize,
    /// Whether every vector in question is to be compared.
    pub exact: bool,
    /// How far a search by index goes.
    pub reach: Reach,
}

impl<T: Real> VectorSet<T> {
    /// Vectors in memory, and in segments.
    pub fn new(blocks: Vec<Arc<Block<T>>>, parts: Vec<Part>) -> Self {
        Self { blocks, parts }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        let resident: usize = self.blocks.iter().map(|block| block.len()).sum();
        resident + self.parts.iter().map(|part| part.live).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vectors that are in memory alone.
    pub fn resident(&self) -> Vec<BlockView<'_, T>> {
        self.blocks.iter().map(|block| block.view()).collect()
    }

    /// The segments.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The event time and the entity key of a row, if it is in a segment.
    pub fn row(&self, row_id: i64) -> Result<Option<(i64, &[u8])>, Damage> {
        for part in &self.parts {
            if let Some(position) = part.segment.position(row_id)?
                && !part.is_dead(position)
            {
                return Ok(Some((part.segment.event(position)?, part.segment.key(position)?)));
            }
        }
        Ok(None)
    }

    /// Whether there is an index for the queries' metric that can serve all of them.
    pub fn goes_by_index(&self, queries: &[Query<T>]) -> bool {
        let metric = queries.first().map_or(Metric::L2, Query::metric);
        let serves = |part: &Part| !part.exact && part.segment.header().metric == metric;
        !self.parts.is_empty()
            && self.parts.iter().all(serves)
            && queries.iter().all(Query::is_regular)
    }

    /// The nearest rows to each query, best first.
    ///
    /// By index where there is one for the metric, otherwise by an exact scan ([`scan_many`]).
    /// Either way a row's distance is computed from its vector in double precision.
    pub fn search(
        &self,
        queries: &[Query<T>],
        how: &How<'_>,
    ) -> Result<(Vec<Vec<Hit>>, Strategy), Damage> {
        if how.exact || !self.goes_by_index(queries) {
            let mut views = self.resident();
            for part in &self.parts {
                views.extend(part.segment.views::<T>(&part.dead)?);
            }
            let hits = scan_many(&views, queries, &how.scope, how.threads);
            return Ok((hits, Strategy::Exact));
        }
        Self::each_by_index(queries, how, |query, threads| {
            self.by_index_in_steps(query, how, threads, &[query.top_k()])
        })
    }

    /// The first `depth` rows of one order for each query, the same whatever the depth: that which
    /// searches by index for `steps` rows make (ascending), and beyond the last of them that of an
    /// exact scan.
    pub fn search_in_steps(
        &self,
        queries: &[Query<T>],
        how: &How<'_>,
        steps: &[usize],
        depth: usize,
    ) -> Result<(Vec<Vec<Hit>>, Strategy), Damage> {
        let deep: Vec<Query<T>> = queries.iter().map(|query| query.of_top_k(depth)).collect();
        if how.exact || !self.goes_by_index(queries) {
            return self.search(&deep, how);
        }
        let wanted = steps.iter().position(|step| depth <= *step).map_or(steps, |at| &steps[..=at]);
        let (mut orders, strategy) = Self::each_by_index(queries, how, |query, threads| {
            self.by_index_in_steps(query, how, threads, wanted)
        })?;
        if steps.last().is_none_or(|last| depth > *last) {
            let (answers, _) = self.search(&deep, &How { exact: true, ..*how })?;
            for (order, hits) in orders.iter_mut().zip(answers) {
                append(order, &hits);
            }
        }
        Ok((orders, strategy))
    }

    fn each_by_index(
        queries: &[Query<T>],
        how: &How<'_>,
        search: impl Fn(&Query<T>, usize) -> Result<(Vec<Hit>, Effort), Damage> + Sync,
    ) -> Result<(Vec<Vec<Hit>>, Strategy), Damage> {
        let share = queries.len().div_ceil(how.threads.max(1)).max(1);
        let parts = parallel::map(queries.chunks(share).collect(), |queries: &[Query<T>]| {
            let threads = if queries.len() == 1 { how.threads } else { 1 };
            let goes_on = |_: &&Query<T>| !parallel::is_cancelled();
            let answers = queries.iter().take_while(goes_on);
            let answers = answers.map(|query| search(query, threads));
            answers.collect::<Result<Vec<_>, Damage>>()
        });
        let mut effort = Effort::default();
        let mut hits = Vec::with_capacity(queries.len());
        for part in parts {
            for (found, spent) in part? {
                hits.push(found);
                effort += spent;
            }
        }
        Ok((hits, Strategy::Index(effort)))
    }
}

/// The hits that are not in the order yet follow those that are.
pub(super) fn append(order: &mut Vec<Hit>, hits: &[Hit]) {
    if order.is_empty() {
        order.extend_from_slice(hits);
        return;
    }
    let seen: HashSet<i64> = order.iter().map(|hit| hit.row_id).collect();
    order.extend(hits.iter().filter(|hit| !seen.contains(&hit.row_id)));
}
