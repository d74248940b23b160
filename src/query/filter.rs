//! Filters as a caller states them.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Limits, exceeded};
use crate::schema::TableSchema;

use super::Resolved;

/// What a condition compares with.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// True or false; compares as 1 or 0.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A point in time: microseconds since 1970-01-01 UTC.
    Time(i64),
    /// A decimal number as text.
    Decimal(String),
    /// No value at all.
    Null,
}

/// How a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Equal; to null: without a value.
    Eq,
    /// Not equal, and not null.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Equal to one of several.
    In,
    /// Equal to none of several, and not null.
    Nin,
    /// A list that has the value among its elements.
    Contains,
    /// A list that has one of several values among its elements.
    AnyOf,
}

impl Operator {
    /// The operator of that name, as Feast's `ComparisonFilter` and ours write it.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "gt" => Self::Gt,
            "gte" => Self::Gte,
            "lt" => Self::Lt,
            "lte" => Self::Lte,
            "in" => Self::In,
            "nin" => Self::Nin,
            "contains" => Self::Contains,
            "any_of" => Self::AnyOf,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidFilter,
                    format!(
                        "unknown filter type '{name}'; use eq, ne, gt, gte, lt, lte, in, nin, \
                         contains, any_of, and, or, not"
                    ),
                ));
            }
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::In => "in",
            Self::Nin => "nin",
            Self::Contains => "contains",
            Self::AnyOf => "any_of",
        }
    }

    /// Whether it orders values, rather than telling equal from different.
    pub fn is_ordering(self) -> bool {
        matches!(self, Self::Gt | Self::Gte | Self::Lt | Self::Lte)
    }

    /// Whether it looks into lists.
    pub fn is_for_lists(self) -> bool {
        matches!(self, Self::Contains | Self::AnyOf)
    }
}

/// A piece of a filter in postfix order: a combination follows what it combines.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// A comparison of a feature, a join key or a timestamp.
    Compare {
        /// Its name.
        key: String,
        /// How.
        operator: Operator,
        /// With what: one value, or any number for [`Operator::In`], [`Operator::Nin`] and
        /// [`Operator::AnyOf`].
        values: Vec<Literal>,
    },
    /// The preceding so many conditions all hold.
    And(usize),
    /// One of the preceding so many conditions holds.
    Or(usize),
    /// The preceding condition does not hold.
    Not,
}

/// A filter of any depth.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    conditions: Vec<Condition>,
    /// The most conditions that may be left of it.
    most_conditions: usize,
}

impl Filter {
    /// The filter of these conditions in postfix order.
    pub fn new(conditions: Vec<Condition>, limits: &Limits) -> Result<Self> {
        let (mut operands, mut compared) = (0usize, 0);
        for condition in &conditions {
            let taken = match condition {
                Condition::Compare { values, .. } => {
                    compared += values.len().max(1);
                    0
                }
                Condition::And(count) | Condition::Or(count) => {
                    compared += usize::from(*count <= 1);
                    *count
                }
                Condition::Not => {
                    compared += 1;
                    1
                }
            };
            operands = operands.checked_sub(taken).ok_or_else(malformed)? + 1;
        }
        if compared > limits.filter_values {
            return Err(exceeded(
                ErrorKind::InvalidFilter,
                format_args!("the filter compares with {compared} values"),
                "filter_values",
                limits.filter_values,
                "keep what these rows have in common in a feature, and filter on that",
            ));
        }
        if operands != 1 {
            return Err(malformed());
        }
        Ok(Self { conditions, most_conditions: limits.filter_conditions })
    }

    /// What the filter means for a table.
    pub fn resolve(&self, schema: &TableSchema) -> Result<Resolved> {
        Resolved::new(&self.conditions, schema, self.most_conditions)
    }
}

fn malformed() -> Error {
    Error::new(ErrorKind::InvalidFilter, "a combination of filters lacks what it combines")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_filters_are_made() {
        let leaf = || Condition::Compare {
            key: "a".into(),
            operator: Operator::Eq,
            values: vec![Literal::Integer(1)],
        };
        let filter = |conditions| Filter::new(conditions, &Limits::default());
        assert!(filter(vec![leaf()]).is_ok());
        assert!(filter(vec![leaf(), leaf(), Condition::And(2)]).is_ok());
        assert!(filter(vec![Condition::And(0)]).is_ok());
        assert!(filter(vec![leaf(), Condition::Not]).is_ok());
        let broken = [vec![], vec![leaf(), leaf()], vec![Condition::Or(1)], vec![Condition::Not]];
        for broken in broken {
            assert_eq!(filter(broken).unwrap_err().kind(), ErrorKind::InvalidFilter);
        }
    }
}
