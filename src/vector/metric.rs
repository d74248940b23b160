//! Metrics, their names, and their definition in double precision.

use super::Real;
use crate::error::{Error, ErrorKind, Result};

/// How far apart two vectors are; lower is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// `1 - cos(a, b)`, from 0 to 2. A vector of zeros has no direction; its distance is 1.
    Cosine,
    /// The Euclidean distance, not squared.
    L2,
    /// `-dot(a, b)`.
    InnerProduct,
    /// The Manhattan distance: the sum of the elements' differences. No index serves it: codes of
    /// rotated vectors tell nothing of sums along the axes.
    L1,
}

impl Metric {
    /// The metric of that name, as Feast, Milvus, pgvector, Qdrant, Elasticsearch or Faiss write
    /// it; case, spaces, hyphens and underscores do not matter.
    pub fn parse(name: &str) -> Result<Self> {
        let plain: String = name
            .chars()
            .filter(|c| !matches!(c, ' ' | '-' | '_'))
            .map(|c| c.to_ascii_lowercase())
            .collect();
        match plain.as_str() {
            "cosine" | "cos" | "cosinedistance" | "cosinesimilarity" => Ok(Self::Cosine),
            "l2" | "euclidean" | "euclid" | "euclideandistance" | "l2norm" | "l2distance" => {
                Ok(Self::L2)
            }
            "innerproduct" | "ip" | "dot" | "dotproduct" | "maxinnerproduct" => {
                Ok(Self::InnerProduct)
            }
            "l1" | "manhattan" | "manhattandistance" | "cityblock" | "taxicab" | "l1norm"
            | "l1distance" => Ok(Self::L1),
            _ => Err(Error::new(
                ErrorKind::UnknownMetric,
                format!("unknown metric '{name}'; use 'cosine', 'L2', 'inner_product' or 'L1'"),
            )),
        }
    }

    /// Whether there are indexes for it.
    pub fn can_be_indexed(self) -> bool {
        self != Self::L1
    }

    /// The name that [`Metric::parse`] and Feast's own score conversion read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::L2 => "L2",
            Self::InnerProduct => "inner_product",
            Self::L1 => "L1",
        }
    }
}

/// Squares of norms that neither over- nor underflow, nor does their product.
const SAFE_SQUARES: std::ops::Range<f64> = 1e-150..1e150;

/// Sums side by side, so that one need not wait for the other.
const LANES: usize = 8;

/// The distance of two vectors of equal length in double precision. Not finite only where the
/// vectors are not, or where the distance (for L2 its square) exceeds `f64`.
pub fn distance<T: Real>(metric: Metric, a: &[T], b: &[T]) -> f64 {
    match metric {
        Metric::InnerProduct => -sum([a, b], |[x, y]| x * y),
        Metric::L2 => {
            // The squares of f32 elements cannot overflow here.
            sum([a, b], |[x, y]| (x - y) * (x - y)).sqrt()
        }
        Metric::L1 => sum([a, b], |[x, y]| (x - y).abs()),
        Metric::Cosine => cosine(a, b),
    }
}

fn cosine<T: Real>(a: &[T], b: &[T]) -> f64 {
    let sums = |a_scale: f64, b_scale: f64| {
        (
            sum([a, b], |[x, y]| (x * a_scale) * (y * b_scale)),
            sum([a, a], |[x, y]| (x * a_scale) * (y * a_scale)),
            sum([b, b], |[x, y]| (x * b_scale) * (y * b_scale)),
        )
    };
    let (mut dot, mut aa, mut bb) = sums(1.0, 1.0);
    if !SAFE_SQUARES.contains(&aa) || !SAFE_SQUARES.contains(&bb) {
        let scale = |vector: &[T]| {
            let largest = vector.iter().map(|x| x.to_f64().abs()).fold(0.0, f64::max);
            // A power of two, so that scaling is exact.
            if largest > 0.0 && largest.is_finite() {
                (-largest.log2().floor()).clamp(-1000.0, 1000.0).exp2()
            } else {
                1.0
            }
        };
        (dot, aa, bb) = sums(scale(a), scale(b));
    }
    if aa == 0.0 || bb == 0.0 {
        return 1.0;
    }
    // One root of the product, so that it is exactly the square where the vectors are the same.
    let cos = dot / (aa * bb).sqrt();
    // Rounding may lead just past the ends; not-a-number stays what it is.
    1.0 - cos.clamp(-1.0, 1.0)
}

/// The sum of `term` over pairs of elements, always added in the same order, so that the sums for
/// equal vectors are equal to the last bit.
fn sum<T: Real>([a, b]: [&[T]; 2], term: impl Fn([f64; 2]) -> f64) -> f64 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += term([x[lane].to_f64(), y[lane].to_f64()]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(x, y)| term([x.to_f64(), y.to_f64()]));
    sums.into_iter().sum::<f64>() + rest.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(metric: Metric, a: &[f64], b: &[f64]) -> f64 {
        distance(metric, a, b)
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "exact in these cases")]
    fn distances_are_feasts() {
        let (a, b) = ([1.0, 0.0], [0.0, 2.0]);
        assert!((of(Metric::L2, &a, &b) - 5f64.sqrt()).abs() < 1e-15);
        assert_eq!(of(Metric::Cosine, &a, &b), 1.0);
        assert_eq!(of(Metric::Cosine, &b, &b), 0.0);
        assert_eq!(of(Metric::InnerProduct, &[1.0, 2.0], &[3.0, 4.0]), -11.0);
        assert_eq!(of(Metric::Cosine, &a, &[0.0, 0.0]), 1.0);
        assert_eq!(of(Metric::L1, &[1.0, 2.0], &[3.0, -4.0]), 8.0);
    }

    #[test]
    fn cosine_neither_overflows_nor_underflows() {
        for size in [5e-324, 1e-300, 1e-160, 1.0, 1e200, 1e308] {
            let d = of(Metric::Cosine, &[size, 0.0], &[size, size]);
            assert!((d - (1.0 - 0.5f64.sqrt())).abs() < 1e-12, "{size}: {d}");
        }
        assert!(of(Metric::Cosine, &[f64::NAN, 1.0], &[1.0, 1.0]).is_nan());
    }

    #[test]
    fn names_are_read_as_the_ecosystem_writes_them() {
        for name in ["cosine", "COSINE", "Cosine_Distance"] {
            assert_eq!(Metric::parse(name), Ok(Metric::Cosine));
        }
        for name in ["l2", "L2", "euclidean", "l2_norm"] {
            assert_eq!(Metric::parse(name), Ok(Metric::L2));
        }
        for name in ["IP", "inner_product", "dot", "dot-product", "Inner Product"] {
            assert_eq!(Metric::parse(name), Ok(Metric::InnerProduct));
        }
        for name in ["L1", "manhattan", "l1_norm"] {
            assert_eq!(Metric::parse(name), Ok(Metric::L1));
        }
        let error = Metric::parse("hamming").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownMetric);
        assert!(error.message().contains("'hamming'") && error.message().contains("cosine"));
    }
}
