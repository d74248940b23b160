//! Deleting rows: from the table, from the text index, and, through the change log, from what is
//! resident anywhere.

use rusqlite::{OptionalExtension, params};

use super::connections::WriteTxn;
use crate::error::Result;
use crate::proto;
use crate::schema::{TableSchema, ViewId, quote};

impl WriteTxn<'_> {
    /// Deletes rows by their serialized `EntityKey` messages, and says how many were there.
    pub fn delete_rows(&self, view: &ViewId, keys: &[&[u8]]) -> Result<u64> {
        let Some(state) = self.table(view)? else {
            return Ok(0);
        };
        let table = quote(&state.schema.sql_name);
        let mut find = self
            .connection
            .prepare_cached(&format!("SELECT row_id FROM {table} WHERE entity_key = ?1"))?;
        let mut deleted = Vec::new();
        for key in keys {
            let key = proto::encode_key(key).map_err(|error| error.at(view))?;
            if let Some(row_id) = find.query_row([key], |row| row.get(0)).optional()? {
                self.delete_row(&state.schema, row_id)?;
                deleted.push(row_id);
            }
        }
        self.log_deleted(&state.schema, deleted)
    }

    /// Deletes one row; its caller logs it.
    pub(super) fn delete_row(&self, schema: &TableSchema, row_id: i64) -> Result<()> {
        let table = quote(&schema.sql_name);
        self.connection
            .prepare_cached(&format!("DELETE FROM {table} WHERE row_id = ?1"))?
            .execute(params![row_id])?;
        self.forget_text(schema, row_id)
    }

    fn log_deleted(&self, schema: &TableSchema, mut row_ids: Vec<i64>) -> Result<u64> {
        if !row_ids.is_empty() {
            self.log_rows(schema.table_id, &mut row_ids)?;
        }
        Ok(row_ids.len() as u64)
    }
}
