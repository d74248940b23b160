//! Building a segment.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytemuck::cast_slice;
use ndarray::{Array2, ArrayViewMut1};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::format::{Header, Layout, ROTATION_SEED, Section};
use super::staging::Staged;
use super::{Damage, Part, Segment, measure};
use crate::vector::{
    Centroids, Metric, Real, Rotation, RowMeta, SplitMix64, fastscan, in_threads, inverse_norm,
    rabitq,
};

/// Rows that a centroid is trained with.
const TRAINING_ROWS: usize = 96;

/// Rounds of training.
const TRAINING_ROUNDS: usize = 8;

/// Rows that the mean is taken of.
const MEAN_ROWS: usize = 20_000;

/// A list of more than this many times the mean number of rows is split.
const MOST_CROWDED: usize = 3;

/// Rows whose rotated vectors are in memory at a time, for each thread.
const BATCH: usize = 2048;

/// How a feature's vectors are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexType {
    /// Lists where there are enough rows for them to pay.
    #[default]
    Auto,
    /// One list: every search scans all codes.
    Flat,
    /// Lists, of which a search goes through the nearest.
    Ivf,
}

/// What is built, and where.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The folder of index files.
    pub folder: PathBuf,
    /// The table.
    pub table_id: i64,
    /// The column.
    pub column_id: u32,
    /// The metric that searches will use.
    pub metric: Metric,
    /// Whether there are lists.
    pub index_type: IndexType,
    /// The number of lists, instead of what the number of rows suggests.
    pub lists: Option<usize>,
    /// The share of the true nearest rows that a search is to find.
    pub target_recall: f64,
    /// Tells the segment from every other.
    pub stamp: u64,
    /// The most threads.
    pub threads: usize,
}

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

/// Rows as codes are made of them.
struct Frame<'a, T> {
    staged: &'a Staged<T>,
    metric: Metric,
    rotation: Rotation,
    /// The rotated mean.
    mean: Vec<f32>,
}

impl<T: Real> Frame<'_, T> {
    /// The rotated vector less the mean.
    fn project(&self, row: usize, out: &mut [f32]) {
        self.place(row, out);
        self.rotation.rotate(out);
        for (x, mean) in out.iter_mut().zip(&self.mean) {
            *x -= mean;
        }
    }

    /// The vector, of length 1 under cosine.
    fn place(&self, row: usize, out: &mut [f32]) {
        let vector = self.staged.vector(row);
        let scale = match self.metric {
            Metric::Cosine => inverse_norm(vector).to_f64(),
            Metric::L2 | Metric::InnerProduct => 1.0,
        };
        out.fill(0.0);
        for (x, value) in out.iter_mut().zip(vector) {
            *x = (value.to_f64() * scale) as f32;
        }
    }

    fn matrix(&self, rows: &[u32]) -> Array2<f32> {
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

/// Builds a segment of the staged vectors; `None` if `cancelled` said so meanwhile. Leaves no file
/// behind but a complete one.
pub fn build<T: Real>(
    staged: &Staged<T>,
    options: &BuildOptions,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> io::Result<Option<Built>> {
    let name = format!("{}-{}-{:016x}", options.table_id, options.column_id, options.stamp);
    let unfinished = options.folder.join(format!("{name}.tmp"));
    let outcome =
        write(staged, options, cancelled, &unfinished).and_then(|written| match written {
            Some(lists) => {
                let file = format!("{name}.seg");
                let path = options.folder.join(&file);
                fs::rename(&unfinished, &path)?;
                sync_folder(&options.folder)?;
                let segment = Segment::open(&path, options.stamp).map_err(broken)?;
                let (part, mut report) =
                    measure::measure::<T>(segment, options, cancelled).map_err(broken)?;
                report["lists"] = json!(lists);
                if cancelled() {
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

fn broken(damage: Damage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, damage)
}

/// A rename lasts once its folder is on disk; where folders cannot be opened, the file system sees
/// to it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Whether the vector has codes: its size is one that they can hold, and it has a direction if that
/// is what counts.
fn is_regular<T: Real>(vector: &[T], metric: Metric) -> bool {
    let norm = inverse_norm(vector).to_f64();
    norm.is_finite() && (metric != Metric::Cosine || norm > 0.0)
}

fn write<T: Real>(
    staged: &Staged<T>,
    options: &BuildOptions,
    cancelled: &(dyn Fn() -> bool + Sync),
    path: &Path,
) -> io::Result<Option<usize>> {
    let rows = 0..staged.rows.len() as u32;
    let (regular, others): (Vec<u32>, Vec<u32>) =
        rows.partition(|row| is_regular(staged.vector(*row as usize), options.metric));
    let rotation = Rotation::new(staged.dim(), ROTATION_SEED);
    let mean = vec![0.0; rotation.padded()];
    let mut frame = Frame { staged, metric: options.metric, rotation, mean };
    frame.mean = mean_of(&frame, &regular);
    if cancelled() {
        return Ok(None);
    }
    let lists = lists_for(regular.len(), options);
    let Some((centroids, lists)) = partition(&frame, regular, lists, options.threads, cancelled)
    else {
        return Ok(None);
    };
    let segment = Layouted::new(&frame, options, centroids, lists, others);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    if !segment.write(&frame, &file, options.threads, cancelled)? {
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
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Option<(Array2<f32>, Vec<Vec<u32>>)> {
    if lists == 1 {
        return Some((Array2::zeros((1, frame.rotation.padded())), vec![rows]));
    }
    let centroids = train(frame, &rows, lists, threads);
    let mut sorted = assign(frame, &rows, &centroids, threads, cancelled)?;
    let mut all = centroids.vectors;
    let most = MOST_CROWDED * rows.len().div_ceil(lists);
    for list in 0..lists {
        if sorted[list].len() > most {
            let crowded = std::mem::take(&mut sorted[list]);
            let pieces = (crowded.len() * lists / rows.len()).max(2);
            let centroids = train(frame, &crowded, pieces, threads);
            let mut split = assign(frame, &crowded, &centroids, threads, cancelled)?.into_iter();
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
    let parts = in_threads(chosen.chunks(share).collect(), |rows| frame.matrix(rows));
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let sample = ndarray::concatenate(ndarray::Axis(0), &views)
        .unwrap_or_else(|_| Array2::zeros((0, frame.rotation.padded())));
    Centroids::of(&sample.view(), lists, TRAINING_ROUNDS, ROTATION_SEED, threads)
}

fn assign<T: Real>(
    frame: &Frame<'_, T>,
    rows: &[u32],
    centroids: &Centroids,
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<Vec<u32>>> {
    let next = AtomicUsize::new(0);
    let parts = in_threads((0..threads.max(1)).collect(), |_| {
        let mut assigned = Vec::new();
        loop {
            let start = next.fetch_add(BATCH, Relaxed);
            if start >= rows.len() || cancelled() {
                return assigned;
            }
            let batch = &rows[start..(start + BATCH).min(rows.len())];
            let nearest = centroids.nearest(&frame.matrix(batch).view(), 1);
            assigned.extend(nearest.into_iter().zip(batch.iter().copied()));
        }
    });
    if cancelled() {
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

/// A segment whose rows have their places.
struct Layouted {
    header: Header,
    layout: Layout,
    centroids: Array2<f32>,
    /// The rows of each list, and its first position and block.
    lists: Vec<(Vec<u32>, usize, usize)>,
    /// Rows without codes.
    others: Vec<u32>,
}

/// Some of a list's blocks, which one thread encodes at a time.
struct Task {
    list: usize,
    blocks: Range<usize>,
}

impl Layouted {
    fn new<T: Real>(
        frame: &Frame<'_, T>,
        options: &BuildOptions,
        centroids: Array2<f32>,
        rows: Vec<Vec<u32>>,
        others: Vec<u32>,
    ) -> Self {
        let (mut position, mut block) = (0, 0);
        let mut lists = Vec::with_capacity(rows.len());
        for rows in rows {
            let (first, first_block) = (position, block);
            position += rows.len();
            block += rows.len().div_ceil(fastscan::LANES);
            lists.push((rows, first, first_block));
        }
        let all = &frame.staged.rows;
        let order = lists.iter().flat_map(|(rows, ..)| rows).chain(&others);
        let ids: Vec<i64> = order.map(|row| all[*row as usize].row_id).collect();
        let header = Header {
            stamp: options.stamp,
            table_id: options.table_id,
            column_id: options.column_id,
            dim: frame.staged.dim(),
            element_bytes: size_of::<T>(),
            metric: options.metric,
            coded: position,
            rows: position + others.len(),
            lists: lists.len(),
            blocks: block,
            least_event: all.iter().map(|row| row.event).min().unwrap_or(i64::MIN),
            least_expiry: all.iter().map(|row| row.expires_at).min().unwrap_or(i64::MIN),
            ordered: ids.is_sorted(),
            chunks_crc: 0,
        };
        Self { layout: header.layout(), header, centroids, lists, others }
    }

    fn tasks(&self) -> Vec<Task> {
        let step = BATCH / fastscan::LANES;
        let mut tasks = Vec::new();
        for (list, (rows, ..)) in self.lists.iter().enumerate() {
            let blocks = rows.len().div_ceil(fastscan::LANES);
            tasks.extend(
                (0..blocks)
                    .step_by(step)
                    .map(|start| Task { list, blocks: start..(start + step).min(blocks) }),
            );
        }
        tasks
    }

    /// Writes the file; `false` if it was cancelled.
    fn write<T: Real>(
        &self,
        frame: &Frame<'_, T>,
        file: &File,
        threads: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> io::Result<bool> {
        file.set_len(self.layout.length as u64)?;
        let tasks = self.tasks();
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        in_threads((0..threads.max(1)).collect(), |_| {
            let mut scratch = Scratch::default();
            while let Some(task) = tasks.get(next.fetch_add(1, Relaxed)) {
                if cancelled() || failed.lock().is_some() {
                    return;
                }
                if let Err(error) = self.encode(frame, task, file, &mut scratch) {
                    *failed.lock() = Some(error);
                }
            }
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        if cancelled() {
            return Ok(false);
        }
        self.put_vectors(frame, file, self.header.coded, &self.others)?;
        self.put_lists(frame, file)?;
        self.put_checksums(file, threads)?;
        file.sync_all()?;
        Ok(true)
    }

    fn encode<T: Real>(
        &self,
        frame: &Frame<'_, T>,
        task: &Task,
        file: &File,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let (rows, first, first_block) = &self.lists[task.list];
        let padded = self.header.padded();
        let (block_bytes, fine_bytes) = (fastscan::block_bytes(padded), rabitq::fine_bytes(padded));
        let start = task.blocks.start * fastscan::LANES;
        let rows = &rows[start..(task.blocks.end * fastscan::LANES).min(rows.len())];
        let centroid = self.centroids.row(task.list);
        let centroid = centroid.as_slice().unwrap_or_default();
        let space = self.header.space();
        scratch.residual.resize(padded, 0.0);
        let blocks = Scratch::bytes(&mut scratch.blocks, task.blocks.len() * block_bytes);
        let fine = Scratch::bytes(&mut scratch.fine, rows.len() * fine_bytes);
        for (at, (row, fine)) in rows.iter().zip(fine.chunks_exact_mut(fine_bytes)).enumerate() {
            let residual = &mut scratch.residual;
            frame.project(*row as usize, residual);
            for (x, c) in residual.iter_mut().zip(centroid) {
                *x -= c;
            }
            let (summand, factor) = rabitq::sign_terms(space, residual, centroid);
            let block = &mut blocks[at / fastscan::LANES * block_bytes..][..block_bytes];
            fastscan::put_code(block, at % fastscan::LANES, residual, summand, factor);
            rabitq::put_fine(space, residual, centroid, task.list as u32, fine);
        }
        let used = rows.len() % fastscan::LANES;
        if used > 0 {
            let last = blocks.len() - block_bytes;
            fastscan::close_block(&mut blocks[last..], padded, used);
        }
        let block = first_block + task.blocks.start;
        self.put(file, Section::Blocks, block * block_bytes, blocks)?;
        self.put(file, Section::Fine, (first + start) * fine_bytes, fine)?;
        self.put_vectors(frame, file, first + start, rows)
    }

    /// Writes vectors and what is known of them, from a position on.
    fn put_vectors<T: Real>(
        &self,
        frame: &Frame<'_, T>,
        file: &File,
        position: usize,
        rows: &[u32],
    ) -> io::Result<()> {
        let stride = self.header.stride();
        let metas: Vec<RowMeta> = rows.iter().map(|row| frame.staged.rows[*row as usize]).collect();
        let mut vectors = vec![T::ZERO; rows.len() * stride];
        let mut norms = Vec::with_capacity(rows.len());
        for (row, out) in rows.iter().zip(vectors.chunks_exact_mut(stride)) {
            let vector = frame.staged.vector(*row as usize);
            out[..vector.len()].copy_from_slice(vector);
            norms.push(inverse_norm(vector));
        }
        let numbers = |of: fn(&RowMeta) -> i64| metas.iter().map(of).collect::<Vec<i64>>();
        let element = size_of::<T>();
        self.put(file, Section::Vectors, position * stride * element, cast_slice(&vectors))?;
        self.put(file, Section::InverseNorms, position * element, cast_slice(&norms))?;
        let ids = numbers(|meta| meta.row_id);
        self.put(file, Section::RowIds, position * 8, cast_slice(&ids))?;
        let expiries = numbers(|meta| meta.expires_at);
        self.put(file, Section::Expiries, position * 8, cast_slice(&expiries))?;
        let events = numbers(|meta| meta.event);
        self.put(file, Section::Events, position * 8, cast_slice(&events))
    }

    fn put_lists<T: Real>(&self, frame: &Frame<'_, T>, file: &File) -> io::Result<()> {
        self.put(file, Section::Mean, 0, cast_slice(&frame.mean))?;
        let centroids = self.centroids.as_standard_layout();
        let centroids = centroids.as_slice().unwrap_or_default();
        self.put(file, Section::Centroids, 0, cast_slice(centroids))?;
        let padded = self.header.padded();
        let (fine_bytes, nowhere) = (rabitq::fine_bytes(padded), vec![0.0; padded]);
        let mut codes = Vec::new();
        let codes = Scratch::bytes(&mut codes, self.header.lists * fine_bytes);
        for (list, code) in codes.chunks_exact_mut(fine_bytes).enumerate() {
            let centroid = &centroids[list * padded..][..padded];
            rabitq::put_fine(self.header.space(), centroid, &nowhere, list as u32, code);
        }
        self.put(file, Section::CentroidCodes, 0, codes)?;
        let mut starts: Vec<u32> = self.lists.iter().map(|(_, first, _)| *first as u32).collect();
        starts.push(self.header.coded as u32);
        self.put(file, Section::Starts, 0, cast_slice(&starts))?;
        if self.header.ordered {
            return Ok(());
        }
        let order = self.lists.iter().flat_map(|(rows, ..)| rows).chain(&self.others);
        let mut sorted: Vec<(i64, u32)> =
            order.map(|row| frame.staged.rows[*row as usize].row_id).zip(0..).collect();
        sorted.sort_unstable();
        let ids: Vec<i64> = sorted.iter().map(|(id, _)| *id).collect();
        let positions: Vec<u32> = sorted.iter().map(|(_, position)| *position).collect();
        self.put(file, Section::SortedIds, 0, cast_slice(&ids))?;
        self.put(file, Section::SortedPositions, 0, cast_slice(&positions))
    }

    fn put_checksums(&self, file: &File, threads: usize) -> io::Result<()> {
        let chunks = self.layout.range(Section::Chunks).len() / size_of::<u32>();
        let share = chunks.div_ceil(threads.max(1)).max(1);
        let starts: Vec<usize> = (0..chunks).step_by(share).collect();
        let parts = in_threads(starts, |start| {
            let mut bytes = vec![0; super::format::CHUNK_BYTES];
            let mut crcs = Vec::new();
            for chunk in start..(start + share).min(chunks) {
                let range = self.layout.chunk(chunk);
                let bytes = &mut bytes[..range.len()];
                super::file::read_at(file, bytes, range.start)?;
                crcs.push(crc32fast::hash(bytes));
            }
            io::Result::Ok(crcs)
        });
        let crcs: Vec<u32> = parts.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
        let crcs: &[u8] = cast_slice(&crcs);
        self.put(file, Section::Chunks, 0, crcs)?;
        let header = Header { chunks_crc: crc32fast::hash(crcs), ..self.header };
        super::file::write_at(file, &header.encode(), 0)
    }

    fn put(&self, file: &File, section: Section, offset: usize, bytes: &[u8]) -> io::Result<()> {
        super::file::write_at(file, bytes, self.layout.range(section).start + offset)
    }
}

/// Memory that is used again, aligned for numbers.
#[derive(Default)]
struct Scratch {
    blocks: Vec<u32>,
    fine: Vec<u32>,
    residual: Vec<f32>,
}

impl Scratch {
    fn bytes(words: &mut Vec<u32>, bytes: usize) -> &mut [u8] {
        words.clear();
        words.resize(bytes / size_of::<u32>(), 0);
        bytemuck::cast_slice_mut(words)
    }
}
