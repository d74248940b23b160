//! k-means clustering, for partitions.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis, s};
use parking_lot::Mutex;

use super::rotation::SplitMix64;
use crate::parallel;

/// Rows that are compared with all centroids while they are in the CPU's cache.
const TILE: usize = 256;

/// Rows and the centroids they are compared with, and the centroids' squares.
#[derive(Debug, Clone)]
pub struct Centroids {
    /// A centroid a row.
    pub vectors: Array2<f32>,
    halves: Vec<f32>,
}

impl Centroids {
    /// Takes the centroids as they are.
    pub fn new(vectors: Array2<f32>) -> Self {
        let halves = vectors.outer_iter().map(|c| c.iter().map(|x| x * x).sum::<f32>() / 2.0);
        Self { halves: halves.collect(), vectors }
    }

    /// Lloyd's algorithm from `k` of the rows, chosen at random by `seed`. A centroid that no row
    /// is nearest to starts anew at some row. Ends early when told to stop.
    pub fn of(
        rows: &ArrayView2<'_, f32>,
        k: usize,
        rounds: usize,
        seed: u64,
        threads: usize,
    ) -> Self {
        let mut random = SplitMix64(seed);
        let chosen = random.sample(k, rows.nrows());
        let mut centroids = Self::new(rows.select(Axis(0), &chosen));
        for _ in 0..rounds {
            if parallel::is_cancelled() {
                break;
            }
            let nearest = centroids.nearest(rows, threads);
            let mut sums = Array2::<f32>::zeros(centroids.vectors.raw_dim());
            let mut counts = vec![0usize; centroids.len()];
            for (row, nearest) in rows.outer_iter().zip(&nearest) {
                let mut sum = sums.row_mut(*nearest as usize);
                sum += &row;
                counts[*nearest as usize] += 1;
            }
            for (at, count) in counts.iter().enumerate() {
                if *count > 0 {
                    sums.row_mut(at).mapv_inplace(|x| x / *count as f32);
                } else {
                    sums.row_mut(at).assign(&rows.row(random.below(rows.nrows())));
                }
            }
            centroids = Self::new(sums);
        }
        centroids
    }

    /// Number of centroids.
    pub fn len(&self) -> usize {
        self.halves.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.halves.is_empty()
    }

    /// The number of the nearest centroid of each row, by Euclidean distance.
    pub fn nearest(&self, rows: &ArrayView2<'_, f32>, threads: usize) -> Vec<u32> {
        let answers = Mutex::new(vec![0; rows.nrows()]);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut products = Array2::<f32>::zeros((TILE.min(rows.nrows()), self.len()));
            loop {
                let start = next.fetch_add(TILE, Relaxed);
                if start >= rows.nrows() || parallel::is_cancelled() {
                    return;
                }
                let tile = rows.slice(s![start..(start + TILE).min(rows.nrows()), ..]);
                let mut products = products.slice_mut(s![..tile.nrows(), ..]);
                general_mat_mul(1.0, &tile, &self.vectors.t(), 0.0, &mut products);
                let nearest: Vec<u32> =
                    products.outer_iter().map(|row| self.most_alike(row.as_slice())).collect();
                answers.lock()[start..start + nearest.len()].copy_from_slice(&nearest);
            }
        };
        parallel::run(threads, work);
        answers.into_inner()
    }

    /// From the inner products with all centroids: `|v - c|²` is least where `<v, c> - |c|² / 2`
    /// is greatest.
    fn most_alike(&self, products: Option<&[f32]>) -> u32 {
        let mut best = (f32::NEG_INFINITY, 0);
        for (at, (product, half)) in
            products.unwrap_or_default().iter().zip(&self.halves).enumerate()
        {
            let score = product - half;
            if score > best.0 {
                best = (score, at as u32);
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_clusters_that_are_far_apart() {
        let rows = Array2::from_shape_fn((3000, 20), |(row, column)| {
            let cluster = row % 3;
            let noise = ((row * 31 + column * 17) % 13) as f32 / 13.0;
            if column == cluster { 50.0 + noise } else { noise }
        });
        for threads in [1, 2] {
            let centroids = Centroids::of(&rows.view(), 6, 10, 1, threads);
            let nearest = centroids.nearest(&rows.view(), threads);
            let mut owner = vec![None; centroids.len()];
            for (row, nearest) in nearest.iter().enumerate() {
                let owner = owner[*nearest as usize].get_or_insert(row % 3);
                assert_eq!(*owner, row % 3);
            }
        }
    }

    #[test]
    fn nearest_agrees_with_the_definition() {
        let vector = |i: usize, j: usize| ((i * 7 + j * 5) % 23) as f32 - 11.0;
        let rows = Array2::from_shape_fn((700, 33), |(i, j)| vector(i + 1000, j * j));
        let centroids = Centroids::new(Array2::from_shape_fn((17, 33), |(i, j)| vector(i * i, j)));
        let square = |i: usize, c: usize| -> f32 {
            let difference = &rows.row(i) - &centroids.vectors.row(c);
            difference.iter().map(|x| x * x).sum()
        };
        for (row, nearest) in centroids.nearest(&rows.view(), 2).into_iter().enumerate() {
            let best = (0..17).map(|c| square(row, c)).fold(f32::INFINITY, f32::min);
            assert!(square(row, nearest as usize) <= best + 1e-2, "{row}");
        }
    }

    #[test]
    fn rows_that_are_all_the_same_are_no_problem() {
        let rows = Array2::from_elem((40, 3), 1.5f32);
        let centroids = Centroids::of(&rows.view(), 4, 5, 1, 1);
        assert!(centroids.vectors.iter().all(|x| (*x - 1.5).abs() < 1e-6));
    }
}
