//! The statements that write rows.

use std::fmt::Write as _;

use rusqlite::{CachedStatement, Connection};

use crate::error::Result;
use crate::schema::{TableSchema, quote};

/// Statements for rows with values for exactly these columns.
pub(super) struct Statements<'a> {
    columns: Vec<usize>,
    /// Row id, event and created timestamps, expiry and states of the row with the key `?1`.
    pub(super) find: CachedStatement<'a>,
    /// Entity key, event and created timestamps, expiry, states, join keys, then the columns.
    /// Inserts nothing where the key is there.
    pub(super) insert: CachedStatement<'a>,
    /// Event and created timestamps, expiry, states, the columns, then the row id.
    pub(super) update: CachedStatement<'a>,
}

impl<'a> Statements<'a> {
    /// Whether these are the statements for such rows.
    pub(super) fn are_for(&self, columns: impl Iterator<Item = usize>) -> bool {
        columns.eq(self.columns.iter().copied())
    }

    /// The statements for rows with values for columns at these positions of the schema.
    pub(super) fn prepare(
        connection: &'a Connection,
        schema: &TableSchema,
        columns: Vec<usize>,
    ) -> Result<Self> {
        let table = quote(&schema.sql_name);
        let names: Vec<String> =
            columns.iter().map(|&at| quote(&schema.columns[at].sql_name)).collect();

        let mut insert = format!(
            "INSERT INTO {table} (entity_key, event_timestamp, created_timestamp, expires_at, \
             cell_states"
        );
        let keys = schema.join_keys.iter().map(|key| quote(&key.sql_name));
        for name in keys.chain(names.iter().cloned()) {
            let _ = write!(insert, ", {name}");
        }
        let parameters = 5 + schema.join_keys.len() + names.len();
        let _ = write!(
            insert,
            ") VALUES (?{}) ON CONFLICT (entity_key) DO NOTHING",
            ", ?".repeat(parameters - 1)
        );

        let mut update = format!(
            "UPDATE {table} SET event_timestamp = ?, created_timestamp = ?, expires_at = ?, \
             cell_states = ?"
        );
        for name in &names {
            let _ = write!(update, ", {name} = ?");
        }
        update.push_str(" WHERE row_id = ?");

        Ok(Self {
            columns,
            find: connection.prepare_cached(&format!(
                "SELECT row_id, event_timestamp, created_timestamp, expires_at, cell_states
                 FROM {table} WHERE entity_key = ?1"
            ))?,
            insert: connection.prepare_cached(&insert)?,
            update: connection.prepare_cached(&update)?,
        })
    }
}
