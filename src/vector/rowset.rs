//! A set of rows, as filters make them.

/// Rows by their ids; a bit for each id between the least and the greatest that may be in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSet {
    first: i64,
    words: Vec<u64>,
    len: usize,
}

impl RowSet {
    /// An empty set for ids from `first` to `last`.
    pub fn between(first: i64, last: i64) -> Self {
        let span = last.saturating_sub(first).saturating_add(1).max(0);
        Self { first, words: vec![0; (span as usize).div_ceil(64)], len: 0 }
    }

    /// The rows from `first` on whose bit is set, the lowest bit being the first row's.
    pub fn of_run(first: i64, words: Vec<u64>) -> Self {
        let len = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { first, words, len }
    }

    /// The set of these ids.
    pub fn of(ids: &[i64]) -> Self {
        let (first, last) =
            ids.iter().fold((i64::MAX, i64::MIN), |(low, high), id| (low.min(*id), high.max(*id)));
        let mut set = if ids.is_empty() { Self::default() } else { Self::between(first, last) };
        for id in ids {
            set.insert(*id);
        }
        set
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a row whose id is between the bounds.
    ///
    /// # Panics
    /// If it is not.
    pub fn insert(&mut self, id: i64) {
        let at = (id - self.first) as usize;
        let word = &mut self.words[at / 64];
        let bit = 1 << (at % 64);
        self.len += usize::from(*word & bit == 0);
        *word |= bit;
    }

    /// The ids in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = i64> {
        self.words.iter().enumerate().flat_map(move |(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < 64).then(|| self.first + at as i64 * 64 + i64::from(bit))
            })
        })
    }

    /// Which of the 64 rows from `id` on are in the set, the first as the lowest bit.
    pub fn word_from(&self, id: i64) -> u64 {
        let at = id.wrapping_sub(self.first);
        let word = |at: i64| usize::try_from(at).ok().and_then(|at| self.words.get(at)).copied();
        let (low, shift) = (at.div_euclid(64), at.rem_euclid(64));
        let low_bits = word(low).unwrap_or(0) >> shift;
        if shift == 0 { low_bits } else { low_bits | word(low + 1).unwrap_or(0) << (64 - shift) }
    }

    /// Whether the row is in the set.
    #[inline]
    pub fn contains(&self, id: i64) -> bool {
        // An id before the first wraps around to one that is past every word.
        let at = id.wrapping_sub(self.first).cast_unsigned() as usize;
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    proptest::proptest! {
        #[test]
        fn behaves_like_a_set(ids in proptest::collection::vec(-200i64..200, 0..80), probes in proptest::collection::vec(-400i64..400, 40)) {
            let set = RowSet::of(&ids);
            let model: BTreeSet<i64> = ids.iter().copied().collect();
            proptest::prop_assert_eq!(set.len(), model.len());
            for id in probes.iter().chain(&ids).chain(&[i64::MIN, i64::MAX]) {
                proptest::prop_assert_eq!(set.contains(*id), model.contains(id));
            }
            proptest::prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            for from in probes {
                for bit in 0..64 {
                    let is_in = set.word_from(from) >> bit & 1 == 1;
                    proptest::prop_assert_eq!(is_in, model.contains(&(from + bit)));
                }
            }
        }
    }
}
