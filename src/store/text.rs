//! The full-text index of a table: FTS5 without content of its own, a row for each row of the
//! table that has texts, kept in step in the same transaction.
//!
//! What goes in are the words that [`crate::text`] makes of the texts, with spaces between them;
//! without case and diacritics, which FTS5 therefore leaves alone.

use std::sync::Arc;

use rusqlite::types::ValueRef;

use super::connections::WriteTxn;
use super::format;
use crate::error::Result;
use crate::schema::{Column, TableSchema, ViewSpec, quote};
use crate::text::indexable;

/// Letters, digits, marks, symbols and the invisible parts of emoji: everything that
/// [`crate::text`] leaves between its spaces.
pub(super) const TOKENIZER: &str =
    "unicode61 remove_diacritics 0 categories 'L* N* M* S* C*' tokenchars '+#'";

/// Rows that are filled into an index in one transaction, so that writers get in between …
const PIECE: u64 = 1024;

/// … if their texts are no more than this.
const PIECE_BYTES: usize = 1 << 20;

impl WriteTxn<'_> {
    /// Creates an empty index over these columns; none at all, if there are no columns.
    pub(super) fn create_text_index(
        &self,
        schema: &mut TableSchema,
        columns: &[u32],
    ) -> Result<()> {
        for column in &mut schema.columns {
            column.text_indexed = columns.contains(&column.id);
        }
        schema.text_is_filling = false;
        if columns.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = schema.text_columns().map(index_column).collect();
        Ok(self.connection.execute_batch(&format!(
            "CREATE VIRTUAL TABLE {} USING fts5({}, content = '', contentless_delete = 1,
             tokenize = \"{TOKENIZER}\")",
            quote(&schema.text_table()),
            names.join(", "),
        ))?)
    }

    pub(super) fn drop_text_index(&self, schema: &TableSchema) -> Result<()> {
        self.forget_filled(schema)?;
        let table = quote(&schema.text_table());
        Ok(self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?)
    }

    /// Makes the index what the view wants, and begins to fill it where it has to be made.
    /// `indexed` are the columns that it has, some of which may be gone from the table.
    pub(super) fn settle_text_index(&self, spec: &ViewSpec, indexed: &[u32]) -> Result<()> {
        let Some(state) = self.table(&spec.id)? else {
            return Ok(());
        };
        let wanted = state.schema.text_columns_among(&spec.text_features);
        if wanted == indexed {
            // There may be one of other words.
            return if wanted.is_empty() { self.drop_text_index(&state.schema) } else { Ok(()) };
        }
        let mut schema = (*state.schema).clone();
        schema.renew_generation();
        self.drop_text_index(&schema)?;
        self.create_text_index(&mut schema, &wanted)?;
        schema.text_is_filling = schema.has_text_index();
        self.save(&schema)?;
        self.fill_text_index(schema).map(drop)
    }

    /// Begins the index that the view wants if the table has none. One that is there stays as
    /// `apply` has made it, so that processes of different configurations do not undo each other.
    pub(super) fn ensure_text_index(
        &self,
        schema: Arc<TableSchema>,
        spec: &ViewSpec,
    ) -> Result<Arc<TableSchema>> {
        if schema.has_text_index() || schema.text_columns_among(&spec.text_features).is_empty() {
            return Ok(schema);
        }
        self.settle_text_index(spec, &[])?;
        Ok(self.table(&spec.id)?.map_or(schema, |state| state.schema))
    }

    /// Goes on with the text index of the view's table, which is made first if the view wants one
    /// and there is none: some rows of it. Gives the number of rows that were gone through;
    /// `None` if the index is complete.
    pub fn build_text_index(&self, spec: &ViewSpec) -> Result<Option<u64>> {
        let Some(state) = self.table(&spec.id)? else {
            return Ok(None);
        };
        if !state.schema.has_text_index() {
            let made = self.ensure_text_index(state.schema, spec)?;
            return Ok(made.text_is_filling.then_some(PIECE));
        }
        if !state.schema.text_is_filling {
            return Ok(None);
        }
        self.fill_text_index((*state.schema).clone())
    }

    /// Fills in the next rows; writers have those filled in that they write meanwhile. What is
    /// done is committed with the number of the last row, from which the next goes on, in
    /// whichever process.
    fn fill_text_index(&self, mut schema: TableSchema) -> Result<Option<u64>> {
        if !schema.text_is_filling {
            return Ok(None);
        }
        let key = filled_key(&schema);
        let last = format::meta(self.connection, &key)?.and_then(|last| last.parse().ok());
        let mut last: i64 = last.unwrap_or(i64::MIN);
        let mut insert = self.connection.prepare_cached(&insert_sql(&schema))?;
        let sql = format!("{} WHERE row_id > ?1 ORDER BY row_id LIMIT ?2", select_sql(&schema));
        let mut rows = self.connection.prepare_cached(&sql)?;
        let mut rows = rows.query([last, PIECE.cast_signed()])?;
        let (mut done, mut bytes) = (0, 0);
        while bytes < PIECE_BYTES
            && let Some(row) = rows.next()?
        {
            bytes += insert_texts(&mut insert, row)?.unwrap_or(0);
            last = row.get(0)?;
            done += 1;
        }
        drop(rows);
        if done == PIECE || bytes >= PIECE_BYTES {
            format::set_meta(self.connection, &key, &last.to_string())?;
            return Ok(Some(done));
        }
        self.forget_filled(&schema)?;
        schema.text_is_filling = false;
        schema.renew_generation();
        self.save(&schema)?;
        Ok(None)
    }

    fn forget_filled(&self, schema: &TableSchema) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM _feast_vector_meta WHERE key = ?1")?
            .execute([filled_key(schema)])?;
        Ok(())
    }

    /// Brings the index up to date with the texts of these rows.
    pub(super) fn index_texts(&self, schema: &TableSchema, row_ids: &mut Vec<i64>) -> Result<()> {
        if !schema.has_text_index() {
            return Ok(());
        }
        row_ids.sort_unstable();
        row_ids.dedup();
        let sql = format!("{} WHERE row_id = ?1", select_sql(schema));
        let mut select = self.connection.prepare_cached(&sql)?;
        let mut insert = self.connection.prepare_cached(&insert_sql(schema))?;
        for row_id in row_ids {
            let mut rows = select.query([*row_id])?;
            if let Some(row) = rows.next()?
                && insert_texts(&mut insert, row)?.is_some()
            {
                continue;
            }
            self.forget_text(schema, *row_id)?;
        }
        Ok(())
    }

    pub(super) fn forget_text(&self, schema: &TableSchema, row_id: i64) -> Result<()> {
        if schema.has_text_index() {
            let table = quote(&schema.text_table());
            self.connection
                .prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?1"))?
                .execute([row_id])?;
        }
        Ok(())
    }
}

/// FTS5 reserves some names; ids are free of that.
pub(super) fn index_column(column: &Column) -> String {
    format!("c{}", column.id)
}

fn insert_sql(schema: &TableSchema) -> String {
    let names: Vec<String> = schema.text_columns().map(index_column).collect();
    format!(
        "INSERT OR REPLACE INTO {} (rowid, {}) VALUES (?1{})",
        quote(&schema.text_table()),
        names.join(", "),
        ", ?".repeat(names.len())
    )
}

pub(super) fn select_sql(schema: &TableSchema) -> String {
    let names: Vec<String> = schema.text_columns().map(|c| quote(&c.sql_name)).collect();
    format!("SELECT row_id, {} FROM {}", names.join(", "), quote(&schema.sql_name))
}

/// Indexes the row's texts and gives their bytes; `None` if it has none. A cell of another type
/// than text is none.
pub(super) fn insert_texts(
    insert: &mut rusqlite::Statement<'_>,
    row: &rusqlite::Row<'_>,
) -> Result<Option<usize>> {
    let mut bytes = None;
    insert.raw_bind_parameter(1, row.get::<_, i64>(0)?)?;
    for at in 1..row.as_ref().column_count() {
        let words = match row.get_ref(at)? {
            ValueRef::Text(text) => {
                bytes = Some(bytes.unwrap_or(0) + text.len());
                Some(indexable(&String::from_utf8_lossy(text)))
            }
            _ => None,
        };
        insert.raw_bind_parameter(at + 1, words)?;
    }
    if bytes.is_some() {
        insert.raw_execute()?;
    }
    Ok(bytes)
}

/// Where it is kept how far an index is filled.
fn filled_key(schema: &TableSchema) -> String {
    format!("text_filled_{}", schema.table_id)
}
