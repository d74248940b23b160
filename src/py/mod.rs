//! The boundary to Python: `feast_vector._core`. Marshalling only; the GIL is released around
//! every call of the engine.

#![allow(clippy::needless_pass_by_value, reason = "arguments extracted from Python are owned")]

mod arrow;
mod call;
mod engine;
mod errors;
mod features;
mod filter;
mod limits;
mod maintenance;
mod serialize;
mod view;

use pyo3::prelude::*;

/// The native core of feast-vector.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    module.add("FORMAT_VERSION", crate::store::FORMAT_VERSION)?;
    module.add("ISA", crate::vector::Isa::best().name())?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<view::View>()?;
    module.add_class::<features::FeatureReads>()?;
    module.add_function(wrap_pyfunction!(errors::error_kinds, module)?)?;
    module.add_function(wrap_pyfunction!(serialize::encode_entity_key, module)?)?;
    module.add_function(wrap_pyfunction!(engine::normalize_metric, module)?)?;
    module.add_function(wrap_pyfunction!(limits::default_limits, module)?)?;
    module.add_function(wrap_pyfunction!(features::serialize_entities, module)?)?;
    module.add_function(wrap_pyfunction!(serialize::serialize_values, module)?)?;
    module.add_function(wrap_pyfunction!(serialize::serialize_entity_keys, module)?)?;
    module.add_function(wrap_pyfunction!(maintenance::backup, module)?)?;
    module.add_function(wrap_pyfunction!(maintenance::verify_backup, module)?)?;
    module.add_function(wrap_pyfunction!(maintenance::restore, module)?)?;
    module.add_function(wrap_pyfunction!(maintenance::verify, module)?)?;
    module.add_function(wrap_pyfunction!(maintenance::compact, module)?)?;
    Ok(())
}
