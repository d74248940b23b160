//! Decimal numbers of any length, for comparing: Feast keeps them as text.

use std::cmp::Ordering;

/// A decimal number: `0.digits * 10^exponent`, without leading or trailing zeros among the digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    exponent: i64,
    digits: Vec<u8>,
}

impl Decimal {
    /// Parses what Python's `str(Decimal)` writes, except NaN and infinities.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let end = digits.iter().rposition(|digit| *digit != b'0').map_or(zeros, |last| last + 1);
        let digits = digits[zeros..end].to_vec();
        if digits.is_empty() {
            return Some(Self { negative: false, exponent: 0, digits });
        }
        let exponent = exponent.checked_add(whole.len() as i64)?.checked_sub(zeros as i64)?;
        Some(Self { negative, exponent, digits })
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitudes = || self.exponent.cmp(&other.exponent).then(self.digits.cmp(&other.digits));
        match (self.sign().cmp(&other.sign()), self.sign()) {
            (Ordering::Equal, 0) => Ordering::Equal,
            (Ordering::Equal, -1) => magnitudes().reverse(),
            (Ordering::Equal, _) => magnitudes(),
            (different, _) => different,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_numbers() {
        let ascending = [
            "-1E+3", "-10.5", "-9", "-0.001", "0", "1E-7", "0.1", "0.12", "2", "10", "1e2", "100.5",
        ];
        let parsed: Vec<_> = ascending.iter().map(|text| Decimal::parse(text).unwrap()).collect();
        for (i, a) in parsed.iter().enumerate() {
            for (j, b) in parsed.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{} {}", ascending[i], ascending[j]);
            }
        }
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        for (a, b) in [("1", "1.00"), ("-0", "0E5"), ("1.5e3", "+1500"), ("00.10", "1e-1")] {
            assert_eq!(Decimal::parse(a), Decimal::parse(b));
        }
        for text in ["", ".", "-", "abc", "NaN", "Infinity", "1e", "1.2.3", "١"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }
}
