//! What a search is asked for, and what of it is refused before anything is read.

use std::time::Duration;

use ndarray::ArrayView2;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Limits, exceeded};
use crate::query::{Filter, Fusion};
use crate::schema::ViewSpec;
use crate::store::Micros;
use crate::text::TextMatch;
use crate::vector::Metric;

/// How features are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As serialized messages, with which Feast's protos are built.
    Wire,
    /// In Arrow's own types.
    Typed,
}

/// What to look for by nearness.
#[derive(Debug, Clone, Copy)]
pub struct VectorQuery<'a> {
    /// The feature that holds the vectors.
    pub feature: &'a str,
    /// A query a row; rounded to the precision of the stored vectors.
    pub queries: ArrayView2<'a, f64>,
    /// How distance is measured.
    pub metric: Metric,
    /// Rows further away are left out.
    pub max_distance: Option<f64>,
}

/// What to look for by words.
#[derive(Debug, Clone, Copy)]
pub struct TextQuery<'a> {
    /// The queries.
    pub queries: &'a [String],
    /// What of a query a text has to hold.
    pub mode: TextMatch,
}

/// What to search for, and what to answer. With vectors and texts there are as many of each, and
/// the first belongs to the first.
#[derive(Debug)]
pub struct SearchRequest<'a> {
    /// The feature view.
    pub view: &'a ViewSpec,
    /// By nearness.
    pub vectors: Option<VectorQuery<'a>>,
    /// By words.
    pub texts: Option<TextQuery<'a>>,
    /// How the two are fused.
    pub fusion: Fusion,
    /// What rows have to pass to be candidates at all.
    pub filter: Option<&'a Filter>,
    /// Rows of an event time before this are no candidates.
    pub not_before: Option<Micros>,
    /// The most rows that are answered for each query, at least 1.
    pub top_k: usize,
    /// The best rows that are passed over for each query.
    pub offset: usize,
    /// Features of the rows found; `None` for all.
    pub features: Option<&'a [String]>,
    /// Whether every vector in question is compared, whatever index there is.
    pub exact: bool,
    /// Whether to say how the rows were found.
    pub explain: bool,
    /// Whether a typed answer has the column `query`, the number of the query that found a row.
    pub numbers_queries: bool,
    /// How they are answered.
    pub form: Form,
    /// What it may take of the processors, but for bringing what is in memory up to date.
    pub cpu: Option<Duration>,
}

impl SearchRequest<'_> {
    /// How many queries there are.
    pub(super) fn queries(&self) -> usize {
        let vectors = self.vectors.map_or(0, |vectors| vectors.queries.nrows());
        self.texts.map_or(vectors, |texts| texts.queries.len())
    }
}

pub(super) fn check(request: &SearchRequest<'_>, limits: &Limits) -> Result<()> {
    let invalid =
        |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message).at(&request.view.id));
    if request.top_k == 0 {
        return invalid("top_k has to be at least 1");
    }
    if request.vectors.is_none() && request.texts.is_none() {
        return invalid("nothing to search for: pass a query vector, a query text, or both");
    }
    if let (Some(vectors), Some(texts)) = (request.vectors, request.texts)
        && vectors.queries.nrows() != texts.queries.len()
    {
        let message = format!(
            "{} query vectors and {} query texts; there have to be as many of each",
            vectors.queries.nrows(),
            texts.queries.len()
        );
        return invalid(&message);
    }
    let queries = request.queries();
    if queries > limits.queries {
        let advice = "search for them in several calls";
        let found = format_args!("there are {queries} queries");
        let error = exceeded(ErrorKind::InvalidQuery, found, "queries", limits.queries, advice);
        return Err(error.at(&request.view.id));
    }
    if request.texts.is_some() && request.view.text_features.is_empty() {
        return Err(text_search_is_off(request.view));
    }
    let fusion = request.fusion;
    let is_weight = |weight: f64| weight.is_finite() && weight >= 0.0;
    if !is_weight(fusion.k) || !is_weight(fusion.vector_weight) || !is_weight(fusion.text_weight) {
        return invalid("the weights and the k of the fusion have to be numbers of at least 0");
    }
    request.vectors.map_or(Ok(()), |vectors| check_queries(request.view, &vectors))
}

/// The error of a call that has taken more of the processors than it may.
pub(super) fn too_costly(place: &str, what: &str, limit: Duration, advice: &str) -> Error {
    let seconds = limit.as_secs_f64();
    let message = format!(
        "{place}: {what} took more than {seconds} seconds of a core and was given up \
         (`cpu_seconds`, under `limits` in the online_store section of feature_store.yaml, or an \
         argument of the native call); {advice}, or raise the limit"
    );
    Error::new(ErrorKind::TooCostly, message)
}

pub(super) fn text_search_is_off(view: &ViewSpec) -> Error {
    Error::new(
        ErrorKind::TextSearchOff,
        format!(
            "{}: text search is off; set `text_search_enabled: true` in the online_store section \
             of feature_store.yaml (the index over the view's String features is then built by \
             the next `feast apply`, write or search)",
            view.id
        ),
    )
}

fn check_queries(view: &ViewSpec, vectors: &VectorQuery<'_>) -> Result<()> {
    let many = vectors.queries.nrows() > 1;
    for (number, query) in vectors.queries.outer_iter().enumerate() {
        let invalid = |message: String| {
            let which = if many { format!(", query {number}") } else { String::new() };
            let error = Error::new(ErrorKind::InvalidQuery, message);
            Err(error.at(format_args!("{}{which}", place(view, vectors))))
        };
        if query.is_empty() {
            return invalid("the query vector is empty".to_owned());
        }
        if let Some((at, value)) = query.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            return invalid(format!(
                "the query vector holds {value} at position {at}; all its values have to be finite"
            ));
        }
        if vectors.metric == Metric::Cosine && query.iter().all(|x| *x == 0.0) {
            return invalid(
                "the query vector is all zeros, which has no direction and so no cosine distance; \
                 use another query, or the metric 'L2' or 'inner_product'"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

pub(super) fn place(view: &ViewSpec, vectors: &VectorQuery<'_>) -> String {
    format!("{}, feature '{}'", view.id, vectors.feature)
}
