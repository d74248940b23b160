//! Ranking: by vector, by text, or by both rankings fused.

use std::collections::{HashMap, HashSet};

use serde_json::{Value as Json, json};

use super::answer::Found;
use super::context::Moment;
use super::request::{TextQuery, VectorQuery};
use crate::error::{ErrorKind, Result};
use crate::index::{How, Reach, Strategy};
use crate::limits::exceeded;
use crate::parallel;
use crate::query::reciprocal_rank;
use crate::schema::Column;
use crate::vector::{Hit, Metric};

/// The best rows of each ranking that are fused: enough that a row further down in one cannot come
/// far up by it, and fixed, so that the order is the same whatever page of it is asked for.
const WINDOW: usize = 1000;

/// How many rows each step of a search by index finds. An index may miss a row that a search for
/// more rows finds, so that the answers of different sizes are not of one order. It is made of
/// steps: what one step finds follows what those before it have found, for every page alike.
const STEPS: [usize; 3] = [10, 100, 1000];

impl Moment<'_, '_, '_> {
    /// The rows of the answer, best first, query by query; and how they were found, if asked for.
    pub(super) fn find(&self) -> Result<(Vec<Found>, Option<Json>)> {
        let request = self.request;
        let mut explanation = request.explain.then(|| self.outline());
        let found = match (request.vectors, request.texts) {
            (Some(vectors), None) => self.by_vector(&vectors, explanation.as_mut())?,
            (None, Some(texts)) => self.by_text(&texts, explanation.as_mut())?,
            (Some(vectors), Some(texts)) => self.by_both(&vectors, &texts, explanation.as_mut())?,
            (None, None) => Vec::new(),
        };
        Ok((found, explanation))
    }

    /// What is known of a search before it is done.
    fn outline(&self) -> Json {
        let mut outline = json!({ "kernels": crate::vector::Isa::best().name() });
        if let Some(passing) = &self.passing {
            outline["rows_passing_filter"] = json!(passing.len());
        }
        if let (Some((column, followed)), Some(query)) = (&self.vectors, self.request.vectors) {
            outline["vectors"] = json!(followed.vectors.len());
            outline["vectors_in_no_segment"] = json!(followed.extent.loose);
            outline["segments"] = json!(followed.vectors.parts().len());
            outline["feature"] = json!(column.feature);
            outline["metric"] = json!(query.metric.name());
        }
        if let (Some(_), Some(_)) = (self.request.vectors, self.request.texts) {
            let fusion = self.request.fusion;
            outline["fusion"] = json!({
                "method": "reciprocal rank",
                "k": fusion.k,
                "vector_weight": fusion.vector_weight,
                "text_weight": fusion.text_weight,
                "window": WINDOW,
            });
        }
        outline
    }

    /// Whether the rows that may be found are no more than one call ranks. However deep a search is
    /// asked for, it is no deeper than the table.
    pub(super) fn check_rows(&self) -> Result<()> {
        let (request, most) = (self.request, self.limits.rows);
        let queries = request.queries();
        if self.depth().saturating_mul(queries) <= most {
            return Ok(());
        }
        let there_are = match (&self.passing, &self.vectors, request.texts) {
            (Some(passing), _, _) => passing.len(),
            (None, Some((_, followed)), None) => followed.vectors.len(),
            _ => self.snapshot.count(&self.table.schema)? as usize,
        };
        let rows = self.depth().min(there_are).saturating_mul(queries);
        if rows <= most {
            return Ok(());
        }
        let found = format_args!(
            "the search ranks {rows} rows: `top_k` and `offset` together are {}, of {there_are} \
             rows, for each of {queries} queries",
            self.depth()
        );
        let advice = "ask for fewer rows, or for fewer queries at a time";
        let error = exceeded(ErrorKind::InvalidArgument, found, "rows", most, advice);
        Err(error.at(&request.view.id))
    }

    fn depth(&self) -> usize {
        self.request.top_k.saturating_add(self.request.offset)
    }

    fn page<T>(&self, rows: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        rows.into_iter().skip(self.request.offset).take(self.request.top_k)
    }

    fn how(&self, exact: bool) -> How<'_> {
        How { scope: self.scope(), threads: self.threads, exact, reach: Reach::Measured }
    }

    /// The nearest rows to each query: those of a search for so many, and how they were found.
    fn nearest(
        &self,
        vectors: &VectorQuery<'_>,
        count: usize,
        exact: bool,
    ) -> Result<(Vec<Vec<Hit>>, Strategy)> {
        let Some((_, followed)) = &self.vectors else {
            return Ok((Vec::new(), Strategy::Exact));
        };
        let (mut answers, strategy) =
            followed.vectors.search(&vectors.queries, vectors.metric, count, &self.how(exact))?;
        leave_out_distant(&mut answers, vectors);
        Ok((answers, strategy))
    }

    /// The first rows of the one order that all pages are of.
    fn nearest_in_order(
        &self,
        vectors: &VectorQuery<'_>,
        explanation: Option<&mut Json>,
    ) -> Result<Vec<Vec<Hit>>> {
        let Some((_, followed)) = &self.vectors else {
            return Ok(Vec::new());
        };
        let (mut answers, strategy) = followed.vectors.search_in_steps(
            &vectors.queries,
            vectors.metric,
            &STEPS,
            self.depth(),
            &self.how(self.request.exact),
        )?;
        if let Some(explanation) = explanation {
            self.explain_vectors(strategy, explanation);
        }
        leave_out_distant(&mut answers, vectors);
        Ok(answers)
    }

    fn explain_vectors(&self, strategy: Strategy, explanation: &mut Json) {
        explanation["strategy"] = json!(match (strategy, &self.passing) {
            (Strategy::Index(_), _) => "index",
            (Strategy::Exact, None) => "exact scan of all vectors",
            (Strategy::Exact, Some(_)) => "exact scan of the vectors that pass the filter",
        });
        if let Strategy::Index(effort) = strategy {
            explanation["lists_probed"] = json!(effort.lists);
            explanation["codes_scanned"] = json!(effort.scanned);
            explanation["codes_refined"] = json!(effort.refined);
            explanation["vectors_measured"] = json!(effort.measured);
        }
    }

    fn by_vector(
        &self,
        vectors: &VectorQuery<'_>,
        explanation: Option<&mut Json>,
    ) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let nearest = self.nearest_in_order(vectors, explanation)?;
        for (query, hits) in nearest.into_iter().enumerate() {
            found.extend(self.page(hits).map(|Hit { row_id, distance }| Found {
                query,
                row_id,
                distance: Some(distance),
                text_rank: None,
                score: None,
            }));
        }
        Ok(found)
    }

    fn by_text(
        &self,
        texts: &TextQuery<'_>,
        mut explanation: Option<&mut Json>,
    ) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for (query, text) in texts.queries.iter().enumerate() {
            parallel::check()?;
            let ranking = self.rank_texts(text, texts, self.depth(), explanation.as_deref_mut())?;
            found.extend(self.page(ranking.best).map(|(row_id, rank)| Found {
                query,
                row_id,
                distance: None,
                text_rank: Some(rank),
                score: None,
            }));
        }
        Ok(found)
    }

    fn by_both(
        &self,
        vectors: &VectorQuery<'_>,
        texts: &TextQuery<'_>,
        mut explanation: Option<&mut Json>,
    ) -> Result<Vec<Found>> {
        let Some((column, _)) = &self.vectors else {
            return Ok(Vec::new());
        };
        let fusion = self.request.fusion;
        let (nearest, strategy) = self.nearest(vectors, WINDOW, self.request.exact)?;
        if let Some(explanation) = explanation.as_deref_mut() {
            self.explain_vectors(strategy, explanation);
        }
        let mut found = Vec::new();
        for (query, (hits, text)) in nearest.into_iter().zip(texts.queries).enumerate() {
            parallel::check()?;
            let ranking = self.rank_texts(text, texts, WINDOW, explanation.as_deref_mut())?;
            let mut distances: HashMap<i64, f64> =
                hits.iter().map(|hit| (hit.row_id, hit.distance)).collect();
            let mut ranked: Vec<i64> = ranking.best.iter().map(|(row_id, _)| *row_id).collect();
            if let Some(most) = vectors.max_distance {
                self.measure(column, vectors, query, &ranked, &mut distances)?;
                ranked.retain(|row_id| distances.get(row_id).is_some_and(|d| *d <= most));
            }
            let rankings = [
                (fusion.vector_weight, hits.iter().map(|hit| hit.row_id).collect()),
                (fusion.text_weight, ranked),
            ];
            let mut order = reciprocal_rank(&rankings, fusion.k);
            if self.depth() > order.len() {
                self.append_the_rest(vectors, texts, query, &mut order)?;
            }
            let page: Vec<_> = self.page(order).collect();
            let row_ids: Vec<i64> = page.iter().map(|(row_id, _)| *row_id).collect();
            self.measure(column, vectors, query, &row_ids, &mut distances)?;
            let ranks = self.text_ranks(&ranking, row_ids.into_iter())?;
            found.extend(page.into_iter().map(|(row_id, score)| Found {
                query,
                row_id,
                distance: distances.get(&row_id).copied(),
                text_rank: ranks.get(&row_id).copied(),
                score: Some(score),
            }));
        }
        Ok(found)
    }

    /// The rows that are among the best of neither ranking follow those that are, without a score:
    /// the nearer ones first, then those that have no vector, the better texts first.
    fn append_the_rest(
        &self,
        vectors: &VectorQuery<'_>,
        texts: &TextQuery<'_>,
        query: usize,
        order: &mut Vec<(i64, f64)>,
    ) -> Result<()> {
        let mut seen: HashSet<i64> = order.iter().map(|(row_id, _)| *row_id).collect();
        let one = VectorQuery {
            queries: vectors.queries.slice_move(ndarray::s![query..=query, ..]),
            ..*vectors
        };
        let (nearest, _) = self.nearest(&one, self.depth(), true)?;
        let nearest = nearest.into_iter().flatten().map(|hit| hit.row_id);
        order.extend(nearest.filter(|row_id| seen.insert(*row_id)).map(|row_id| (row_id, 0.0)));
        if self.depth() > order.len() && vectors.max_distance.is_none() {
            let all = self.rank_texts(&texts.queries[query], texts, self.depth(), None)?;
            let ranked = all.best.into_iter().map(|(row_id, _)| row_id);
            order.extend(ranked.filter(|row_id| seen.insert(*row_id)).map(|row_id| (row_id, 0.0)));
        }
        Ok(())
    }

    /// Adds the distances of those rows that are not known yet.
    fn measure(
        &self,
        column: &Column,
        vectors: &VectorQuery<'_>,
        query: usize,
        row_ids: &[i64],
        distances: &mut HashMap<i64, f64>,
    ) -> Result<()> {
        let unknown: Vec<i64> =
            row_ids.iter().copied().filter(|id| !distances.contains_key(id)).collect();
        let Some((_, followed)) = self.vectors.as_ref().filter(|_| !unknown.is_empty()) else {
            return Ok(());
        };
        let query = vectors.queries.slice(ndarray::s![query..=query, ..]);
        let metric: Metric = vectors.metric;
        distances.extend(followed.vectors.measure(
            self.snapshot,
            self.table,
            column,
            &query,
            metric,
            &unknown,
        )?);
        Ok(())
    }
}

fn leave_out_distant(answers: &mut [Vec<Hit>], vectors: &VectorQuery<'_>) {
    if let Some(most) = vectors.max_distance {
        for hits in answers {
            hits.retain(|hit| hit.distance <= most);
        }
    }
}
