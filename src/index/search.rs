//! Searching segments: 1-bit codes, then 8-bit codes, then the vectors themselves.
//!
//! A list's 1-bit codes are scanned for rows that may be among the best: whose estimated key, less
//! what the estimate may be off by, is below the `top_k`-th best known so far. For these a finer
//! key is taken from their 8-bit codes, and for the best by that key the distance is computed from
//! the vectors, which alone decides the answer.

use std::ops::Range;

use super::aimed::{Aimed, List};
use super::effort::{Effort, Reach};
use super::probes::Probe;
use super::{Damage, Part};
use crate::vector::fastscan::{Goal, Tables, scan_kernel};
use crate::vector::rabitq::{SIGN_DEVIATION, Space, fine_key, list_of};
use crate::vector::{Candidate, Hit, Metric, Query, Real, Rotation, RowSet, Scope, TopK, prefetch};

/// An estimate is off by more than this many of its standard deviations in one case of two hundred,
/// on the side that counts.
const SIGN_MARGIN: f32 = 2.6;

/// In few dimensions errors are no sums of many, and their deviation is only roughly what it is in
/// many.
const NARROW_MARGIN: f32 = 4.5;

/// Below this many dimensions.
const NARROW: usize = 48;

/// The same for 8-bit codes, whose deviation is so small that certainty is cheap.
const FINE_MARGIN: f32 = 4.0;

/// Rows that are fetched from memory at a time.
const FLIGHT: usize = 16;

/// Reading a row's 8-bit code takes about as long as scanning the 1-bit codes of this many rows.
const FINE_COST: usize = 32;

/// Rows that are tested to find out how many in all pass.
const TESTED: usize = 256;

/// A row with its finer key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refined {
    pub(super) key: f32,
    /// What the key may be off by.
    pub(super) margin: f32,
    pub(super) part: u32,
    pub(super) position: u32,
    /// How many lists of the segment were gone through before the row's own.
    pub(super) lists_before: u32,
}

/// A query on its way through the segments.
pub(super) struct Search<'a, T> {
    pub(super) query: &'a Query<T>,
    pub(super) scope: &'a Scope<'a>,
    pub(super) reach: Reach,
    pub(super) rotated: Vec<f32>,
    /// The best keys so far, and so what another has to be below.
    pub(super) best: TopK,
    pub(super) refined: Vec<Refined>,
    flight: Vec<u32>,
    lists_before: u32,
    pub(super) effort: Effort,
    pub(super) hits: Vec<Hit>,
}

/// What a search has found.
pub(super) struct Outcome {
    /// The nearest rows, best first.
    pub(super) hits: Vec<Hit>,
    pub(super) effort: Effort,
    /// The rows whose distances were computed, with their estimates; best first by these.
    pub(super) measured: Vec<(i64, Refined)>,
}

impl<'a, T: Real> Search<'a, T> {
    /// A search for which some rows are known already.
    pub(super) fn new(
        query: &'a Query<T>,
        rotation: &Rotation,
        scope: &'a Scope<'a>,
        reach: Reach,
        known: Vec<Hit>,
    ) -> Self {
        let mut rotated = query.direction();
        rotated.resize(rotation.padded(), 0.0);
        rotation.rotate(&mut rotated);
        let mut best = TopK::new(query.top_k());
        for hit in &known {
            let key = key_of(query.metric(), hit.distance);
            best.offer(Candidate { key, row_id: hit.row_id, position: (0, 0) });
        }
        Self {
            query,
            scope,
            reach,
            rotated,
            best,
            refined: Vec::new(),
            flight: Vec::new(),
            lists_before: 0,
            effort: Effort::default(),
            hits: known,
        }
    }

    /// Goes through one segment.
    pub(super) fn visit(&mut self, number: usize, part: &Part) -> Result<(), Damage> {
        self.lists_before = 0;
        self.visit_uncoded(part)?;
        let header = part.segment.header();
        if header.coded == 0 {
            return Ok(());
        }
        let aimed = Aimed::new(&self.rotated, self.scope, number, part)?;
        let in_question = self.scope.rows.map(RowSet::len);
        if in_question.is_some_and(|rows| rows <= self.query.top_k().max(header.coded / FINE_COST))
            && self.gather(&aimed)?
        {
            return Ok(());
        }
        self.probe(&aimed)
    }

    /// Whether the row is in question.
    #[inline]
    fn wants(&self, aimed: &Aimed<'_>, position: usize) -> Result<bool, Damage> {
        if aimed.part.is_dead(position) {
            return Ok(false);
        }
        Ok(!aimed.tests_rows || self.passes(aimed.part, position)?)
    }

    pub(super) fn passes(&self, part: &Part, position: usize) -> Result<bool, Damage> {
        if let Some(rows) = self.scope.rows
            && !rows.contains(part.segment.row_id(position)?)
        {
            return Ok(false);
        }
        self.is_in_time(part, position)
    }

    /// Whether some row of the segment may be out of time.
    fn tests_times(&self, part: &Part) -> bool {
        let header = part.segment.header();
        self.scope.now >= header.least_expiry || self.scope.not_before > header.least_event
    }

    fn is_in_time(&self, part: &Part, position: usize) -> Result<bool, Damage> {
        if !self.tests_times(part) {
            return Ok(true);
        }
        let meta = part.segment.meta(position)?;
        Ok(meta.expires_at > self.scope.now && meta.event >= self.scope.not_before)
    }

    /// Reads the 8-bit codes of all rows that pass the filter; `false` if they turn out to be so
    /// many that scanning is faster.
    fn gather(&mut self, aimed: &Aimed<'_>) -> Result<bool, Damage> {
        let Some(rows) = self.scope.rows else {
            return Ok(false);
        };
        let segment = &aimed.part.segment;
        let (coded, padded) = (segment.header().coded, segment.header().padded());
        let mut positions = Vec::with_capacity(rows.len());
        segment.positions(rows.iter(), |position| {
            if position < coded && !aimed.part.is_dead(position) {
                positions.push(position as u32);
            }
        })?;
        // In the order in which they are in the file.
        positions.sort_unstable();
        if self.tests_times(aimed.part) {
            let mut in_time = Vec::with_capacity(positions.len());
            for position in positions {
                if self.is_in_time(aimed.part, position as usize)? {
                    in_time.push(position);
                }
            }
            positions = in_time;
        }
        let mut lists: Vec<Option<List>> = vec![None; segment.header().lists];
        for (at, &position) in positions.iter().enumerate() {
            if let Some(next) = positions.get(at + FLIGHT / 2) {
                prefetch(segment.fine_unchecked(*next as usize));
            }
            let number = list_of(segment.fine(position as usize)?, padded) as usize;
            let list =
                lists.get_mut(number).ok_or_else(|| Damage::new("a list's number is wrong"))?;
            let list = match *list {
                Some(list) => list,
                None => *list.insert(aimed.list(number)?),
            };
            self.refine(aimed, position, list)?;
        }
        Ok(true)
    }

    /// Scans the nearest lists.
    fn probe(&mut self, aimed: &Aimed<'_>) -> Result<(), Damage> {
        let tables = Tables::new(&aimed.rotated);
        let all = aimed.part.segment.header().lists;
        if all == 1 {
            return self.scan_list(aimed, aimed.list(0)?, &tables);
        }
        let share = if aimed.tests_rows { self.share_passing(aimed)? } else { 1.0 };
        let probe = match self.reach {
            Reach::Lists(lists) => Probe { lists, gap: f32::NEG_INFINITY },
            Reach::Measured => aimed.part.probes.probe(self.query.top_k() as f64 / share),
        };
        let mut order = aimed.order()?;
        let nearer = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let wanted = probe.lists.clamp(1, all);
        let (mut sorted, mut scanned) = (0, 0);
        while scanned < all {
            if scanned == sorted {
                // The nearest of the rest come to the front; most searches need no more of these.
                let rest = &mut order[sorted..];
                let next = if sorted == 0 { (wanted + 1).min(all) } else { rest.len() };
                if next < rest.len() {
                    rest.select_nth_unstable_by(next - 1, nearer);
                }
                rest[..next].sort_unstable_by(nearer);
                sorted += next;
            }
            let list = aimed.list(order[scanned].1 as usize)?;
            if scanned >= wanted && self.best.threshold() < f64::INFINITY {
                let gap = self.gap(aimed, list);
                if scanned == wanted {
                    self.effort.note_gap(Some(gap));
                }
                if gap >= probe.gap {
                    break;
                }
            }
            if let Some((_, next)) = order.get(scanned + 1) {
                prefetch(aimed.part.segment.list_head(*next as usize));
            }
            self.lists_before = scanned as u32;
            self.scan_list(aimed, list, &tables)?;
            scanned += 1;
        }
        Ok(())
    }

    /// How far off a list is, in units of how far off the last row of the answer is so far.
    fn gap(&self, aimed: &Aimed<'_>, list: List) -> f32 {
        let List { share, reach, .. } = list;
        let threshold = self.best.threshold() as f32;
        match aimed.part.segment.header().space() {
            Space::Distance => share / threshold.max(share * 1e-3).max(f32::MIN_POSITIVE),
            Space::Product => (share - threshold) / reach.max(f32::MIN_POSITIVE),
        }
    }

    /// About what share of the segment's rows passes.
    pub(super) fn share_passing(&self, aimed: &Aimed<'_>) -> Result<f64, Damage> {
        let coded = aimed.part.segment.header().coded;
        let step = coded.div_ceil(TESTED);
        let tested = (0..coded).step_by(step);
        let mut passing = 0;
        for position in tested.clone() {
            passing += usize::from(self.wants(aimed, position)?);
        }
        Ok((passing as f64).max(0.5) / tested.len() as f64)
    }

    fn scan_list(&mut self, aimed: &Aimed<'_>, list: List, tables: &Tables) -> Result<(), Damage> {
        let segment = &aimed.part.segment;
        let Range { start, end } = segment.list(list.number);
        let blocks = segment.blocks(list.number)?;
        let kernel = scan_kernel();
        self.effort.lists += 1;
        self.effort.scanned += end - start;
        let bias = sign_bias(segment.header().dim, list);
        let mut next = 0;
        loop {
            let limit = self.best.threshold() as f32 - list.share;
            let Some(found) = kernel(blocks, next, &Goal { tables, bias, limit }) else {
                break;
            };
            let mut lanes = found.lanes;
            while lanes != 0 {
                let lane = lanes.trailing_zeros() as usize;
                lanes &= lanes - 1;
                let position = start + found.block * crate::vector::fastscan::LANES + lane;
                if position >= end {
                    return Err(Damage::new("a list has codes of more rows than it has"));
                }
                if self.wants(aimed, position)? {
                    prefetch(segment.fine_unchecked(position));
                    self.flight.push(position as u32);
                }
            }
            if self.flight.len() >= FLIGHT {
                self.land(aimed, list)?;
            }
            next = found.block + 1;
        }
        self.land(aimed, list)
    }

    /// Refines the rows that were fetched.
    fn land(&mut self, aimed: &Aimed<'_>, list: List) -> Result<(), Damage> {
        let mut flight = std::mem::take(&mut self.flight);
        for position in flight.drain(..) {
            self.refine(aimed, position, list)?;
        }
        self.flight = flight;
        Ok(())
    }

    #[inline]
    fn refine(&mut self, aimed: &Aimed<'_>, position: u32, list: List) -> Result<(), Damage> {
        self.effort.refined += 1;
        let code = aimed.part.segment.fine(position as usize)?;
        if list_of(code, aimed.rotated.len()) as usize != list.number {
            return Err(Damage::new("a row is in another list than its code says"));
        }
        let (key, deviation) = fine_key(&aimed.rotated, code, list.reach);
        let (key, margin) = (list.share + key, FINE_MARGIN * deviation);
        if f64::from(key - margin) <= self.best.threshold() {
            let (part, lists_before) = (aimed.number, self.lists_before);
            self.refined.push(Refined { key, margin, part, position, lists_before });
            self.best.offer(Candidate {
                key: key.into(),
                row_id: position.into(),
                position: (aimed.number, position),
            });
        }
        Ok(())
    }

    /// Rows without codes: of sizes that codes cannot hold. Those of zeros come last.
    fn visit_uncoded(&mut self, part: &Part) -> Result<(), Damage> {
        for &position in &part.segment.uncoded()?.others {
            let position = position as usize;
            if !part.is_dead(position) && self.passes(part, position)? {
                let key = self.measure(part, position)?;
                if key.is_finite() {
                    let row_id = part.segment.row_id(position)?;
                    self.best.offer(Candidate { key, row_id, position: (0, 0) });
                }
            }
        }
        Ok(())
    }
}

/// What is allowed for the error of a list's 1-bit codes.
pub(super) fn sign_bias(dim: usize, list: List) -> f32 {
    let margin = if dim < NARROW { NARROW_MARGIN } else { SIGN_MARGIN };
    margin * SIGN_DEVIATION * list.reach
}

/// Whether all rows that pass a filter are looked up, however many are asked for.
pub(super) fn are_few(passing: usize, coded: usize) -> bool {
    passing <= coded / FINE_COST
}

/// What codes estimate, from a distance.
pub(super) fn key_of(metric: Metric, distance: f64) -> f64 {
    match metric {
        Metric::L2 => distance * distance,
        // Vectors of length 1 are at the squared distance 2 - 2 cos.
        Metric::Cosine => 2.0 * distance,
        Metric::InnerProduct | Metric::L1 => distance,
    }
}
