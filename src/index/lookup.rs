//! Where rows are in a segment.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::format::Section;
use super::{Damage, Segment};

impl Segment {
    /// The position of a row, if it is in the segment.
    pub fn position(&self, row_id: i64) -> Result<Option<usize>, Damage> {
        let mut found = None;
        self.positions(std::iter::once(row_id), |position| found = Some(position))?;
        Ok(found)
    }

    /// Calls `each` with the position of every one of these rows that is in the segment. The cost
    /// of a row does not grow with the segment where they come in ascending order.
    pub fn positions(
        &self,
        row_ids: impl IntoIterator<Item = i64>,
        mut each: impl FnMut(usize),
    ) -> Result<(), Damage> {
        let ids = self.sorted_ids()?;
        let mut from = 0;
        for row_id in row_ids {
            if from > 0 && ids[from - 1] >= row_id {
                from = 0;
            }
            let (at, is_there) = find(ids, from, row_id);
            from = at;
            if is_there {
                each(self.position_of(at)?);
            }
        }
        Ok(())
    }

    /// The same for runs of rows; rows that are not in the segment cost nothing, however many.
    pub fn positions_in_runs(
        &self,
        runs: impl IntoIterator<Item = Range<i64>>,
        mut each: impl FnMut(usize),
    ) -> Result<(), Damage> {
        let ids = self.sorted_ids()?;
        let mut from = 0;
        for run in runs {
            if from > 0 && ids[from - 1] >= run.start {
                from = 0;
            }
            from = find(ids, from, run.start).0;
            while ids.get(from).is_some_and(|id| *id < run.end) {
                each(self.position_of(from)?);
                from += 1;
            }
        }
        Ok(())
    }

    /// The row ids in ascending order. That they are, and that the positions are those of these
    /// rows, is checked once.
    pub(super) fn sorted_ids(&self) -> Result<&[i64], Damage> {
        let is_ordered = self.header().ordered;
        let section = if is_ordered { Section::RowIds } else { Section::SortedIds };
        let ids: &[i64] = self.numbers(section, 0..self.header().rows)?;
        if !self.ids_checked.load(Relaxed) {
            self.check_ids(ids)?;
            self.ids_checked.store(true, Relaxed);
        }
        Ok(ids)
    }

    #[cold]
    fn check_ids(&self, ids: &[i64]) -> Result<(), Damage> {
        if !ids.is_sorted_by(|one, next| one < next) {
            return Err(Damage::new("its row ids are not in order"));
        }
        if !self.header().ordered {
            let positions: &[u32] = self.numbers(Section::SortedPositions, 0..ids.len())?;
            let row_ids = self.row_ids()?;
            let is_of = |(id, at): (&i64, &u32)| row_ids.get(*at as usize) == Some(id);
            if !ids.iter().zip(positions).all(is_of) {
                return Err(Damage::new("a row is not where it should be"));
            }
        }
        Ok(())
    }

    /// The position of the row whose id is at this place among the sorted ones.
    #[inline]
    fn position_of(&self, at: usize) -> Result<usize, Damage> {
        if self.header().ordered {
            return Ok(at);
        }
        let position = self.numbers::<u32>(Section::SortedPositions, at..at + 1)?[0] as usize;
        if position < self.header().rows {
            Ok(position)
        } else {
            Err(Damage::new("a position is wrong"))
        }
    }
}

/// Where `id` is among these ascending ids, of which those before `from` are smaller; or where it
/// would be, and that it is not there.
fn find(ids: &[i64], from: usize, id: i64) -> (usize, bool) {
    let Some(&first) = ids.get(from).filter(|first| **first <= id) else {
        return (from, false);
    };
    // It cannot be further on than it would be if there were no gaps between the ids, and where
    // there are few it is not far before that.
    let mut high = from.saturating_add(id.abs_diff(first) as usize).min(ids.len() - 1);
    if ids[high] <= id {
        return if ids[high] == id { (high, true) } else { (high + 1, false) };
    }
    let (mut low, mut step) = (from, 1);
    while high - low > step {
        let probe = high - step;
        if ids[probe] <= id {
            low = probe;
        } else {
            (high, step) = (probe, step * 2);
        }
    }
    match ids[low..high].binary_search(&id) {
        Ok(at) => (low + at, true),
        Err(at) => (low + at, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn ids_are_found_wherever_one_starts(
            ids in proptest::collection::btree_set(-300i64..300, 1..200),
            wild in proptest::collection::btree_set(proptest::prelude::any::<i64>(), 0..5),
            asked in proptest::collection::vec(-310i64..310, 60),
        ) {
            let ids: Vec<i64> = ids.union(&wild).copied().collect();
            for id in asked.iter().chain(&ids).chain(&[i64::MIN, i64::MAX]) {
                let wanted = ids.binary_search(id);
                let before = ids.partition_point(|other| other < id);
                for from in [0, before / 2, before] {
                    let found = find(&ids, from, *id);
                    proptest::prop_assert_eq!(found, (before, wanted.is_ok()));
                }
            }
        }
    }
}
