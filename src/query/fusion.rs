//! Reciprocal rank fusion: Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms
//! Condorcet and individual rank learning methods", SIGIR 2009.

use std::collections::HashMap;

/// How rankings are fused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fusion {
    /// The paper's k: how little the first ranks stand out.
    pub k: f64,
    /// Weight of the ranking by vector.
    pub vector_weight: f64,
    /// Weight of the ranking by text.
    pub text_weight: f64,
}

impl Default for Fusion {
    fn default() -> Self {
        Self { k: 60.0, vector_weight: 1.0, text_weight: 1.0 }
    }
}

/// The rows of several rankings with their scores, best first: the sum of `weight / (k + rank)`
/// over the rankings that a row is in, ranks starting at 1. Of equals the lower id comes first.
pub fn reciprocal_rank(rankings: &[(f64, Vec<i64>)], k: f64) -> Vec<(i64, f64)> {
    let mut scores: HashMap<i64, f64> = HashMap::new();
    for (weight, rows) in rankings {
        for (at, row) in rows.iter().enumerate() {
            *scores.entry(*row).or_default() += weight / (k + (at + 1) as f64);
        }
    }
    let mut fused: Vec<_> = scores.into_iter().collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_the_papers() {
        let fused = reciprocal_rank(&[(1.0, vec![7, 3, 5]), (2.0, vec![5, 9])], 60.0);
        let expected =
            [(5, 1.0 / 63.0 + 2.0 / 61.0), (9, 2.0 / 62.0), (7, 1.0 / 61.0), (3, 1.0 / 62.0)];
        assert_eq!(fused, expected);
    }
}
