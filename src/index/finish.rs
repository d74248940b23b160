//! The end of a search: the distances of the rows that codes say are near.

use super::search::{Outcome, Search, key_of};
use super::{Damage, Part};
use crate::vector::{Candidate, Hit, Real, TopK, prefetch};

impl<T: Real> Search<'_, T> {
    /// Vectors of zeros, all of which are at the same distance: those with the lowest ids, if any of
    /// them can be in the answer.
    fn visit_zeros(&mut self, part: &Part, threshold: f64) -> Result<(), Damage> {
        let zeros = &part.segment.uncoded()?.zeros;
        let Some(first) = zeros.first() else {
            return Ok(());
        };
        let distance = self.query.measure(part.segment.vector(*first as usize)?);
        // Not a number for a query too long to be measured.
        if !distance.is_finite() || key_of(self.query.metric(), distance) > threshold {
            return Ok(());
        }
        let mut found = 0;
        for &position in zeros {
            let position = position as usize;
            if found == self.query.top_k() {
                break;
            }
            if !part.is_dead(position) && self.passes(part, position)? {
                self.hits.push(Hit { row_id: part.segment.row_id(position)?, distance });
                found += 1;
            }
        }
        Ok(())
    }

    pub(super) fn measure(&mut self, part: &Part, position: usize) -> Result<f64, Damage> {
        self.effort.measured += 1;
        let distance = self.query.measure(part.segment.vector(position)?);
        if distance.is_finite() {
            self.hits.push(Hit { row_id: part.segment.row_id(position)?, distance });
        }
        Ok(key_of(self.query.metric(), distance))
    }

    /// The nearest rows of all that were visited, best first.
    pub(super) fn finish(&mut self, parts: &[Part]) -> Result<Outcome, Damage> {
        let mut refined = std::mem::take(&mut self.refined);
        let threshold = self.best.threshold();
        refined.retain(|row| f64::from(row.key - row.margin) <= threshold);
        refined.sort_unstable_by(|a, b| {
            a.key.total_cmp(&b.key).then((a.part, a.position).cmp(&(b.part, b.position)))
        });
        let mut best = TopK::new(self.query.top_k());
        for hit in &self.hits {
            let key = key_of(self.query.metric(), hit.distance);
            best.offer(Candidate { key, row_id: hit.row_id, position: (0, 0) });
        }
        let mut measured = Vec::with_capacity(refined.len());
        for (at, row) in refined.iter().enumerate() {
            if f64::from(row.key - row.margin) > best.threshold() {
                continue;
            }
            if let Some(next) = refined.get(at + 4) {
                let part = &parts[next.part as usize];
                prefetch(part.segment.vector_unchecked::<T>(next.position as usize));
            }
            let known = self.hits.len();
            let key = self.measure(&parts[row.part as usize], row.position as usize)?;
            best.offer(Candidate { key, row_id: at as i64, position: (0, 0) });
            measured.extend(self.hits.get(known).map(|hit| (hit.row_id, *row)));
        }
        for part in parts {
            self.visit_zeros(part, best.threshold())?;
        }
        let mut hits = std::mem::take(&mut self.hits);
        hits.sort_unstable_by(Hit::compare);
        hits.truncate(self.query.top_k());
        Ok(Outcome { hits, effort: self.effort, measured })
    }
}
