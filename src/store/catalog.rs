//! The catalog: which tables there are, whose they are, and what their columns hold.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rusqlite::{OptionalExtension, params};

use super::connections::{Snapshot, WriteTxn};
use super::planted;
use crate::error::Result;
use crate::schema::{Column, JoinKey, TableSchema, ValueKind, ViewId, free_name, table_name};
use crate::text::WORDS_VERSION;

/// A table as a transaction sees it.
#[derive(Debug, Clone)]
pub struct TableState {
    /// Its layout.
    pub schema: Arc<TableSchema>,
    /// Number of the last logged change of its rows.
    pub last_seq: i64,
    /// The log holds every change with a greater number.
    pub log_start: i64,
    /// Whether any row may ever have been written to expire.
    pub expires: bool,
    /// Random, and another whenever one of its indexes is another.
    pub index_version: i64,
    /// The random bits of the last logged change.
    pub(super) last_commit: u64,
    /// The random bits of the change `log_start`.
    pub(super) log_start_commit: u64,
}

/// A moment of a table: where it is equal, the rows and the layout are equal.
///
/// A number alone does not say which change it is of: a database that was restored counts on from
/// where the copy was made, and another one counts the same way. The 64 random bits that each
/// change has beside its number do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AsOf {
    /// The table.
    pub table_id: i64,
    /// Its layout; random.
    pub generation: i64,
    /// Number of its last change.
    pub seq: i64,
    /// Random bits of its last change.
    pub commit: u64,
}

impl TableState {
    /// The moment that this is the state of.
    pub fn as_of(&self) -> AsOf {
        AsOf {
            table_id: self.schema.table_id,
            generation: self.schema.generation,
            seq: self.last_seq,
            commit: self.last_commit,
        }
    }
}

/// What tells whether any table was changed, made or dropped since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layouts {
    /// Grows with every change of the database's schema, by any process.
    version: i64,
    /// Grows whenever a layout was found to be another than the one that was known.
    loaded: u64,
}

/// Layouts that are kept.
const KNOWN_LAYOUTS: usize = 1024;

impl Snapshot<'_> {
    /// The table of a view, if it has one.
    pub fn table(&self, view: &ViewId) -> Result<Option<TableState>> {
        let sql = "SELECT table_id, generation, last_seq, log_start, expires, index_version,
                          last_commit, log_start_commit
                   FROM _feast_vector_tables
                   WHERE project = ?1 AND view = ?2 AND version = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement
            .query_row(params![view.project, view.view, view.version], |row| {
                let numbers: (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(5)?);
                let log: (i64, i64) = (row.get(2)?, row.get(3)?);
                let commits: (i64, i64) = (row.get(6)?, row.get(7)?);
                Ok((numbers, log, row.get(4)?, commits))
            })
            .optional()?;
        let Some((numbers, (last_seq, log_start), expires, commits)) = found else {
            self.store.schemas.lock().remove(view);
            return Ok(None);
        };
        let (table_id, generation, index_version) = numbers;
        let cache = self.uncommitted.unwrap_or(&self.store.schemas);
        let known = cache.lock().get(view).cloned();
        let known = known.or_else(|| self.store.schemas.lock().get(view).cloned());
        let schema = match known {
            Some(schema) if (schema.table_id, schema.generation) == (table_id, generation) => {
                schema
            }
            _ => {
                let schema = Arc::new(self.load(table_id)?);
                let mut known = cache.lock();
                if known.len() >= KNOWN_LAYOUTS {
                    known.clear();
                }
                known.insert(view.clone(), Arc::clone(&schema));
                self.store.loaded.fetch_add(1, Relaxed);
                schema
            }
        };
        Ok(Some(TableState {
            schema,
            last_seq,
            log_start,
            expires,
            index_version,
            last_commit: commits.0.cast_unsigned(),
            log_start_commit: commits.1.cast_unsigned(),
        }))
    }

    /// The layouts of all tables as of now, to be compared with those of another moment.
    pub fn layouts(&self) -> Result<Layouts> {
        let mut statement = self.connection.prepare_cached("PRAGMA schema_version")?;
        let version = statement.query_row([], |row| row.get(0))?;
        Ok(Layouts { version, loaded: self.store.loaded.load(Relaxed) })
    }

    /// Forgets the layouts of tables that are gone.
    pub fn forget_lost_schemas(&self) -> Result<()> {
        let known: Vec<ViewId> = self.store.schemas.lock().keys().cloned().collect();
        for view in known {
            self.table(&view)?;
        }
        Ok(())
    }

    /// The views of a project that have tables; of one view, if it is named, in all versions.
    pub fn views(&self, project: &str, view: Option<&str>) -> Result<Vec<ViewId>> {
        let sql = "SELECT project, view, version FROM _feast_vector_tables
                   WHERE project = ?1 AND (?2 IS NULL OR view = ?2) ORDER BY view, version";
        let mut statement = self.connection.prepare_cached(sql)?;
        let views = statement.query_map(params![project, view], |row| {
            Ok(ViewId { project: row.get(0)?, view: row.get(1)?, version: row.get(2)? })
        })?;
        Ok(views.collect::<rusqlite::Result<_>>()?)
    }

    fn load(&self, table_id: i64) -> Result<TableSchema> {
        let mut schema = self.connection.query_row(
            "SELECT generation, table_name, project, view, version, next_column_id
             FROM _feast_vector_tables WHERE table_id = ?1",
            [table_id],
            |row| {
                let view = ViewId { project: row.get(2)?, view: row.get(3)?, version: row.get(4)? };
                Ok(TableSchema::new(table_id, row.get(0)?, row.get(1)?, view, row.get(5)?))
            },
        )?;
        planted::check_table(self.connection, &schema.sql_name)?;
        let mut statement = self.connection.prepare_cached(
            "SELECT role, column_id, name, column_name, feast_type, vector_length, declared,
                    text_indexed
             FROM _feast_vector_columns WHERE table_id = ?1 ORDER BY role, column_id",
        )?;
        let mut rows = statement.query([table_id])?;
        while let Some(row) = rows.next()? {
            let feast_type: String = row.get(4)?;
            if row.get_ref(0)?.as_str() == Ok("join_key") {
                schema.join_keys.push(JoinKey {
                    name: row.get(2)?,
                    sql_name: row.get(3)?,
                    feast_type,
                    declared: row.get(6)?,
                });
            } else {
                schema.push_column(Column {
                    id: row.get(1)?,
                    feature: row.get(2)?,
                    sql_name: row.get(3)?,
                    kind: ValueKind::from_feast_type(&feast_type),
                    feast_type,
                    vector_length: row.get(5)?,
                    declared: row.get(6)?,
                    // An index of other words is none, and will be made.
                    text_indexed: row.get::<_, i64>(7)?.unsigned_abs()
                        == WORDS_VERSION.unsigned_abs(),
                });
                schema.text_is_filling |= row.get::<_, i64>(7)? == -WORDS_VERSION;
            }
        }
        Ok(schema)
    }
}

impl WriteTxn<'_> {
    /// Enters a new table, under a free name, and gives its still empty layout.
    pub(super) fn enter_table(&self, view: &ViewId) -> Result<TableSchema> {
        let mut taken: HashSet<String> = self
            .connection
            .prepare_cached("SELECT lower(name) FROM sqlite_schema")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let name = free_name(&table_name(&view.project, &view.view, view.version), &mut taken);
        self.connection.execute(
            "INSERT INTO _feast_vector_tables
                 (project, view, version, table_name, generation, next_column_id, expires)
             VALUES (?1, ?2, ?3, ?4, 0, 1, 0)",
            params![view.project, view.view, view.version, name],
        )?;
        let mut schema =
            TableSchema::new(self.connection.last_insert_rowid(), 0, name, view.clone(), 1);
        schema.renew_generation();
        Ok(schema)
    }

    /// Writes the layout into the catalog, in place of what is there, and logs that it changed.
    pub(super) fn save(&self, schema: &TableSchema) -> Result<()> {
        self.connection.execute(
            "UPDATE _feast_vector_tables SET generation = ?2, next_column_id = ?3
             WHERE table_id = ?1",
            params![schema.table_id, schema.generation, schema.next_column_id],
        )?;
        self.connection
            .execute("DELETE FROM _feast_vector_columns WHERE table_id = ?1", [schema.table_id])?;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO _feast_vector_columns VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        for (position, key) in schema.join_keys.iter().enumerate() {
            insert.execute(params![
                schema.table_id,
                position as u32,
                "join_key",
                key.name,
                key.sql_name,
                key.feast_type,
                ValueKind::from_feast_type(&key.feast_type).storage().name(),
                None::<u32>,
                key.declared,
                0,
            ])?;
        }
        for column in &schema.columns {
            insert.execute(params![
                schema.table_id,
                column.id,
                "feature",
                column.feature,
                column.sql_name,
                column.feast_type,
                column.storage().name(),
                column.vector_length,
                column.declared,
                match (column.text_indexed, schema.text_is_filling) {
                    (false, _) => 0,
                    (true, false) => WORDS_VERSION,
                    (true, true) => -WORDS_VERSION,
                },
            ])?;
        }
        self.forget_lost_indexes(schema)?;
        self.log_schema(schema.table_id)
    }

    /// Removes a table, its rows and all that is known of it.
    pub(super) fn forget_table(&self, table_id: i64) -> Result<()> {
        for table in [
            "_feast_vector_tables",
            "_feast_vector_columns",
            "_feast_vector_changes",
            "_feast_vector_indexes",
            "_feast_vector_segments",
        ] {
            let sql = format!("DELETE FROM {table} WHERE table_id = ?1");
            self.connection.execute(&sql, [table_id])?;
        }
        Ok(())
    }
}
