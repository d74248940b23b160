//! Rows that expire: found by an index of their own, and deleted a few with each write.

use rusqlite::params;

use super::Micros;
use super::connections::WriteTxn;
use crate::error::Result;
use crate::schema::{TableSchema, ViewId, quote};

/// Expired rows that go with a write, besides two for each row that it writes.
const WITH_A_WRITE: u64 = 64;

/// Expired rows that go with one transaction of their own.
const PIECE: u64 = 512;

/// What the catalog's `expires` says of a table with the index.
const INDEXED: i64 = 2;

impl WriteTxn<'_> {
    /// Takes note that rows of the table expire.
    pub(super) fn note_expiry(&self, schema: &TableSchema) -> Result<()> {
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE _feast_vector_tables SET expires = ?2 WHERE table_id = ?1 AND expires <> ?2",
            )?
            .execute([schema.table_id, INDEXED])?;
        if changed == 1 { self.index_expiry(schema) } else { Ok(()) }
    }

    /// Makes the index again that went with a table that was replaced.
    pub(super) fn restore_expiry_index(&self, schema: &TableSchema) -> Result<()> {
        if self.expires(schema.table_id)? == INDEXED { self.index_expiry(schema) } else { Ok(()) }
    }

    fn index_expiry(&self, schema: &TableSchema) -> Result<()> {
        let (index, table) = (index_name(schema), quote(&schema.sql_name));
        Ok(self.connection.execute_batch(&format!(
            "CREATE INDEX IF NOT EXISTS {index} ON {table} (expires_at)
             WHERE expires_at IS NOT NULL"
        ))?)
    }

    /// Deletes a few expired rows along with a write of so many rows; its caller logs them.
    /// Gives their ids, and whether there may be more.
    pub(super) fn delete_few_expired(
        &self,
        schema: &TableSchema,
        now: Micros,
        written: u64,
    ) -> Result<(Vec<i64>, bool)> {
        if self.expires(schema.table_id)? != INDEXED {
            return Ok((Vec::new(), false));
        }
        self.delete_expired(schema, now, WITH_A_WRITE + 2 * written)
    }

    /// Deletes a number of rows of the view that have expired, if there are; `true` if there may
    /// be more. To be called again then, in a transaction of its own.
    pub fn purge_expired(&self, view: &ViewId, now: Micros) -> Result<bool> {
        let Some(state) = self.table(view)?.filter(|state| state.expires) else {
            return Ok(false);
        };
        self.note_expiry(&state.schema)?;
        let (mut expired, may_be_more) = self.delete_expired(&state.schema, now, PIECE)?;
        if !expired.is_empty() {
            self.log_rows(state.schema.table_id, &mut expired)?;
        }
        Ok(may_be_more)
    }

    fn delete_expired(
        &self,
        schema: &TableSchema,
        now: Micros,
        most: u64,
    ) -> Result<(Vec<i64>, bool)> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let expired: Vec<i64> = self
            .connection
            .prepare_cached(&format!(
                "SELECT row_id FROM {} INDEXED BY {} WHERE expires_at <= ?1
                 ORDER BY expires_at LIMIT ?2",
                quote(&schema.sql_name),
                index_name(schema)
            ))?
            .query_map(params![now, most], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for row_id in &expired {
            self.delete_row(schema, *row_id)?;
        }
        let may_be_more = expired.len() as i64 == most;
        Ok((expired, may_be_more))
    }

    fn expires(&self, table_id: i64) -> Result<i64> {
        Ok(self
            .connection
            .prepare_cached("SELECT expires FROM _feast_vector_tables WHERE table_id = ?1")?
            .query_row([table_id], |row| row.get(0))?)
    }
}

fn index_name(schema: &TableSchema) -> String {
    format!("_feast_vector_expiry_{}", schema.table_id)
}
