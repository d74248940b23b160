//! A fast random rotation.
//!
//! Quantising to signs needs coordinates that are alike; a random rotation makes them so. A dense
//! one costs `dim²`; this one, signs and Walsh–Hadamard transforms in turns, `dim log dim`
//! (Ailon and Chazelle, "The fast Johnson–Lindenstrauss transform", SIAM J. Comput. 2009; in rounds
//! as by Andoni et al., NIPS 2015). Lengths that are no power of two are covered by two windows
//! that overlap, the first and the last `2^m` coordinates.

#![allow(clippy::inline_always, reason = "a body not inlined would not use the instruction set")]

use std::sync::OnceLock;

use super::Isa;
use super::dispatch::dispatched;

/// Rounds of signs and transforms.
const ROUNDS: usize = 3;

/// Vectors are padded with zeros to a multiple of this before they are rotated.
pub(super) const PADDED_TO: usize = 16;

/// An orthogonal map, the same for the same length and seed everywhere.
#[derive(Debug, Clone)]
pub struct Rotation {
    padded: usize,
    window: usize,
    signs: Vec<f32>,
}

impl Rotation {
    /// A rotation of vectors of `dim` elements. Sign `i` of round `r` is bit `i % 64` of the output
    /// `r * words + i / 64` of `SplitMix64` (Steele et al., OOPSLA 2014) started at `seed`, where
    /// `words` is a 64th of the padded length, rounded up; a set bit is -1.
    pub fn new(dim: usize, seed: u64) -> Self {
        let padded = padded(dim);
        let window = if padded.is_power_of_two() { padded } else { padded.next_power_of_two() / 2 };
        let mut random = SplitMix64(seed);
        let mut signs = Vec::with_capacity(ROUNDS * padded);
        for _ in 0..ROUNDS {
            let words: Vec<u64> = (0..padded.div_ceil(64)).map(|_| random.next()).collect();
            signs.extend(
                (0..padded).map(|i| if words[i / 64] >> (i % 64) & 1 == 1 { -1.0 } else { 1.0 }),
            );
        }
        Self { padded, window, signs }
    }

    /// Length of rotated vectors.
    pub fn padded(&self) -> usize {
        self.padded
    }

    /// Rotates in place a vector of the padded length.
    pub fn rotate(&self, vector: &mut [f32]) {
        static KERNEL: OnceLock<round::Kernel> = OnceLock::new();
        let round = KERNEL.get_or_init(|| round::on(Isa::best()));
        for signs in self.signs.chunks_exact(self.padded) {
            round(vector, signs, self.window);
        }
    }
}

/// The length that vectors of `dim` elements have when they are rotated.
pub fn padded(dim: usize) -> usize {
    dim.next_multiple_of(PADDED_TO)
}

dispatched!(round: fn(vector: &mut [f32], signs: &[f32], window: usize) = one_round);

#[inline(always)]
fn one_round(vector: &mut [f32], signs: &[f32], window: usize) {
    for (x, sign) in vector.iter_mut().zip(signs) {
        *x *= sign;
    }
    hadamard(&mut vector[..window]);
    let tail = vector.len() - window;
    if tail > 0 {
        hadamard(&mut vector[tail..]);
    }
}

/// The Walsh–Hadamard transform, scaled to keep lengths, of a power of two elements, 16 or more.
#[inline(always)]
fn hadamard(vector: &mut [f32]) {
    let scale = (vector.len() as f32).sqrt().recip();
    for chunk in vector.as_chunks_mut::<PADDED_TO>().0 {
        *chunk = butterflies::<8>(butterflies::<4>(butterflies::<2>(butterflies::<1>(*chunk))));
        for x in chunk {
            *x *= scale;
        }
    }
    let mut half = PADDED_TO;
    while half < vector.len() {
        for pair in vector.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (x, y) in left.iter_mut().zip(right) {
                (*x, *y) = (*x + *y, *x - *y);
            }
        }
        half *= 2;
    }
}

/// The stage of the transform that pairs elements at this distance.
#[inline(always)]
fn butterflies<const DISTANCE: usize>(x: [f32; PADDED_TO]) -> [f32; PADDED_TO] {
    std::array::from_fn(|i| {
        let partner = x[i ^ DISTANCE];
        if i & DISTANCE == 0 { x[i] + partner } else { partner - x[i] }
    })
}

/// Random numbers, the same for the same seed.
#[derive(Debug, Clone)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 bits.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `bound`, which is at least 1 and far below 2^64.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// `count` of the numbers below `bound`, all different, in ascending order.
    pub fn sample(&mut self, count: usize, bound: usize) -> Vec<usize> {
        // Selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S).
        let mut chosen = Vec::with_capacity(count.min(bound));
        for i in 0..bound {
            if self.below(bound - i) < count.saturating_sub(chosen.len()) {
                chosen.push(i);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(v: &[f32]) -> f32 {
        v.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    #[test]
    fn lengths_and_angles_stay() {
        for dim in [1, 2, 15, 16, 17, 48, 100, 128, 384, 784, 1000, 4096] {
            let rotation = Rotation::new(dim, 7);
            let mut random = SplitMix64(dim as u64);
            let mut vector = || {
                let mut v: Vec<f32> =
                    (0..dim).map(|_| (random.next() >> 40) as f32 / 8_388_608.0 - 1.0).collect();
                v.resize(rotation.padded(), 0.0);
                v
            };
            let (mut a, mut b) = (vector(), vector());
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            let (before, size) = (dot(&a, &b), norm(&a));
            rotation.rotate(&mut a);
            rotation.rotate(&mut b);
            assert!((norm(&a) - size).abs() < 1e-4 * size, "{dim}");
            assert!((dot(&a, &b) - before).abs() < 1e-4 * size * norm(&b), "{dim}");
        }
    }

    #[test]
    fn every_isa_agrees_with_the_plain_definition() {
        for window in [16, 64, 256] {
            for padded in [window, window + 16, 2 * window - 16] {
                let vector: Vec<f32> = (0..padded).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
                let signs: Vec<f32> =
                    (0..padded).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
                let mut expected: Vec<f32> =
                    vector.iter().zip(&signs).map(|(x, s)| x * s).collect();
                let mut starts = vec![0];
                starts.extend((padded > window).then_some(padded - window));
                for start in starts {
                    let part = expected[start..start + window].to_vec();
                    for (row, out) in expected[start..start + window].iter_mut().enumerate() {
                        // Entry (i, j) of the matrix is 1 or -1 by the parity of i & j.
                        let sum: f32 = part
                            .iter()
                            .enumerate()
                            .map(|(j, x)| if (row & j).count_ones() % 2 == 0 { *x } else { -x })
                            .sum();
                        *out = sum / (window as f32).sqrt();
                    }
                }
                for isa in Isa::available() {
                    let mut ours = vector.clone();
                    round::on(isa)(&mut ours, &signs, window);
                    for (a, b) in ours.iter().zip(&expected) {
                        assert!((a - b).abs() < 1e-3, "{isa:?}, {padded}: {a} {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_spike_is_spread_over_all_coordinates() {
        for dim in [100, 384, 784] {
            let rotation = Rotation::new(dim, 1);
            let mut spike = vec![0.0; rotation.padded()];
            spike[dim / 2] = 1.0;
            rotation.rotate(&mut spike);
            let largest = spike.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(largest < 6.0 / (dim as f32).sqrt(), "{dim}: {largest}");
        }
    }

    #[test]
    fn samples_are_distinct_and_in_order() {
        let sample = SplitMix64(3).sample(50, 1000);
        assert_eq!(sample.len(), 50);
        assert!(sample.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(SplitMix64(3).sample(9, 4), [0, 1, 2, 3]);
    }
}
