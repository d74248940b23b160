//! The exact scan against the machine's memory-bandwidth floor.
//!
//! `cargo bench --no-default-features --bench scan`. Both sides run in turns in one process, and
//! medians of many rounds are compared, because machines are noisy.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use feast_vector::vector::{BLOCK_ROWS, Block, Isa, Metric, Query, RowMeta, Scope, scan};

const ROUNDS: usize = 41;

fn main() {
    println!("kernels: {:?}; medians of {ROUNDS} rounds, floor and scan in turns", Isa::best());
    println!(
        "{:>9} {:>5} {:>14} {:>8} {:>10} {:>10} {:>7}",
        "rows", "dim", "metric", "threads", "floor ms", "scan ms", "ratio"
    );
    for (rows, dim) in [(100_000, 384), (100_000, 768), (500_000, 128), (10_000, 384)] {
        let blocks = random_blocks(rows, dim);
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
            for threads in [1, 2] {
                compare(&blocks, rows, dim, metric, threads);
            }
        }
    }
}

fn random_blocks(rows: usize, dim: usize) -> Vec<Arc<Block<f32>>> {
    let mut state = 1u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut blocks = Vec::new();
    for first in (0..rows).step_by(BLOCK_ROWS) {
        let mut block = Block::new(dim);
        for row in first..(first + BLOCK_ROWS).min(rows) {
            let vector: Vec<f32> = (0..dim).map(|_| random()).collect();
            block.push(RowMeta::plain(row as i64), &vector);
        }
        blocks.push(Arc::new(block));
    }
    blocks
}

fn compare(blocks: &[Arc<Block<f32>>], rows: usize, dim: usize, metric: Metric, threads: usize) {
    let query = Query::<f32>::new((0..dim).map(|i| ((i * 7) % 13) as f64 - 6.0), metric, 10);
    let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
    let (mut floors, mut scans) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(milliseconds(|| read_all(blocks, threads)));
        scans.push(milliseconds(|| {
            black_box(scan(&views, &query, &Scope::default(), threads));
        }));
    }
    let (floor, scan) = (median(floors), median(scans));
    println!(
        "{rows:>9} {dim:>5} {:>14} {threads:>8} {floor:>10.3} {scan:>10.3} {:>7.2}",
        metric.name(),
        scan / floor
    );
}

/// Reads every byte of the vectors and does next to nothing with it.
fn read_all(blocks: &[Arc<Block<f32>>], threads: usize) {
    let share = blocks.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for part in blocks.chunks(share) {
            scope.spawn(move || {
                for block in part {
                    black_box(sum(block.rows()));
                }
            });
        }
    });
}

fn sum(numbers: &[f32]) -> u32 {
    let (chunks, _) = numbers.as_chunks::<64>();
    let mut sums = [0u32; 64];
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum ^= number.to_bits();
        }
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
