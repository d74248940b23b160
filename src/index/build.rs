//! Building a segment.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ndarray::Array2;
use serde_json::{Value as Json, json};

use super::format::ROTATION_SEED;
use super::frame::{BATCH, Frame};
use super::options::{BuildOptions, IndexType};
use super::staging::Staged;
use super::write::Layouted;
use super::{Damage, Part, Segment, measure};
use crate::parallel;
use crate::schema::{index_file_name, is_index_file_name, is_stamp};
use crate::vector::{Centroids, Real, Rotation, SplitMix64, fastscan, inverse_norm};

/// Rows that a centroid is trained with.
const TRAINING_ROWS: usize = 96;

/// Rounds of training.
const TRAINING_ROUNDS: usize = 8;

/// Rows that the mean is taken of.
const MEAN_ROWS: usize = 20_000;

/// A list of more than this many times the mean number of rows is split.
const MOST_CROWDED: usize = 3;

/// A segment that was built.
#[derive(Debug)]
pub struct Built {
    /// The segment with what was found out about it.
    pub part: Part,
    /// The name of its file in the folder.
    pub file: String,
    /// How it was built, and the recall that was measured; a JSON object.
    pub report: Json,
}

/// Whether vectors of that length can be indexed.
pub fn can_index(dim: usize) -> bool {
    (1..=fastscan::MAX_PADDED).contains(&dim)
}

/// Builds a segment of the staged vectors; `None` if told to stop meanwhile. Leaves no file
/// behind but a complete one.
pub fn build<T: Real>(staged: &Staged<T>, options: &BuildOptions) -> io::Result<Option<Built>> {
    let file = index_file_name(options.table_id, options.column_id, options.stamp);
    let unfinished = options.folder.join(&file).with_extension("tmp");
    let outcome = write(staged, options, &unfinished).and_then(|written| match written {
        Some(lists) => {
            let path = options.folder.join(&file);
            fs::rename(&unfinished, &path)?;
            sync_folder(&options.folder)?;
            let segment = Segment::open(&path, options.stamp).map_err(broken)?;
            let (part, mut report) = measure::measure::<T>(segment, options).map_err(broken)?;
            report["lists"] = json!(lists);
            if parallel::is_cancelled() {
                fs::remove_file(&path)?;
                return Ok(None);
            }
            Ok(Some(Built { part, file, report }))
        }
        None => Ok(None),
    });
    if !matches!(outcome, Ok(Some(_))) {
        let _ = fs::remove_file(&unfinished);
    }
    outcome
}

/// Whether a build may have made a file of this name: a segment, complete or not, or the vectors
/// that it is made of.
pub fn is_build_name(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".tmp") else { return is_index_file_name(name) };
    match stem.strip_prefix("staging") {
        // Versions before 0.2 had no stamp.
        Some(rest) => rest.is_empty() || rest.strip_prefix('-').is_some_and(is_stamp),
        None => is_index_file_name(&format!("{stem}.seg")),
    }
}

fn broken(damage: Damage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, damage)
}

/// A rename lasts once its folder is on disk; where folders cannot be opened, the file system sees
/// to it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Whether the vector has codes: its size is one that they can hold. Vectors of zeros, of which there
/// may be many where embeddings failed, are all at the same distance and need none.
fn is_regular<T: Real>(vector: &[T]) -> bool {
    let norm = inverse_norm(vector).to_f64();
    norm.is_finite() && norm > 0.0
}

fn write<T: Real>(
    staged: &Staged<T>,
    options: &BuildOptions,
    path: &Path,
) -> io::Result<Option<usize>> {
    let rows = 0..staged.rows.len() as u32;
    let (regular, others): (Vec<u32>, Vec<u32>) =
        rows.partition(|row| is_regular(staged.vector(*row as usize)));
    let rotation = Rotation::new(staged.dim(), ROTATION_SEED);
    let mean = vec![0.0; rotation.padded()];
    let mut frame = Frame { staged, metric: options.metric, rotation, mean };
    frame.mean = mean_of(&frame, &regular);
    if parallel::is_cancelled() {
        return Ok(None);
    }
    let lists = lists_for(regular.len(), options);
    let Some((centroids, lists)) = partition(&frame, regular, lists, options.threads) else {
        return Ok(None);
    };
    let segment = Layouted::new(&frame, options, centroids, lists, others);
    let file = crate::fs::create_new(path, &options.database)?;
    if !segment.write(&frame, &file, options.threads)? {
        return Ok(None);
    }
    Ok(Some(segment.header.lists))
}

/// The number of lists for so many rows.
fn lists_for(rows: usize, options: &BuildOptions) -> usize {
    let lists = match options.index_type {
        IndexType::Flat => 1,
        IndexType::Auto if rows < IVF_ROWS => 1,
        IndexType::Auto | IndexType::Ivf => (rows as f64).sqrt() as usize,
    };
    options.lists.unwrap_or(lists).clamp(1, (rows / fastscan::LANES).max(1))
}

/// From this many rows on lists pay (`docs/benchmarks.md`).
const IVF_ROWS: usize = 50_000;

fn mean_of<T: Real>(frame: &Frame<'_, T>, regular: &[u32]) -> Vec<f32> {
    let padded = frame.rotation.padded();
    let (mut sum, mut scratch) = (vec![0f64; padded], vec![0f32; padded]);
    let rows = regular.iter().step_by(regular.len().div_ceil(MEAN_ROWS).max(1));
    let count = rows.len().max(1) as f64;
    for row in rows {
        frame.place(*row as usize, &mut scratch);
        for (sum, x) in sum.iter_mut().zip(&scratch) {
            *sum += f64::from(*x);
        }
    }
    let mut mean: Vec<f32> = sum.into_iter().map(|sum| (sum / count) as f32).collect();
    frame.rotation.rotate(&mut mean);
    mean
}

/// Sorts rows into lists; `None` if it was cancelled.
fn partition<T: Real>(
    frame: &Frame<'_, T>,
    rows: Vec<u32>,
    lists: usize,
    threads: usize,
) -> Option<(Array2<f32>, Vec<Vec<u32>>)> {
    if lists == 1 {
        return Some((Array2::zeros((1, frame.rotation.padded())), vec![rows]));
    }
    let centroids = train(frame, &rows, lists, threads);
    let mut sorted = assign(frame, &rows, &centroids, threads)?;
    let mut all = centroids.vectors;
    let most = MOST_CROWDED * rows.len().div_ceil(lists);
    for list in 0..lists {
        if sorted[list].len() > most {
            let crowded = std::mem::take(&mut sorted[list]);
            let pieces = (crowded.len() * lists / rows.len()).max(2);
            let centroids = train(frame, &crowded, pieces, threads);
            let mut split = assign(frame, &crowded, &centroids, threads)?.into_iter();
            sorted[list] = split.next().unwrap_or_default();
            sorted.extend(split);
            all.row_mut(list).assign(&centroids.vectors.row(0));
            for centroid in centroids.vectors.outer_iter().skip(1) {
                all.push_row(centroid).ok()?;
            }
        }
    }
    Some((all, sorted))
}

fn train<T: Real>(frame: &Frame<'_, T>, rows: &[u32], lists: usize, threads: usize) -> Centroids {
    let chosen = SplitMix64(ROTATION_SEED).sample(lists * TRAINING_ROWS, rows.len());
    let chosen: Vec<u32> = chosen.into_iter().map(|at| rows[at]).collect();
    let share = chosen.len().div_ceil(threads.max(1)).max(1);
    let parts = parallel::map(chosen.chunks(share).collect(), |rows| frame.matrix(rows));
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let sample = ndarray::concatenate(ndarray::Axis(0), &views)
        .unwrap_or_else(|_| Array2::zeros((0, frame.rotation.padded())));
    let rows = sample.view();
    Centroids::of(&rows, lists, TRAINING_ROUNDS, ROTATION_SEED, threads)
}

fn assign<T: Real>(
    frame: &Frame<'_, T>,
    rows: &[u32],
    centroids: &Centroids,
    threads: usize,
) -> Option<Vec<Vec<u32>>> {
    let next = AtomicUsize::new(0);
    let parts = parallel::map((0..threads.max(1)).collect(), |_| {
        let mut assigned = Vec::new();
        loop {
            let start = next.fetch_add(BATCH, Relaxed);
            if start >= rows.len() || parallel::is_cancelled() {
                return assigned;
            }
            let batch = &rows[start..(start + BATCH).min(rows.len())];
            let nearest = centroids.nearest(&frame.matrix(batch).view(), 1);
            assigned.extend(nearest.into_iter().zip(batch.iter().copied()));
        }
    });
    if parallel::is_cancelled() {
        return None;
    }
    let mut lists = vec![Vec::new(); centroids.len()];
    for (list, row) in parts.into_iter().flatten() {
        lists[list as usize].push(row);
    }
    for list in &mut lists {
        list.sort_unstable();
    }
    Some(lists)
}
