//! An index that may have to be built, and how that ended.

use serde_json::Value as Json;

use crate::error::{Error, ErrorKind, Result};
use crate::index::IndexType;
use crate::schema::{VectorIndexSpec, ViewId};
use crate::vector::Metric;

/// How a feature's vectors are indexed, unless its view says otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IndexSettings {
    /// The metric that searches use.
    pub metric: Metric,
    /// Whether there are lists.
    pub index_type: IndexType,
    /// The share of the true nearest rows that a search is to find.
    pub target_recall: f64,
}

impl IndexSettings {
    /// The defaults, for a metric.
    pub fn new(metric: Metric) -> Self {
        Self { metric, index_type: IndexType::Auto, target_recall: 0.99 }
    }

    /// What a view says of a feature.
    pub(super) fn of(spec: &VectorIndexSpec) -> Result<Self> {
        let index_type = match spec.index_type.as_str() {
            "auto" => IndexType::Auto,
            "flat" => IndexType::Flat,
            "ivf" => IndexType::Ivf,
            other => {
                let message = format!("unknown index_type '{other}'; use 'auto', 'flat' or 'ivf'");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        };
        let metric = Metric::parse(&spec.metric)?;
        Ok(Self { metric, index_type, target_recall: spec.target_recall })
    }
}

/// An index that may have to be built.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    pub(super) view: ViewId,
    pub(super) feature: String,
    /// The length of its vectors; that of the first, if it is not known.
    pub(super) dim: Option<usize>,
    pub(super) settings: IndexSettings,
    /// Whether a file of it was found to be damaged, so that all have to be read through.
    pub(super) is_suspect: bool,
}

/// Whether to build what is worth it, or one segment of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Worthwhile,
    Everything,
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A segment was published; its report.
    Published(Json),
    /// There was nothing to build.
    Nothing,
    /// Another process is building.
    Busy,
    /// It was told to stop.
    Cancelled,
}
