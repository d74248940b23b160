//! Limits as Python passes them: a dict.

use std::collections::BTreeMap;

use pyo3::prelude::*;

use super::call::run;
use crate::limits::Limits;

macro_rules! py_limits {
    ($($name:ident),*) => {
        /// A dict with all of these, each a whole number.
        #[derive(FromPyObject)]
        #[pyo3(from_item_all)]
        pub(super) struct PyLimits { $($name: usize),* }

        impl From<PyLimits> for Limits {
            fn from(limits: PyLimits) -> Self {
                Self { $($name: limits.$name),* }
            }
        }

        /// The limits that hold unless others are passed.
        #[pyfunction]
        pub(super) fn default_limits() -> PyResult<BTreeMap<&'static str, usize>> {
            run("default_limits", |_| {
                let limits = Limits::default();
                Ok(BTreeMap::from([$((stringify!($name), limits.$name)),*]))
            })
        }
    };
}

py_limits!(
    query_bytes,
    query_words,
    phrase_words,
    joined_words,
    filter_conditions,
    filter_values,
    queries,
    rows
);
