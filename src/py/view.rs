//! Feature views as Python declares them.

use pyo3::prelude::*;

use super::call::run;
use crate::schema::{FeatureSpec, JoinKeySpec, VectorIndexSpec, ViewId, ViewSpec};

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
        text_features=Vec::new(), vector_indexes=Vec::new()
    ))]
    fn new(
        project: String,
        name: String,
        version: u32,
        join_keys: Vec<(String, String)>,
        features: Vec<(String, String, Option<u32>)>,
        text_features: Vec<String>,
        vector_indexes: Vec<(String, String, String, f64)>,
    ) -> PyResult<Self> {
        run("View", |_| {
            Ok(Self::of(project, name, version, join_keys, features, text_features, vector_indexes))
        })
    }

    fn __repr__(&self) -> PyResult<String> {
        run("View", |_| Ok(format!("<{}>", self.spec.id)))
    }
}

impl View {
    fn of(
        project: String,
        name: String,
        version: u32,
        join_keys: Vec<(String, String)>,
        features: Vec<(String, String, Option<u32>)>,
        text_features: Vec<String>,
        vector_indexes: Vec<(String, String, String, f64)>,
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
        let vector_indexes = vector_indexes
            .into_iter()
            .map(|(feature, metric, index_type, target_recall)| VectorIndexSpec {
                feature,
                metric,
                index_type,
                target_recall,
            })
            .collect();
        let id = ViewId { project, view: name, version };
        Self { spec: ViewSpec { id, join_keys, features, text_features, vector_indexes } }
    }
}
