//! What a filter means for a table: which columns, and literals in the columns' own types.
//!
//! Feast's semantics, as its translators for sqlite and postgres have them, with the exceptions
//! that `docs/search.md` lists: values compare by their own type; a number is never compared as
//! text; null and absent values match nothing but a comparison with null, not even `ne` and `nin`.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

use super::decimal::Decimal;
use super::filter::{Condition, Literal, Operator};
use super::node::{Node, Step};
use super::test::{Among, Number, Operand, Order, Test};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::exceeded;
use crate::parallel;
use crate::schema::{Attribute, TableSchema, ValueKind};

/// A filter in the terms of one table.
#[derive(Debug, PartialEq)]
pub struct Resolved {
    pub(super) steps: Vec<Step>,
}

/// What the values of a column are, for comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Domain {
    Number,
    Float32,
    Bool,
    Seconds,
    Micros,
    Decimal,
    Uuid,
    Text,
    Json,
    Bytes,
}

/// A column, for resolving conditions on it.
struct Place<'a> {
    key: &'a str,
    type_name: &'a str,
    domain: Domain,
    is_list: bool,
}

impl Resolved {
    pub(super) fn new(
        conditions: &[Condition],
        schema: &TableSchema,
        most_conditions: usize,
    ) -> Result<Self> {
        let mut nodes: Vec<Node> = Vec::new();
        for condition in conditions {
            parallel::check()?;
            let node = match condition {
                Condition::And(count) => {
                    let parts = nodes.split_off(nodes.len().saturating_sub(*count));
                    Node::all(parts)
                }
                Condition::Or(0) => {
                    return Err(invalid(
                        "an 'or' without filters: no row would pass it, and none is surely not \
                         meant; leave it out, or use an 'in' with an empty list"
                            .to_owned(),
                    ));
                }
                Condition::Or(count) => {
                    let parts = nodes.split_off(nodes.len().saturating_sub(*count));
                    Node::any(parts)
                }
                Condition::Not => nodes.pop().map_or(Node::Nothing, Node::not),
                Condition::Compare { key, operator, values } => {
                    let (attribute, place) = find(key, schema)?;
                    place.node(&attribute, *operator, values).map_err(|error| {
                        error.at(format_args!(
                            "{}, filter on '{key}' ({})",
                            schema.view, place.type_name
                        ))
                    })?
                }
            };
            if node.cost() > most_conditions {
                let found = format!(
                    "the filter has {} conditions that cannot be put together",
                    node.cost()
                );
                let advice = "use 'in' where one of several values is meant";
                let (kind, option) = (ErrorKind::InvalidFilter, "filter_conditions");
                return Err(exceeded(kind, found, option, most_conditions, advice).at(&schema.view));
            }
            nodes.push(node);
        }
        Ok(Self { steps: nodes.pop().unwrap_or(Node::Everything).into_steps() })
    }

    /// What every row passes.
    pub fn everything() -> Self {
        Self { steps: vec![Step::Everything] }
    }

    /// The same, for rows of an event time of `micros` or later.
    #[must_use]
    pub fn since(mut self, micros: i64) -> Self {
        self.steps.push(Step::Test {
            attribute: Attribute::EventTimestamp,
            test: Test::Order(Order::GreaterOrEqual, Operand::integer(micros)),
            is_for_lists: false,
        });
        self.steps.push(Step::And);
        self
    }

    /// Whether every row passes.
    pub fn is_trivial(&self) -> bool {
        self.steps == [Step::Everything]
    }

    /// The attributes that the filter compares, each once.
    pub fn attributes(&self) -> Vec<Attribute> {
        let mut attributes = Vec::new();
        for step in &self.steps {
            if let Step::Test { attribute, .. } | Step::Null(attribute) = step
                && !attributes.contains(attribute)
            {
                attributes.push(attribute.clone());
            }
        }
        attributes
    }
}

/// The attribute of that name: a feature, else a join key, else a timestamp.
fn find<'a>(key: &'a str, schema: &'a TableSchema) -> Result<(Attribute, Place<'a>)> {
    let (attribute, type_name, kind) = if let Some(column) = schema.column(key) {
        (Attribute::Feature(column.id), column.feast_type.as_str(), column.kind)
    } else if let Some(join_key) = schema.join_keys.iter().find(|join_key| join_key.name == key) {
        let kind = ValueKind::from_feast_type(&join_key.feast_type);
        (Attribute::JoinKey(key.to_owned()), join_key.feast_type.as_str(), kind)
    } else {
        let attribute = match key {
            "event_timestamp" => Attribute::EventTimestamp,
            "created_timestamp" => Attribute::CreatedTimestamp,
            _ => return Err(unknown(key, schema)),
        };
        let domain = Domain::Micros;
        return Ok((attribute, Place { key, type_name: "a timestamp", domain, is_list: false }));
    };
    let Some((domain, is_list)) = domain(kind) else {
        return Err(invalid(format!(
            "{}: values of type {type_name} cannot be compared, so '{key}' cannot be filtered on",
            schema.view
        )));
    };
    Ok((attribute, Place { key, type_name, domain, is_list }))
}

fn unknown(key: &str, schema: &TableSchema) -> Error {
    let join_keys = schema.join_keys.iter().map(|join_key| join_key.name.as_str());
    let features = schema.columns.iter().map(|column| column.feature.as_str());
    let known: Vec<_> =
        join_keys.chain(features).chain(["event_timestamp", "created_timestamp"]).collect();
    Error::new(
        ErrorKind::UnknownFeature,
        format!(
            "{} has nothing named '{key}' to filter on; it has: {}",
            schema.view,
            known.join(", ")
        ),
    )
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidFilter, message)
}

fn domain(kind: ValueKind) -> Option<(Domain, bool)> {
    use ValueKind as K;
    let scalar = |domain| Some((domain, false));
    let list = |domain| Some((domain, true));
    match kind {
        K::Bytes => scalar(Domain::Bytes),
        K::String => scalar(Domain::Text),
        K::Int32 | K::Int64 | K::Double => scalar(Domain::Number),
        K::Float => scalar(Domain::Float32),
        K::Bool => scalar(Domain::Bool),
        K::UnixTimestamp => scalar(Domain::Seconds),
        K::Json => scalar(Domain::Json),
        K::Uuid | K::TimeUuid => scalar(Domain::Uuid),
        K::Decimal => scalar(Domain::Decimal),
        K::StringList | K::StringSet => list(Domain::Text),
        K::Int32List | K::Int64List | K::DoubleList | K::Int32Set | K::Int64Set | K::DoubleSet => {
            list(Domain::Number)
        }
        K::FloatList | K::FloatSet => list(Domain::Float32),
        K::BoolList | K::BoolSet => list(Domain::Bool),
        K::UnixTimestampList | K::UnixTimestampSet => list(Domain::Seconds),
        K::JsonList => list(Domain::Json),
        K::UuidList | K::TimeUuidList | K::UuidSet | K::TimeUuidSet => list(Domain::Uuid),
        K::DecimalList | K::DecimalSet => list(Domain::Decimal),
        _ => None,
    }
}

impl Place<'_> {
    /// What a comparison means: nulls among what it compares with are a test of their own.
    fn node(&self, attribute: &Attribute, operator: Operator, values: &[Literal]) -> Result<Node> {
        let has_null = values.contains(&Literal::Null);
        let null = || Node::Null(attribute.clone());
        match operator {
            Operator::Eq if has_null => return Ok(null()),
            Operator::Ne if has_null => return Ok(null().not()),
            Operator::In | Operator::Nin | Operator::Eq | Operator::Ne => {}
            _ if has_null => {
                return Err(invalid(format!(
                    "'{}' compares with nothing where the value is null; for rows without a value \
                     use 'eq' with null",
                    operator.name()
                )));
            }
            _ => {}
        }
        let others: Vec<Literal>;
        let mut tested = values;
        if has_null {
            others = values.iter().filter(|value| **value != Literal::Null).cloned().collect();
            tested = &others;
        }
        let test = self.test(operator, tested)?;
        let test = Node::Test {
            attribute: attribute.clone(),
            test,
            is_for_lists: operator.is_for_lists(),
        };
        // Nulls are not among what 'nin' lets pass anyway.
        Ok(if has_null && operator == Operator::In { Node::any(vec![test, null()]) } else { test })
    }

    fn test(&self, operator: Operator, values: &[Literal]) -> Result<Test> {
        let name = operator.name();
        if self.is_list != operator.is_for_lists() {
            return Err(invalid(if self.is_list {
                format!("'{name}' compares single values; for lists use 'contains' or 'any_of'")
            } else {
                format!("'{name}' looks into lists, and this is none; use 'eq' or 'in'")
            }));
        }
        if operator.is_ordering()
            && matches!(self.domain, Domain::Uuid | Domain::Json | Domain::Bytes)
        {
            return Err(invalid(format!(
                "'{name}' orders values, which has no meaning here; use eq, ne, in or nin"
            )));
        }
        let operands =
            values.iter().map(|value| self.operand(value)).collect::<Result<Vec<_>>>()?;
        let order = match operator {
            Operator::Gt => Order::Greater,
            Operator::Gte => Order::GreaterOrEqual,
            Operator::Lt => Order::Less,
            Operator::Lte => Order::LessOrEqual,
            _ => {
                let is_negated = matches!(operator, Operator::Ne | Operator::Nin);
                return Ok(Test::Among(Among::new(operands, is_negated, self.is_uuid())));
            }
        };
        let operand = operands.into_iter().next();
        operand
            .map(|operand| Test::Order(order, operand))
            .ok_or_else(|| invalid(format!("'{name}' needs a value")))
    }

    fn is_uuid(&self) -> bool {
        self.domain == Domain::Uuid
    }

    /// The literal in the column's own type.
    fn operand(&self, literal: &Literal) -> Result<Operand> {
        if let Literal::Real(number) = literal
            && number.is_nan()
        {
            return Err(invalid("the value is NaN, which compares with nothing".to_owned()));
        }
        match self.domain {
            Domain::Seconds | Domain::Micros => self.time(literal),
            Domain::Decimal => decimal(literal),
            _ => match literal {
                Literal::Bool(truth) => Ok(Operand::integer(i64::from(*truth))),
                Literal::Integer(number) => Ok(Operand::integer(*number)),
                Literal::Real(number) if self.domain == Domain::Float32 => {
                    Ok(Operand::real(as_f32(*number)))
                }
                Literal::Real(number) => Ok(Operand::real(*number)),
                Literal::Decimal(text) | Literal::Text(text) => Ok(self.text(text)),
                Literal::Bytes(bytes) => Ok(Operand::Bytes(bytes.clone())),
                Literal::Null => Err(null_among_values()),
                Literal::Time(_) => Err(invalid(format!(
                    "the value is a time, and '{}' holds values of type {}",
                    self.key, self.type_name
                ))),
            },
        }
    }

    /// Text is also the number that it reads as, where numbers are compared.
    fn text(&self, text: &str) -> Operand {
        let bytes = text.as_bytes().to_vec();
        let trimmed = text.trim();
        let number = match self.domain {
            Domain::Uuid => return Operand::Text(text.to_ascii_lowercase().into_bytes()),
            Domain::Bool if text.eq_ignore_ascii_case("true") => Some(Number::Integer(1)),
            Domain::Bool if text.eq_ignore_ascii_case("false") => Some(Number::Integer(0)),
            Domain::Number | Domain::Bool | Domain::Float32 => {
                let whole = trimmed.parse().ok().map(Number::Integer);
                whole.or_else(|| {
                    let real = trimmed.parse::<f64>().ok().filter(|number| number.is_finite())?;
                    let narrow = self.domain == Domain::Float32;
                    Some(Number::of(if narrow { as_f32(real) } else { real }))
                })
            }
            _ => None,
        };
        match number {
            Some(number) => Operand::Numeral(number, bytes),
            None => Operand::Text(bytes),
        }
    }

    /// A time in the column's unit; numbers are seconds.
    fn time(&self, literal: &Literal) -> Result<Operand> {
        let micros = match literal {
            Literal::Time(micros) => *micros,
            Literal::Text(text) => match string_to_timestamp_nanos(text.trim()) {
                Ok(nanos) => nanos.div_euclid(1000),
                Err(_) => {
                    return Err(invalid(format!(
                        "'{text}' is no time; write it as '2026-01-31T12:00:00Z', or give a \
                         datetime, or seconds since 1970"
                    )));
                }
            },
            Literal::Null => return Err(null_among_values()),
            Literal::Bool(_) | Literal::Bytes(_) | Literal::Decimal(_) => {
                return Err(invalid(
                    "a time is compared with a datetime, with text such as \
                     '2026-01-31T12:00:00Z', or with seconds since 1970"
                        .to_owned(),
                ));
            }
            Literal::Integer(seconds) if self.domain == Domain::Seconds => {
                return Ok(Operand::integer(*seconds));
            }
            Literal::Real(seconds) if self.domain == Domain::Seconds => {
                return Ok(Operand::real(*seconds));
            }
            Literal::Integer(seconds) => seconds.saturating_mul(1_000_000),
            Literal::Real(seconds) => (seconds * 1e6).round() as i64,
        };
        Ok(match self.domain {
            Domain::Micros => Operand::integer(micros),
            _ if micros % 1_000_000 == 0 => Operand::integer(micros / 1_000_000),
            _ => Operand::real(micros as f64 / 1e6),
        })
    }
}

/// The number as a Float32 column would hold it.
fn as_f32(number: f64) -> f64 {
    let rounded = f64::from(number as f32);
    if rounded.is_finite() { rounded } else { number }
}

fn decimal(literal: &Literal) -> Result<Operand> {
    let text = match literal {
        Literal::Bool(truth) => i64::from(*truth).to_string(),
        Literal::Integer(number) => number.to_string(),
        // The shortest digits that give the same number, as Python's `repr` has them.
        Literal::Real(number) => number.to_string(),
        Literal::Decimal(text) | Literal::Text(text) => text.clone(),
        Literal::Bytes(bytes) => return Ok(Operand::Bytes(bytes.clone())),
        Literal::Time(_) => String::new(),
        Literal::Null => return Err(null_among_values()),
    };
    Ok(Decimal::parse(&text).map_or(Operand::Text(text.into_bytes()), Operand::Decimal))
}

fn null_among_values() -> Error {
    invalid("a null is none of the values that are compared".to_owned())
}
