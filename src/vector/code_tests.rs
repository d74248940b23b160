//! The kernels of codes against their scalar twins, and estimates against what they estimate.

use super::fastscan::{
    Found, Goal, LANES, Tables, block_bytes, close_block, put_code, scan_kernel_on,
};
use super::rabitq::{SIGN_DEVIATION, Space, fine_bytes, fine_key, list_of, put_fine, sign_terms};
use super::{Isa, Rotation, SplitMix64, padded};

fn numbers(count: usize, random: &mut SplitMix64) -> Vec<f32> {
    (0..count).map(|_| (random.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0).collect()
}

/// Blocks of random codes, the last one with empty lanes.
fn blocks(padded: usize, vectors: usize, random: &mut SplitMix64) -> Vec<u32> {
    let bytes = block_bytes(padded);
    let mut words = vec![0u32; vectors.div_ceil(LANES) * bytes / 4];
    let all: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    for vector in 0..vectors {
        let block = &mut all[vector / LANES * bytes..][..bytes];
        let terms = numbers(2, random);
        put_code(block, vector % LANES, &numbers(padded, random), terms[0] * 9.0, -terms[1].abs());
    }
    if !vectors.is_multiple_of(LANES) {
        let last = all.len() - bytes;
        close_block(&mut all[last..], padded, vectors % LANES);
    }
    words
}

#[test]
fn every_isa_finds_what_the_scalar_twin_finds() {
    let mut random = SplitMix64(1);
    for padded in [16, 32, 48, 64, 80, 128, 240, 256, 272, 384, 784, 1024, 4096] {
        let words = blocks(padded, 7 * LANES + 5, &mut random);
        let blocks: &[u8] = bytemuck::cast_slice(&words);
        let tables = Tables::new(&numbers(padded, &mut random));
        for limit in [-20.0, -8.0, -4.0, 0.0, 4.0, f32::INFINITY] {
            let goal = Goal { tables: &tables, bias: 1.5, limit };
            for first in 0..=8 {
                let twin = scan_kernel_on(Isa::Scalar)(blocks, first, &goal);
                for isa in Isa::available() {
                    let found = scan_kernel_on(isa)(blocks, first, &goal);
                    assert_eq!(found, twin, "{isa:?}, {padded}, {limit}, from {first}");
                }
            }
        }
        let all = Goal { tables: &tables, bias: 0.0, limit: f32::INFINITY };
        let last = scan_kernel_on(Isa::Scalar)(blocks, 7, &all);
        assert_eq!(last, Some(Found { block: 7, lanes: 0b11111 }));
    }
}

#[test]
fn the_greatest_sums_do_not_overflow() {
    // Every table entry that is looked up is the greatest there is.
    let padded = super::fastscan::MAX_PADDED;
    let bytes = block_bytes(padded);
    let mut words = vec![0u32; bytes / 4];
    let block: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    let ones = vec![1.0; padded];
    for lane in 0..LANES {
        put_code(block, lane, &ones, 0.0, 1.0);
    }
    let tables = Tables::new(&ones);
    for isa in Isa::available() {
        for (limit, lanes) in [(4095.0, None), (4097.0, Some(u32::MAX))] {
            let goal = Goal { tables: &tables, bias: 0.0, limit };
            let found = scan_kernel_on(isa)(bytemuck::cast_slice(&words), 0, &goal);
            assert_eq!(found.map(|found| found.lanes), lanes, "{isa:?}");
        }
    }
}

#[test]
fn estimates_are_unbiased_and_as_far_off_as_they_say() {
    let dim = 200;
    let rotation = Rotation::new(dim, 3);
    let mut random = SplitMix64(5);
    for space in [Space::Distance, Space::Product] {
        let (mut errors, mut squares, mut fine_squares) = (0.0, 0.0, 0.0);
        let trials = 400;
        for _ in 0..trials {
            let mut vector = || {
                let mut v = numbers(dim, &mut random);
                v.resize(padded(dim), 0.0);
                rotation.rotate(&mut v);
                v
            };
            let (query, centroid, residual) = (vector(), vector(), vector());
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            let away: Vec<f32> = query.iter().zip(&centroid).map(|(q, c)| q - c).collect();
            // What is left of a key when the list's share is taken off.
            let (truth, reach) = match space {
                Space::Distance => {
                    (dot(&residual, &residual) - 2.0 * dot(&away, &residual), dot(&away, &away))
                }
                Space::Product => (-dot(&query, &residual), dot(&query, &query)),
            };
            let reach = reach.sqrt();
            let (summand, factor) = sign_terms(space, &residual, &centroid);
            let signs: f32 =
                query.iter().zip(&residual).map(|(q, r)| if *r > 0.0 { *q } else { -q }).sum();
            let deviation = factor.abs() * SIGN_DEVIATION * reach;
            let error = (summand + factor * signs - truth) / deviation;
            errors += f64::from(error);
            squares += f64::from(error * error);

            let mut code = vec![0u32; fine_bytes(padded(dim)) / 4];
            let code: &mut [u8] = bytemuck::cast_slice_mut(&mut code);
            put_fine(space, &residual, &centroid, 77, code);
            assert_eq!(list_of(code, padded(dim)), 77);
            let (key, deviation) = fine_key(&query, code, reach);
            let error = (key - truth) / deviation;
            assert!(error.abs() < 6.0, "{error}");
            fine_squares += f64::from(error * error);
        }
        let (mean, spread) = (errors / f64::from(trials), (squares / f64::from(trials)).sqrt());
        assert!(mean.abs() < 0.2, "{space:?}: {mean}");
        assert!((0.8..1.2).contains(&spread), "{space:?}: {spread}");
        let spread = (fine_squares / f64::from(trials)).sqrt();
        assert!((0.7..1.3).contains(&spread), "{space:?}: {spread}");
    }
}
