//! Feature views as Python declares them.

use pyo3::prelude::*;

use crate::schema::{FeatureSpec, JoinKeySpec, ViewId, ViewSpec};

/// A feature view: its identity, join keys and features.
#[pyclass(frozen, module = "feast_vector._core")]
#[derive(Debug)]
pub(super) struct View {
    pub(super) spec: ViewSpec,
}

#[pymethods]
impl View {
    #[new]
    #[pyo3(signature = (
        project, name, version=0, join_keys=Vec::new(), features=Vec::new(),
        text_features=Vec::new()
    ))]
    fn new(
        project: String,
        name: String,
        version: u32,
        join_keys: Vec<(String, String)>,
        features: Vec<(String, String, Option<u32>)>,
        text_features: Vec<String>,
    ) -> Self {
        let join_keys = join_keys
            .into_iter()
            .map(|(name, feast_type)| JoinKeySpec { name, feast_type })
            .collect();
        let features = features
            .into_iter()
            .map(|(name, feast_type, vector_length)| FeatureSpec {
                name,
                feast_type,
                vector_length,
            })
            .collect();
        let id = ViewId { project, view: name, version };
        Self { spec: ViewSpec { id, join_keys, features, text_features } }
    }

    fn __repr__(&self) -> String {
        format!("<{}>", self.spec.id)
    }
}
