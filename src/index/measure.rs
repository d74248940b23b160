//! Measuring a segment's recall, and choosing how far searches go.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::effort::Reach;
use super::options::BuildOptions;
use super::probes::{Probes, Step};
use super::set::{How, Strategy, VectorSet};
use super::{Damage, Part, Segment};
use crate::parallel;
use crate::vector::{Hit, Query, Real, Scope, SplitMix64, scan_many};

/// Rows of the segment that are asked for; each is left out of its own answer.
const QUERIES: usize = 256;

/// Rows that are looked at for each that is asked for, where most are the same.
const LOOKED_AT: usize = 16;

/// Queries that are answered exactly before it is asked whether to go on.
const QUERIES_AT_ONCE: usize = 64;

/// How many rows the queries ask for; those that are no small part of the segment.
const TOP_KS: [usize; 4] = [1, 10, 100, 1000];

/// Rows of the segment for each that is asked for.
const ROWS_PER_HIT: usize = 20;

/// Answers of more rows are measured with fewer queries.
const HITS: usize = 25_600;

/// The recall that one list, of which nothing is left out, has to have.
const FLAT_RECALL: f64 = 0.995;

/// One search in this many has a gap that is unusually small.
const UNUSUAL: usize = 10;

/// Sample queries with their true answers.
struct Sample<T> {
    queries: Vec<Query<T>>,
    own: Vec<i64>,
    /// The distance of the last row of each true answer.
    reach: Vec<f64>,
    top_k: usize,
}

/// Finds out how many lists searches have to go through, and takes note of it.
pub(super) fn measure<T: Real>(
    segment: Segment,
    options: &BuildOptions,
) -> Result<(Part, Json), Damage> {
    let started = Instant::now();
    let header = *segment.header();
    let set = VectorSet::<T>::new(
        Vec::new(),
        vec![Part::new(Arc::new(segment), Probes::default(), false)],
    );
    let most = if header.lists == 1 { TOP_KS[1] } else { header.coded / ROWS_PER_HIT };
    let top_ks = TOP_KS.into_iter().filter(|top_k| *top_k <= most.max(1));
    let mut curve = Vec::new();
    let mut steps = Vec::new();
    let mut exact = false;
    let mut lists = 1;
    for top_k in top_ks {
        if header.coded <= 1 || parallel::is_cancelled() {
            break;
        }
        let sample = Sample::<T>::of(&set, options, top_k)?;
        let mut recall_of = |lists: usize| {
            if parallel::is_cancelled() {
                return Ok(1.0);
            }
            let recall = sample.recall(&set, lists, options.threads)?;
            curve.push(json!({ "top_k": top_k, "lists": lists, "recall": recall }));
            Ok::<f64, Damage>(recall)
        };
        let wanted = if header.lists == 1 { FLAT_RECALL } else { options.target_recall };
        let Some(found) = fewest(lists, header.lists, |lists| Ok(recall_of(lists)? >= wanted))?
        else {
            exact |= steps.is_empty() || header.lists == 1;
            break;
        };
        lists = found;
        let gap = sample.usual_gap(&set, lists, options.threads)?;
        steps.push(Step { top_k, lists, gap });
    }
    curve.sort_by_key(|point| (point["top_k"].as_u64(), point["lists"].as_u64()));
    let probes = Probes::new(steps);
    let report = json!({
        "metric": options.metric.name(),
        "target_recall": options.target_recall,
        "exact": exact,
        "probes": probes.to_json(),
        "curve": curve,
        "measured_seconds": started.elapsed().as_secs_f64(),
    });
    let part = set.parts()[0].clone();
    Ok((Part { probes: Arc::new(probes), exact, ..part }, report))
}

/// The fewest lists, from `low` on, that are enough; `None` if all are not. Where fewer are enough,
/// more are taken to be.
fn fewest(
    low: usize,
    all: usize,
    mut is_enough: impl FnMut(usize) -> Result<bool, Damage>,
) -> Result<Option<usize>, Damage> {
    let (mut too_few, mut tried) = (low - 1, low);
    while !is_enough(tried)? {
        if tried == all {
            return Ok(None);
        }
        too_few = tried;
        tried = (tried + tried.div_ceil(2)).min(all);
    }
    while tried - too_few > 1 {
        let middle = usize::midpoint(too_few, tried);
        if is_enough(middle)? {
            tried = middle;
        } else {
            too_few = middle;
        }
    }
    Ok(Some(tried))
}

impl<T: Real> Sample<T> {
    fn of(set: &VectorSet<T>, options: &BuildOptions, top_k: usize) -> Result<Self, Damage> {
        let segment = &set.parts()[0].segment;
        let (coded, dim) = (segment.header().coded, segment.header().dim);
        let count = QUERIES.min(HITS / top_k);
        let (mut queries, mut own) = (Vec::new(), Vec::new());
        for position in distinct::<T>(segment, options.stamp, count, coded)? {
            let vector = segment.vector::<T>(position)?[..dim].iter().map(|x| x.to_f64());
            queries.push(Query::new(vector, options.metric, top_k + 1));
            own.push(segment.row_id(position)?);
        }
        let views = segment.views::<T>(&[])?;
        let mut answers = Vec::with_capacity(queries.len());
        for queries in queries.chunks(QUERIES_AT_ONCE) {
            if parallel::is_cancelled() {
                break;
            }
            answers.extend(scan_many(&views, queries, &Scope::default(), options.threads));
        }
        let reach = answers
            .iter()
            .zip(&own)
            .map(|(hits, own)| others(hits, *own).take(top_k).last().map_or(0.0, |h| h.distance))
            .collect();
        Ok(Self { queries, own, reach, top_k })
    }

    /// The share of the true answers that is found: of rows that are as near as the last of them.
    fn recall(&self, set: &VectorSet<T>, lists: usize, threads: usize) -> Result<f64, Damage> {
        let how =
            How { scope: Scope::default(), threads, exact: false, reach: Reach::Lists(lists) };
        let (answers, _) = set.search(&self.queries, &how)?;
        let found: usize = answers
            .iter()
            .zip(&self.own)
            .zip(&self.reach)
            .map(|((hits, own), reach)| {
                let near = others(hits, *own).filter(|hit| hit.distance <= *reach);
                near.take(self.top_k).count()
            })
            .sum();
        Ok(found as f64 / (self.queries.len() * self.top_k) as f64)
    }

    /// The gap that all but few searches have after so many lists.
    fn usual_gap(&self, set: &VectorSet<T>, lists: usize, threads: usize) -> Result<f32, Damage> {
        let reach = Reach::Lists(lists);
        let how = How { scope: Scope::default(), threads: 1, exact: false, reach };
        let share = self.queries.len().div_ceil(threads.max(1)).max(1);
        let parts =
            parallel::map(self.queries.chunks(share).collect(), |queries: &[Query<T>]| {
                let gap = |query| match set.search(std::slice::from_ref(query), &how)?.1 {
                    Strategy::Index(effort) => Ok(effort.gap),
                    Strategy::Exact => Ok(None),
                };
                queries.iter().map(gap).collect::<Result<Vec<_>, Damage>>()
            });
        let mut gaps = Vec::new();
        for part in parts {
            gaps.extend(part?.into_iter().flatten());
        }
        gaps.sort_unstable_by(f32::total_cmp);
        Ok(gaps.get(gaps.len() / UNUSUAL).copied().unwrap_or(f32::NEG_INFINITY))
    }
}

/// Rows to ask for. Where most are the same, the same question again and again says little: more
/// rows are looked at for others.
fn distinct<T: Real>(
    segment: &Segment,
    stamp: u64,
    count: usize,
    coded: usize,
) -> Result<Vec<usize>, Damage> {
    let differing = |wanted: usize| {
        let mut seen = HashSet::new();
        let mut positions = SplitMix64(stamp).sample(wanted, coded);
        let vectors = positions.iter().map(|position| segment.vector::<T>(*position));
        let vectors = vectors.collect::<Result<Vec<_>, Damage>>()?;
        let mut vectors = vectors.into_iter();
        positions.retain(|_| {
            vectors.next().is_some_and(|v| seen.insert(bytemuck::cast_slice::<T, u8>(v)))
        });
        Ok(positions)
    };
    let few = differing(count)?;
    if few.len() >= count.min(coded) / 2 {
        return Ok(few);
    }
    let many = differing(count * LOOKED_AT)?;
    let chosen = SplitMix64(stamp).sample(count, many.len());
    Ok(chosen.into_iter().map(|at| many[at]).collect())
}

fn others(hits: &[Hit], own: i64) -> impl Iterator<Item = &Hit> {
    hits.iter().filter(move |hit| hit.row_id != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_lists_that_are_enough_are_found() {
        for needed in 1..=70 {
            for low in 1..=needed.min(64) {
                let found = fewest(low, 64, |lists| Ok(lists >= needed)).unwrap();
                assert_eq!(found, (needed <= 64).then_some(needed));
            }
        }
    }
}
