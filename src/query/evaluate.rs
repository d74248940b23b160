//! A filter over all resident rows, column by column.

use super::node::Step;
use super::resolve::Resolved;
use super::test::{Test, Value};
use crate::error::Result;
use crate::index::{Cell, CellColumn, Rows};
use crate::parallel;
use crate::vector::RowSet;

/// Cells that are tested between two looks whether to go on; a multiple of a mask's word.
const BETWEEN_LOOKS: usize = 1 << 14;

/// A bit for each row, in the order of the rows.
type Mask = Vec<u64>;

/// The rows that pass the filter and have not expired by `now`. Its attributes have to be resident;
/// one that is not, no row has.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`] where it is told to stop.
pub fn matching(filter: &Resolved, rows: &Rows, now: i64) -> Result<RowSet> {
    let words = rows.len().div_ceil(64);
    let mut masks: Vec<Mask> = Vec::new();
    for step in &filter.steps {
        let mask = match step {
            Step::Everything => vec![u64::MAX; words],
            Step::Nothing => vec![0; words],
            Step::Test { attribute, test, is_for_lists } => match rows.column(attribute) {
                Some(column) => passing(column, test, *is_for_lists)?,
                None => vec![0; words],
            },
            Step::Null(attribute) => match rows.column(attribute) {
                Some(column) => mask_of(column, |cell| *cell == Cell::Absent)?,
                None => vec![u64::MAX; words],
            },
            Step::Not => {
                let mut mask = masks.pop().unwrap_or_default();
                for word in &mut mask {
                    *word = !*word;
                }
                mask
            }
            Step::And => fold(&mut masks, |a, b| a & b),
            Step::Or => fold(&mut masks, |a, b| a | b),
        };
        masks.push(mask);
    }
    Ok(masks.pop().map_or_else(RowSet::default, |mask| row_set(mask, rows, now)))
}

/// The last two of the masks as one.
fn fold(masks: &mut Vec<Mask>, combine: impl Fn(u64, u64) -> u64) -> Mask {
    let (other, mut mask) = (masks.pop().unwrap_or_default(), masks.pop().unwrap_or_default());
    for (word, other) in mask.iter_mut().zip(other) {
        *word = combine(*word, other);
    }
    mask
}

fn row_set(mut mask: Mask, rows: &Rows, now: i64) -> RowSet {
    // The last word may have bits beyond the last row.
    if let Some(last) = mask.last_mut().filter(|_| !rows.len().is_multiple_of(64)) {
        *last &= (1 << (rows.len() % 64)) - 1;
    }
    if let Some(first) = rows.run_from().filter(|_| !rows.expires()) {
        return RowSet::of_run(first, mask);
    }
    let Some((first, last)) = rows.bounds() else {
        return RowSet::default();
    };
    let mut set = RowSet::between(first, last);
    let chunks = rows.row_ids().chunks(64).zip(rows.expires_at().chunks(64));
    for (word, (ids, expires_at)) in mask.iter().zip(chunks) {
        let mut word = *word;
        while word != 0 {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            if expires_at[bit] > now {
                set.insert(ids[bit]);
            }
        }
    }
    set
}

fn passing(column: &CellColumn, test: &Test, is_for_lists: bool) -> Result<Mask> {
    // Each distinct text is tested once.
    let mut texts: Vec<bool> = Vec::with_capacity(column.words().len());
    for words in column.words().chunks(BETWEEN_LOOKS) {
        parallel::check()?;
        texts.extend(words.iter().map(|word| test.holds(Value::Text(word))));
    }
    let bytes = |code: u32| test.holds(Value::Bytes(&column.words()[code as usize]));
    let range = test.integer_range();
    let one = |cell: &Cell| match cell {
        Cell::Absent | Cell::List(_) => false,
        Cell::Integer(number) => match range {
            Some((least, most)) => least <= *number && *number <= most,
            None => test.holds(Value::Integer(*number)),
        },
        Cell::Real(number) => test.holds(Value::Real(*number)),
        Cell::Text(code) => texts[*code as usize],
        Cell::Bytes(code) => bytes(*code),
    };
    // A cell of another type than its column's, a list among scalars or the reverse, never passes.
    let passes = |cell: &Cell| match cell {
        Cell::List(items) => is_for_lists && items.iter().any(one),
        cell => !is_for_lists && one(cell),
    };
    mask_of(column, passes)
}

fn mask_of(column: &CellColumn, passes: impl Fn(&Cell) -> bool) -> Result<Mask> {
    let cells = column.cells();
    let mut mask = Mask::with_capacity(cells.len().div_ceil(64));
    for cells in cells.chunks(BETWEEN_LOOKS) {
        parallel::check()?;
        mask.extend(cells.chunks(64).map(|cells| {
            cells
                .iter()
                .enumerate()
                .fold(0, |word, (bit, cell)| word | u64::from(passes(cell)) << bit)
        }));
    }
    Ok(mask)
}
