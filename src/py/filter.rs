//! Filters and SQL parameters as Python passes them.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::error::Result;
use crate::limits::Limits;
use crate::query::{Condition, Filter, Literal, Operator};
use crate::store::SqlValue;

/// A piece of a filter in postfix order.
#[derive(FromPyObject)]
pub(super) enum PyCondition {
    /// `(operator, key, values)`.
    Compare(String, String, Vec<Option<PyLiteral>>),
    /// `("and" or "or", count)`, `("not", 1)`.
    Combine(String, usize),
}

/// A value; times and decimals are told from numbers and text by a tuple around them.
#[derive(FromPyObject)]
pub(super) enum PyLiteral {
    #[pyo3(transparent)]
    Bool(bool),
    #[pyo3(transparent)]
    Integer(i64),
    #[pyo3(transparent)]
    Real(f64),
    #[pyo3(transparent)]
    Text(String),
    #[pyo3(transparent)]
    Bytes(PyBackedBytes),
    /// `(microseconds since 1970,)`.
    #[pyo3(transparent)]
    Time((i64,)),
    /// `(digits,)`.
    #[pyo3(transparent)]
    Decimal((String,)),
}

/// A parameter of a SQL statement.
#[derive(FromPyObject)]
pub(super) enum PySqlValue {
    #[pyo3(transparent)]
    Integer(i64),
    #[pyo3(transparent)]
    Real(f64),
    #[pyo3(transparent)]
    Text(String),
    #[pyo3(transparent)]
    Blob(PyBackedBytes),
}

impl From<PyLiteral> for Literal {
    fn from(literal: PyLiteral) -> Self {
        match literal {
            PyLiteral::Bool(truth) => Self::Bool(truth),
            PyLiteral::Integer(number) => Self::Integer(number),
            PyLiteral::Real(number) => Self::Real(number),
            PyLiteral::Text(text) => Self::Text(text),
            PyLiteral::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            PyLiteral::Time((micros,)) => Self::Time(micros),
            PyLiteral::Decimal((text,)) => Self::Decimal(text),
        }
    }
}

impl From<PySqlValue> for SqlValue {
    fn from(value: PySqlValue) -> Self {
        match value {
            PySqlValue::Integer(number) => Self::Integer(number),
            PySqlValue::Real(number) => Self::Real(number),
            PySqlValue::Text(text) => Self::Text(text),
            PySqlValue::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

pub(super) fn to_filter(conditions: Vec<PyCondition>, limits: &Limits) -> Result<Filter> {
    let conditions = conditions.into_iter().map(|condition| match condition {
        PyCondition::Compare(operator, key, values) => {
            let operator = Operator::parse(&operator)?;
            Ok(Condition::Compare {
                key,
                operator,
                values: values
                    .into_iter()
                    .map(|value| value.map_or(Literal::Null, Literal::from))
                    .collect(),
            })
        }
        PyCondition::Combine(operator, count) if operator == "or" => Ok(Condition::Or(count)),
        PyCondition::Combine(operator, _) if operator == "not" => Ok(Condition::Not),
        PyCondition::Combine(_, count) => Ok(Condition::And(count)),
    });
    Filter::new(conditions.collect::<Result<_>>()?, limits)
}
