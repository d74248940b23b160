//! Searching the full-text index: which rows match, and how well.
//!
//! Ranks are FTS5's BM25 (k1 = 1.2, b = 0.75). FTS5 ranks about a row a microsecond, however little
//! a word is worth, and counts the rows of a word forty times as fast. So the engine may look for
//! the rarer words of a query alone ([`Snapshot::text_candidates`]), as long as the bounds that
//! [`WeightedPhrase`] gives prove that no other row can be among the best: `MaxScore` (Turtle
//! and Flood, "Query evaluation: strategies and optimizations", 1995).

use std::collections::HashMap;

use rusqlite::OptionalExtension;
use rusqlite::types::ValueRef;

use super::connections::Snapshot;
use super::text::select_sql;
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;
use crate::schema::{TableSchema, quote};
use crate::text::{Phrase, TextMatch, indexable};

const K1: f64 = 1.2;
const B: f64 = 0.75;

/// FTS5's weight of a word that most rows have.
const LEAST_IDF: f64 = 1e-6;

/// A phrase with what it is worth.
#[derive(Debug, Clone)]
pub struct WeightedPhrase {
    /// The phrase.
    pub phrase: Phrase,
    /// The rows that it is in.
    pub rows: u64,
    /// Its inverse document frequency, as FTS5 has it.
    pub idf: f64,
}

impl WeightedPhrase {
    /// More than it adds to the rank of any row, however often the row has it.
    pub fn most(&self) -> f64 {
        (K1 + 1.0) * self.idf
    }
}

/// FTS5's expression for rows that have any of the phrases, or all of them in the other modes;
/// `None` if there are none.
pub fn text_expression(phrases: &[Phrase], mode: TextMatch) -> Option<String> {
    let operator = if mode == TextMatch::Any { " OR " } else { " AND " };
    let expressions: Vec<_> = phrases.iter().map(expression_of).collect();
    (!expressions.is_empty()).then(|| expressions.join(operator))
}

/// FTS5's string syntax, in which everything but the quotes around it is plain text.
pub(super) fn expression_of(phrase: &Phrase) -> String {
    let text = phrase.words.join(" ").replace('"', "\"\"");
    format!("\"{text}\"{}", if phrase.is_prefix { " *" } else { "" })
}

/// The rank as it is answered and ordered by. Rounded, so that rows that are equally good are equal
/// whichever way their ranks were added up.
fn rounded(rank: f64) -> f64 {
    f64::from(rank as f32)
}

impl Snapshot<'_> {
    /// Rows in the text index.
    pub fn texts(&self, schema: &TableSchema) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {}", shadow(schema, "docsize"));
        let count: i64 = self.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    /// What the phrases are worth where so many rows have texts; the rarest first, and without
    /// those that are in no row.
    pub fn weigh(
        &self,
        schema: &TableSchema,
        phrases: &[Phrase],
        texts: u64,
    ) -> Result<Vec<WeightedPhrase>> {
        let table = quote(&schema.text_table());
        let sql = format!("SELECT count(*) FROM {table} WHERE {table} MATCH ?1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut weighted = Vec::with_capacity(phrases.len());
        for phrase in phrases {
            parallel::check()?;
            let rows: i64 = statement.query_row([expression_of(phrase)], |row| row.get(0))?;
            let rows = rows.cast_unsigned();
            let idf = ((texts.saturating_sub(rows) as f64 + 0.5) / (rows as f64 + 0.5)).ln();
            let idf = if idf > 0.0 { idf } else { LEAST_IDF };
            weighted.push(WeightedPhrase { phrase: phrase.clone(), rows, idf });
        }
        weighted.retain(|weighted| weighted.rows > 0);
        weighted.sort_by_key(|weighted| weighted.rows);
        Ok(weighted)
    }

    /// Every row that matches the expression, with its rank (higher is better), in the order of
    /// the ids.
    pub fn text_matches(&self, schema: &TableSchema, expression: &str) -> Result<Vec<(i64, f64)>> {
        let mut matches = self.raw_matches(schema, expression)?;
        for (_, rank) in &mut matches {
            *rank = rounded(*rank);
        }
        Ok(matches)
    }

    /// The rows that have any of the `rare` phrases, with their ranks for all of `phrases`, in the
    /// order of the ids.
    pub fn text_candidates(
        &self,
        schema: &TableSchema,
        phrases: &[Phrase],
        rare: &[Phrase],
    ) -> Result<Vec<(i64, f64)>> {
        let (Some(all), Some(rare)) =
            (text_expression(phrases, TextMatch::Any), text_expression(rare, TextMatch::Any))
        else {
            return Ok(Vec::new());
        };
        // FTS5 has no way to ask for a phrase without counting it: where the rare ones stand twice,
        // their part is taken off again.
        let own = self.raw_matches(schema, &rare)?;
        let mut both = self.raw_matches(schema, &format!("({all}) AND ({rare})"))?;
        if both.len() != own.len() {
            let message = "the text index answers differently from one query to the next";
            return Err(Error::new(ErrorKind::Damaged, message).at(&schema.view));
        }
        for ((_, rank), (_, part)) in both.iter_mut().zip(own) {
            *rank = rounded(*rank - part);
        }
        Ok(both)
    }

    fn raw_matches(&self, schema: &TableSchema, expression: &str) -> Result<Vec<(i64, f64)>> {
        let table = quote(&schema.text_table());
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT rowid, bm25({table}) FROM {table} WHERE {table} MATCH ?1"
        ))?;
        let rows = statement.query_map([expression], |row| {
            let rank: f64 = row.get(1)?;
            Ok((row.get(0)?, -rank))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The ranks of these few rows, 0 where none of the phrases is in them.
    pub fn text_ranks(
        &self,
        schema: &TableSchema,
        phrases: &[WeightedPhrase],
        row_ids: &[i64],
    ) -> Result<HashMap<i64, f64>> {
        let average = self.average_length(schema)?;
        let sql = format!("{} WHERE row_id = ?1", select_sql(schema));
        let mut texts = self.connection.prepare_cached(&sql)?;
        let sql = format!("SELECT sz FROM {} WHERE id = ?1", shadow(schema, "docsize"));
        let mut sizes = self.connection.prepare_cached(&sql)?;
        let mut ranks = HashMap::with_capacity(row_ids.len());
        for row_id in row_ids {
            parallel::check()?;
            let size: Option<Vec<u8>> = sizes.query_row([row_id], |row| row.get(0)).optional()?;
            let length = size.map_or(0, |size| varints(&size).sum::<u64>());
            let mut counts = vec![0usize; phrases.len()];
            let mut rows = texts.query([row_id])?;
            if let Some(row) = rows.next()?
                && length > 0
            {
                for at in 1..row.as_ref().column_count() {
                    if let ValueRef::Text(text) = row.get_ref(at)? {
                        let text = indexable(&String::from_utf8_lossy(text));
                        let words: Vec<&str> = text.split(' ').collect();
                        for (count, weighted) in counts.iter_mut().zip(phrases) {
                            *count += occurrences(&words, &weighted.phrase.words);
                        }
                    }
                }
            }
            let long = K1 * (1.0 - B + B * length as f64 / average);
            let rank = counts.iter().zip(phrases).map(|(count, weighted)| {
                let count = *count as f64;
                weighted.idf * (count * (K1 + 1.0)) / (count + long)
            });
            ranks.insert(*row_id, rounded(rank.sum()));
        }
        Ok(ranks)
    }

    /// Words of a text in the middle. FTS5 keeps the sums in its first record: the number of rows,
    /// then the number of words in each column.
    fn average_length(&self, schema: &TableSchema) -> Result<f64> {
        let sql = format!("SELECT block FROM {} WHERE id = 1", shadow(schema, "data"));
        let record: Option<Vec<u8>> =
            self.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()?;
        let record = record.unwrap_or_default();
        let mut numbers = varints(&record);
        let rows = numbers.next().unwrap_or(0).max(1);
        Ok((numbers.sum::<u64>() as f64 / rows as f64).max(f64::MIN_POSITIVE))
    }
}

/// One of the tables that FTS5 keeps an index in.
fn shadow(schema: &TableSchema, part: &str) -> String {
    quote(&format!("{}_{part}", schema.text_table()))
}

/// How often the phrase is among the words.
fn occurrences(words: &[&str], phrase: &[String]) -> usize {
    words.windows(phrase.len().max(1)).filter(|window| *window == phrase).count()
}

/// SQLite's variable-length integers: seven bits a byte, the highest first; all eight of a ninth.
fn varints(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let mut bytes = bytes.iter();
    std::iter::from_fn(move || {
        let mut number = 0u64;
        for at in 0..9 {
            let byte = *bytes.next()?;
            if at == 8 {
                return Some(number << 8 | u64::from(byte));
            }
            number = number << 7 | u64::from(byte & 0x7f);
            if byte < 0x80 {
                break;
            }
        }
        Some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_sqlites() {
        let bytes = [0x05, 0x81, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81];
        assert_eq!(varints(&bytes).collect::<Vec<_>>(), [5, 128, u64::MAX]);
        assert_eq!(varints(&[]).count(), 0);
    }

    #[test]
    fn phrases_are_counted_where_they_overlap() {
        let phrase = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let words = ["a", "a", "a", "b"];
        let count = |phrase: Vec<String>| occurrences(&words, &phrase);
        assert_eq!(count(phrase(&["a", "a"])), 2);
        assert_eq!(count(phrase(&["a", "b"])), 1);
        assert_eq!(count(phrase(&["b", "a"])), 0);
        assert_eq!(count(phrase(&["a", "a", "a", "b", "c"])), 0);
    }
}
