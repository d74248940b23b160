//! The engine as a Python class.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use numpy::PyReadonlyArray2;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use pyo3_arrow::PyRecordBatch;

use super::arrow::Batches;
use super::call::{run, seconds, warn};
use super::features::FeatureReads;
use super::filter::{PyCondition, PySqlValue, to_filter};
use super::limits::PyLimits;
use super::view::View;
use crate::engine::{
    EngineOptions, ForkedEngine, Form, SearchRequest, TextQuery, VectorQuery, WriteRequest,
};
use crate::limits::Limits;
use crate::parallel;
use crate::query::Fusion;
use crate::schema::{ViewId, ViewSpec};
use crate::store::{Conflict, Durability, SqlLimits, SqlValue, StoreOptions};
use crate::text::TextMatch;
use crate::vector::Metric;

/// Stored values that have to be written again: the view, the feature (none for the join keys), what
/// it was, what it is by now, and the rows.
type Stale = (String, Option<String>, String, String, u64);

/// An online store over one database file.
#[pyclass(frozen, weakref, module = "feast_vector._core")]
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) engine: ForkedEngine,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        path, *, durability="full", busy_timeout=30.0, search_threads=0, builds_indexes=true,
        file_mode=None, limits=None
    ))]
    fn new(
        path: PathBuf,
        durability: &str,
        busy_timeout: f64,
        search_threads: usize,
        builds_indexes: bool,
        file_mode: Option<u32>,
        limits: Option<PyLimits>,
    ) -> PyResult<Self> {
        run("opening the online store", |_| {
            let durability = match durability {
                "full" => Durability::Full,
                "normal" => Durability::Normal,
                "off" => Durability::Off,
                other => {
                    let message =
                        format!("unknown durability '{other}'; use 'full', 'normal' or 'off'");
                    return Err(PyValueError::new_err(message));
                }
            };
            let busy_timeout = Duration::try_from_secs_f64(busy_timeout)
                .map_err(|cause| PyValueError::new_err(format!("busy_timeout: {cause}")))?;
            let store =
                StoreOptions { durability, busy_timeout, file_mode, ..StoreOptions::new(path) };
            let limits = limits.map_or_else(Limits::default, Limits::from);
            let options = EngineOptions { search_threads, builds_indexes, limits };
            Ok(Self { engine: ForkedEngine::new(store, options) })
        })
    }

    #[pyo3(signature = (project, views, dropped, progress=None))]
    fn apply(
        &self,
        py: Python<'_>,
        project: &str,
        views: Vec<PyRef<'_, View>>,
        dropped: Vec<(String, Option<u32>)>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Stale>> {
        run("apply", |call| {
            let views: Vec<ViewSpec> = views.iter().map(|view| view.spec.clone()).collect();
            let mut report = |view: &ViewId, done: u64, all: u64| {
                let told = progress.as_ref().map_or(Ok(()), |progress| {
                    let arguments = (&view.view, done, all);
                    Python::attach(|py| progress.call1(py, arguments).map(drop))
                });
                if let Err(error) = told {
                    call.stop(error);
                }
            };
            let stale =
                call.detached(py, || self.engine.apply(project, &views, &dropped, &mut report))?;
            Ok(stale
                .into_iter()
                .map(|(id, stale)| (id.view, stale.feature, stale.was, stale.is, stale.rows))
                .collect())
        })
    }

    fn feast_sqlite_table(&self, py: Python<'_>, view: &View) -> PyResult<Option<String>> {
        run("feast_sqlite_table", |call| {
            call.detached(py, || self.engine.feast_sqlite_table(&view.spec.id))
        })
    }

    fn drop_project(&self, py: Python<'_>, project: &str) -> PyResult<()> {
        run("drop_project", |call| {
            call.detached(py, || self.engine.drop_project(project))?;
            warn(py, self.engine.take_notices());
            Ok(())
        })
    }

    #[pyo3(signature = (view, batches, *, newest_event_wins=true, ttl_seconds=None, first_row=0))]
    fn write(
        &self,
        py: Python<'_>,
        view: &View,
        batches: &Bound<'_, PyAny>,
        newest_event_wins: bool,
        ttl_seconds: Option<u64>,
        first_row: u64,
    ) -> PyResult<(u64, u64)> {
        run("a write", |call| {
            let mut batches = Batches::open(batches)?;
            let schema = Arc::clone(&batches.schema);
            let conflict =
                if newest_event_wins { Conflict::NewestEventWins } else { Conflict::LastWriteWins };
            let request = WriteRequest { conflict, ttl_seconds, first_row };
            let counts =
                call.detached(py, || self.engine.write(&view.spec, &schema, &mut batches, request));
            // Python's own error says more than what Arrow makes of it.
            let counts = match batches.failed {
                Some(error) => return Err(error),
                None => counts?,
            };
            warn(py, self.engine.take_notices());
            Ok((counts.written, counts.ignored))
        })
    }

    #[pyo3(signature = (view, keys, features=None, *, typed=false, cpu_seconds=None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        view: &View,
        keys: Vec<PyBackedBytes>,
        features: Option<Vec<String>>,
        typed: bool,
        cpu_seconds: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        run("a read", |call| {
            let cpu = seconds(cpu_seconds, "cpu_seconds")?;
            let batch = call.detached(py, || {
                let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
                self.engine.read(&view.spec, &keys, features.as_deref(), form(typed), cpu)
            })?;
            warn(py, self.engine.take_notices());
            PyRecordBatch::new(batch).into_pyarrow(py)
        })
    }

    #[pyo3(signature = (reads, columns, entities=None, *, cpu_seconds=None))]
    fn features<'py>(
        &self,
        py: Python<'py>,
        reads: &FeatureReads,
        columns: Vec<PyBackedBytes>,
        entities: Option<usize>,
        cpu_seconds: Option<f64>,
    ) -> PyResult<(Bound<'py, PyBytes>, Vec<u64>)> {
        run("a read of features", |call| {
            let cpu = seconds(cpu_seconds, "cpu_seconds")?;
            let answer = call.detached(py, || {
                let columns: Vec<&[u8]> = columns.iter().map(AsRef::as_ref).collect();
                self.engine.features(&reads.reads, &columns, entities, cpu)
            })?;
            warn(py, self.engine.take_notices());
            Ok((PyBytes::new(py, &answer.message), answer.present))
        })
    }

    #[pyo3(signature = (
        view, *, top_k, offset=0, feature=None, queries=None, metric="cosine", max_distance=None,
        texts=None, text_match="any", rrf_k=60.0, vector_weight=1.0, text_weight=1.0,
        filter=None, not_before=None, features=None, exact=false, explain=false,
        numbers_queries=false, typed=false, cpu_seconds=None
    ))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    #[allow(clippy::fn_params_excessive_bools, reason = "keyword arguments in Python")]
    fn search<'py>(
        &self,
        py: Python<'py>,
        view: &View,
        top_k: usize,
        offset: usize,
        feature: Option<&str>,
        queries: Option<Bound<'py, PyAny>>,
        metric: &str,
        max_distance: Option<f64>,
        texts: Option<Vec<String>>,
        text_match: &str,
        rrf_k: f64,
        vector_weight: f64,
        text_weight: f64,
        filter: Option<Vec<PyCondition>>,
        not_before: Option<i64>,
        features: Option<Vec<String>>,
        exact: bool,
        explain: bool,
        numbers_queries: bool,
        typed: bool,
        cpu_seconds: Option<f64>,
    ) -> PyResult<(Bound<'py, PyAny>, Option<String>)> {
        run("a search", |call| {
            let cpu = seconds(cpu_seconds, "cpu_seconds")?;
            let metric = Metric::parse(metric)?;
            let mode = TextMatch::parse(text_match)?;
            let filter =
                filter.map(|filter| to_filter(filter, self.engine.limits())).transpose()?;
            let queries: Option<PyReadonlyArray2<'py, f64>> =
                queries.map(|queries| queries.extract()).transpose()?;
            // Copied, because another thread may write to the array once the GIL is released.
            let queries = queries.map(|queries| queries.as_array().to_owned());
            let vectors = queries.as_ref().zip(feature).map(|(queries, feature)| VectorQuery {
                feature,
                queries: queries.view(),
                metric,
                max_distance,
            });
            let texts = texts.as_ref().map(|queries| TextQuery { queries, mode });
            let answer = call.detached(py, || {
                self.engine.search(&SearchRequest {
                    view: &view.spec,
                    vectors,
                    texts,
                    fusion: Fusion { k: rrf_k, vector_weight, text_weight },
                    filter: filter.as_ref(),
                    not_before,
                    top_k,
                    offset,
                    features: features.as_deref(),
                    exact,
                    explain,
                    numbers_queries,
                    form: form(typed),
                    cpu,
                })
            })?;
            let explanation = answer.explanation.map(|explanation| explanation.to_string());
            warn(py, self.engine.take_notices());
            Ok((PyRecordBatch::new(answer.rows).into_pyarrow(py)?, explanation))
        })
    }

    #[pyo3(signature = (view, feature=None))]
    fn optimize(&self, py: Python<'_>, view: &View, feature: Option<&str>) -> PyResult<String> {
        run("optimize", |call| {
            let reports = call.detached(py, || self.engine.optimize(&view.spec, feature))?;
            warn(py, self.engine.take_notices());
            Ok(reports.to_string())
        })
    }

    fn indexes(&self, py: Python<'_>, view: &View) -> PyResult<String> {
        run("indexes", |call| {
            let indexes = call.detached(py, || self.engine.indexes(&view.spec.id))?;
            warn(py, self.engine.take_notices());
            Ok(indexes.to_string())
        })
    }

    fn is_building(&self) -> PyResult<bool> {
        run("is_building", |_| Ok(self.engine.is_building()))
    }

    fn finish_builds(&self, py: Python<'_>, waiting: Py<PyAny>) -> PyResult<()> {
        run("finish_builds", |call| {
            let mut waiting = || {
                let goes_on = Python::attach(|py| waiting.call0(py)?.is_truthy(py));
                !parallel::is_cancelled()
                    && goes_on.unwrap_or_else(|error| {
                        call.stop(error);
                        false
                    })
            };
            call.detached(py, || {
                self.engine.finish_builds(&mut waiting);
                Ok(())
            })
        })
    }

    fn delete(&self, py: Python<'_>, view: &View, keys: Vec<PyBackedBytes>) -> PyResult<u64> {
        run("a delete", |call| {
            call.detached(py, || {
                let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
                self.engine.delete(&view.spec, &keys)
            })
        })
    }

    #[pyo3(signature = (view, filter=None))]
    fn count(
        &self,
        py: Python<'_>,
        view: &View,
        filter: Option<Vec<PyCondition>>,
    ) -> PyResult<u64> {
        run("a count", |call| {
            let filter =
                filter.map(|filter| to_filter(filter, self.engine.limits())).transpose()?;
            let count = call.detached(py, || self.engine.count(&view.spec, filter.as_ref()))?;
            warn(py, self.engine.take_notices());
            Ok(count)
        })
    }

    #[pyo3(signature = (
        sql, parameters, *, timeout=Some(30.0), max_rows=Some(1_000_000),
        max_bytes=Some(256 << 20), max_length=Some(16 << 20)
    ))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn sql<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        parameters: Vec<Option<PySqlValue>>,
        timeout: Option<f64>,
        max_rows: Option<usize>,
        max_bytes: Option<usize>,
        max_length: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        run("a SQL statement", |call| {
            let timeout = seconds(timeout, "timeout")?;
            let limits = SqlLimits { timeout, max_rows, max_bytes, max_length };
            let parameters: Vec<SqlValue> = parameters
                .into_iter()
                .map(|value| value.map_or(SqlValue::Null, SqlValue::from))
                .collect();
            let batch = call.detached(py, || self.engine.sql(sql, &parameters, &limits))?;
            warn(py, self.engine.take_notices());
            PyRecordBatch::new(batch).into_pyarrow(py)
        })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        run("close", |call| call.detached(py, || self.engine.close()))
    }

    fn holds_locks(&self) -> PyResult<bool> {
        run("holds_locks", |_| Ok(self.engine.holds_locks()))
    }

    fn before_fork(&self, py: Python<'_>) -> PyResult<()> {
        run("before_fork", |_| {
            py.detach(|| self.engine.before_fork());
            Ok(())
        })
    }

    fn after_fork_in_parent(&self) -> PyResult<()> {
        run("after_fork_in_parent", |_| {
            self.engine.after_fork_in_parent();
            Ok(())
        })
    }

    fn after_fork_in_child(&self) -> PyResult<()> {
        run("after_fork_in_child", |_| {
            self.engine.after_fork_in_child();
            Ok(())
        })
    }
}

fn form(typed: bool) -> Form {
    if typed { Form::Typed } else { Form::Wire }
}

/// The canonical name of a metric, as Feast's score conversion reads it.
#[pyfunction]
pub(super) fn normalize_metric(name: &str) -> PyResult<&'static str> {
    run("normalize_metric", |_| Ok(Metric::parse(name)?.name()))
}
