//! One order of rows by index, whatever part of it is asked for.
//!
//! A search by index may miss a row that a search for more rows finds, so that the answers of searches
//! of different sizes are not parts of one order. The order is made of steps: what a search for
//! 10 rows finds, then what one for 100 finds besides, and so on.
//!
//! Nearly always the smaller search's answer is just the beginning of the larger one's. Whether it
//! is can be told from what the larger one saw of these rows, so that most often only one is made.

use std::collections::{HashMap, HashSet};

use super::aimed::Aimed;
use super::effort::{Effort, Reach};
use super::search::{Outcome, Refined, Search, are_few, key_of, sign_bias};
use super::set::{How, append};
use super::{Damage, Part, VectorSet};
use crate::vector::fastscan::{Goal, LANES, Tables, block_bytes, scan_kernel};
use crate::vector::rabitq::list_of;
use crate::vector::{Hit, Query, Real, RowSet, scan};

impl<T: Real> VectorSet<T> {
    /// The first rows of the order that these steps (ascending) make, down to the last of them.
    pub(super) fn by_index_in_steps(
        &self,
        query: &Query<T>,
        how: &How<'_>,
        threads: usize,
        steps: &[usize],
    ) -> Result<(Vec<Hit>, Effort), Damage> {
        let Some((last, others)) = steps.split_last() else {
            return Ok((Vec::new(), Effort::default()));
        };
        let query = query.of_top_k(*last);
        let (search, outcome) = self.one_search(&query, how, threads)?;
        let mut order: Vec<Hit> = Vec::new();
        let mut effort = outcome.effort;
        for step in others {
            if Prefix::new(&search, &outcome, *step).is_certain(self.parts())? {
                append(&mut order, &outcome.hits[..(*step).min(outcome.hits.len())]);
            } else {
                let query = query.of_top_k(*step);
                let (_, smaller) = self.one_search(&query, how, threads)?;
                append(&mut order, &smaller.hits);
                effort += smaller.effort;
            }
        }
        append(&mut order, &outcome.hits);
        Ok((order, effort))
    }

    fn one_search<'q>(
        &self,
        query: &'q Query<T>,
        how: &'q How<'_>,
        threads: usize,
    ) -> Result<(Search<'q, T>, Outcome), Damage> {
        let known = scan(&self.resident(), query, &how.scope, threads);
        let rotation = self.parts()[0].segment.rotation();
        let mut search = Search::new(query, rotation, &how.scope, how.reach, known);
        for (number, part) in self.parts().iter().enumerate() {
            search.visit(number, part)?;
        }
        let outcome = search.finish(self.parts())?;
        Ok((search, outcome))
    }
}

/// The first rows that a search has found, and whether a search for just so many finds the same.
struct Prefix<'s, T> {
    search: &'s Search<'s, T>,
    top_k: usize,
    estimates: HashMap<i64, Refined>,
    rows: &'s [Hit],
    /// No threshold of the smaller search is below these: of estimates, and of exact keys.
    threshold: f64,
    exact_threshold: f64,
}

impl<'s, T: Real> Prefix<'s, T> {
    fn new(search: &'s Search<'s, T>, outcome: &'s Outcome, top_k: usize) -> Self {
        let rows = &outcome.hits[..top_k.min(outcome.hits.len())];
        let wanted: HashSet<i64> = rows.iter().map(|hit| hit.row_id).collect();
        let estimates = outcome.measured.iter().filter(|(row_id, _)| wanted.contains(row_id));
        let exact = |hit: &Hit| key_of(search.query.metric(), hit.distance);
        Self {
            search,
            top_k,
            estimates: estimates.copied().collect(),
            threshold: search.best.key_at(top_k),
            exact_threshold: rows.get(top_k - 1).map_or(f64::INFINITY, exact),
            rows,
        }
    }

    /// Whether each of the rows is certain to pass every test of the smaller search. Rows without
    /// codes pass them all.
    fn is_certain(&self, parts: &[Part]) -> Result<bool, Damage> {
        let mut aimed: Vec<Option<(Aimed<'_>, Tables)>> = parts.iter().map(|_| None).collect();
        let lists: Vec<Option<usize>> = parts
            .iter()
            .enumerate()
            .map(|(number, part)| self.lists_of_both(number, part))
            .collect::<Result<_, _>>()?;
        if lists.contains(&None) {
            return Ok(false);
        }
        for row in self.rows {
            let Some(refined) = self.estimates.get(&row.row_id) else {
                continue;
            };
            let least = f64::from(refined.key - refined.margin);
            if least > self.threshold || least > self.exact_threshold {
                return Ok(false);
            }
            let number = refined.part as usize;
            let part = &parts[number];
            if self.looks_up(part) {
                continue;
            }
            if lists[number].is_none_or(|lists| refined.lists_before as usize >= lists) {
                return Ok(false);
            }
            let (aimed, tables) = match &mut aimed[number] {
                Some(known) => known,
                none => {
                    let search = self.search;
                    let new = Aimed::new(&search.rotated, search.scope, number, part)?;
                    let tables = Tables::new(&new.rotated);
                    none.insert((new, tables))
                }
            };
            if !self.scan_finds(aimed, tables, refined.position as usize)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn looks_up(&self, part: &Part) -> bool {
        let coded = part.segment.header().coded;
        self.search.scope.rows.is_some_and(|rows| are_few(rows.len(), coded))
    }

    /// The lists that the smaller search goes through for certain, if it is certain that the larger
    /// one has gone through all that it goes through.
    fn lists_of_both(&self, number: usize, part: &Part) -> Result<Option<usize>, Damage> {
        let header = part.segment.header();
        if self.looks_up(part) || header.coded == 0 {
            return Ok(Some(header.lists));
        }
        let in_question = self.search.scope.rows.map_or(usize::MAX, RowSet::len);
        if in_question <= self.search.query.top_k() {
            return Ok(None);
        }
        match self.search.reach {
            _ if header.lists == 1 => Ok(Some(1)),
            Reach::Lists(lists) => Ok(Some(lists)),
            Reach::Measured => {
                let aimed = Aimed::new(&self.search.rotated, self.search.scope, number, part)?;
                let share = if aimed.tests_rows { self.search.share_passing(&aimed)? } else { 1.0 };
                let probe = |top_k: usize| part.probes.probe(top_k as f64 / share);
                let (smaller, larger) = (probe(self.top_k), probe(self.search.query.top_k()));
                let is_within = smaller.lists <= larger.lists && smaller.gap <= larger.gap;
                Ok(is_within.then_some(smaller.lists.clamp(1, header.lists)))
            }
        }
    }

    /// Whether the scan of the row's 1-bit code lets it pass at any time.
    fn scan_finds(
        &self,
        aimed: &Aimed<'_>,
        tables: &Tables,
        position: usize,
    ) -> Result<bool, Damage> {
        let segment = &aimed.part.segment;
        let padded = segment.header().padded();
        let list = aimed.list(list_of(segment.fine(position)?, padded) as usize)?;
        let place = position - segment.list(list.number).start;
        let bytes = block_bytes(padded);
        let start = place / LANES * bytes;
        let block = &segment.blocks(list.number)?[start..start + bytes];
        let bias = sign_bias(segment.header().dim, list);
        let limit = self.threshold as f32 - list.share;
        let found = scan_kernel()(block, 0, &Goal { tables, bias, limit });
        Ok(found.is_some_and(|found| found.lanes >> (place % LANES) & 1 == 1))
    }
}
