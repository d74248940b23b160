//! One condition on one value.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::decimal::Decimal;

/// What a condition compares with, in the column's own type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Number(Number),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Decimal(Decimal),
    /// Text that reads as a number: the number to numbers, the text to texts.
    Numeral(Number, Vec<u8>),
}

/// A number among operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Integer(i64),
    /// No whole `i64`.
    Real(f64),
}

impl Number {
    /// Whole numbers become integers, so that equal numbers are equal operands.
    pub(super) fn of(number: f64) -> Self {
        whole(number).map_or(Self::Real(number), Self::Integer)
    }
}

impl Operand {
    pub(super) fn integer(number: i64) -> Self {
        Self::Number(Number::Integer(number))
    }

    pub(super) fn real(number: f64) -> Self {
        Self::Number(Number::of(number))
    }
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

/// A condition.
#[derive(Debug, PartialEq)]
pub(super) enum Test {
    Order(Order, Operand),
    Among(Among),
}

/// Whether a value is one of several, or none of them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Among {
    is_negated: bool,
    /// Whether texts are compared without regard to case.
    folds_case: bool,
    /// Whether numbers are among the operands that are not text as well.
    has_numbers: bool,
    /// Ascending, as are the reals' bits (of which none is a zero's) and the decimals.
    integers: Vec<i64>,
    reals: Vec<u64>,
    texts: HashSet<Vec<u8>>,
    bytes: HashSet<Vec<u8>>,
    decimals: Vec<Decimal>,
}

impl Among {
    pub(super) fn new(operands: Vec<Operand>, is_negated: bool, folds_case: bool) -> Self {
        let mut among = Self { is_negated, folds_case, ..Self::default() };
        for operand in operands {
            match operand {
                Operand::Number(number) => {
                    among.has_numbers = true;
                    among.add(number);
                }
                Operand::Numeral(number, text) => {
                    among.add(number);
                    among.texts.insert(text);
                }
                Operand::Text(text) => {
                    among.texts.insert(text);
                }
                Operand::Bytes(bytes) => {
                    among.bytes.insert(bytes);
                }
                Operand::Decimal(number) => among.decimals.push(number),
            }
        }
        among.integers.sort_unstable();
        among.reals.sort_unstable();
        among.decimals.sort();
        among
    }

    pub(super) fn is_negated(&self) -> bool {
        self.is_negated
    }

    /// One of the values of any of these, or none of them all; they are of one column, and all
    /// negated or none.
    pub(super) fn union(amongs: Vec<Self>) -> Self {
        let mut amongs = amongs.into_iter();
        let mut all = amongs.next().unwrap_or_default();
        let mut is_alone = true;
        for other in amongs {
            all.has_numbers |= other.has_numbers;
            all.integers.extend(other.integers);
            all.reals.extend(other.reals);
            all.texts.extend(other.texts);
            all.bytes.extend(other.bytes);
            all.decimals.extend(other.decimals);
            is_alone = false;
        }
        if !is_alone {
            all.integers.sort_unstable();
            all.reals.sort_unstable();
            all.decimals.sort();
        }
        all
    }

    fn add(&mut self, number: Number) {
        match number {
            Number::Integer(number) => self.integers.push(number),
            Number::Real(number) => self.reals.push(number.to_bits()),
        }
    }

    fn holds(&self, value: Value<'_>) -> bool {
        let (is_among, is_comparable) = match value {
            Value::Integer(number) => (
                self.integers.binary_search(&number).is_ok() || self.has_decimal(&number),
                self.bytes.is_empty(),
            ),
            Value::Real(number) => {
                let is_among = match whole(number) {
                    Some(number) => self.integers.binary_search(&number).is_ok(),
                    None => self.reals.binary_search(&number.to_bits()).is_ok(),
                };
                let is_among = is_among || self.has_decimal(&number);
                (is_among, !number.is_nan() && self.bytes.is_empty())
            }
            Value::Text(text) if !self.decimals.is_empty() => {
                let number = std::str::from_utf8(text).ok().and_then(Decimal::parse);
                let is_among = number.as_ref().is_some_and(|number| self.has(number));
                (is_among || self.texts.contains(text), number.is_some())
            }
            Value::Text(text) => {
                let is_among = if self.folds_case {
                    self.texts.contains(&text.to_ascii_lowercase())
                } else {
                    self.texts.contains(text)
                };
                (is_among, !self.has_numbers && self.bytes.is_empty())
            }
            Value::Bytes(bytes) => {
                (self.bytes.contains(bytes), !self.has_numbers && self.texts.is_empty())
            }
        };
        if self.is_negated { is_comparable && !is_among } else { is_among }
    }

    fn has(&self, number: &Decimal) -> bool {
        self.decimals.binary_search(number).is_ok()
    }

    fn has_decimal(&self, number: &impl ToString) -> bool {
        !self.decimals.is_empty()
            && Decimal::parse(&number.to_string()).is_some_and(|number| self.has(&number))
    }
}

impl Test {
    /// The whole numbers that pass, where these are all from the first to the second; none, if the
    /// first is greater. `None` where it takes [`Test::holds`] to tell.
    pub(super) fn integer_range(&self) -> Option<(i64, i64)> {
        const NOTHING: (i64, i64) = (i64::MAX, i64::MIN);
        match self {
            Self::Among(among) => match among.integers.as_slice() {
                [only] if !among.is_negated && among.decimals.is_empty() => Some((*only, *only)),
                _ => None,
            },
            Self::Order(order, Operand::Number(number) | Operand::Numeral(number, _)) => {
                let Number::Integer(number) = number else { return None };
                let (above, below) = (number.checked_add(1), number.checked_sub(1));
                Some(match order {
                    Order::Greater => above.map_or(NOTHING, |least| (least, i64::MAX)),
                    Order::GreaterOrEqual => (*number, i64::MAX),
                    Order::Less => below.map_or(NOTHING, |most| (i64::MIN, most)),
                    Order::LessOrEqual => (i64::MIN, *number),
                })
            }
            Self::Order(..) => None,
        }
    }

    /// Whether a value, which is not null, passes.
    pub(super) fn holds(&self, value: Value<'_>) -> bool {
        match self {
            Self::Among(among) => among.holds(value),
            Self::Order(order, operand) => {
                compare(value, operand).is_some_and(|ordering| order.holds(ordering))
            }
        }
    }
}

/// How a value and an operand are ordered; `None` where they are of different types.
fn compare(value: Value<'_>, operand: &Operand) -> Option<Ordering> {
    match (value, operand) {
        (Value::Integer(a), Operand::Number(b) | Operand::Numeral(b, _)) => match b {
            Number::Integer(b) => Some(a.cmp(b)),
            Number::Real(b) => compare_mixed(a, *b),
        },
        (Value::Real(a), Operand::Number(b) | Operand::Numeral(b, _)) => match b {
            Number::Integer(b) => compare_mixed(*b, a).map(Ordering::reverse),
            Number::Real(b) => a.partial_cmp(b),
        },
        (Value::Text(a), Operand::Text(b) | Operand::Numeral(_, b))
        | (Value::Bytes(a), Operand::Bytes(b)) => Some(a.cmp(b.as_slice())),
        (value, Operand::Decimal(b)) => {
            let number = match value {
                Value::Integer(a) => Decimal::parse(&a.to_string()),
                Value::Real(a) => Decimal::parse(&a.to_string()),
                Value::Text(a) => std::str::from_utf8(a).ok().and_then(Decimal::parse),
                Value::Bytes(_) => None,
            };
            number.map(|a| a.cmp(b))
        }
        _ => None,
    }
}

/// Exact, where converting the whole number to `f64` would round it.
fn compare_mixed(whole: i64, real: f64) -> Option<Ordering> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if real.is_nan() {
        return None;
    }
    if real >= END {
        return Some(Ordering::Less);
    }
    if real < -END {
        return Some(Ordering::Greater);
    }
    let truncated = real.trunc();
    match whole.cmp(&(truncated as i64)) {
        Ordering::Equal => 0.0.partial_cmp(&(real - truncated)),
        different => Some(different),
    }
}

/// The whole number that a real one is, if an `i64` holds it.
fn whole(number: f64) -> Option<i64> {
    let truncated = number as i64;
    (number.fract() == 0.0 && compare_mixed(truncated, number) == Some(Ordering::Equal))
        .then_some(truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_the_test_holds() {
        let numbers = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
        let orders = [Order::Greater, Order::GreaterOrEqual, Order::Less, Order::LessOrEqual];
        for operand in numbers {
            let mut tests: Vec<Test> =
                orders.iter().map(|order| Test::Order(*order, Operand::integer(operand))).collect();
            tests.push(Test::Among(Among::new(vec![Operand::integer(operand)], false, false)));
            for test in tests {
                let (least, most) = test.integer_range().unwrap();
                for number in numbers {
                    let holds = test.holds(Value::Integer(number));
                    assert_eq!((least..=most).contains(&number), holds, "{test:?} {number}");
                }
            }
        }
    }

    #[test]
    fn whole_and_real_numbers_compare_exactly() {
        let big = 1i64 << 53;
        assert_eq!(compare_mixed(big + 1, big as f64), Some(Ordering::Greater));
        assert_eq!(compare_mixed(i64::MAX, i64::MAX as f64), Some(Ordering::Less));
        assert_eq!(compare_mixed(i64::MIN, i64::MIN as f64), Some(Ordering::Equal));
        assert_eq!(compare_mixed(-3, -2.5), Some(Ordering::Less));
        assert_eq!(compare_mixed(-2, -2.5), Some(Ordering::Greater));
        assert_eq!(compare_mixed(0, -0.0), Some(Ordering::Equal));
        assert_eq!(compare_mixed(0, f64::NAN), None);
        assert_eq!(compare_mixed(0, f64::INFINITY), Some(Ordering::Less));
        assert_eq!(whole(-0.0), Some(0));
        assert_eq!(whole(i64::MAX as f64), None);
        assert_eq!(whole(f64::NEG_INFINITY), None);
    }
}
