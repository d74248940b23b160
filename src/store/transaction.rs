//! Transactions that end, whatever happens to those who work in them.

use rusqlite::Connection;

use super::process::Birth;
use crate::error::Result;

/// A transaction under way: rolled back when it is dropped, also where a panic unwinds, unless it
/// was committed.
#[derive(Debug)]
pub(super) struct Transaction<'c> {
    connection: &'c Connection,
    birth: Birth,
}

impl<'c> Transaction<'c> {
    /// Begins one; `begin` is SQL.
    pub(super) fn begin(connection: &'c Connection, begin: &str) -> Result<Self> {
        let birth = Birth::now();
        connection.prepare_cached(begin)?.execute([])?;
        Ok(Self { connection, birth })
    }

    /// Commits it. One that cannot be committed is rolled back.
    pub(super) fn commit(self) -> Result<()> {
        // The caller's code may have forked, and a transaction is the parent's.
        self.birth.check()?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.birth.is_here() && !self.connection.is_autocommit() {
            // Whoever dropped it has an error to report; a failing rollback ends with the connection.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}
