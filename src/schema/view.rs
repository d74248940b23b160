//! A feature view as its writer declares it.

/// Which feature view a table belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ViewId {
    /// Feast project.
    pub project: String,
    /// Name of the feature view, without a version.
    pub view: String,
    /// Version of the feature view, 0 if it has none.
    pub version: u32,
}

impl ViewId {
    /// The id of an unversioned view.
    pub fn new(project: &str, view: &str) -> Self {
        Self { project: project.to_owned(), view: view.to_owned(), version: 0 }
    }
}

impl std::fmt::Display for ViewId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "feature view '{}'", self.view)?;
        if self.version > 0 {
            write!(f, " version {}", self.version)?;
        }
        write!(f, " of project '{}'", self.project)
    }
}

/// A join key and its Feast type (`"INT64"`, `"STRING"`, …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinKeySpec {
    /// Name of the join key.
    pub name: String,
    /// Name of its Feast type.
    pub feast_type: String,
}

/// A feature, its Feast type, and what is declared of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureSpec {
    /// Name of the feature.
    pub name: String,
    /// Name of its Feast type (`feast.ValueType`), such as `"FLOAT_LIST"`.
    pub feast_type: String,
    /// The length that every vector of this feature must have, where one is declared.
    pub vector_length: Option<u32>,
}

/// A feature view as its writer declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewSpec {
    /// Which view.
    pub id: ViewId,
    /// Join keys, without the dummy key of a view without entities.
    pub join_keys: Vec<JoinKeySpec>,
    /// Features in declared order.
    pub features: Vec<FeatureSpec>,
    /// Features whose texts are to be searchable; none, if text search is off.
    pub text_features: Vec<String>,
    /// Features whose vectors are to be searchable.
    pub vector_indexes: Vec<VectorIndexSpec>,
}

/// How the vectors of a feature are to be searched.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorIndexSpec {
    /// Name of the feature.
    pub feature: String,
    /// Name of the metric.
    pub metric: String,
    /// `auto`, `flat` or `ivf`.
    pub index_type: String,
    /// The share of the true nearest rows that a search is to find.
    pub target_recall: f64,
}
