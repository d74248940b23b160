//! Blocks of vectors in memory, laid out for scanning.

use bytemuck::{Pod, Zeroable};

use super::{Real, RowSet};

/// Rows of a full block.
pub const BLOCK_ROWS: usize = 1024;

/// A cache line. Rows that start on one are read at full speed.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// What is known of a row besides its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowMeta {
    /// The row.
    pub row_id: i64,
    /// When it expires; `i64::MAX` for never.
    pub expires_at: i64,
    /// Its event time.
    pub event: i64,
}

impl RowMeta {
    /// A row that never expires, of time 0.
    pub fn plain(row_id: i64) -> Self {
        Self { row_id, expires_at: i64::MAX, event: 0 }
    }
}

/// Up to [`BLOCK_ROWS`] vectors of one length, with what a scan needs to know of each.
#[derive(Debug, Clone)]
pub struct Block<T> {
    dim: usize,
    stride: usize,
    lines: Vec<Line>,
    row_ids: Vec<i64>,
    expires_at: Vec<i64>,
    events: Vec<i64>,
    /// Whether the ids are consecutive, as they are where rows were not moved.
    is_run: bool,
    /// [`inverse_norm`] of each.
    inverse_norms: Vec<T>,
}

/// Up to [`BLOCK_ROWS`] vectors as scans see them, wherever they are kept.
#[derive(Debug, Clone, Copy)]
pub struct BlockView<'a, T> {
    /// Elements from one row to the next; those past the vector's own are zeros.
    pub stride: usize,
    /// The vectors, `stride` elements for each.
    pub rows: &'a [T],
    /// The rows' ids.
    pub row_ids: &'a [i64],
    /// When the rows expire; `i64::MAX` for never.
    pub expires_at: &'a [i64],
    /// The rows' event times.
    pub events: &'a [i64],
    /// [`inverse_norm`] of each.
    pub inverse_norms: &'a [T],
    /// Whether the ids are consecutive.
    pub is_run: bool,
    /// Rows that are not there any more, a bit for each; empty if there are none.
    pub dead: &'a [u64],
}

impl<T: Real> BlockView<'_, T> {
    /// Number of vectors, dead ones too.
    pub fn len(&self) -> usize {
        self.row_ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.row_ids.is_empty()
    }

    /// One vector, padded to the stride.
    pub fn vector(&self, slot: usize) -> &[T] {
        &self.rows[slot * self.stride..][..self.stride]
    }

    /// Whether the row is not there any more.
    pub fn is_dead(&self, slot: usize) -> bool {
        self.dead.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Which rows are in the set, a bit for each slot.
    pub fn passing(&self, rows: &RowSet) -> [u64; BLOCK_ROWS / 64] {
        let mut mask = [0; BLOCK_ROWS / 64];
        for (word, ids) in mask.iter_mut().zip(self.row_ids.chunks(64)) {
            *word = if self.is_run {
                rows.word_from(ids[0]) & u64::MAX >> (64 - ids.len())
            } else {
                ids.iter()
                    .enumerate()
                    .fold(0, |word, (bit, id)| word | u64::from(rows.contains(*id)) << bit)
            };
        }
        mask
    }
}

/// Beyond these norms `f32` arithmetic over- or underflows; such rows are scored in `f64`.
const SAFE_NORMS: std::ops::Range<f64> = 1e-15..1e15;

impl<T: Real> Block<T> {
    /// An empty block for vectors of `dim` elements, at least 1.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            stride: stride::<T>(dim),
            lines: Vec::new(),
            row_ids: Vec::new(),
            expires_at: Vec::new(),
            events: Vec::new(),
            is_run: true,
            inverse_norms: Vec::new(),
        }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.row_ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.row_ids.is_empty()
    }

    /// Whether there is no room for another.
    pub fn is_full(&self) -> bool {
        self.len() == BLOCK_ROWS
    }

    /// Elements from one row to the next; those past the vector's own are zeros.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All rows, `len() * stride()` elements.
    pub fn rows(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len() * self.stride]
    }

    /// What is known of one row.
    pub fn meta(&self, slot: usize) -> RowMeta {
        RowMeta {
            row_id: self.row_ids[slot],
            expires_at: self.expires_at[slot],
            event: self.events[slot],
        }
    }

    /// One vector.
    pub fn vector(&self, slot: usize) -> &[T] {
        &self.rows()[slot * self.stride..][..self.dim]
    }

    /// The rows' ids.
    pub fn row_ids(&self) -> &[i64] {
        &self.row_ids
    }

    /// The block as scans see it.
    pub fn view(&self) -> BlockView<'_, T> {
        BlockView {
            stride: self.stride,
            rows: self.rows(),
            row_ids: &self.row_ids,
            expires_at: &self.expires_at,
            events: &self.events,
            inverse_norms: &self.inverse_norms,
            is_run: self.is_run,
            dead: &[],
        }
    }

    /// Appends a vector of `dim` elements.
    pub fn push(&mut self, row: RowMeta, vector: &[T]) {
        self.is_run &= self.row_ids.last().is_none_or(|last| last + 1 == row.row_id);
        let elements = (self.len() + 1) * self.stride;
        self.lines.resize(elements.div_ceil(T::PER_LINE), Line::zeroed());
        self.row_ids.push(row.row_id);
        self.expires_at.push(row.expires_at);
        self.events.push(row.event);
        self.inverse_norms.push(T::ZERO);
        self.fill(self.len() - 1, vector);
    }

    /// Puts another vector into a slot.
    pub fn replace(&mut self, slot: usize, row: RowMeta, vector: &[T]) {
        self.is_run &= self.row_ids[slot] == row.row_id;
        self.row_ids[slot] = row.row_id;
        self.expires_at[slot] = row.expires_at;
        self.events[slot] = row.event;
        self.fill(slot, vector);
    }

    /// Removes the last vector.
    pub fn pop(&mut self) {
        self.row_ids.pop();
        self.expires_at.pop();
        self.events.pop();
        self.inverse_norms.pop();
    }

    fn fill(&mut self, slot: usize, vector: &[T]) {
        let elements: &mut [T] = bytemuck::cast_slice_mut(&mut self.lines);
        elements[slot * self.stride..][..self.dim].copy_from_slice(vector);
        self.inverse_norms[slot] = inverse_norm(vector);
    }
}

/// `1 / |v|`; 0 for a vector of zeros, NaN where single precision would be inexact.
pub fn inverse_norm<T: Real>(vector: &[T]) -> T {
    let norm = vector.iter().map(|x| x.to_f64() * x.to_f64()).sum::<f64>().sqrt();
    if SAFE_NORMS.contains(&norm) {
        T::from_f64(norm.recip())
    } else if vector.iter().all(|x| x.to_f64() == 0.0) {
        T::ZERO
    } else {
        T::NAN
    }
}

/// Elements from one row to the next: whole cache lines for long vectors, so that every row starts on one; powers of two for short
/// ones, so that few elements are wasted.
pub fn stride<T: Real>(dim: usize) -> usize {
    if dim > T::PER_LINE / 2 { dim.next_multiple_of(T::PER_LINE) } else { dim.next_power_of_two() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_padded_with_zeros() {
        for dim in [1, 2, 3, 5, 8, 9, 16, 17, 384, 385] {
            let mut block = Block::<f32>::new(dim);
            for row in 0..5u8 {
                block.push(RowMeta::plain(row.into()), &vec![f32::from(row) + 1.0; dim]);
            }
            block.pop();
            block.replace(1, RowMeta::plain(77), &vec![9.0; dim]);
            assert_eq!(block.rows().as_ptr().align_offset(64), 0);
            assert_eq!(block.row_ids(), [0, 77, 2, 3]);
            assert_eq!(block.vector(1), vec![9.0; dim]);
            assert_eq!(block.vector(3), vec![4.0; dim]);
            let padding = block.rows().chunks(block.stride()).flat_map(|row| &row[dim..]);
            assert!(padding.into_iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn rows_that_pass_are_found_whether_moved_or_not() {
        let mut block = Block::<f32>::new(1);
        for row in 0..150 {
            block.push(RowMeta::plain(1000 + row), &[0.0]);
        }
        let rows = RowSet::of(&[1000, 1063, 1064, 1149, 1150, 7]);
        let slots = |block: &Block<f32>| {
            let mask = block.view().passing(&rows);
            (0..BLOCK_ROWS).filter(|slot| mask[slot / 64] >> (slot % 64) & 1 == 1).collect()
        };
        let found: Vec<usize> = slots(&block);
        assert_eq!(found, [0, 63, 64, 149]);
        assert!(block.is_run);
        block.replace(10, RowMeta::plain(7), &[0.0]);
        assert!(!block.is_run);
        let found: Vec<usize> = slots(&block);
        assert_eq!(found, [0, 10, 63, 64, 149]);
    }

    #[test]
    fn norms_that_are_not_safe_are_marked() {
        let mut block = Block::<f32>::new(2);
        for (row, vector) in
            [[3.0, 4.0], [0.0, -0.0], [1e30, 0.0], [f32::NAN, 0.0]].iter().enumerate()
        {
            block.push(RowMeta::plain(row as i64), vector);
        }
        let norms = block.view().inverse_norms;
        assert_eq!(norms[..2], [0.2, 0.0]);
        assert!(norms[2].is_nan() && norms[3].is_nan());
    }
}
