//! A query vector, as it is measured by.

use std::ops::Range;

use super::{Metric, Real, distance, inverse_norm};

/// A query vector and what it asks.
#[derive(Debug, Clone)]
pub struct Query<T> {
    /// The query in the vectors' precision.
    vector: Vec<T>,
    metric: Metric,
    top_k: usize,
}

impl<T: Real> Query<T> {
    /// A query for the `top_k` nearest. The vector is rounded to the precision of the stored ones,
    /// so that a vector finds itself at distance 0. Under cosine only its direction counts, which
    /// any vector but that of zeros has, however small or large its elements are.
    pub fn new(vector: impl Iterator<Item = f64>, metric: Metric, top_k: usize) -> Self {
        let mut vector: Vec<f64> = vector.collect();
        if metric == Metric::Cosine {
            scale_to_single_precision(&mut vector);
        }
        Self { vector: vector.into_iter().map(T::from_f64).collect(), metric, top_k }
    }

    /// The same query for another number of rows.
    #[must_use]
    pub fn of_top_k(&self, top_k: usize) -> Self {
        Self { top_k, ..self.clone() }
    }

    /// The metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// How many rows are asked for.
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// Whether its length is one that single precision can square.
    pub fn is_regular(&self) -> bool {
        self.metric == Metric::Cosine || !inverse_norm(&self.vector).to_f64().is_nan()
    }

    /// The query as it is ranked by: of length 1 under cosine.
    pub fn direction<R: Real>(&self) -> Vec<R> {
        let elements = self.vector.iter().map(|x| x.to_f64());
        match self.metric {
            Metric::Cosine => {
                let largest = elements.clone().map(f64::abs).fold(0.0, f64::max);
                let scaled = elements.map(|x| x / largest);
                let norm = scaled.clone().map(|x| x * x).sum::<f64>().sqrt();
                scaled.map(|x| R::from_f64(x / norm)).collect()
            }
            Metric::L2 | Metric::InnerProduct | Metric::L1 => elements.map(R::from_f64).collect(),
        }
    }

    /// The query as the scan uses it, padded to the rows' stride.
    pub(super) fn prepared(&self, stride: usize) -> Vec<T> {
        let mut vector = self.direction();
        vector.resize(stride, T::ZERO);
        vector
    }

    /// The exact distance of one vector, which may be padded.
    pub fn measure(&self, vector: &[T]) -> f64 {
        distance(self.metric, &self.vector, &vector[..self.vector.len()])
    }
}

/// Multiplies by a power of two, which is exact, where the elements would leave single precision.
fn scale_to_single_precision(vector: &mut [f64]) {
    const SAFE: Range<f64> = 1e-30..1e30;
    // The least of numbers takes two steps.
    for _ in 0..2 {
        let largest = vector.iter().map(|x| x.abs()).fold(0.0, f64::max);
        if SAFE.contains(&largest) || largest == 0.0 || !largest.is_finite() {
            return;
        }
        let scale = (-largest.log2().floor()).clamp(-1000.0, 1000.0).exp2();
        for x in &mut *vector {
            *x *= scale;
        }
    }
}
