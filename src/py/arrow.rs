//! Arrow data from Python. It is validated there (`feast_vector._arrow`), where the sizes of its
//! buffers are known, which the C interface does not pass on.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyIterator;
use pyo3_arrow::{PyArray, PyRecordBatch, PySchema};

fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module =
        MODULE.get_or_try_init(py, || py.import("feast_vector._arrow").map(Bound::unbind))?;
    Ok(module.bind(py))
}

/// An array of any library's.
pub(super) fn array(data: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    let data = module(data.py())?.getattr("array")?.call1((data,))?;
    Ok(data.extract::<PyArray>()?.into_inner().0)
}

/// The batches of any library's table or stream, taken one at a time by a thread without the GIL.
pub(super) struct Batches {
    iterator: Py<PyIterator>,
    pub(super) schema: SchemaRef,
    /// Why there are no more.
    pub(super) failed: Option<PyErr>,
}

impl Batches {
    pub(super) fn open(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let checked = module(data.py())?.getattr("checked")?.call1((data,))?;
        let (schema, batches): (Bound<'_, PyAny>, Bound<'_, PyAny>) = checked.extract()?;
        let schema = schema.extract::<PySchema>()?.into_inner();
        Ok(Self { iterator: batches.try_iter()?.unbind(), schema, failed: None })
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed.is_some() {
            return None;
        }
        let batch = Python::attach(|py| {
            let batch = self.iterator.bind(py).clone().next()?;
            Some(batch.and_then(|batch| Ok(batch.extract::<PyRecordBatch>()?.into_inner())))
        })?;
        Some(batch.map_err(|error| {
            let message = error.to_string();
            self.failed = Some(error);
            ArrowError::CDataInterface(message)
        }))
    }
}
