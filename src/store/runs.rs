//! Row ids as runs: what the change log and the manifest of index files keep of many rows.
//!
//! Packed they are LEB128 varints, two for each run in ascending order: the gap from the end of
//! the run before (from 0 for the first), then the run's length. Bulk loads are a few bytes, and
//! so a few bytes may stand for any number of rows: runs are never expanded before they are
//! compared with what is there.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// Runs of row ids in ascending order, with gaps between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowRuns(Vec<Range<i64>>);

impl RowRuns {
    /// These rows, in ascending order.
    pub fn of(sorted: &[i64]) -> Self {
        let runs = sorted.chunk_by(|a, b| a + 1 == *b);
        Self(runs.map(|run| run[0]..run[0] + run.len() as i64).collect())
    }

    /// The runs.
    pub fn iter(&self) -> impl Iterator<Item = Range<i64>> {
        self.0.iter().cloned()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of rows; what is too much for 64 bits is the greatest number.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|run| run.end.abs_diff(run.start)).fold(0, u64::saturating_add)
    }

    /// The rows themselves, in ascending order.
    pub fn row_ids(&self) -> Vec<i64> {
        self.0.iter().cloned().flatten().collect()
    }

    /// Adds the rows of a packed record; the runs are out of order until [`RowRuns::settle`].
    pub(super) fn add_packed(&mut self, mut packed: &[u8]) -> Result<()> {
        let damaged = || Error::new(ErrorKind::Damaged, "a record of changed rows is damaged");
        let mut end = 0i64;
        while !packed.is_empty() {
            let mut next = |from: i64| {
                let step = prost::encoding::decode_varint(&mut packed).map_err(|_| damaged())?;
                i64::try_from(step).ok().and_then(|step| from.checked_add(step)).ok_or_else(damaged)
            };
            let start = next(end)?;
            end = next(start)?;
            self.0.push(start..end);
        }
        Ok(())
    }

    /// Puts the runs in order and joins those that meet.
    pub(super) fn settle(&mut self) {
        self.0.sort_unstable_by_key(|run| run.start);
        self.0.dedup_by(|next, run| {
            let meet = next.start <= run.end;
            if meet {
                run.end = run.end.max(next.end);
            }
            meet
        });
    }

    /// What a packed record says.
    pub(super) fn unpack(packed: &[u8]) -> Result<Self> {
        let mut runs = Self::default();
        runs.add_packed(packed)?;
        runs.settle();
        Ok(runs)
    }

    pub(super) fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut end = 0;
        for run in &self.0 {
            prost::encoding::encode_varint((run.start - end).cast_unsigned(), &mut out);
            prost::encoding::encode_varint(run.end.abs_diff(run.start), &mut out);
            end = run.end;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back() {
        for ids in [vec![], vec![1], vec![1, 2, 3, 9, 10, 500], (1..=100_000).collect()] {
            let runs = RowRuns::of(&ids);
            assert_eq!(RowRuns::unpack(&runs.pack()).unwrap(), runs);
            assert_eq!((runs.row_ids(), runs.len()), (ids.clone(), ids.len() as u64));
        }
        assert!(RowRuns::of(&(1..=100_000).collect::<Vec<_>>()).pack().len() < 6);
    }

    #[test]
    fn a_few_bytes_that_stand_for_any_number_of_rows_stay_a_few_bytes() {
        let mut packed = Vec::new();
        for _ in 0..1000 {
            prost::encoding::encode_varint(1, &mut packed);
            prost::encoding::encode_varint(1 << 52, &mut packed);
        }
        let runs = RowRuns::unpack(&packed).unwrap();
        assert_eq!((runs.iter().count(), runs.len()), (1000, 1000 << 52));
        assert!(RowRuns::unpack(&[packed, vec![1, 0xFF]].concat()).is_err());
        let far = [0, u64::MAX].map(|n| {
            let mut packed = vec![0];
            prost::encoding::encode_varint(n, &mut packed);
            RowRuns::unpack(&packed).is_ok()
        });
        assert_eq!(far, [true, false]);
    }

    proptest::proptest! {
        #[test]
        fn broken_records_are_errors(packed in proptest::collection::vec(0u8..4, 1..30)) {
            proptest::prop_assert_eq!(RowRuns::unpack(&packed).is_ok(), packed.len() % 2 == 0);
        }

        #[test]
        fn any_bytes_are_runs_or_an_error(packed in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            if let Ok(runs) = RowRuns::unpack(&packed) {
                proptest::prop_assert!(runs.iter().count() <= packed.len());
                proptest::prop_assert_eq!(RowRuns::unpack(&runs.pack()).unwrap(), runs);
            }
        }

        #[test]
        fn records_add_up(
            one in proptest::collection::btree_set(0i64..80, 1..30),
            other in proptest::collection::btree_set(0i64..80, 1..30),
        ) {
            let pack = |ids: &std::collections::BTreeSet<i64>| {
                RowRuns::of(&ids.iter().copied().collect::<Vec<_>>()).pack()
            };
            let mut sum = RowRuns::default();
            sum.add_packed(&pack(&one)).unwrap();
            sum.add_packed(&pack(&other)).unwrap();
            sum.settle();
            let union: Vec<i64> = one.union(&other).copied().collect();
            proptest::prop_assert_eq!(&sum, &RowRuns::of(&union));
            proptest::prop_assert_eq!(sum.row_ids(), union);
        }
    }
}
