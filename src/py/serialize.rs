//! Arrow arrays as serialized messages.

use arrow::array::ArrayRef;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3_arrow::PyArray;

use super::call::run;
use crate::engine::{self, Missing};

/// Serializes an array's elements as values of a Feast type; `None` where that is for Feast's own
/// conversion to do.
#[pyfunction]
#[pyo3(signature = (feast_type, array, *, as_feast_does=false, first_row=0))]
pub(super) fn serialize_values<'py>(
    py: Python<'py>,
    feast_type: &str,
    array: &Bound<'py, PyAny>,
    as_feast_does: bool,
    first_row: u64,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    run("serialize_values", |call| {
        let missing = if as_feast_does { Missing::AsFeastDoes } else { Missing::AsIs };
        let array = super::arrow::array(array)?;
        let values =
            call.detached(py, || engine::serialize_values(feast_type, &array, missing, first_row))?;
        values.map(|values| to_pyarrow(py, values)).transpose()
    })
}

/// Serializes the `EntityKey` messages of rows whose join keys' serialized values are given by
/// column.
#[pyfunction]
pub(super) fn serialize_entity_keys(
    py: Python<'_>,
    names: Vec<String>,
    columns: Vec<Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    run("serialize_entity_keys", |call| {
        let columns = columns.iter().map(super::arrow::array).collect::<PyResult<Vec<_>>>()?;
        let keys = call.detached(py, || engine::serialize_entity_keys(&names, &columns))?;
        Ok(to_pyarrow(py, keys)?.unbind())
    })
}

fn to_pyarrow(py: Python<'_>, array: ArrayRef) -> PyResult<Bound<'_, PyAny>> {
    let array = PyArray::from_array_ref(array).into_pyobject(py)?;
    py.import("pyarrow")?.getattr("array")?.call1((array,))
}

/// Serializes an `EntityKey` message as Feast's serialization version 3 does.
#[pyfunction]
pub(super) fn encode_entity_key<'py>(
    py: Python<'py>,
    message: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    run("encode_entity_key", |_| Ok(PyBytes::new(py, &crate::proto::encode_key(message)?)))
}
