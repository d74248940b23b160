//! Backups, restores and the rest of what operators do, with progress and Ctrl-C.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use serde_json::Value as Json;

use super::call;
use super::engine::Engine;
use crate::engine::Progress;
use crate::error::Result;

/// Runs `work`, whose progress a Python callable hears of. What that raises ends the work and is
/// raised here.
fn run(
    py: Python<'_>,
    what: &str,
    callback: Option<Py<PyAny>>,
    work: impl FnOnce(&Progress) -> Result<Json> + Send,
) -> PyResult<String> {
    call::run(what, |call| {
        let raised: Arc<Mutex<Option<PyErr>>> = Arc::default();
        let heard = Arc::clone(&raised);
        let progress = Progress::new(move |stage, done, total| {
            Python::attach(|py| {
                let told = py.check_signals().and_then(|()| match &callback {
                    Some(callback) => {
                        let total = (total != u64::MAX).then_some(total);
                        callback.call1(py, (stage, done, total)).map(drop)
                    }
                    None => Ok(()),
                });
                told.map_err(|error| *heard.lock() = Some(error)).is_ok()
            })
        });
        let answer = call.detached(py, || work(&progress));
        match raised.lock().take() {
            Some(error) => Err(error),
            None => Ok(answer?.to_string()),
        }
    })
}

#[pyfunction]
#[pyo3(signature = (engine, target, *, replace=false, progress=None))]
pub(super) fn backup(
    py: Python<'_>,
    engine: &Engine,
    target: PathBuf,
    replace: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    run(py, "backup", progress, |progress| engine.engine.backup(&target, replace, progress))
}

#[pyfunction]
#[pyo3(signature = (folder, *, limit=100, progress=None))]
pub(super) fn verify_backup(
    py: Python<'_>,
    folder: PathBuf,
    limit: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    run(py, "verify_backup", progress, |progress| {
        crate::engine::verify_backup(&folder, limit, progress)
    })
}

#[pyfunction]
#[pyo3(signature = (engine, *, limit=100, progress=None))]
pub(super) fn verify(
    py: Python<'_>,
    engine: &Engine,
    limit: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    run(py, "verify", progress, |progress| engine.engine.verify(limit, progress))
}

#[pyfunction]
#[pyo3(signature = (engine, source, *, keep=true, progress=None))]
pub(super) fn restore(
    py: Python<'_>,
    engine: &Engine,
    source: PathBuf,
    keep: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    run(py, "restore", progress, |progress| engine.engine.restore(&source, keep, progress))
}

#[pyfunction]
#[pyo3(signature = (engine, *, progress=None))]
pub(super) fn compact(
    py: Python<'_>,
    engine: &Engine,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    run(py, "compact", progress, |progress| engine.engine.compact(progress))
}
