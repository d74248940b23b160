//! Scalars resident in memory: the columns that filters compare, a cell for each row.

use std::collections::HashMap;
use std::sync::Arc;

use crate::schema::{Attribute, Scalar};

/// A value, with texts and bytes by their number in the column's dictionary.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Null or absent.
    Absent,
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// Text.
    Text(u32),
    /// Bytes.
    Bytes(u32),
    /// A list or set.
    List(Box<Vec<Cell>>),
}

/// The values of one attribute.
#[derive(Debug)]
pub struct CellColumn {
    attribute: Attribute,
    cells: Vec<Cell>,
    words: Vec<Arc<[u8]>>,
    codes: HashMap<Arc<[u8]>, u32>,
}

/// Rows with the attributes that were asked for.
#[derive(Debug, Default)]
pub struct Rows {
    row_ids: Vec<i64>,
    expires_at: Vec<i64>,
    least: i64,
    greatest: i64,
    /// Whether some row is not where its id less the first one's says.
    is_moved: bool,
    /// Whether a row may ever have been put in that expires.
    expires: bool,
    slots: HashMap<i64, u32>,
    columns: Vec<CellColumn>,
}

impl CellColumn {
    fn new(attribute: Attribute) -> Self {
        Self { attribute, cells: Vec::new(), words: Vec::new(), codes: HashMap::new() }
    }

    /// A cell for each row.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The distinct texts and bytes, by their number; some may be in no cell any more.
    pub fn words(&self) -> &[Arc<[u8]>] {
        &self.words
    }

    fn cell(&mut self, scalar: &Scalar<'_>) -> Cell {
        match scalar {
            Scalar::Absent => Cell::Absent,
            Scalar::Integer(number) => Cell::Integer(*number),
            Scalar::Real(number) => Cell::Real(*number),
            Scalar::Text(text) => Cell::Text(self.code(text.as_bytes())),
            Scalar::Bytes(bytes) => Cell::Bytes(self.code(bytes)),
            Scalar::List(items) => {
                Cell::List(Box::new(items.iter().map(|item| self.cell(item)).collect()))
            }
        }
    }

    fn code(&mut self, word: &[u8]) -> u32 {
        if let Some(code) = self.codes.get(word) {
            return *code;
        }
        let code = self.words.len() as u32;
        let word: Arc<[u8]> = word.into();
        self.words.push(Arc::clone(&word));
        self.codes.insert(word, code);
        code
    }
}

impl Rows {
    /// No rows yet, of these attributes.
    pub fn new(attributes: &[Attribute]) -> Self {
        let columns = attributes.iter().cloned().map(CellColumn::new).collect();
        Self { columns, ..Self::default() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.row_ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.row_ids.is_empty()
    }

    /// The rows' ids, in the order of the cells.
    pub fn row_ids(&self) -> &[i64] {
        &self.row_ids
    }

    /// The least and the greatest id there is or was; `None` if there are no rows.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        (!self.is_empty()).then_some((self.least, self.greatest))
    }

    /// The first id, if all others follow it without a gap.
    pub fn run_from(&self) -> Option<i64> {
        if self.is_moved { None } else { self.row_ids.first().copied() }
    }

    /// Whether any row may expire.
    pub fn expires(&self) -> bool {
        self.expires
    }

    /// When the rows expire; `i64::MAX` for never.
    pub fn expires_at(&self) -> &[i64] {
        &self.expires_at
    }

    /// The attributes that are resident.
    pub fn attributes(&self) -> Vec<Attribute> {
        self.columns.iter().map(|column| column.attribute.clone()).collect()
    }

    /// The column of an attribute.
    pub fn column(&self, attribute: &Attribute) -> Option<&CellColumn> {
        self.columns.iter().find(|column| column.attribute == *attribute)
    }

    /// Whether so many words are in no cell any more that all should be read anew.
    pub fn is_bloated(&self) -> bool {
        self.columns.iter().any(|column| {
            let items = |cell: &Cell| if let Cell::List(items) = cell { items.len() } else { 1 };
            let most = column.cells.iter().map(items).sum::<usize>();
            column.words.len() > 2 * most + 1024
        })
    }

    /// Puts a row in, in place of what it had; a scalar for each attribute.
    pub fn put(&mut self, row_id: i64, expires_at: Option<i64>, scalars: &[Scalar<'_>]) {
        self.expires |= expires_at.is_some();
        let expires_at = expires_at.unwrap_or(i64::MAX);
        let found = self.slots.get(&row_id).copied();
        if let Some(slot) = found {
            self.expires_at[slot as usize] = expires_at;
        } else {
            self.is_moved |= self.row_ids.last().is_some_and(|last| last + 1 != row_id);
            let (least, greatest) = self.bounds().unwrap_or((row_id, row_id));
            (self.least, self.greatest) = (least.min(row_id), greatest.max(row_id));
            self.slots.insert(row_id, self.row_ids.len() as u32);
            self.row_ids.push(row_id);
            self.expires_at.push(expires_at);
        }
        for (column, scalar) in self.columns.iter_mut().zip(scalars) {
            let cell = column.cell(scalar);
            match found {
                Some(slot) => column.cells[slot as usize] = cell,
                None => column.cells.push(cell),
            }
        }
    }

    /// Takes a row out, if it is there. The last row takes its place.
    pub fn remove(&mut self, row_id: i64) {
        let Some(slot) = self.slots.remove(&row_id) else {
            return;
        };
        let at = slot as usize;
        self.is_moved |= at + 1 != self.row_ids.len();
        self.row_ids.swap_remove(at);
        self.expires_at.swap_remove(at);
        for column in &mut self.columns {
            column.cells.swap_remove(at);
        }
        if let Some(moved) = self.row_ids.get(at) {
            self.slots.insert(*moved, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use super::*;

    fn contents(rows: &Rows) -> BTreeMap<i64, String> {
        let column = &rows.columns[0];
        let show = |cell: &Cell| match cell {
            Cell::Text(code) => String::from_utf8_lossy(&column.words[*code as usize]).into(),
            other => format!("{other:?}"),
        };
        rows.row_ids.iter().copied().zip(column.cells.iter().map(show)).collect()
    }

    proptest::proptest! {
        #[test]
        fn behaves_like_a_map(operations in proptest::collection::vec((0i64..50, proptest::option::of(0u8..9)), 0..200)) {
            let mut rows = Rows::new(&[Attribute::Feature(1)]);
            let mut model = BTreeMap::new();
            for (row, value) in operations {
                if let Some(value) = value {
                    let text = format!("word {value}");
                    rows.put(row, None, &[Scalar::Text(Cow::Borrowed(&text))]);
                    model.insert(row, text);
                } else {
                    rows.remove(row);
                    model.remove(&row);
                }
            }
            if let Some(first) = rows.run_from() {
                let run: Vec<i64> = (first..).take(rows.len()).collect();
                proptest::prop_assert_eq!(rows.row_ids(), run);
            }
            proptest::prop_assert_eq!(contents(&rows), model);
        }
    }

    #[test]
    fn words_out_of_use_are_noticed() {
        let mut rows = Rows::new(&[Attribute::Feature(1)]);
        for step in 0..1_027 {
            assert!(!rows.is_bloated());
            rows.put(1, None, &[Scalar::Text(format!("{step}").into())]);
        }
        assert!(rows.is_bloated());
    }
}
