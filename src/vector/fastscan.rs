//! Scanning 1-bit codes with table lookups in SIMD registers.
//!
//! The layout is FastScan's (André, Kermarrec and Le Scouarnec, "Cache locality is not enough",
//! VLDB 2015; "Quick ADC", arXiv 1704.07355): 32 vectors are a block, in which the bits of four
//! coordinates of all 32 stand together, so that one shuffle instruction looks up 16, 32 or 64
//! partial sums. What is summed are the signs' shares of an inner product, as RaBitQ estimates it;
//! see [`super::rabitq`].
//!
//! A block is, in this order: for each group of four coordinates 16 bytes, byte `i` holding the
//! four bits of vector `i` (low nibble) and of vector `i + 16` (high nibble), the first coordinate
//! in the lowest bit; then 32 `f32` summands and 32 `f32` factors, one for each vector.

#![allow(unsafe_code, reason = "loads into SIMD registers, and functions compiled for them")]

use std::sync::OnceLock;

use bytemuck::Zeroable;

use super::Isa;
use super::block::Line;

/// Vectors in a block.
pub const LANES: usize = 32;

/// Coordinates whose bits are looked up together.
const GROUP: usize = 4;

/// The greatest table entry: four of them add up to what a byte holds.
const GREATEST: f32 = 63.0;

/// The most coordinates whose sums of table entries 16 bits hold.
pub const MAX_PADDED: usize = 4096;

/// Bytes of a block of vectors of that padded length.
pub fn block_bytes(padded: usize) -> usize {
    padded / GROUP * 16 + 2 * LANES * size_of::<f32>()
}

/// Writes one vector's code into a block that is all zeros there: a set bit for each positive
/// coordinate.
pub fn put_code(block: &mut [u8], lane: usize, rotated: &[f32], summand: f32, factor: f32) {
    let shift = if lane >= 16 { 4 } else { 0 };
    for (group, values) in rotated.chunks_exact(GROUP).enumerate() {
        let bits = values.iter().rev().fold(0u8, |bits, x| bits << 1 | u8::from(*x > 0.0));
        block[group * 16 + lane % 16] |= bits << shift;
    }
    let numbers: &mut [f32] = bytemuck::cast_slice_mut(&mut block[rotated.len() / GROUP * 16..]);
    numbers[lane] = summand;
    numbers[LANES + lane] = factor;
}

/// Fills the lanes from `used` on so that they are below no limit.
pub fn close_block(block: &mut [u8], padded: usize, used: usize) {
    let numbers: &mut [f32] = bytemuck::cast_slice_mut(&mut block[padded / GROUP * 16..]);
    numbers[used..LANES].fill(f32::INFINITY);
}

/// A query's tables: for each group of coordinates the sums of its 16 sign patterns.
#[derive(Debug)]
pub struct Tables {
    lines: Vec<Line>,
    /// What one unit of a table entry stands for.
    step: f32,
    /// What is added to the sum of entries.
    base: f32,
}

impl Tables {
    /// Tables for inner products of `rotated` with vectors of signs.
    pub fn new(rotated: &[f32]) -> Self {
        let spread = |values: &[f32]| values.iter().map(|x| x.abs()).sum::<f32>();
        let groups = || rotated.chunks_exact(GROUP);
        let widest = groups().map(spread).fold(0.0, f32::max) * 2.0;
        let step = if widest > 0.0 { widest / GREATEST } else { 1.0 };
        let mut lines = vec![Line::zeroed(); rotated.len() / 16];
        let entries: &mut [u8] = bytemuck::cast_slice_mut(&mut lines);
        for (values, table) in groups().zip(entries.chunks_exact_mut(16)) {
            let lowest = -spread(values);
            // Pattern m differs from the one without its highest bit by that coordinate's sign.
            let mut sums = [-values.iter().sum::<f32>(); 16];
            for m in 1..16usize {
                let bit = m.ilog2() as usize;
                sums[m] = sums[m & !(1 << bit)] + 2.0 * values[bit];
            }
            for (entry, sum) in table.iter_mut().zip(sums) {
                *entry = ((sum - lowest) / step + 0.5).min(GREATEST) as u8;
            }
        }
        Self { lines, step, base: -groups().map(spread).sum::<f32>() }
    }

    fn entries(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }
}

/// What a list's blocks are scanned for: lanes with `summand + factor * (sum + bias) < limit`,
/// where `sum` is the inner product of the query with the lane's signs.
#[derive(Debug, Clone, Copy)]
pub struct Goal<'a> {
    /// The query.
    pub tables: &'a Tables,
    /// What is added to the sum.
    pub bias: f32,
    /// What the lane's key has to be below.
    pub limit: f32,
}

/// Lanes of a block that are below the limit, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The block.
    pub block: usize,
    /// Its lanes.
    pub lanes: u32,
}

/// Goes through the blocks from number `first` on, to the first with a lane below the limit.
pub type ScanKernel = fn(blocks: &[u8], first: usize, goal: &Goal<'_>) -> Option<Found>;

/// The fastest scan that this CPU has.
pub fn scan_kernel() -> ScanKernel {
    static KERNEL: OnceLock<ScanKernel> = OnceLock::new();
    *KERNEL.get_or_init(|| scan_kernel_on(Isa::best()))
}

/// The scan for an instruction set.
///
/// # Panics
/// If this CPU does not have it.
pub fn scan_kernel_on(isa: Isa) -> ScanKernel {
    assert!(Isa::available().contains(&isa), "this CPU does not have {isa:?}");
    match isa {
        Isa::Scalar => scan_scalar,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::scan_with_avx2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::scan_with_avx512,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => arm::scan_with_neon,
    }
}

/// The parts of a block: codes, summands and factors.
fn parts<'a>(block: &'a [u8], entries: &[u8]) -> (&'a [u8], &'a [f32], &'a [f32]) {
    let (codes, numbers) = block.split_at(entries.len());
    let (summands, factors) = bytemuck::cast_slice(numbers).split_at(LANES);
    (codes, summands, factors)
}

/// The plain twin of the others.
fn scan_scalar(blocks: &[u8], first: usize, goal: &Goal<'_>) -> Option<Found> {
    let entries = goal.tables.entries();
    let bytes = entries.len() + 2 * LANES * size_of::<f32>();
    for (number, block) in blocks.chunks_exact(bytes).enumerate().skip(first) {
        let (codes, summands, factors) = parts(block, entries);
        let mut lanes = 0;
        for lane in 0..LANES {
            let shift = if lane >= 16 { 4 } else { 0 };
            let sum: u32 = codes
                .chunks_exact(16)
                .zip(entries.chunks_exact(16))
                .map(|(codes, table)| u32::from(table[usize::from(codes[lane % 16] >> shift & 15)]))
                .sum();
            let key = below(goal, sum as f32, summands[lane], factors[lane]);
            lanes |= u32::from(key < goal.limit) << lane;
        }
        if lanes != 0 {
            return Some(Found { block: number, lanes });
        }
    }
    None
}

#[inline]
fn below(goal: &Goal<'_>, sum: f32, summand: f32, factor: f32) -> f32 {
    let tables = goal.tables;
    factor.mul_add(sum.mul_add(tables.step, tables.base + goal.bias), summand)
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports, reason = "the instructions of an architecture")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Found, Goal, LANES, parts};

    /// Registers of partial sums that bytes hold the total of.
    const STRETCH: usize = 4;

    pub(super) fn scan_with_avx2(blocks: &[u8], first: usize, goal: &Goal<'_>) -> Option<Found> {
        // SAFETY: `scan_kernel_on`, which hands this out, has asserted that the CPU has AVX2, FMA.
        unsafe { avx2(blocks, first, goal) }
    }

    pub(super) fn scan_with_avx512(blocks: &[u8], first: usize, goal: &Goal<'_>) -> Option<Found> {
        // SAFETY: `scan_kernel_on`, which hands this out, has asserted that the CPU has AVX-512F
        // and BW.
        unsafe { avx512(blocks, first, goal) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn avx512(blocks: &[u8], first: usize, goal: &Goal<'_>) -> Option<Found> {
        let entries = goal.tables.entries();
        let bytes = entries.len() + 2 * LANES * size_of::<f32>();
        let nibble = _mm512_set1_epi8(15);
        let byte = _mm512_set1_epi16(255);
        let step = _mm512_set1_ps(goal.tables.step);
        let base = _mm512_set1_ps(goal.tables.base + goal.bias);
        let limit = _mm512_set1_ps(goal.limit);
        for (number, block) in blocks.chunks_exact(bytes).enumerate().skip(first) {
            let (codes, summands, factors) = parts(block, entries);
            let mut sums = [_mm512_setzero_si512(); 4];
            for (codes, tables) in codes.chunks(64 * STRETCH).zip(entries.chunks(64 * STRETCH)) {
                let (mut low, mut high) = (_mm512_setzero_si512(), _mm512_setzero_si512());
                for (code, table) in
                    codes.as_chunks::<64>().0.iter().zip(tables.as_chunks::<64>().0)
                {
                    // SAFETY: both arrays have 64 bytes, and these loads need no alignment.
                    let (code, table) = unsafe {
                        (
                            _mm512_loadu_si512(code.as_ptr().cast()),
                            _mm512_loadu_si512(table.as_ptr().cast()),
                        )
                    };
                    let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(code), nibble);
                    let code = _mm512_and_si512(code, nibble);
                    low = _mm512_add_epi8(low, _mm512_shuffle_epi8(table, code));
                    high = _mm512_add_epi8(high, _mm512_shuffle_epi8(table, upper));
                }
                sums[0] = _mm512_add_epi16(sums[0], _mm512_and_si512(low, byte));
                sums[1] = _mm512_add_epi16(sums[1], _mm512_srli_epi16::<8>(low));
                sums[2] = _mm512_add_epi16(sums[2], _mm512_and_si512(high, byte));
                sums[3] = _mm512_add_epi16(sums[3], _mm512_srli_epi16::<8>(high));
            }
            let sums = sums.map(|sum| {
                let half = _mm256_add_epi16(
                    _mm512_castsi512_si256(sum),
                    _mm512_extracti64x4_epi64::<1>(sum),
                );
                _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
            });
            let mut lanes = 0;
            for half in 0..2 {
                let (even, odd) = (sums[2 * half], sums[2 * half + 1]);
                let ordered =
                    _mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd));
                let sum = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(ordered));
                // SAFETY: `parts` gives 32 of each, and these loads need no alignment.
                let (summand, factor) = unsafe {
                    (
                        _mm512_loadu_ps(summands[16 * half..].as_ptr()),
                        _mm512_loadu_ps(factors[16 * half..].as_ptr()),
                    )
                };
                let key = _mm512_fmadd_ps(factor, _mm512_fmadd_ps(sum, step, base), summand);
                let hits = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(key, limit);
                lanes |= u32::from(hits) << (16 * half);
            }
            if lanes != 0 {
                return Some(Found { block: number, lanes });
            }
        }
        None
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2(blocks: &[u8], first: usize, goal: &Goal<'_>) -> Option<Found> {
        let entries = goal.tables.entries();
        let bytes = entries.len() + 2 * LANES * size_of::<f32>();
        let nibble = _mm256_set1_epi8(15);
        let byte = _mm256_set1_epi16(255);
        let step = _mm256_set1_ps(goal.tables.step);
        let base = _mm256_set1_ps(goal.tables.base + goal.bias);
        let limit = _mm256_set1_ps(goal.limit);
        for (number, block) in blocks.chunks_exact(bytes).enumerate().skip(first) {
            let (codes, summands, factors) = parts(block, entries);
            let mut sums = [_mm256_setzero_si256(); 4];
            for (codes, tables) in codes.chunks(32 * STRETCH).zip(entries.chunks(32 * STRETCH)) {
                let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
                for (code, table) in
                    codes.as_chunks::<32>().0.iter().zip(tables.as_chunks::<32>().0)
                {
                    // SAFETY: both arrays have 32 bytes, and these loads need no alignment.
                    let (code, table) = unsafe {
                        (
                            _mm256_loadu_si256(code.as_ptr().cast()),
                            _mm256_loadu_si256(table.as_ptr().cast()),
                        )
                    };
                    let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(code), nibble);
                    let code = _mm256_and_si256(code, nibble);
                    low = _mm256_add_epi8(low, _mm256_shuffle_epi8(table, code));
                    high = _mm256_add_epi8(high, _mm256_shuffle_epi8(table, upper));
                }
                sums[0] = _mm256_add_epi16(sums[0], _mm256_and_si256(low, byte));
                sums[1] = _mm256_add_epi16(sums[1], _mm256_srli_epi16::<8>(low));
                sums[2] = _mm256_add_epi16(sums[2], _mm256_and_si256(high, byte));
                sums[3] = _mm256_add_epi16(sums[3], _mm256_srli_epi16::<8>(high));
            }
            let sums = sums.map(|sum| {
                _mm_add_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum))
            });
            let quarters = [
                _mm_unpacklo_epi16(sums[0], sums[1]),
                _mm_unpackhi_epi16(sums[0], sums[1]),
                _mm_unpacklo_epi16(sums[2], sums[3]),
                _mm_unpackhi_epi16(sums[2], sums[3]),
            ];
            let mut lanes = 0;
            for (quarter, sum) in quarters.into_iter().enumerate() {
                let sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sum));
                // SAFETY: `parts` gives 32 of each, and these loads need no alignment.
                let (summand, factor) = unsafe {
                    (
                        _mm256_loadu_ps(summands[8 * quarter..].as_ptr()),
                        _mm256_loadu_ps(factors[8 * quarter..].as_ptr()),
                    )
                };
                let key = _mm256_fmadd_ps(factor, _mm256_fmadd_ps(sum, step, base), summand);
                let hits = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(key, limit));
                lanes |= hits.cast_unsigned() << (8 * quarter);
            }
            if lanes != 0 {
                return Some(Found { block: number, lanes });
            }
        }
        None
    }
}

#[cfg(target_arch = "aarch64")]
#[allow(clippy::wildcard_imports, reason = "the instructions of an architecture")]
mod arm {
    use std::arch::aarch64::*;

    use super::{Found, Goal, LANES, below, parts};

    /// Partial sums that bytes hold the total of.
    const STRETCH: usize = 4;

    pub(super) fn scan_with_neon(blocks: &[u8], first: usize, goal: &Goal<'_>) -> Option<Found> {
        // SAFETY: every 64-bit ARM CPU has NEON.
        unsafe { neon(blocks, first, goal) }
    }

    #[target_feature(enable = "neon")]
    fn neon(blocks: &[u8], first: usize, goal: &Goal<'_>) -> Option<Found> {
        let entries = goal.tables.entries();
        let bytes = entries.len() + 2 * LANES * size_of::<f32>();
        let nibble = vdupq_n_u8(15);
        for (number, block) in blocks.chunks_exact(bytes).enumerate().skip(first) {
            let (codes, summands, factors) = parts(block, entries);
            let mut sums = [vdupq_n_u16(0); 4];
            for (codes, tables) in codes.chunks(16 * STRETCH).zip(entries.chunks(16 * STRETCH)) {
                let (mut low, mut high) = (vdupq_n_u8(0), vdupq_n_u8(0));
                for (code, table) in
                    codes.as_chunks::<16>().0.iter().zip(tables.as_chunks::<16>().0)
                {
                    // SAFETY: both arrays have 16 bytes, and these loads need no alignment.
                    let (code, table) =
                        unsafe { (vld1q_u8(code.as_ptr()), vld1q_u8(table.as_ptr())) };
                    low = vaddq_u8(low, vqtbl1q_u8(table, vandq_u8(code, nibble)));
                    high = vaddq_u8(high, vqtbl1q_u8(table, vshrq_n_u8::<4>(code)));
                }
                sums[0] = vaddw_u8(sums[0], vget_low_u8(low));
                sums[1] = vaddw_u8(sums[1], vget_high_u8(low));
                sums[2] = vaddw_u8(sums[2], vget_low_u8(high));
                sums[3] = vaddw_u8(sums[3], vget_high_u8(high));
            }
            let mut lanes = 0;
            for (quarter, sum) in sums.into_iter().enumerate() {
                let mut totals = [0u16; 8];
                // SAFETY: the array has eight elements, and this store needs no alignment.
                unsafe { vst1q_u16(totals.as_mut_ptr(), sum) };
                for (at, total) in totals.into_iter().enumerate() {
                    let lane = 8 * quarter + at;
                    let key = below(goal, f32::from(total), summands[lane], factors[lane]);
                    lanes |= u32::from(key < goal.limit) << lane;
                }
            }
            if lanes != 0 {
                return Some(Found { block: number, lanes });
            }
        }
        None
    }
}
