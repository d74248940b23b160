//! The format of the catalog: its tables, as `docs/format.md` explains them, and what older ones
//! lack.

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::Result;
use crate::random;

/// The catalog of format version 4, but for indexes.
const CREATE: &str = "
    CREATE TABLE _feast_vector_meta (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE _feast_vector_tables (
        table_id INTEGER PRIMARY KEY AUTOINCREMENT,
        project TEXT NOT NULL,
        view TEXT NOT NULL,
        version INTEGER NOT NULL,
        table_name TEXT NOT NULL UNIQUE COLLATE NOCASE,
        generation INTEGER NOT NULL,
        next_column_id INTEGER NOT NULL,
        last_seq INTEGER NOT NULL DEFAULT 0,
        log_start INTEGER NOT NULL DEFAULT 0,
        log_bytes INTEGER NOT NULL DEFAULT 0,
        expires INTEGER NOT NULL DEFAULT 0,
        index_version INTEGER NOT NULL DEFAULT 0,
        last_commit INTEGER NOT NULL DEFAULT 0,
        log_start_commit INTEGER NOT NULL DEFAULT 0,
        UNIQUE (project, view, version)
    );
    CREATE TABLE _feast_vector_columns (
        table_id INTEGER NOT NULL,
        column_id INTEGER NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('join_key', 'feature')),
        name TEXT NOT NULL,
        column_name TEXT NOT NULL,
        feast_type TEXT NOT NULL,
        storage TEXT NOT NULL,
        vector_length INTEGER,
        declared INTEGER NOT NULL,
        text_indexed INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (table_id, role, column_id)
    ) WITHOUT ROWID;
    CREATE TABLE _feast_vector_changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        table_id INTEGER NOT NULL,
        op TEXT NOT NULL,
        row_ids BLOB NOT NULL,
        commit_bits INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX _feast_vector_changes_by_table ON _feast_vector_changes (table_id, seq);
";

/// The manifest of indexes, which format 2 had not.
const CREATE_INDEXES: &str = "
    CREATE TABLE _feast_vector_indexes (
        table_id INTEGER NOT NULL,
        column_id INTEGER NOT NULL,
        dim INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (table_id, column_id, dim)
    ) WITHOUT ROWID;
    CREATE TABLE _feast_vector_segments (
        segment_id INTEGER PRIMARY KEY AUTOINCREMENT,
        table_id INTEGER NOT NULL,
        column_id INTEGER NOT NULL,
        dim INTEGER NOT NULL,
        file TEXT NOT NULL UNIQUE,
        stamp INTEGER NOT NULL,
        dead BLOB NOT NULL,
        report TEXT NOT NULL
    );
";

pub(super) fn create(connection: &Connection) -> Result<()> {
    connection.execute_batch(CREATE)?;
    Ok(connection.execute_batch(CREATE_INDEXES)?)
}

/// An empty catalog in memory, of this connection alone, for reading a file that has none.
pub(super) fn create_temporary(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    let create = [CREATE, CREATE_INDEXES].concat();
    Ok(connection.execute_batch(&create.replace("CREATE TABLE", "CREATE TEMP TABLE"))?)
}

/// Format 1 had no text search, logged the changes of tables with vectors alone, and did not know
/// which tables have rows that expire.
pub(super) fn migrate_from_1(connection: &Connection) -> Result<()> {
    Ok(connection.execute_batch(
        "ALTER TABLE _feast_vector_columns ADD COLUMN text_indexed INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE _feast_vector_tables ADD COLUMN expires INTEGER NOT NULL DEFAULT 1",
    )?)
}

/// Format 2 had no index files.
pub(super) fn migrate_from_2(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "ALTER TABLE _feast_vector_tables ADD COLUMN index_version INTEGER NOT NULL DEFAULT 0",
    )?;
    Ok(connection.execute_batch(CREATE_INDEXES)?)
}

/// Format 3 told changes apart by their numbers alone.
pub(super) fn migrate_from_3(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "ALTER TABLE _feast_vector_tables ADD COLUMN last_commit INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE _feast_vector_tables ADD COLUMN log_start_commit INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE _feast_vector_changes ADD COLUMN commit_bits INTEGER NOT NULL DEFAULT 0",
    )?;
    let mut tables = connection.prepare("SELECT table_id FROM _feast_vector_tables")?;
    let tables: Vec<i64> =
        tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for table_id in tables {
        // The changes so far happened before anybody could have taken note of their bits: only the
        // state that they led to can be named.
        connection.execute(
            "UPDATE _feast_vector_tables SET last_commit = ?2, log_start_commit = ?3
             WHERE table_id = ?1",
            params![table_id, random::bits().cast_signed(), random::bits().cast_signed()],
        )?;
        connection.execute(
            "UPDATE _feast_vector_changes SET commit_bits =
                 (SELECT last_commit FROM _feast_vector_tables WHERE table_id = ?1)
             WHERE table_id = ?1",
            [table_id],
        )?;
        connection.execute(
            "UPDATE _feast_vector_tables SET log_start_commit = last_commit
             WHERE table_id = ?1 AND log_start >= last_seq",
            [table_id],
        )?;
    }
    Ok(())
}

pub(super) fn meta(connection: &Connection, key: &str) -> Result<Option<String>> {
    let sql = "SELECT value FROM _feast_vector_meta WHERE key = ?1";
    Ok(connection.query_row(sql, [key], |row| row.get(0)).optional()?)
}

pub(super) fn set_meta(connection: &Connection, key: &str, value: &str) -> Result<()> {
    let sql = "INSERT INTO _feast_vector_meta VALUES (?1, ?2)
               ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    connection.execute(sql, [key, value])?;
    Ok(())
}
