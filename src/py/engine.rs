//! The engine as a Python class.

use std::path::PathBuf;
use std::time::Duration;

use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use pyo3_arrow::PyRecordBatch;
use pyo3_arrow::input::AnyRecordBatch;

use super::view::View;
use crate::engine::{SearchRequest, WriteRequest};
use crate::schema::ViewSpec;
use crate::store::{Conflict, Durability, StoreOptions};
use crate::vector::Metric;

/// An online store over one database file.
#[pyclass(frozen, weakref, module = "feast_vector._core")]
#[derive(Debug)]
pub(super) struct Engine {
    engine: crate::engine::Engine,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (path, *, durability="full", busy_timeout=30.0, search_threads=0))]
    fn new(
        path: PathBuf,
        durability: &str,
        busy_timeout: f64,
        search_threads: usize,
    ) -> PyResult<Self> {
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
        let options = StoreOptions { path, durability, busy_timeout };
        Ok(Self { engine: crate::engine::Engine::new(options, search_threads) })
    }

    fn apply(
        &self,
        py: Python<'_>,
        project: &str,
        views: Vec<PyRef<'_, View>>,
        dropped: Vec<String>,
    ) -> PyResult<()> {
        let views: Vec<ViewSpec> = views.iter().map(|view| view.spec.clone()).collect();
        Ok(py.detach(|| self.engine.apply(project, &views, &dropped))?)
    }

    fn drop_project(&self, py: Python<'_>, project: &str) -> PyResult<()> {
        Ok(py.detach(|| self.engine.drop_project(project))?)
    }

    #[pyo3(signature = (view, batches, *, newest_event_wins=true, ttl_seconds=None))]
    fn write(
        &self,
        py: Python<'_>,
        view: &View,
        batches: AnyRecordBatch,
        newest_event_wins: bool,
        ttl_seconds: Option<u64>,
    ) -> PyResult<(u64, u64)> {
        let schema = batches.schema()?;
        let reader = batches.into_reader()?;
        let conflict =
            if newest_event_wins { Conflict::NewestEventWins } else { Conflict::LastWriteWins };
        let request = WriteRequest { conflict, ttl_seconds };
        let counts = py.detach(|| self.engine.write(&view.spec, &schema, reader, request))?;
        Ok((counts.written, counts.ignored))
    }

    #[pyo3(signature = (view, keys, features=None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        view: &View,
        keys: Vec<PyBackedBytes>,
        features: Option<Vec<String>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch = py.detach(|| {
            let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
            self.engine.read(&view.spec.id, &keys, features.as_deref())
        })?;
        PyRecordBatch::new(batch).into_pyarrow(py)
    }

    #[pyo3(signature = (view, feature, query, *, metric, top_k, features))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn search<'py>(
        &self,
        py: Python<'py>,
        view: &View,
        feature: &str,
        query: PyReadonlyArray1<'py, f64>,
        metric: &str,
        top_k: usize,
        features: Vec<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let metric = Metric::parse(metric)?;
        // Copied, because another thread may write to the array once the GIL is released.
        let query = query.as_array().to_owned();
        let batch = py.detach(|| {
            self.engine.search(&SearchRequest {
                view: &view.spec.id,
                feature,
                query: query.view(),
                metric,
                top_k,
                features: &features,
            })
        })?;
        PyRecordBatch::new(batch).into_pyarrow(py)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.engine.close())?)
    }

    fn before_fork(&self, py: Python<'_>) {
        py.detach(|| self.engine.before_fork());
    }

    fn after_fork(&self) {
        self.engine.after_fork();
    }
}

/// Serializes an `EntityKey` message as Feast's serialization version 3 does.
#[pyfunction]
pub(super) fn encode_entity_key<'py>(
    py: Python<'py>,
    message: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &crate::proto::encode_key(message)?))
}

/// The canonical name of a metric, as Feast's score conversion reads it.
#[pyfunction]
pub(super) fn normalize_metric(name: &str) -> PyResult<&'static str> {
    Ok(Metric::parse(name)?.name())
}
