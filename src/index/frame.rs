//! Vectors as codes are made of them: turned, and less the mean.

use ndarray::{Array2, ArrayViewMut1};

use super::staging::Staged;
use crate::vector::{Metric, Real, Rotation, inverse_norm};

/// Rows whose rotated vectors are in memory at a time, for each thread.
pub(super) const BATCH: usize = 2048;

/// Rows as codes are made of them.
pub(super) struct Frame<'a, T> {
    pub(super) staged: &'a Staged<T>,
    pub(super) metric: Metric,
    pub(super) rotation: Rotation,
    /// The rotated mean.
    pub(super) mean: Vec<f32>,
}

impl<T: Real> Frame<'_, T> {
    /// The rotated vector less the mean.
    pub(super) fn project(&self, row: usize, out: &mut [f32]) {
        self.place(row, out);
        self.rotation.rotate(out);
        for (x, mean) in out.iter_mut().zip(&self.mean) {
            *x -= mean;
        }
    }

    /// The vector, of length 1 under cosine.
    pub(super) fn place(&self, row: usize, out: &mut [f32]) {
        let vector = self.staged.vector(row);
        let scale = match self.metric {
            Metric::Cosine => inverse_norm(vector).to_f64(),
            Metric::L2 | Metric::InnerProduct | Metric::L1 => 1.0,
        };
        out.fill(0.0);
        for (x, value) in out.iter_mut().zip(vector) {
            *x = (value.to_f64() * scale) as f32;
        }
    }

    pub(super) fn matrix(&self, rows: &[u32]) -> Array2<f32> {
        let mut matrix = Array2::zeros((rows.len(), self.rotation.padded()));
        for (row, out) in rows.iter().zip(matrix.outer_iter_mut()) {
            let mut out: ArrayViewMut1<'_, f32> = out;
            if let Some(out) = out.as_slice_mut() {
                self.project(*row as usize, out);
            }
        }
        matrix
    }
}
