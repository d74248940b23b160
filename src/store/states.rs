//! `cell_states`: what a cell alone cannot say.
//!
//! A cell is NULL where the feature is absent. `cell_states` of the row lists the cells that are
//! something else than they seem: an explicit null, or a value that its column kind cannot hold
//! and that is there as wire bytes. A sequence of LEB128 varints, `column id * 4 + state`, in the
//! order of the ids; NULL where it would be empty, as it is for most rows.

use crate::error::{Error, ErrorKind, Result};

/// How a cell is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum CellState {
    /// As its column kind says; NULL is an absent feature.
    #[default]
    Plain,
    /// NULL, and the feature is an empty `Value`.
    Null,
    /// NULL, and the feature is a `Value` with `null_val` set.
    NullVal,
    /// A BLOB of the `Value`'s wire bytes.
    Wire,
}

/// The states of one row's cells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CellStates(Vec<(u32, CellState)>);

impl CellStates {
    /// Parses the column; `None` is a row of plain cells.
    pub(super) fn decode(bytes: Option<&[u8]>) -> Result<Self> {
        let mut rest = bytes.unwrap_or_default();
        let mut states = Vec::new();
        while !rest.is_empty() {
            let entry = prost::encoding::decode_varint(&mut rest).map_err(|_| damaged())?;
            let state = match entry & 3 {
                1 => CellState::Null,
                2 => CellState::NullVal,
                3 => CellState::Wire,
                _ => return Err(damaged()),
            };
            states.push((u32::try_from(entry >> 2).map_err(|_| damaged())?, state));
        }
        Ok(Self(states))
    }

    /// The bytes for the column, `None` for a row of plain cells.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for &(id, state) in &self.0 {
            prost::encoding::encode_varint(u64::from(id) << 2 | state as u64, &mut out);
        }
        (!out.is_empty()).then_some(out)
    }

    /// The state of a column's cell.
    pub(super) fn get(&self, column_id: u32) -> CellState {
        match self.0.binary_search_by_key(&column_id, |entry| entry.0) {
            Ok(at) => self.0[at].1,
            Err(_) => CellState::Plain,
        }
    }

    /// Sets the state of a column's cell.
    pub(super) fn set(&mut self, column_id: u32, state: CellState) {
        match (self.0.binary_search_by_key(&column_id, |entry| entry.0), state) {
            (Ok(at), CellState::Plain) => {
                self.0.remove(at);
            }
            (Ok(at), _) => self.0[at].1 = state,
            (Err(_), CellState::Plain) => {}
            (Err(at), _) => self.0.insert(at, (column_id, state)),
        }
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::Damaged, "a row's `cell_states` cannot be parsed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_in_order() {
        let mut states = CellStates::default();
        assert_eq!(states.encode(), None);
        states.set(900, CellState::Wire);
        states.set(2, CellState::Null);
        states.set(7, CellState::NullVal);
        states.set(7, CellState::Plain);
        states.set(5, CellState::Plain);
        let bytes = states.encode().unwrap();
        assert_eq!(CellStates::decode(Some(&bytes)).unwrap(), states);
        assert_eq!(
            (states.get(2), states.get(7), states.get(900)),
            (CellState::Null, CellState::Plain, CellState::Wire)
        );
        assert!(CellStates::decode(Some(&[0x80])).is_err());
        assert!(CellStates::decode(Some(&[4])).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_states_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..20)) {
            if let Ok(states) = CellStates::decode(Some(&bytes)) {
                proptest::prop_assert!(states.0.len() <= bytes.len());
            }
        }
    }
}
