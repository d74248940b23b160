//! Reading a column's vectors, as bytes.

use rusqlite::types::ValueRef;

use super::Micros;
use super::cell::{self, Cell};
use super::connections::Snapshot;
use super::states::{CellState, CellStates};
use crate::error::Result;
use crate::proto;
use crate::schema::{Column, Element, TableSchema, quote};

/// One row's vector.
#[derive(Debug, Clone, Copy)]
pub struct StoredVector<'a> {
    /// The row.
    pub row_id: i64,
    /// Its entity key as the column `entity_key` has it.
    pub key: &'a [u8],
    /// When the row expires.
    pub expires_at: Option<Micros>,
    /// Its event timestamp.
    pub event: Micros,
    /// Type of the elements.
    pub element: Element,
    /// The elements, little-endian.
    pub bytes: &'a [u8],
}

impl Snapshot<'_> {
    /// Calls `each` for every row with a vector in the column, in the order of `row_id`; rows
    /// without one are passed over.
    pub fn vectors(
        &self,
        schema: &TableSchema,
        column: &Column,
        each: &mut dyn FnMut(StoredVector<'_>),
    ) -> Result<()> {
        self.vectors_while(schema, column, &mut |vector| {
            each(vector);
            true
        })
    }

    /// As [`Snapshot::vectors`], until `each` says no.
    pub fn vectors_while(
        &self,
        schema: &TableSchema,
        column: &Column,
        each: &mut dyn FnMut(StoredVector<'_>) -> bool,
    ) -> Result<()> {
        let mut statement = self.connection.prepare_cached(&select(schema, column, ""))?;
        let mut rows = statement.raw_query();
        let mut goes_on = true;
        while goes_on && let Some(row) = rows.next()? {
            visit(row, column, &mut |vector| goes_on = each(vector))?;
        }
        Ok(())
    }

    /// Whether so many rows have something in the column; finds out without reading it.
    pub fn has_vectors(&self, schema: &TableSchema, column: &Column, count: usize) -> Result<bool> {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} IS NOT NULL LIMIT ?1)",
            quote(&schema.sql_name),
            quote(&column.sql_name)
        );
        let found: i64 =
            self.connection.prepare_cached(&sql)?.query_row([count as i64], |row| row.get(0))?;
        Ok(found as usize >= count)
    }

    /// The length of the first vector in the column; `None` if there is none.
    pub fn first_vector_length(
        &self,
        schema: &TableSchema,
        column: &Column,
    ) -> Result<Option<usize>> {
        let mut length = None;
        self.vectors_while(schema, column, &mut |vector| {
            length = Some(vector.bytes.len() / vector.element.width());
            false
        })?;
        Ok(length)
    }

    /// Whether there is a vector of this length in the column, of the column's own kind.
    pub fn has_vectors_of_length(
        &self,
        schema: &TableSchema,
        column: &Column,
        length: usize,
    ) -> Result<bool> {
        let width = column.kind.vector_element().map_or(0, Element::width);
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE length({}) = ?1)",
            quote(&schema.sql_name),
            quote(&column.sql_name)
        );
        let bytes = (length * width) as i64;
        Ok(self.connection.query_row(&sql, [bytes], |row| row.get(0))?)
    }

    /// Calls `each` for those of the rows that have a vector in the column.
    pub fn vectors_of(
        &self,
        schema: &TableSchema,
        column: &Column,
        row_ids: &[i64],
        each: &mut dyn FnMut(StoredVector<'_>),
    ) -> Result<()> {
        let sql = select(schema, column, "WHERE row_id = ?1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        for row_id in row_ids {
            statement.raw_bind_parameter(1, row_id)?;
            let mut rows = statement.raw_query();
            if let Some(row) = rows.next()? {
                visit(row, column, each)?;
            }
        }
        Ok(())
    }
}

fn select(schema: &TableSchema, column: &Column, condition: &str) -> String {
    format!(
        "SELECT row_id, entity_key, expires_at, event_timestamp, cell_states, {} FROM {} {condition} ORDER BY row_id",
        quote(&column.sql_name),
        quote(&schema.sql_name)
    )
}

fn visit(
    row: &rusqlite::Row<'_>,
    column: &Column,
    each: &mut dyn FnMut(StoredVector<'_>),
) -> Result<()> {
    let ValueRef::Blob(bytes) = row.get_ref(5)? else {
        return Ok(());
    };
    let states = CellStates::decode(row.get_ref(4)?.as_blob_or_null()?)?;
    let (row_id, expires_at, event) = (row.get(0)?, row.get(2)?, row.get(3)?);
    let key = row.get_ref(1)?.as_blob()?;
    let mut visit = |element, bytes: &[u8]| {
        each(StoredVector { row_id, key, expires_at, event, element, bytes });
    };
    match (states.get(column.id), column.kind.vector_element()) {
        (CellState::Plain, Some(element)) => visit(element, bytes),
        // A vector of another kind than the column's is there as wire bytes.
        (CellState::Wire, _) => {
            if let Some(value) = proto::decode_value(bytes)?
                && let kind = value.kind()
                && let Some(element) = kind.vector_element()
                && let (Cell::Blob(packed), _) = cell::encode(kind, Some(value), bytes)
            {
                visit(element, &packed);
            }
        }
        _ => {}
    }
    Ok(())
}
