//! Where errors become exceptions: the classes of `feast_vector.errors`, with the stable `kind`.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::call::run;
use crate::error::{Error, ErrorClass, ErrorKind};

fn class_name(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::InvalidInput => "InvalidInputError",
        ErrorClass::NotFound => "NotFoundError",
        ErrorClass::Busy => "BusyError",
        ErrorClass::Storage => "StorageError",
        ErrorClass::Format => "FormatError",
        ErrorClass::Internal => "InternalError",
    }
}

/// Every error kind's code, with the name of its exception class.
#[pyfunction]
pub(super) fn error_kinds() -> PyResult<BTreeMap<&'static str, &'static str>> {
    run("error_kinds", |_| {
        let kinds = ErrorKind::ALL.iter();
        Ok(kinds.map(|kind| (kind.code(), class_name(kind.class()))).collect())
    })
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::attach(|py| exception(py, &error).unwrap_or_else(|failure| failure))
    }
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module =
        MODULE.get_or_try_init(py, || py.import("feast_vector.errors").map(Bound::unbind))?;
    let class = module.bind(py).getattr(class_name(error.kind().class()))?;
    let class = class.cast_into::<PyType>().map_err(PyErr::from)?;
    Ok(PyErr::from_value(class.call1((error.message(), error.kind().code()))?))
}
