//! Ranking: by vector, by text, or by both rankings fused.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::search::{Found, Moment, TextQuery, VectorQuery, text_search_is_off};
use super::texts::Ranked;
use crate::error::Result;
use crate::index::{How, Reach, Strategy};
use crate::query::reciprocal_rank;
use crate::schema::Column;
use crate::store::TextPlan;
use crate::text::phrases;
use crate::vector::{Candidate, Hit, Metric, TopK};

/// The best rows of each ranking that are fused: enough that a row further down in one cannot come
/// far up by it, and fixed, so that one page of an answer goes on where the last has ended.
const WINDOW: usize = 1000;

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
                "window": self.window(),
            });
        }
        outline
    }

    fn window(&self) -> usize {
        self.depth().max(WINDOW)
    }

    fn depth(&self) -> usize {
        self.request.top_k.saturating_add(self.request.offset)
    }

    fn page<T>(&self, rows: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        rows.into_iter().skip(self.request.offset).take(self.request.top_k)
    }

    fn nearest(
        &self,
        vectors: &VectorQuery<'_>,
        count: usize,
        explanation: Option<&mut Json>,
    ) -> Result<Vec<Vec<Hit>>> {
        let Some((_, followed)) = &self.vectors else {
            return Ok(Vec::new());
        };
        let how = How {
            scope: self.scope(),
            threads: self.threads,
            exact: self.request.exact,
            reach: Reach::Measured,
        };
        let (mut answers, strategy) =
            followed.vectors.search(&vectors.queries, vectors.metric, count, &how)?;
        if let Some(explanation) = explanation {
            self.explain_vectors(strategy, explanation);
        }
        if let Some(most) = vectors.max_distance {
            for hits in &mut answers {
                hits.retain(|hit| hit.distance <= most);
            }
        }
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
        let nearest = self.nearest(vectors, self.depth(), explanation)?;
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
            let plan = self.plan(text, texts)?;
            explain(&plan, explanation.as_deref_mut());
            let ranked = self.best_texts(&plan, self.depth(), &mut HashMap::new())?;
            found.extend(self.page(ranked).map(|(row_id, rank)| Found {
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
        let window = self.window();
        let fusion = self.request.fusion;
        let nearest = self.nearest(vectors, window, explanation.as_deref_mut())?;
        let mut found = Vec::new();
        for (query, (hits, text)) in nearest.into_iter().zip(texts.queries).enumerate() {
            let plan = self.plan(text, texts)?;
            explain(&plan, explanation.as_deref_mut());
            let mut distances: HashMap<i64, f64> =
                hits.iter().map(|hit| (hit.row_id, hit.distance)).collect();
            // Of the nearest rows, the ranks of all are wanted: 0 where no word matches.
            let mut ranks: HashMap<i64, f64> = hits.iter().map(|hit| (hit.row_id, 0.0)).collect();
            let mut ranked = self.best_texts(&plan, window, &mut ranks)?;
            if let Some(most) = vectors.max_distance {
                let unknown = ranked.iter().map(|(row_id, _)| *row_id);
                self.measure(column, vectors, query, unknown, &mut distances)?;
                ranked.retain(|(row_id, _)| distances.get(row_id).is_some_and(|d| *d <= most));
            }
            ranks.extend(ranked.iter().copied());
            let rankings = [
                (fusion.vector_weight, hits.iter().map(|hit| hit.row_id).collect()),
                (fusion.text_weight, ranked.iter().map(|(row_id, _)| *row_id).collect()),
            ];
            let page: Vec<_> = self.page(reciprocal_rank(&rankings, fusion.k)).collect();
            let unknown = page.iter().map(|(row_id, _)| *row_id);
            self.measure(column, vectors, query, unknown, &mut distances)?;
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

    /// Adds the distances of those rows that are not known yet.
    fn measure(
        &self,
        column: &Column,
        vectors: &VectorQuery<'_>,
        query: usize,
        row_ids: impl Iterator<Item = i64>,
        distances: &mut HashMap<i64, f64>,
    ) -> Result<()> {
        let unknown: Vec<i64> = row_ids.filter(|id| !distances.contains_key(id)).collect();
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

    fn plan(&self, text: &str, texts: &TextQuery<'_>) -> Result<TextPlan> {
        let schema = &self.table.schema;
        if !schema.has_text_index() {
            return Err(match schema.text_columns_among(&self.request.view.text_features).len() {
                0 => no_texts(self.request.view),
                _ => text_search_is_off(self.request.view),
            });
        }
        self.snapshot.text_plan(schema, &phrases(text, texts.mode), texts.mode)
    }

    /// Every row that matches, in the order of their ids.
    fn matches(&self, expression: &str) -> Result<Arc<Vec<Ranked>>> {
        if let Some(known) = self.texts.get(self.table, expression) {
            return Ok(known);
        }
        let mut matches = Vec::new();
        self.snapshot.text_matches(&self.table.schema, expression, &mut |row_id, rank| {
            matches.push((row_id, rank));
        })?;
        let matches = Arc::new(matches);
        self.texts.put(self.table, expression, &matches);
        Ok(matches)
    }

    /// The `count` best rows for the text, best first. Fills in the ranks of the rows in `known`,
    /// whether they are among the best or not.
    fn best_texts(
        &self,
        plan: &TextPlan,
        count: usize,
        known: &mut HashMap<i64, f64>,
    ) -> Result<Vec<Ranked>> {
        let Some(expression) = &plan.expression else {
            return Ok(Vec::new());
        };
        let mut top = TopK::new(count);
        for &(row_id, rank) in self.matches(expression)?.iter() {
            if let Some(known) = known.get_mut(&row_id) {
                *known = rank;
            }
            let candidate = Candidate { key: -rank, row_id, position: (0, 0) };
            if candidate.key <= top.threshold()
                && self.passing.as_ref().is_none_or(|rows| rows.contains(row_id))
            {
                top.offer(candidate);
            }
        }
        let mut best = top.into_candidates();
        best.sort();
        Ok(best.into_iter().map(|candidate| (candidate.row_id, -candidate.key)).collect())
    }
}

fn explain(plan: &TextPlan, explanation: Option<&mut Json>) {
    let Some(explanation) = explanation else {
        return;
    };
    if explanation.get("texts").is_none() {
        explanation["texts"] = json!([]);
    }
    if let Some(texts) = explanation["texts"].as_array_mut() {
        texts.push(json!({
            "expression": plan.expression,
            "passed_over_as_too_common": plan.passed_over,
        }));
    }
}

fn no_texts(view: &crate::schema::ViewSpec) -> crate::Error {
    crate::Error::new(
        crate::ErrorKind::TextSearchOff,
        format!(
            "{}: there are no texts to search: none of the features chosen for it ({}) is of type \
             STRING in the stored table; run `feast apply`, or mend the choice",
            view.id,
            view.text_features.join(", ")
        ),
    )
}
