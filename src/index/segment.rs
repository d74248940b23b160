//! A segment file, mapped into memory: read-only, and so shared by all processes that use it.
//!
//! A file is checked as it is read: its header when it is opened, every chunk when something in it
//! is first asked for. Opening one therefore costs the same however large it is.

use std::fs::Metadata;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytemuck::Pod;

use super::Damage;
use super::format::{CHUNK_BYTES, HEADER_BYTES, Header, Layout, ROTATION_SEED, Section};
use super::map::Map;
use crate::error::is_shortage;
use crate::fs;
use crate::vector::{BLOCK_ROWS, BlockView, Real, Rotation, RowMeta, fastscan, rabitq};

/// What is fetched of a list before it is scanned; the CPU sees to the rest by itself.
const HEAD_BYTES: usize = 1024;

/// A segment: immutable once it is written.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    /// `None` for one of no file.
    identity: Option<Identity>,
    map: Map,
    header: Header,
    layout: Layout,
    /// The first row of each list, then the number of coded rows.
    starts: Vec<usize>,
    /// The first block of each list, then the number of blocks.
    block_starts: Vec<usize>,
    rotation: Rotation,
    /// The chunks that were found to be whole, a bit for each.
    checked: Vec<AtomicU64>,
    /// Whether the ascending row ids were found to be that; see `lookup`.
    pub(super) ids_checked: AtomicBool,
    uncoded: OnceLock<Uncoded>,
}

/// The positions of the rows that have no codes.
#[derive(Debug)]
pub(super) struct Uncoded {
    /// Vectors of zeros, in the order of their rows' ids.
    pub(super) zeros: Vec<u32>,
    /// The others.
    pub(super) others: Vec<u32>,
}

/// What tells that a file was changed or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    length: u64,
    modified: Option<std::time::SystemTime>,
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            device_and_inode: {
                use std::os::unix::fs::MetadataExt;
                (metadata.dev(), metadata.ino())
            },
        }
    }
}

impl Segment {
    /// Opens the segment that has this stamp.
    pub fn open(path: &Path, stamp: u64) -> Result<Self, Damage> {
        let cannot = |cause: io::Error| Damage::of(&cause);
        let file = fs::open_regular(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if metadata.len() < HEADER_BYTES as u64 {
            return Err(Damage::new("it is cut off within its header"));
        }
        let map = Map::of(&file).map_err(cannot)?;
        Self::read(path, Some(Identity::of(&metadata)), map, stamp)
    }

    /// A segment of no file.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of_bytes(bytes: &[u8], stamp: u64) -> Result<Self, Damage> {
        if bytes.len() < HEADER_BYTES {
            return Err(Damage::new("it is cut off within its header"));
        }
        let map = Map::of_bytes(bytes).map_err(|cause| Damage::of(&cause))?;
        Self::read(Path::new(""), None, map, stamp)
    }

    fn read(path: &Path, identity: Option<Identity>, map: Map, stamp: u64) -> Result<Self, Damage> {
        let header = Header::decode(&map)?;
        if header.stamp != stamp {
            return Err(Damage::new("it is another index file under this one's name"));
        }
        let layout = header.layout();
        if crc32fast::hash(&map[layout.range(Section::Chunks)]) != header.chunks_crc {
            return Err(Damage::new("its list of checksums is wrong"));
        }
        let chunks = layout.body().len().div_ceil(CHUNK_BYTES);
        let mut segment = Self {
            path: path.to_owned(),
            identity,
            map,
            header,
            layout,
            starts: Vec::new(),
            block_starts: Vec::new(),
            rotation: Rotation::new(header.dim, ROTATION_SEED),
            checked: (0..chunks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            uncoded: OnceLock::new(),
            ids_checked: AtomicBool::new(false),
        };
        segment.read_lists()?;
        Ok(segment)
    }

    fn read_lists(&mut self) -> Result<(), Damage> {
        let starts: Vec<usize> = self
            .numbers::<u32>(Section::Starts, 0..self.header.lists + 1)?
            .iter()
            .map(|start| *start as usize)
            .collect();
        let mut blocks = vec![0];
        for pair in starts.windows(2) {
            let rows =
                pair[1].checked_sub(pair[0]).ok_or_else(|| Damage::new("its lists overlap"))?;
            blocks.push(blocks[blocks.len() - 1] + rows.div_ceil(fastscan::LANES));
        }
        if starts.first() != Some(&0)
            || starts.last() != Some(&self.header.coded)
            || blocks.last() != Some(&self.header.blocks)
        {
            return Err(Damage::new("its lists do not add up"));
        }
        (self.starts, self.block_starts) = (starts, blocks);
        Ok(())
    }

    /// What it holds.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The rotation of its vectors, the same for all of that length.
    pub fn rotation(&self) -> &Rotation {
        &self.rotation
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> usize {
        self.map.len()
    }

    /// Whether the file is still the one that was opened.
    pub fn is_unchanged(&self) -> bool {
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) => self.identity == Some(Identity::of(&found)),
            // It stays mapped while nobody can tell.
            Err(cause) => is_shortage(&cause),
        }
    }

    /// Checks the whole file.
    pub fn verify(&self) -> Result<(), Damage> {
        self.check(self.layout.body())
    }

    /// Sees to it that these bytes are what was written.
    #[inline]
    fn check(&self, range: Range<usize>) -> Result<(), Damage> {
        if range.is_empty() {
            return Ok(());
        }
        let first = (range.start - HEADER_BYTES) / CHUNK_BYTES;
        let last = (range.end - 1 - HEADER_BYTES) / CHUNK_BYTES;
        if first == last {
            let is_checked = self.checked[first / 64].load(Relaxed) >> (first % 64) & 1 == 1;
            return if is_checked { Ok(()) } else { self.check_chunk(first) };
        }
        self.check_chunks(first, last)
    }

    /// The same for many chunks, of which 64 are found to be checked at a time.
    fn check_chunks(&self, first: usize, last: usize) -> Result<(), Damage> {
        for word in first / 64..=last / 64 {
            let wanted = u64::MAX << first.saturating_sub(word * 64)
                & u64::MAX >> (word * 64 + 63).saturating_sub(last);
            let mut missing = wanted & !self.checked[word].load(Relaxed);
            while missing != 0 {
                self.check_chunk(word * 64 + missing.trailing_zeros() as usize)?;
                missing &= missing - 1;
            }
        }
        Ok(())
    }

    #[cold]
    fn check_chunk(&self, chunk: usize) -> Result<(), Damage> {
        let crcs: &[u32] = bytemuck::cast_slice(&self.map[self.layout.range(Section::Chunks)]);
        if crc32fast::hash(&self.map[self.layout.chunk(chunk)]) != crcs[chunk] {
            let at = self.layout.chunk(chunk).start;
            return Err(Damage::new(format!(
                "the checksum of its part from byte {at} on is wrong"
            )));
        }
        self.checked[chunk / 64].fetch_or(1 << (chunk % 64), Relaxed);
        Ok(())
    }

    /// Items of a section.
    #[inline]
    pub(super) fn numbers<N: Pod>(
        &self,
        section: Section,
        items: Range<usize>,
    ) -> Result<&[N], Damage> {
        let Range { start, end } = self.layout.range(section);
        let range = start + items.start * size_of::<N>()..start + items.end * size_of::<N>();
        if range.end > end {
            return Err(Damage::new("one of its parts leads outside of another"));
        }
        self.check(range.clone())?;
        Ok(bytemuck::cast_slice(&self.map[range]))
    }

    /// The rotated mean, which is taken from every vector.
    pub fn mean(&self) -> Result<&[f32], Damage> {
        self.numbers(Section::Mean, 0..self.header.padded())
    }

    /// A list's rotated centroid.
    pub fn centroid(&self, list: usize) -> Result<&[f32], Damage> {
        let padded = self.header.padded();
        self.numbers(Section::Centroids, list * padded..(list + 1) * padded)
    }

    /// The 8-bit codes of all centroids.
    pub fn centroid_codes(&self) -> Result<&[u8], Damage> {
        let bytes = rabitq::fine_bytes(self.header.padded());
        self.numbers(Section::CentroidCodes, 0..self.header.lists * bytes)
    }

    /// The positions of a list's rows.
    #[inline]
    pub fn list(&self, list: usize) -> Range<usize> {
        self.starts[list]..self.starts[list + 1]
    }

    /// A list's blocks of 1-bit codes.
    #[inline]
    pub fn blocks(&self, list: usize) -> Result<&[u8], Damage> {
        let bytes = fastscan::block_bytes(self.header.padded());
        let blocks = self.block_starts[list] * bytes..self.block_starts[list + 1] * bytes;
        self.numbers(Section::Blocks, blocks)
    }

    /// The first bytes of a list's blocks, of any content, for a hint to the CPU.
    #[inline]
    pub fn list_head(&self, list: usize) -> &[u8] {
        let bytes = fastscan::block_bytes(self.header.padded());
        let start = self.layout.range(Section::Blocks).start + self.block_starts[list] * bytes;
        &self.map[start
            ..start
                + HEAD_BYTES.min((self.block_starts[list + 1] - self.block_starts[list]) * bytes)]
    }

    /// A coded row's 8-bit code.
    #[inline]
    pub fn fine(&self, position: usize) -> Result<&[u8], Damage> {
        let bytes = rabitq::fine_bytes(self.header.padded());
        self.numbers(Section::Fine, position * bytes..(position + 1) * bytes)
    }

    /// The same, of any content, for a hint to the CPU.
    #[inline]
    pub fn fine_unchecked(&self, position: usize) -> &[u8] {
        let bytes = rabitq::fine_bytes(self.header.padded());
        let start = self.layout.range(Section::Fine).start + position * bytes;
        &self.map[start..start + bytes]
    }

    /// A row's id.
    #[inline]
    pub fn row_id(&self, position: usize) -> Result<i64, Damage> {
        Ok(self.numbers::<i64>(Section::RowIds, position..position + 1)?[0])
    }

    /// All row ids.
    pub fn row_ids(&self) -> Result<&[i64], Damage> {
        self.numbers(Section::RowIds, 0..self.header.rows)
    }

    /// What is known of a row besides its vector.
    #[inline]
    pub fn meta(&self, position: usize) -> Result<RowMeta, Damage> {
        Ok(RowMeta {
            row_id: self.row_id(position)?,
            expires_at: self.numbers::<i64>(Section::Expiries, position..position + 1)?[0],
            event: self.event(position)?,
        })
    }

    /// A row's event time.
    #[inline]
    pub fn event(&self, position: usize) -> Result<i64, Damage> {
        Ok(self.numbers::<i64>(Section::Events, position..position + 1)?[0])
    }

    /// A row's entity key.
    pub fn key(&self, position: usize) -> Result<&[u8], Damage> {
        let start = position.saturating_sub(1);
        let ends: &[u64] = self.numbers(Section::KeyEnds, start..position + 1)?;
        let end = ends[position - start] as usize;
        let start = if position == 0 { 0 } else { ends[0] as usize };
        if start > end || end > self.header.key_bytes {
            return Err(Damage::new("an entity key is not where it should be"));
        }
        self.numbers(Section::Keys, start..end)
    }

    /// A row's vector, padded to its stride.
    pub fn vector<T: Real>(&self, position: usize) -> Result<&[T], Damage> {
        let stride = self.header.stride();
        self.numbers(Section::Vectors, position * stride..(position + 1) * stride)
    }

    /// The rows without codes; gone through once.
    pub(super) fn uncoded(&self) -> Result<&Uncoded, Damage> {
        if let Some(known) = self.uncoded.get() {
            return Ok(known);
        }
        let rows = self.header.coded..self.header.rows;
        let of_zeros = |position: usize| match self.header.element_bytes {
            4 => Ok(self.vector::<f32>(position)?.iter().all(|x| *x == 0.0)),
            _ => Ok(self.vector::<f64>(position)?.iter().all(|x| *x == 0.0)),
        };
        let mut uncoded = Uncoded { zeros: Vec::new(), others: Vec::new() };
        for position in rows {
            let part = if of_zeros(position)? { &mut uncoded.zeros } else { &mut uncoded.others };
            part.push(position as u32);
        }
        // Builds read the rows in this order.
        let ids = uncoded.zeros.iter().map(|zero| self.row_id(*zero as usize));
        if !ids.collect::<Result<Vec<_>, _>>()?.is_sorted() {
            return Err(Damage::new("its vectors of zeros are not in the order of their ids"));
        }
        Ok(self.uncoded.get_or_init(|| uncoded))
    }

    /// The same, of any content, for a hint to the CPU.
    pub fn vector_unchecked<T: Real>(&self, position: usize) -> &[T] {
        let bytes = self.header.stride() * size_of::<T>();
        let start = self.layout.range(Section::Vectors).start + position * bytes;
        bytemuck::cast_slice(&self.map[start..start + bytes])
    }

    /// All vectors, as exact scans see them; `dead` has a bit for each row, or none at all.
    pub fn views<'a, T: Real>(&'a self, dead: &'a [u64]) -> Result<Vec<BlockView<'a, T>>, Damage> {
        if self.header.ordered {
            self.sorted_ids()?;
        }
        let stride = self.header.stride();
        let starts = (0..self.header.rows).step_by(BLOCK_ROWS);
        let view = |start: usize| {
            let rows = start..(start + BLOCK_ROWS).min(self.header.rows);
            let row_ids: &[i64] = self.numbers(Section::RowIds, rows.clone())?;
            let span = row_ids[row_ids.len() - 1].wrapping_sub(row_ids[0]);
            Ok(BlockView {
                stride,
                rows: self.numbers(Section::Vectors, start * stride..rows.end * stride)?,
                row_ids,
                expires_at: self.numbers(Section::Expiries, rows.clone())?,
                events: self.numbers(Section::Events, rows.clone())?,
                inverse_norms: self.numbers(Section::InverseNorms, rows)?,
                is_run: self.header.ordered && span == row_ids.len() as i64 - 1,
                dead: dead.get(start / 64..).unwrap_or_default(),
            })
        };
        starts.map(view).collect()
    }
}
