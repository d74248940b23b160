//! The best k of many candidates.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row that may be among the best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// What it is ranked by; lower is better. Never not-a-number.
    pub key: f64,
    /// The row; of equals the lower one is better, so that answers are the same every time.
    pub row_id: i64,
    /// Where its vector is.
    pub position: (u32, u32),
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key).then(self.row_id.cmp(&other.row_id))
    }
}

/// Keeps the best `k` of the candidates offered.
#[derive(Debug)]
pub struct TopK {
    k: usize,
    heap: BinaryHeap<Candidate>,
}

impl TopK {
    /// Room for `k`, which is at least 1.
    pub fn new(k: usize) -> Self {
        Self { k: k.max(1), heap: BinaryHeap::new() }
    }

    /// What a key must not exceed to be worth offering.
    pub fn threshold(&self) -> f64 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() == self.k => worst.key,
            _ => f64::INFINITY,
        }
    }

    /// The key of the `k`-th best that was offered, the first being 1; infinity if there were fewer.
    pub fn key_at(&self, k: usize) -> f64 {
        let mut keys: Vec<f64> = self.heap.iter().map(|candidate| candidate.key).collect();
        if k == 0 || k > keys.len() {
            return f64::INFINITY;
        }
        *keys.select_nth_unstable_by(k - 1, f64::total_cmp).1
    }

    /// Takes the candidate if it is among the best so far.
    pub fn offer(&mut self, candidate: Candidate) {
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }

    /// Takes all of another's candidates: the merge of partial answers.
    pub fn merge(&mut self, other: Self) {
        for candidate in other.heap {
            self.offer(candidate);
        }
    }

    /// The best, in no order.
    pub fn into_candidates(self) -> Vec<Candidate> {
        self.heap.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn agrees_with_sorting(keys in proptest::collection::vec(-4i8..4, 0..40), k in 1usize..50, cut in 0usize..40) {
            let all: Vec<Candidate> = keys
                .iter()
                .enumerate()
                .map(|(row, key)| Candidate { key: f64::from(*key), row_id: row as i64, position: (0, 0) })
                .collect();
            let (left, right) = all.split_at(cut.min(all.len()));
            let (mut top, mut other) = (TopK::new(k), TopK::new(k));
            for c in left { top.offer(*c) }
            for c in right { other.offer(*c) }
            top.merge(other);
            let mut ours = top.into_candidates();
            ours.sort();
            let mut expected = all;
            expected.sort();
            expected.truncate(k);
            proptest::prop_assert_eq!(ours, expected);
        }
    }
}
