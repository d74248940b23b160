//! Quantised vectors and the estimates made from them.
//!
//! After RaBitQ (Gao and Long, SIGMOD 2024, arXiv 2405.12497; with more bits, SIGMOD 2025, arXiv
//! 2409.09913). A vector is the centroid `c` of its list plus a residual `r`, both rotated at
//! random. The residual is kept twice: as its signs, a bit for each coordinate, and as 8-bit
//! numbers. What is estimated is a *key*, by which rows are ranked; lower is nearer:
//!
//! * [`Space::Distance`]: the squared distance `|q - c|² + |r|² - 2 <q - c, r>`;
//! * [`Space::Product`]: the negative inner product `-<q, c> - <q, r>`.
//!
//! With `x` the vector of signs, `<q, r>` is estimated as `f <q, x>`, `f = |r|² / <r, x>`, which is
//! unbiased over rotations, with a standard deviation of about `0.6 f |q|` (theorem 3.2 there; 0.6
//! is the limit of `sqrt(1 - <r, x>² / (|r|² dim))`, that is `sqrt(1 - 2 / pi)`). All that does not
//! depend on the query is in a summand of each vector.

use std::sync::OnceLock;

use super::Isa;
use super::dispatch::dispatched;

/// What keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Squared distances.
    Distance,
    /// Negative inner products.
    Product,
}

/// `sqrt(1 - 2 / pi)`: the deviation of an estimate from signs, in units of `f |q|`.
pub const SIGN_DEVIATION: f32 = 0.603;

/// `1 / sqrt(12)`: the deviation of a number rounded to whole ones.
const ROUNDING_DEVIATION: f32 = 0.289;

/// Bytes after a residual's 8-bit code: its summand, its factor, and the number of its list.
const TRAILER: usize = 2 * size_of::<f32>() + size_of::<u32>();

/// The summand and the factor of an estimate from signs: the key is
/// `of list + summand + factor * <q, x>`.
pub fn sign_terms(space: Space, residual: &[f32], centroid: &[f32]) -> (f32, f32) {
    let square = square(residual);
    let absolute: f32 = residual.iter().map(|x| x.abs()).sum();
    let f = if absolute > 0.0 { square / absolute } else { 0.0 };
    match space {
        Space::Product => (0.0, -f),
        Space::Distance => {
            let across: f32 =
                residual.iter().zip(centroid).map(|(r, c)| if *r > 0.0 { *c } else { -c }).sum();
            (square + 2.0 * f * across, -2.0 * f)
        }
    }
}

/// Bytes of a residual's 8-bit code with its terms.
pub fn fine_bytes(padded: usize) -> usize {
    (padded + TRAILER).next_multiple_of(16)
}

/// Writes the 8-bit code of a residual of a list.
pub fn put_fine(space: Space, residual: &[f32], centroid: &[f32], list: u32, out: &mut [u8]) {
    let largest = residual.iter().fold(0f32, |most, x| most.max(x.abs()));
    let step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    let mut across = 0.0;
    for ((code, r), c) in out.iter_mut().zip(residual).zip(centroid) {
        let rounded = (r / step).round();
        across += rounded * c;
        *code = (rounded as i8).cast_unsigned();
    }
    let (summand, factor) = match space {
        Space::Product => (0.0, -step),
        Space::Distance => (square(residual) + 2.0 * step * across, -2.0 * step),
    };
    let trailer: &mut [u32] = bytemuck::cast_slice_mut(&mut out[residual.len()..][..TRAILER]);
    trailer.copy_from_slice(&[summand.to_bits(), factor.to_bits(), list]);
}

/// The number of the list that a row with this 8-bit code is in.
pub fn list_of(code: &[u8], padded: usize) -> u32 {
    bytemuck::cast_slice(&code[padded..][..TRAILER])[2]
}

/// A finer estimate, from an 8-bit code: the key without the list's share, and its deviation for a
/// query that is at distance `reach` from the centroid (for products: of length `reach`).
pub fn fine_key(rotated: &[f32], code: &[u8], reach: f32) -> (f32, f32) {
    static KERNEL: OnceLock<dot_codes::Kernel> = OnceLock::new();
    let dot = KERNEL.get_or_init(|| dot_codes::on(Isa::best()));
    let (codes, terms) = code.split_at(rotated.len());
    let terms: &[f32] = bytemuck::cast_slice(&terms[..2 * size_of::<f32>()]);
    let (summand, factor) = (terms[0], terms[1]);
    let key = factor.mul_add(dot(rotated, bytemuck::cast_slice(codes)), summand);
    (key, factor.abs() * reach * ROUNDING_DEVIATION)
}

fn square(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum()
}

dispatched!(dot_codes: fn(query: &[f32], codes: &[i8]) -> f32 = dot_with_codes);

#[inline(always)]
#[allow(clippy::inline_always, reason = "a body not inlined would not use the instruction set")]
#[allow(clippy::needless_range_loop, reason = "the shape that becomes SIMD registers")]
fn dot_with_codes(query: &[f32], codes: &[i8]) -> f32 {
    const LANES: usize = 64;
    const REST: usize = super::rotation::PADDED_TO;
    let (wide, query_rest) = query.as_chunks::<LANES>();
    let (wide_codes, codes_rest) = codes.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (x, code) in wide.iter().zip(wide_codes) {
        for lane in 0..LANES {
            sums[lane] = x[lane].mul_add(f32::from(code[lane]), sums[lane]);
        }
    }
    for (x, code) in query_rest.as_chunks::<REST>().0.iter().zip(codes_rest.as_chunks::<REST>().0) {
        for lane in 0..REST {
            sums[lane] = x[lane].mul_add(f32::from(code[lane]), sums[lane]);
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}
