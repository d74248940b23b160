//! Dot products, squared Euclidean and Manhattan distances of one query with many rows.
//!
//! One body, written so that the compiler keeps its accumulators in SIMD registers, is compiled
//! for each instruction set; which of them runs is decided once. `Isa::Scalar` is the plain twin
//! that the others are tested against.

#![allow(unsafe_code, reason = "calling functions compiled for an instruction set")]
#![allow(clippy::inline_always, reason = "a body not inlined would not use the instruction set")]

use super::Real;

/// Computes a value for each row: `out[i]` from the query and
/// `rows[i * query.len()..][..query.len()]`.
pub type RowsKernel<T> = fn(query: &[T], rows: &[T], out: &mut [T]);

/// The kernels of one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Kernels<T> {
    /// The instruction set.
    pub isa: Isa,
    /// Dot products.
    pub dot: RowsKernel<T>,
    /// Squared Euclidean distances.
    pub l2_squared: RowsKernel<T>,
    /// Manhattan distances.
    pub l1: RowsKernel<T>,
}

/// An instruction set that there are kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// One element at a time.
    Scalar,
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512F and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// Those that this CPU has, the fastest last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "no others on this architecture")]
        let mut available = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                available.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                available.push(Self::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        available.push(Self::Neon);
        available
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }

    /// The fastest that this CPU has.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Scalar)
    }
}

/// The kernels of an instruction set, which this CPU must have.
///
/// # Panics
/// If the CPU does not have it.
pub fn kernels<T: Real>(isa: Isa) -> Kernels<T> {
    assert!(Isa::available().contains(&isa), "this CPU does not have {isa:?}");
    match isa {
        Isa::Scalar => {
            Kernels { isa, dot: scalar_dot, l2_squared: scalar_l2_squared, l1: scalar_l1 }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Kernels { isa, dot: avx2::dot, l2_squared: avx2::l2_squared, l1: avx2::l1 },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            Kernels { isa, dot: avx512::dot, l2_squared: avx512::l2_squared, l1: avx512::l1 }
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Kernels { isa, dot: neon::dot, l2_squared: neon::l2_squared, l1: neon::l1 },
    }
}

fn scalar_dot<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = query.iter().zip(row).fold(T::ZERO, |sum, (x, y)| sum.plus_product(*x, *y));
    }
}

fn scalar_l2_squared<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = query.iter().zip(row).fold(T::ZERO, |sum, (x, y)| {
            let difference = x.minus(*y);
            sum.plus_product(difference, difference)
        });
    }
}

fn scalar_l1<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = query.iter().zip(row).fold(T::ZERO, |sum, (x, y)| sum.plus_difference(*x, *y));
    }
}

/// Accumulators: four 512-bit registers of f32, enough to hide the latency of an addition; and one
/// for what does not fill four.
const WIDE: usize = 64;
const NARROW: usize = 16;

/// Sums `step` over pairs. Inlined into a function that is compiled for an instruction set, so that
/// it uses that set.
#[inline(always)]
fn sum_pairs<T: Real>(a: &[T], b: &[T], step: impl Fn(T, T, T) -> T) -> T {
    let (wide, a, b) = sum_chunks::<T, WIDE>(a, b, &step);
    let (narrow, a, b) = sum_chunks::<T, NARROW>(a, b, &step);
    a.iter().zip(b).fold(wide.plus(narrow), |sum, (x, y)| step(sum, *x, *y))
}

/// `LANES` sums side by side, added up in pairs; and what is left of both sides.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "the shape that becomes SIMD registers")]
fn sum_chunks<'a, T: Real, const LANES: usize>(
    a: &'a [T],
    b: &'a [T],
    step: &impl Fn(T, T, T) -> T,
) -> (T, &'a [T], &'a [T]) {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    if a_chunks.is_empty() {
        return (T::ZERO, a_rest, b_rest);
    }
    let mut sums = [T::ZERO; LANES];
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] = step(sums[lane], x[lane], y[lane]);
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] = sums[lane].plus(sums[lane + width]);
        }
    }
    (sums[0], a_rest, b_rest)
}

#[inline(always)]
fn fused_dot<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = sum_pairs(query, row, T::plus_product_fused);
    }
}

#[inline(always)]
fn fused_l2_squared<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = sum_pairs(query, row, |sum, x, y| {
            let difference = x.minus(y);
            sum.plus_product_fused(difference, difference)
        });
    }
}

#[inline(always)]
fn summed_l1<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = sum_pairs(query, row, T::plus_difference);
    }
}

/// A module with the bodies above, compiled for an instruction set.
macro_rules! compiled_for {
    ($name:ident, $features:literal) => {
        mod $name {
            use super::Real;

            #[target_feature(enable = $features)]
            fn compiled_dot<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
                super::fused_dot(query, rows, out);
            }

            #[target_feature(enable = $features)]
            fn compiled_l2_squared<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
                super::fused_l2_squared(query, rows, out);
            }

            #[target_feature(enable = $features)]
            fn compiled_l1<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
                super::summed_l1(query, rows, out);
            }

            pub(super) fn dot<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
                // SAFETY: `kernels`, the only place that hands this function out, has asserted
                // that the CPU has the features.
                unsafe { compiled_dot(query, rows, out) }
            }

            pub(super) fn l2_squared<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
                // SAFETY: as in `dot`.
                unsafe { compiled_l2_squared(query, rows, out) }
            }

            pub(super) fn l1<T: Real>(query: &[T], rows: &[T], out: &mut [T]) {
                // SAFETY: as in `dot`.
                unsafe { compiled_l1(query, rows, out) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compiled_for!(avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
compiled_for!(avx512, "avx512f");
#[cfg(target_arch = "aarch64")]
compiled_for!(neon, "neon");

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of both signs and several magnitudes, the same on every run.
    fn numbers<T: Real>(count: usize, seed: u64) -> Vec<T> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                T::from_f64(((state >> 40) as f64 / f64::from(1 << 24) - 0.5) * 4.0)
            })
            .collect()
    }

    /// `unit` is half the distance from 1 to the next number; the bound is that of any order of
    /// summation (Higham, Accuracy and Stability of Numerical Algorithms, 4.2), for both sides.
    fn agrees_with_the_scalar_twin<T: Real>(unit: f64) {
        let twin = kernels::<T>(Isa::Scalar);
        for isa in Isa::available() {
            let fast = kernels::<T>(isa);
            for length in (1..=67).chain([96, 127, 128, 129, 383, 384, 385, 768, 1000, 3072]) {
                for rows in [1, 3] {
                    // Off by one element: no kernel may rely on alignment.
                    let query = &numbers::<T>(length + 1, 1)[1..];
                    let data = &numbers::<T>(length * rows + 1, 2)[1..];
                    for (kernel, expected) in [
                        (fast.dot, twin.dot),
                        (fast.l2_squared, twin.l2_squared),
                        (fast.l1, twin.l1),
                    ] {
                        let (mut ours, mut theirs) = (vec![T::NAN; rows], vec![T::NAN; rows]);
                        kernel(query, data, &mut ours);
                        expected(query, data, &mut theirs);
                        for (a, b) in ours.iter().zip(&theirs) {
                            let error = (a.to_f64() - b.to_f64()).abs();
                            // Elements are at most 2 in size, differences at most 4.
                            let bound = 2.0 * (length + 1) as f64 * unit * 16.0 * length as f64;
                            assert!(error <= bound, "{isa:?}, {length} elements: {a:?} {b:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_isa_agrees_with_the_scalar_twin() {
        agrees_with_the_scalar_twin::<f32>(f64::from(f32::EPSILON) / 2.0);
        agrees_with_the_scalar_twin::<f64>(f64::EPSILON / 2.0);
    }

    #[test]
    fn whole_numbers_are_exact_on_every_isa() {
        for isa in Isa::available() {
            for length in 1..=67u8 {
                let query: Vec<f32> = (1..=length).map(f32::from).collect();
                let row: Vec<f32> = query.iter().rev().copied().collect();
                let dot: f32 = query.iter().zip(&row).map(|(x, y)| x * y).sum();
                let l2: f32 = query.iter().zip(&row).map(|(x, y)| (x - y) * (x - y)).sum();
                let (mut a, mut b) = ([0.0], [0.0]);
                (kernels(isa).dot)(&query, &row, &mut a);
                (kernels(isa).l2_squared)(&query, &row, &mut b);
                assert_eq!((a, b), ([dot], [l2]), "{isa:?}, {length} elements");
            }
        }
    }

    #[test]
    fn not_a_number_comes_through() {
        for isa in Isa::available() {
            for at in 0..80 {
                let mut row = vec![1.0f32; 80];
                row[at] = f32::NAN;
                let mut out = [0.0];
                (kernels(isa).dot)(&[1.0; 80], &row, &mut out);
                assert!(out[0].is_nan());
            }
        }
    }
}
