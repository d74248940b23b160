//! What `get_online_features` asks, in the core's terms.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString};

use super::call::run;
use super::view::View;
use crate::engine::{self, FeatureRead};
use crate::proto::wire;
use crate::schema::ValueKind;

/// A view, its join keys and the column of each, its features, and their names in the response.
type PyFeatureRead<'py> = (PyRef<'py, View>, Vec<(String, usize)>, Vec<String>, Vec<String>);

/// Reads of several feature views, before it is known of which entities.
#[pyclass(frozen, module = "feast_vector._core")]
#[derive(Debug)]
pub(super) struct FeatureReads {
    pub(super) reads: engine::FeatureReads,
}

#[pymethods]
impl FeatureReads {
    #[new]
    fn new(columns: Vec<String>, reads: Vec<PyFeatureRead<'_>>) -> PyResult<Self> {
        run("FeatureReads", |_| Ok(Self::of(columns, reads)))
    }
}

impl FeatureReads {
    fn of(columns: Vec<String>, reads: Vec<PyFeatureRead<'_>>) -> Self {
        let reads = reads
            .into_iter()
            .map(|(view, join_keys, features, names)| FeatureRead {
                view: view.spec.id.clone(),
                join_keys,
                features,
                names,
            })
            .collect();
        Self { reads: engine::FeatureReads { columns, reads } }
    }
}

/// Serializes entities' values as a `RepeatedValue`; `None` where a value is not exactly what the
/// type wants, or the type is one that Feast has to convert to.
#[pyfunction]
pub(super) fn serialize_entities<'py>(
    py: Python<'py>,
    feast_type: &str,
    values: &Bound<'py, PyList>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    run("serialize_entities", |_| Ok(serialized(py, feast_type, values)))
}

fn serialized<'py>(
    py: Python<'py>,
    feast_type: &str,
    values: &Bound<'py, PyList>,
) -> Option<Bound<'py, PyBytes>> {
    let kind = ValueKind::from_feast_type(feast_type);
    let mut out = Vec::with_capacity(values.len() * 12);
    let mut value = Vec::new();
    for item in values {
        value.clear();
        match kind {
            ValueKind::Int64 | ValueKind::Int32 => {
                let number = exact_integer(&item, kind)?;
                wire::varint(kind, number, &mut value);
            }
            ValueKind::String => {
                let text = item.cast_exact::<PyString>().ok()?;
                // A string may hold half a surrogate pair, of which Feast says what it thinks.
                let text = text.to_str().ok()?;
                wire::bytes(kind, text.as_bytes(), &mut value);
            }
            _ => return None,
        }
        wire::field(1, &value, &mut out);
    }
    Some(PyBytes::new(py, &out))
}

fn exact_integer(item: &Bound<'_, PyAny>, kind: ValueKind) -> Option<i64> {
    let number: i64 = item.cast_exact::<PyInt>().ok()?.extract().ok()?;
    (kind == ValueKind::Int64 || i32::try_from(number).is_ok()).then_some(number)
}
