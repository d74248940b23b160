//! The ranking by text: all rows that match, or as many of the best as are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::context::Moment;
use super::request::{TextQuery, text_search_is_off};
use super::texts::Ranked;
use crate::error::{Error, ErrorKind, Result};
use crate::schema::ViewSpec;
use crate::store::{WeightedPhrase, text_expression};
use crate::text::{Phrase, TextMatch, phrases};
use crate::vector::{Candidate, TopK};

/// Where the words of a query are in no more rows than this together, all of these are ranked.
const FEW_ROWS: u64 = 4096;

/// Ranks are rounded; a bound has to be clear of that.
const CLEARANCE: f64 = 1.0 + 1e-6;

/// The rows that match one query text, ranked.
pub(super) struct TextRanking {
    /// The best rows, best first; of equals the lower id comes first.
    pub(super) best: Vec<Ranked>,
    /// Rows with their ranks, in the order of the ids.
    matches: Arc<Vec<Ranked>>,
    /// What the phrases are worth, where rows that have none of the rarer ones are not among the
    /// matches.
    weighted: Option<Vec<WeightedPhrase>>,
}

impl Moment<'_, '_, '_> {
    /// The `count` best rows for the text: the same first ones for any count.
    pub(super) fn rank_texts(
        &self,
        text: &str,
        texts: &TextQuery<'_>,
        count: usize,
        explanation: Option<&mut Json>,
    ) -> Result<TextRanking> {
        let schema = &self.table.schema;
        if !schema.has_text_index() {
            return Err(match schema.text_columns_among(&self.request.view.text_features).len() {
                0 => no_texts(self.request.view),
                _ => text_search_is_off(self.request.view),
            });
        }
        if schema.text_is_filling {
            let message = "the text index is being filled, by `feast apply` or after a write that \
                           found none; try again, or run `feast apply` and wait for it";
            return Err(Error::new(ErrorKind::Busy, message).at(&self.request.view.id));
        }
        let phrases = phrases(text, texts.mode, self.limits)
            .map_err(|error| error.at(&self.request.view.id))?;
        let Some(expression) = text_expression(&phrases, texts.mode) else {
            explain(None, &[], explanation);
            let matches = Arc::default();
            return Ok(TextRanking { best: Vec::new(), matches, weighted: None });
        };
        let known = self.texts.get(self.table, &expression);
        if known.is_none()
            && texts.mode == TextMatch::Any
            && let Some(ranking) = self.by_rarer_words(&phrases, count)?
        {
            let (ranking, rare) = ranking;
            let (rare, common) = rare_and_common(&phrases, &rare);
            explain(text_expression(&rare, TextMatch::Any).as_deref(), &common, explanation);
            return Ok(ranking);
        }
        let matches = if let Some(known) = known {
            known
        } else {
            let matches = Arc::new(self.snapshot.text_matches(schema, &expression)?);
            self.texts.put(self.table, &expression, &matches);
            matches
        };
        explain(Some(&expression), &[], explanation);
        let best = self.best(&matches, count);
        Ok(TextRanking { best, matches, weighted: None })
    }

    /// The ranking found by looking for the rarer words alone, and these words; `None` unless it is
    /// certain to be the same as of all rows.
    fn by_rarer_words(
        &self,
        phrases: &[Phrase],
        count: usize,
    ) -> Result<Option<(TextRanking, Vec<Phrase>)>> {
        let schema = &self.table.schema;
        if phrases.len() < 2 {
            return Ok(None);
        }
        let texts = self.snapshot.texts(schema)?;
        if texts <= FEW_ROWS {
            return Ok(None);
        }
        let weighted = self.snapshot.weigh(schema, phrases, texts)?;
        let Some(rare) = rarer_words(&weighted, count) else {
            return Ok(None);
        };
        let bound: f64 = weighted[rare..].iter().map(WeightedPhrase::most).sum();
        let rare: Vec<Phrase> = weighted[..rare].iter().map(|w| w.phrase.clone()).collect();
        let matches = Arc::new(self.snapshot.text_candidates(schema, phrases, &rare)?);
        let best = self.best(&matches, count);
        let is_certain =
            best.len() >= count && best.last().is_some_and(|(_, rank)| *rank > bound * CLEARANCE);
        let ranking = TextRanking { best, matches, weighted: Some(weighted) };
        Ok(is_certain.then_some((ranking, rare)))
    }

    fn best(&self, matches: &[Ranked], count: usize) -> Vec<Ranked> {
        let mut top = TopK::new(count);
        for &(row_id, rank) in matches {
            let candidate = Candidate { key: -rank, row_id, position: (0, 0) };
            if candidate.key <= top.threshold()
                && self.passing.as_ref().is_none_or(|rows| rows.contains(row_id))
                && !self.gone.contains(&row_id)
            {
                top.offer(candidate);
            }
        }
        let mut best = top.into_candidates();
        best.sort_unstable();
        best.into_iter().map(|candidate| (candidate.row_id, -candidate.key)).collect()
    }

    /// The ranks of these rows, whether they are among the best or not; 0 where nothing matches.
    pub(super) fn text_ranks(
        &self,
        ranking: &TextRanking,
        row_ids: impl Iterator<Item = i64>,
    ) -> Result<HashMap<i64, f64>> {
        let mut ranks = HashMap::new();
        let mut others = Vec::new();
        for row_id in row_ids {
            match ranking.matches.binary_search_by_key(&row_id, |(row_id, _)| *row_id) {
                Ok(at) => drop(ranks.insert(row_id, ranking.matches[at].1)),
                Err(_) => others.push(row_id),
            }
        }
        match &ranking.weighted {
            Some(weighted) if !others.is_empty() => {
                let schema = &self.table.schema;
                ranks.extend(self.snapshot.text_ranks(schema, weighted, &others)?);
            }
            _ => ranks.extend(others.into_iter().map(|row_id| (row_id, 0.0))),
        }
        Ok(ranks)
    }
}

/// How many of the phrases, which come the rarest first, are likely to do for the `count` best rows;
/// `None` if ranking all rows is as good.
fn rarer_words(weighted: &[WeightedPhrase], count: usize) -> Option<usize> {
    let all: u64 = weighted.iter().map(|weighted| weighted.rows).sum();
    if all <= FEW_ROWS {
        return None;
    }
    let mut rows = 0;
    for (at, next) in weighted.iter().enumerate().skip(1) {
        let last = &weighted[at - 1];
        rows += last.rows;
        if rows > all / 2 {
            return None;
        }
        // A row that has a word once ranks about as high as the word's weight.
        let bound: f64 = weighted[at..].iter().map(WeightedPhrase::most).sum();
        if rows >= count as u64 && bound < last.idf && next.rows > 0 {
            return Some(at);
        }
    }
    None
}

/// The phrases looked for, and the words of those that were passed over.
fn rare_and_common(phrases: &[Phrase], rare: &[Phrase]) -> (Vec<Phrase>, Vec<String>) {
    let (rare, common): (Vec<Phrase>, Vec<Phrase>) =
        phrases.iter().cloned().partition(|phrase| rare.contains(phrase));
    (rare, common.into_iter().map(|phrase| phrase.words.join(" ")).collect())
}

fn explain(expression: Option<&str>, passed_over: &[String], explanation: Option<&mut Json>) {
    let Some(explanation) = explanation else {
        return;
    };
    if explanation.get("texts").is_none() {
        explanation["texts"] = json!([]);
    }
    if let Some(texts) = explanation["texts"].as_array_mut() {
        texts.push(json!({
            "expression": expression,
            "passed_over_as_too_common": passed_over,
        }));
    }
}

fn no_texts(view: &ViewSpec) -> Error {
    Error::new(
        ErrorKind::TextSearchOff,
        format!(
            "{}: there are no texts to search: none of the features chosen for it ({}) is of type \
             STRING in the stored table; run `feast apply`, or fix the choice",
            view.id,
            view.text_features.join(", ")
        ),
    )
}
