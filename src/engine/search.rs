//! Search by vector, by text, or by both: finding the rows, and reading their features in the same
//! snapshot.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use parking_lot::Mutex;
use serde_json::json;

use super::answer::{answer, features_of, rows_of};
use super::context::Moment;
use super::request::{SearchRequest, VectorQuery, check, place, too_costly};
use super::vectors::{CacheKey, VectorCache, follow, wrong_length};
use super::{Engine, filters, now};
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;
use crate::query::Resolved;
use crate::schema::{Column, Element, TableSchema, ViewSpec};
use crate::store::{Snapshot, TableState};
use crate::vector::RowSet;

/// How often a search is tried whose index files turn out to be damaged or gone: the last time
/// without them.
const TRIES: usize = 4;

/// How often a search is tried again that has found rows which another tool has deleted from the
/// table; then it asks the table first which rows there are.
const ROUNDS: usize = 2;

/// The rows found, and how.
#[derive(Debug)]
pub struct SearchAnswer {
    /// The rows, best first; those of the first query before those of the second.
    pub rows: RecordBatch,
    /// How they were found, for people: a JSON object, if it was asked for.
    pub explanation: Option<serde_json::Value>,
}

/// How a search is tried.
struct Way<'a> {
    /// Rows that turned out not to be there.
    gone: &'a HashSet<i64>,
    /// Whether the table is asked which rows there are.
    asks_first: bool,
    without_index: bool,
}

/// What came of a search that was tried.
enum Attempt {
    Answer(SearchAnswer),
    /// Rows of the answer that are not in the table, in ascending order.
    Gone(Vec<i64>),
}

impl Engine {
    /// Finds the best rows for each query, best first.
    ///
    /// The answer as [`Form::Wire`]: `entity_key` (serialized `EntityKey` messages),
    /// `event_timestamp`, `distance` (float64, lower is nearer), `text_rank` (float64, BM25, higher
    /// is better), then the features as [`Engine::read`] gives them. As [`Form::Typed`]: `query`
    /// (int32, if asked for), the join keys, the features in native types,
    /// `event_timestamp`, and whichever of `distance`, `text_rank` and `score` (float64, higher is
    /// better) the search has.
    ///
    /// Rows without a vector, or with one of NaN or infinity, have no distance: a search by vector
    /// does not find them, one by text does.
    pub fn search(&self, request: &SearchRequest<'_>) -> Result<SearchAnswer> {
        let late = |limit| {
            let advice = "ask for fewer rows, by a simpler filter, or by fewer and rarer words";
            too_costly(&request.view.id.to_string(), "the search", limit, advice)
        };
        parallel::within(request.cpu, late, || self.search_within(request))
    }

    fn search_within(&self, request: &SearchRequest<'_>) -> Result<SearchAnswer> {
        let _entered = self.gate.enter()?;
        check(request, self.limits())?;
        if request.texts.is_some() {
            parallel::uncounted(|| self.ensure_text_index(request.view))?;
        }
        let key = request.vectors.map(|vectors| {
            (request.view.id.clone(), vectors.feature.to_owned(), vectors.queries.ncols())
        });
        let mut gone = HashSet::new();
        let (mut rounds, mut tried, mut without_index) = (0, 0, false);
        while tried < TRIES {
            let index = Cell::new((0, 0));
            let asks_first = rounds == ROUNDS;
            let way = Way { gone: &gone, asks_first, without_index };
            let attempt = parallel::catch("a search", || {
                self.search_once(request, key.as_ref(), &index, &way)
            });
            let answer = match attempt {
                Ok(Attempt::Answer(answer)) => {
                    if answer.rows.num_rows() == 0
                        && let Some(key) = &key
                    {
                        // Perhaps of a length that there are none of, or of a view without a table.
                        self.vectors.forget_if_none(key);
                    }
                    return Ok(answer);
                }
                Ok(Attempt::Gone(row_ids)) if asks_first => {
                    let message = format!(
                        "{}: {} rows are in the table and not in it; it is damaged",
                        request.view.id,
                        row_ids.len()
                    );
                    Err(Error::new(ErrorKind::Damaged, message))
                }
                Ok(Attempt::Gone(row_ids)) => {
                    self.vectors.bury(key.as_ref(), &row_ids);
                    gone.extend(row_ids);
                    rounds += 1;
                    continue;
                }
                Err(error) => Err(error),
            };
            tried += 1;
            match (&answer, &key) {
                (Err(error), Some(key))
                    if error.kind() == ErrorKind::IndexUnavailable && !without_index =>
                {
                    without_index = true;
                    self.note_unavailable_index(request, key, error);
                    continue;
                }
                (Err(error), Some(key)) if error.kind() == ErrorKind::IndexDamaged => {
                    // Another process may just have replaced the file.
                    self.vectors.forget(key);
                    if tried + 1 >= TRIES {
                        self.give_up_index(request, key, index.get(), error);
                    }
                    continue;
                }
                (Err(error), Some(key)) if error.is_callers() => self.vectors.forget_if_none(key),
                // What is in memory was brought up to date, or not touched.
                (Err(_), _) if parallel::is_spent() => {}
                (Err(error), key) if !error.is_callers() => {
                    // What was under way may be half done.
                    if let Some(key) = key {
                        self.vectors.forget(key);
                    }
                    self.rows.forget(&request.view.id);
                }
                _ => {}
            }
            return answer;
        }
        Err(Error::new(ErrorKind::Io, "the index files change faster than they can be read"))
    }

    /// One attempt. Leaves in `index` which table's index was used, and its version.
    fn search_once(
        &self,
        request: &SearchRequest<'_>,
        key: Option<&CacheKey>,
        index: &Cell<(i64, i64)>,
        way: &Way<'_>,
    ) -> Result<Attempt> {
        let Way { gone, asks_first, without_index } = *way;
        let started = Instant::now();
        let vectors = key.map(|key| {
            if without_index {
                Arc::new(Mutex::new(VectorCache::without_index()))
            } else {
                self.vectors.entry(key.clone())
            }
        });
        let may_filter = request.filter.is_some() || request.texts.is_some();
        let rows = may_filter.then(|| self.rows.entry(&request.view.id));
        // What is resident is locked before the snapshot is taken, so that it can only be behind.
        let vectors = vectors.as_ref().map(|entry| parallel::lock(entry)).transpose()?;
        let rows = rows.as_ref().map(|entry| entry.upgradable_read());
        self.store.read(|snapshot| {
            self.release_lost(snapshot)?;
            let table = snapshot.table(&request.view.id)?;
            let schema = table.as_ref().map(|table| table.schema.as_ref());
            let features = features_of(request.view, schema, request.features);
            let Some(table) = &table else {
                if let Some(mut cache) = vectors {
                    *cache = VectorCache::default();
                }
                let none = rows_of(snapshot, None, None, &features, &[])?;
                let rows = answer(request, None, &features, &[], none)?;
                let explanation = request.explain.then(|| json!({ "rows": 0 }));
                return Ok(Attempt::Answer(SearchAnswer { rows, explanation }));
            };
            index.set((table.schema.table_id, table.index_version));
            let filter = request.filter.map(|filter| filter.resolve(&table.schema)).transpose()?;
            let column = request
                .vectors
                .map(|vectors| vector_column(&table.schema, request.view, &vectors))
                .transpose()?;
            let vectors = match (vectors, column) {
                (Some(cache), Some((column, dim))) => {
                    let folder = self.store.index_folder();
                    let followed = parallel::uncounted(|| {
                        follow(cache, snapshot, table, column, dim, &folder)
                    })?;
                    if !without_index {
                        self.request_index(request, &followed);
                    }
                    Some((column, followed))
                }
                _ => None,
            };
            let now = now();
            let filter = wanted_rows(request, table, filter);
            let passing = match (rows, filter) {
                (Some(cache), Some(filter)) => {
                    Some(filters::passing(cache, snapshot, table, filter, now)?)
                }
                _ => None,
            };
            let passing = match passing {
                passing if !asks_first => passing,
                passing => Some(those_there(snapshot, &table.schema, passing.as_deref())?),
            };
            let threads = self.threads_for_one_search();
            let (texts, limits) = (&self.texts, self.limits());
            let moment = Moment {
                request,
                snapshot,
                table,
                vectors,
                passing,
                texts,
                limits,
                gone,
                now,
                threads,
            };
            moment.check_rows()?;
            let ready = started.elapsed();
            let (found, mut explanation) = moment.find()?;
            parallel::check()?;
            let ranked = started.elapsed();
            let vectors = moment.vectors.as_ref().map(|(_, followed)| &followed.vectors);
            let schema = Some(table.schema.as_ref());
            let rows = rows_of(snapshot, schema, vectors, &features, &found)?;
            if rows.entity_keys.null_count() > 0 {
                let keys = rows.entity_keys.as_binary::<i32>();
                let is_gone: Vec<bool> = keys.iter().map(|key| key.is_none()).collect();
                let lost = found.iter().zip(is_gone).filter(|(_, is_gone)| *is_gone);
                let lost: BTreeSet<i64> = lost.map(|(row, _)| row.row_id).collect();
                return Ok(Attempt::Gone(lost.into_iter().collect()));
            }
            let rows = answer(request, schema, &features, &found, rows)?;
            if let Some(explanation) = &mut explanation {
                let micros = |since: Duration, until: Duration| {
                    until.saturating_sub(since).as_micros() as u64
                };
                explanation["microseconds"] = json!({
                    "snapshot_and_filter": micros(Duration::ZERO, ready),
                    "ranking": micros(ready, ranked),
                    "reading": micros(ranked, started.elapsed()),
                });
            }
            Ok(Attempt::Answer(SearchAnswer { rows, explanation }))
        })
    }
}

/// Those of the rows, or of all, that are in the table.
fn those_there(
    snapshot: &Snapshot<'_>,
    schema: &TableSchema,
    passing: Option<&RowSet>,
) -> Result<Arc<RowSet>> {
    let mut row_ids = snapshot.row_ids(schema)?;
    if let Some(passing) = passing {
        row_ids.retain(|row_id| passing.contains(*row_id));
    }
    Ok(Arc::new(RowSet::of(&row_ids)))
}

/// What rows have to pass, if that is anything. Vectors know when their rows expire and of what
/// time they are; texts do not.
fn wanted_rows(
    request: &SearchRequest<'_>,
    table: &TableState,
    filter: Option<Resolved>,
) -> Option<Resolved> {
    let filter = filter.filter(|filter| !filter.is_trivial());
    if request.texts.is_none() || (!table.expires && request.not_before.is_none()) {
        return filter;
    }
    let filter = filter.unwrap_or_else(Resolved::everything);
    Some(match request.not_before {
        Some(micros) => filter.since(micros),
        None => filter,
    })
}

/// The column to search, and the length of its vectors.
fn vector_column<'a>(
    schema: &'a TableSchema,
    view: &ViewSpec,
    vectors: &VectorQuery<'_>,
) -> Result<(&'a Column, usize)> {
    let dim = vectors.queries.ncols();
    let Some(column) = schema.column(vectors.feature) else {
        let message = format!(
            "{} has no feature '{}'; its features are: {}",
            view.id,
            vectors.feature,
            schema.feature_names()
        );
        return Err(Error::new(ErrorKind::UnknownFeature, message));
    };
    let Some(element) = column.kind.vector_element() else {
        let message = format!(
            "features of type {} hold no vectors; searched can be lists of FLOAT, DOUBLE, INT32 \
             or INT64",
            column.feast_type
        );
        return Err(Error::new(ErrorKind::NotAVector, message).at(place(view, vectors)));
    };
    if element == Element::F32
        && let Some(value) = vectors.queries.iter().find(|x| x.abs() > f32::MAX.into())
    {
        let message = format!("the query vector holds {value}, which float32 cannot hold");
        return Err(Error::new(ErrorKind::InvalidQuery, message).at(place(view, vectors)));
    }
    match column.vector_length {
        Some(length) if length as usize != dim => {
            Err(wrong_length(dim, length as usize, Some(length)).at(place(view, vectors)))
        }
        _ => Ok((column, dim)),
    }
}
