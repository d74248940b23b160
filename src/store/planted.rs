//! What somebody else may have put into a database: triggers and views do not run, functions are not
//! called by the schema, and where a table of ours should be there has to be one.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::error::{Error, ErrorKind, Result};

/// Keeps a connection from doing what a file tells it to.
pub(super) fn disarm(connection: &Connection) -> Result<()> {
    for (setting, on) in [
        // No writing to the schema or to shadow tables past SQLite.
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        // Defaults, checks, generated columns and indexes of a file call no function with effects.
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        // None of ours has triggers or views.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // A name that is not there is an error, not a text.
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    Ok(())
}

/// Whether the tables of the catalog are tables, and the text indexes tables of FTS5.
pub(super) fn check_own_tables(connection: &Connection) -> Result<()> {
    let sql = r"SELECT name FROM sqlite_schema
                WHERE name LIKE '\_feast\_vector\_%' ESCAPE '\' AND (
                    type = 'view' OR (type = 'table' AND rootpage = 0 AND NOT (
                        name LIKE '\_feast\_vector\_text\_%' ESCAPE '\'
                        AND sql LIKE 'CREATE VIRTUAL TABLE%USING fts5(%')))";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    match rows.next()? {
        Some(row) => Err(no_table(&row.get::<_, String>(0)?)),
        None => Ok(()),
    }
}

/// Whether a feature view's table is a table; one that is not there is found missing when it is read.
pub(super) fn check_table(connection: &Connection, name: &str) -> Result<()> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE AND rootpage = 0
               AND type IN ('table', 'view')";
    let mut statement = connection.prepare_cached(sql)?;
    let others: i64 = statement.query_row([name], |row| row.get(0))?;
    if others == 0 { Ok(()) } else { Err(no_table(name)) }
}

fn no_table(name: &str) -> Error {
    Error::new(
        ErrorKind::Damaged,
        format!(
            "'{name}' is a view or a virtual table where feast-vector had a table; the file was \
             changed outside of it. Restore a backup, or drop what is there and run `feast apply`"
        ),
    )
}
