//! A set of vectors that rows are put into and taken out of while others scan it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::schema::Element;
use crate::vector::{BLOCK_ROWS, Block, Query, Real, RowMeta};

/// The vectors of one feature and one length.
#[derive(Debug)]
pub struct Resident<T> {
    dim: usize,
    blocks: Vec<Arc<Block<T>>>,
    slots: HashMap<i64, usize>,
    scratch: Vec<T>,
}

impl<T: Real> Resident<T> {
    /// No vectors of `dim` elements yet.
    pub fn new(dim: usize) -> Self {
        Self { dim, blocks: Vec::new(), slots: HashMap::new(), scratch: Vec::new() }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Puts a row's vector in, in place of the one it had. `bytes` are little-endian elements; a
    /// vector of another length than the set's is refused with `false` and the row has none.
    pub fn put(&mut self, row: RowMeta, element: Element, bytes: &[u8]) -> bool {
        if bytes.len() != self.dim * element.width() {
            self.remove(row.row_id);
            return false;
        }
        let mut vector = std::mem::take(&mut self.scratch);
        vector.clear();
        read_elements(element, bytes, &mut vector);
        if let Some(&slot) = self.slots.get(&row.row_id) {
            let block = Arc::make_mut(&mut self.blocks[slot / BLOCK_ROWS]);
            block.replace(slot % BLOCK_ROWS, row, &vector);
        } else {
            if self.blocks.last().is_none_or(|block| block.is_full()) {
                self.blocks.push(Arc::new(Block::new(self.dim)));
            }
            if let Some(block) = self.blocks.last_mut() {
                Arc::make_mut(block).push(row, &vector);
            }
            self.slots.insert(row.row_id, self.slots.len());
        }
        self.scratch = vector;
        true
    }

    /// Takes a row's vector out, if it has one. The last vector takes its place.
    pub fn remove(&mut self, row_id: i64) {
        let Some(slot) = self.slots.remove(&row_id) else {
            return;
        };
        let Some(last) = self.blocks.last_mut() else {
            return;
        };
        let end = last.len() - 1;
        let (moved, vector) = (last.meta(end), last.vector(end).to_vec());
        Arc::make_mut(last).pop();
        if last.is_empty() {
            self.blocks.pop();
        }
        if moved.row_id != row_id {
            let block = Arc::make_mut(&mut self.blocks[slot / BLOCK_ROWS]);
            block.replace(slot % BLOCK_ROWS, moved, &vector);
            self.slots.insert(moved.row_id, slot);
        }
    }

    /// The vectors as they are now, in blocks that later changes leave alone.
    pub fn blocks(&self) -> Vec<Arc<Block<T>>> {
        self.blocks.clone()
    }
}

/// The exact distance of a query to a stored vector; `None` where the vector has another length
/// than `dim`, or the distance is not finite.
pub fn measure<T: Real>(
    query: &Query<T>,
    dim: usize,
    element: Element,
    bytes: &[u8],
) -> Option<f64> {
    if bytes.len() != dim * element.width() {
        return None;
    }
    let mut vector = Vec::with_capacity(dim);
    read_elements(element, bytes, &mut vector);
    Some(query.measure(&vector)).filter(|distance| distance.is_finite())
}

pub(super) fn read_elements<T: Real>(element: Element, bytes: &[u8], out: &mut Vec<T>) {
    match element {
        Element::F32 => {
            let (chunks, _) = bytes.as_chunks();
            out.extend(chunks.iter().map(|chunk| T::from_f64(f32::from_le_bytes(*chunk).into())));
        }
        Element::F64 => {
            let (chunks, _) = bytes.as_chunks();
            out.extend(chunks.iter().map(|chunk| T::from_f64(f64::from_le_bytes(*chunk))));
        }
        Element::I32 => {
            let (chunks, _) = bytes.as_chunks();
            out.extend(chunks.iter().map(|chunk| T::from_f64(i32::from_le_bytes(*chunk).into())));
        }
        Element::I64 => {
            let (chunks, _) = bytes.as_chunks();
            out.extend(chunks.iter().map(|chunk| T::from_f64(i64::from_le_bytes(*chunk) as f64)));
        }
        Element::Bool => out.extend(bytes.iter().map(|byte| T::from_f64(f64::from(*byte)))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::vector::{Hit, Metric, Scope, scan};

    fn contents(blocks: &[Arc<Block<f32>>]) -> BTreeMap<i64, Vec<f32>> {
        blocks
            .iter()
            .flat_map(|block| {
                (0..block.len()).map(|slot| (block.row_ids()[slot], block.vector(slot).to_vec()))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(operations in prop::collection::vec((0i64..3000, any::<Option<i8>>()), 0..6000)) {
            let mut resident = Resident::<f32>::new(2);
            let mut model = BTreeMap::new();
            let mut earlier = None;
            for (at, (row, value)) in operations.iter().enumerate() {
                if let Some(value) = value {
                    let vector = [f32::from(*value), *row as f32];
                    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                    prop_assert!(resident.put(RowMeta::plain(*row), Element::F32, &bytes));
                    model.insert(*row, vector.to_vec());
                } else {
                    resident.remove(*row);
                    model.remove(row);
                }
                if at == operations.len() / 2 {
                    earlier = Some((resident.blocks(), model.clone()));
                }
            }
            prop_assert_eq!(resident.len(), model.len());
            prop_assert_eq!(contents(&resident.blocks()), model);
            if let Some((snapshot, model)) = earlier {
                prop_assert_eq!(contents(&snapshot), model);
            }
        }
    }

    #[test]
    fn a_vector_of_another_length_takes_the_row_out() {
        let mut resident = Resident::<f64>::new(1);
        assert!(resident.put(RowMeta::plain(1), Element::I64, &(1i64 << 53).to_le_bytes()));
        assert!(resident.put(RowMeta::plain(2), Element::I32, &(-7i32).to_le_bytes()));
        assert!(!resident.put(RowMeta::plain(1), Element::F64, &[0; 16]));
        let queries = [Query::new([0.0].into_iter(), Metric::L2, 5)];
        let blocks = resident.blocks();
        let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
        let hits = scan(&views, &queries[0], &Scope::default(), 1);
        assert_eq!(hits, [Hit { row_id: 2, distance: 7.0 }]);
        let seven = 7.0f64.to_le_bytes();
        assert_eq!(measure(&queries[0], 1, Element::F64, &seven), Some(7.0));
        assert_eq!(measure(&queries[0], 1, Element::F64, &[0; 16]), None);
    }
}
