//! Encoding the rows of a segment and writing its file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytemuck::cast_slice;
use ndarray::Array2;
use parking_lot::Mutex;

use super::file::{read_at, write_at};
use super::format::{CHUNK_BYTES, Header, Layout, Section};
use super::frame::{BATCH, Frame};
use super::options::BuildOptions;
use crate::parallel;
use crate::vector::{Real, RowMeta, fastscan, inverse_norm, rabitq};

/// A segment whose rows have their places.
pub(super) struct Layouted {
    pub(super) header: Header,
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
    pub(super) fn new<T: Real>(
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
            key_bytes: frame.staged.keys.bytes(),
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
    pub(super) fn write<T: Real>(
        &self,
        frame: &Frame<'_, T>,
        file: &File,
        threads: usize,
    ) -> io::Result<bool> {
        file.set_len(self.layout.length as u64)?;
        let tasks = self.tasks();
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        parallel::map((0..threads.max(1)).collect(), |_| {
            let mut scratch = Scratch::default();
            while let Some(task) = tasks.get(next.fetch_add(1, Relaxed)) {
                if parallel::is_cancelled() || failed.lock().is_some() {
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
        if parallel::is_cancelled() {
            return Ok(false);
        }
        self.put_vectors(frame, file, self.header.coded, &self.others)?;
        self.put_lists(frame, file)?;
        self.put_ids(frame, file)?;
        self.put_keys(frame, file)?;
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
        self.put(file, Section::Starts, 0, cast_slice(&starts))
    }

    /// The rows in the order of their positions.
    fn order(&self) -> impl Iterator<Item = usize> {
        let rows = self.lists.iter().flat_map(|(rows, ..)| rows).chain(&self.others);
        rows.map(|row| *row as usize)
    }

    fn put_keys<T: Real>(&self, frame: &Frame<'_, T>, file: &File) -> io::Result<()> {
        let keys = &frame.staged.keys;
        let mut ends = Vec::with_capacity(self.header.rows);
        let (mut buffer, mut written) = (Vec::new(), 0);
        for row in self.order() {
            buffer.extend_from_slice(keys.get(row));
            ends.push((written + buffer.len()) as u64);
            if buffer.len() >= CHUNK_BYTES {
                self.put(file, Section::Keys, written, &buffer)?;
                written += buffer.len();
                buffer.clear();
            }
        }
        self.put(file, Section::Keys, written, &buffer)?;
        self.put(file, Section::KeyEnds, 0, cast_slice(&ends))
    }

    fn put_ids<T: Real>(&self, frame: &Frame<'_, T>, file: &File) -> io::Result<()> {
        if self.header.ordered {
            return Ok(());
        }
        let ids = self.order().map(|row| frame.staged.rows[row].row_id);
        let mut sorted: Vec<(i64, u32)> = ids.zip(0..).collect();
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
        let parts = parallel::map(starts, |start| {
            let mut bytes = vec![0; CHUNK_BYTES];
            let mut crcs = Vec::new();
            for chunk in start..(start + share).min(chunks) {
                let range = self.layout.chunk(chunk);
                let bytes = &mut bytes[..range.len()];
                read_at(file, bytes, range.start)?;
                crcs.push(crc32fast::hash(bytes));
            }
            io::Result::Ok(crcs)
        });
        let crcs: Vec<u32> = parts.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
        let crcs: &[u8] = cast_slice(&crcs);
        self.put(file, Section::Chunks, 0, crcs)?;
        let header = Header { chunks_crc: crc32fast::hash(crcs), ..self.header };
        write_at(file, &header.encode(), 0)
    }

    fn put(&self, file: &File, section: Section, offset: usize, bytes: &[u8]) -> io::Result<()> {
        write_at(file, bytes, self.layout.range(section).start + offset)
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
