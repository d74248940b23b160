//! The layout of a segment file; `docs/format.md` has it in words.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::Damage;
use crate::vector::{Metric, fastscan, padded, rabitq, stride};

const MAGIC: [u8; 8] = *b"FVECIDX\0";
const VERSION: u32 = 1;

/// Where the random rotation starts.
pub(super) const ROTATION_SEED: u64 = 0x5EED_0F46_4541_5354;

/// Bytes of the header; the sections follow.
pub(super) const HEADER_BYTES: usize = 4096;

/// Bytes of a chunk, which has a checksum of its own.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// Sections start at multiples of this.
const ALIGNMENT: usize = 64;

/// The row ids are in ascending order.
const ORDERED: u32 = 1;

/// What the numbers in a header mean is said at the accessors of [`Header`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Fields {
    magic: [u8; 8],
    version: u32,
    crc: u32,
    stamp: u64,
    table_id: i64,
    column_id: u32,
    dim: u32,
    element_bytes: u32,
    metric: u32,
    coded: u64,
    rows: u64,
    lists: u64,
    blocks: u64,
    least_event: i64,
    least_expiry: i64,
    flags: u32,
    chunks_crc: u32,
    length: u64,
    key_bytes: u64,
}

const FIELDS: usize = size_of::<Fields>();
const CRC_FROM: usize = 16;

/// What a segment holds, and where in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Header {
    /// Tells this segment from every other.
    pub stamp: u64,
    /// The table.
    pub table_id: i64,
    /// The column.
    pub column_id: u32,
    /// Elements of a vector.
    pub dim: usize,
    /// Bytes of an element: 4 for `f32`, 8 for `f64`.
    pub element_bytes: usize,
    /// What the codes are made for.
    pub metric: Metric,
    /// Vectors with codes; they come first.
    pub coded: usize,
    /// All vectors.
    pub rows: usize,
    /// Lists that the coded vectors are in.
    pub lists: usize,
    /// Blocks of codes.
    pub blocks: usize,
    /// No row is of an event time before this.
    pub least_event: i64,
    /// No row expires before this.
    pub least_expiry: i64,
    /// Whether the row ids are in ascending order.
    pub ordered: bool,
    /// Bytes of all entity keys.
    pub key_bytes: usize,
    /// Checksum of the chunks' checksums.
    pub chunks_crc: u32,
}

/// A part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// The rotated mean: `f32`.
    Mean,
    /// The lists' rotated centroids: `f32`.
    Centroids,
    /// The centroids' 8-bit codes.
    CentroidCodes,
    /// For each list the position of its first row, then the number of coded rows: `u32`.
    Starts,
    /// The lists' blocks of 1-bit codes.
    Blocks,
    /// The 8-bit codes, in the order of the rows.
    Fine,
    /// Row ids: `i64`.
    RowIds,
    /// When rows expire: `i64`.
    Expiries,
    /// Event times: `i64`.
    Events,
    /// [`crate::vector::inverse_norm`] of the rows.
    InverseNorms,
    /// Row ids in ascending order, unless the rows are: `i64`.
    SortedIds,
    /// The positions of the rows in that order: `u32`.
    SortedPositions,
    /// Where the rows' entity keys end: `u64`.
    KeyEnds,
    /// The entity keys.
    Keys,
    /// The vectors, padded to their stride.
    Vectors,
    /// The chunks' checksums: `u32`.
    Chunks,
}

/// All of them, in the order of the file; the checksums come last.
pub(super) const SECTIONS: [Section; 16] = [
    Section::Mean,
    Section::Centroids,
    Section::CentroidCodes,
    Section::Starts,
    Section::Blocks,
    Section::Fine,
    Section::RowIds,
    Section::Expiries,
    Section::Events,
    Section::InverseNorms,
    Section::SortedIds,
    Section::SortedPositions,
    Section::KeyEnds,
    Section::Keys,
    Section::Vectors,
    Section::Chunks,
];

/// Where the sections are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    ranges: [(usize, usize); SECTIONS.len()],
    /// Bytes of the file.
    pub(super) length: usize,
}

impl Layout {
    pub(super) fn range(&self, section: Section) -> Range<usize> {
        let (start, end) = self.ranges[section as usize];
        start..end
    }

    /// The bytes that chunks are of: all between the header and the checksums.
    pub(super) fn body(&self) -> Range<usize> {
        HEADER_BYTES..self.range(Section::Chunks).start
    }

    /// The bytes of a chunk.
    pub(super) fn chunk(&self, number: usize) -> Range<usize> {
        let start = HEADER_BYTES + number * CHUNK_BYTES;
        start..(start + CHUNK_BYTES).min(self.body().end)
    }
}

impl Header {
    /// Length of rotated vectors.
    pub fn padded(&self) -> usize {
        padded(self.dim)
    }

    /// Elements from one vector to the next.
    pub fn stride(&self) -> usize {
        if self.element_bytes == 4 { stride::<f32>(self.dim) } else { stride::<f64>(self.dim) }
    }

    /// What the codes estimate.
    pub fn space(&self) -> rabitq::Space {
        match self.metric {
            Metric::InnerProduct => rabitq::Space::Product,
            Metric::Cosine | Metric::L2 | Metric::L1 => rabitq::Space::Distance,
        }
    }

    pub(super) fn layout(&self) -> Layout {
        let mut at = HEADER_BYTES;
        let mut ranges = [(0, 0); SECTIONS.len()];
        for (section, range) in SECTIONS.into_iter().zip(&mut ranges) {
            let start = at.next_multiple_of(ALIGNMENT);
            at = start + self.section_bytes(section, start - HEADER_BYTES);
            *range = (start, at);
        }
        Layout { ranges, length: at }
    }

    fn section_bytes(&self, section: Section, body: usize) -> usize {
        let padded = self.padded();
        let unordered = if self.ordered { 0 } else { self.rows };
        match section {
            Section::Mean => padded * 4,
            Section::Centroids => self.lists * padded * 4,
            Section::CentroidCodes => self.lists * rabitq::fine_bytes(padded),
            Section::Starts => (self.lists + 1) * 4,
            Section::Blocks => self.blocks * fastscan::block_bytes(padded),
            Section::Fine => self.coded * rabitq::fine_bytes(padded),
            Section::RowIds | Section::Expiries | Section::Events | Section::KeyEnds => {
                self.rows * 8
            }
            Section::InverseNorms => self.rows * self.element_bytes,
            Section::SortedIds => unordered * 8,
            Section::SortedPositions => unordered * 4,
            Section::Keys => self.key_bytes,
            Section::Vectors => self.rows * self.stride() * self.element_bytes,
            Section::Chunks => body.div_ceil(CHUNK_BYTES) * 4,
        }
    }

    /// The header's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let fields = Fields {
            magic: MAGIC,
            version: VERSION,
            crc: 0,
            stamp: self.stamp,
            table_id: self.table_id,
            column_id: self.column_id,
            dim: self.dim as u32,
            element_bytes: self.element_bytes as u32,
            metric: match self.metric {
                Metric::Cosine => 0,
                Metric::L2 => 1,
                Metric::InnerProduct => 2,
                Metric::L1 => 3,
            },
            coded: self.coded as u64,
            rows: self.rows as u64,
            lists: self.lists as u64,
            blocks: self.blocks as u64,
            least_event: self.least_event,
            least_expiry: self.least_expiry,
            flags: if self.ordered { ORDERED } else { 0 },
            chunks_crc: self.chunks_crc,
            length: self.layout().length as u64,
            key_bytes: self.key_bytes as u64,
        };
        let mut bytes = bytemuck::bytes_of(&fields).to_vec();
        bytes.resize(HEADER_BYTES, 0);
        let crc = crc32fast::hash(&bytes[CRC_FROM..]);
        bytes[CRC_FROM - 4..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header, and checks it against itself and the file's length.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let damage = |what: &str| Err(Damage::new(what));
        if bytes.len() < HEADER_BYTES {
            return damage("it is cut off within its header");
        }
        let fields: Fields = bytemuck::pod_read_unaligned(&bytes[..FIELDS]);
        if fields.magic != MAGIC {
            return damage("it is no index file");
        }
        if fields.crc != crc32fast::hash(&bytes[CRC_FROM..HEADER_BYTES]) {
            return damage("the checksum of its header is wrong");
        }
        if fields.version != VERSION {
            return damage("its format is of another version");
        }
        let header = Self {
            stamp: fields.stamp,
            table_id: fields.table_id,
            column_id: fields.column_id,
            dim: fields.dim as usize,
            element_bytes: fields.element_bytes as usize,
            metric: match fields.metric {
                0 => Metric::Cosine,
                1 => Metric::L2,
                2 => Metric::InnerProduct,
                3 => Metric::L1,
                _ => return damage("its metric is unknown"),
            },
            coded: fields.coded as usize,
            rows: fields.rows as usize,
            lists: fields.lists as usize,
            blocks: fields.blocks as usize,
            least_event: fields.least_event,
            least_expiry: fields.least_expiry,
            ordered: fields.flags & ORDERED != 0,
            key_bytes: fields.key_bytes as usize,
            chunks_crc: fields.chunks_crc,
        };
        if !matches!(header.element_bytes, 4 | 8) || header.dim == 0 {
            return damage("its vectors are of no length or type that there is");
        }
        if header.coded > header.rows || (header.coded > 0 && header.lists == 0) {
            return damage("it has more codes than rows, or no lists of them");
        }
        // Numbers of another writer's are not trusted to be multiplied.
        let counts = [header.rows, header.coded, header.lists, header.blocks, header.key_bytes];
        if counts.into_iter().any(|count| count > bytes.len()) || header.dim > fastscan::MAX_PADDED
        {
            return damage("its header counts more than the file could hold");
        }
        if header.layout().length != bytes.len() || fields.length != bytes.len() as u64 {
            return damage("its length is not what its header says");
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            stamp: 7,
            table_id: 1,
            column_id: 2,
            dim: 100,
            element_bytes: 4,
            metric: Metric::L2,
            coded: 90,
            rows: 91,
            lists: 3,
            blocks: 5,
            least_event: -4,
            least_expiry: i64::MAX,
            ordered: false,
            key_bytes: 77,
            chunks_crc: 99,
        }
    }

    #[test]
    fn headers_come_back_and_sections_do_not_overlap() {
        let header = header();
        let layout = header.layout();
        let mut file = header.encode();
        file.resize(layout.length, 0);
        assert_eq!(Header::decode(&file), Ok(header));
        let mut end = HEADER_BYTES;
        for section in SECTIONS {
            let range = layout.range(section);
            assert!(range.start >= end && range.start.is_multiple_of(ALIGNMENT), "{section:?}");
            end = range.end;
        }
        assert_eq!(end, layout.length);
    }

    #[test]
    fn any_flipped_bit_and_any_other_length_is_noticed() {
        let mut file = header().encode();
        file.resize(header().layout().length, 0);
        for bit in 0..HEADER_BYTES * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&file).is_err(), "bit {bit}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
        for length in [0, 1, 4095, 4096, file.len() - 1] {
            assert!(Header::decode(&file[..length]).is_err(), "{length} bytes");
        }
        file.push(0);
        assert!(Header::decode(&file).is_err());
    }
}
