//! The change log: which rows each transaction wrote or deleted. What is resident follows it, and
//! so do index files.
//!
//! A log that has grown long is shortened a little by each write: first records that no index
//! needs are dropped, the oldest first; what an index still needs is merged, so that rows which
//! change again and again are in it once; and where that is not enough, the oldest records go
//! whoever needs them, who then reads everything.
//!
//! Each record has 64 random bits beside its number, so that whoever read up to a record can tell
//! whether it is still part of the file's history: a file that was restored counts on with the
//! same numbers, and another file has the same ones.

use rusqlite::{OptionalExtension, params};

use super::catalog::{AsOf, TableState};
use super::connections::{Snapshot, WriteTxn};
use super::runs::RowRuns;
use crate::error::Result;
use crate::random;
use crate::schema::quote;

/// Bytes of a record besides its row ids: its row in the log and in the log's index.
const RECORD_BYTES: i64 = 40;

/// So few changes are followed without asking how many rows there are.
const FEW: u64 = 1 << 16;

/// What has happened to a table's rows.
#[derive(Debug, PartialEq, Eq)]
pub enum Changes {
    /// These rows were written or deleted, each named once, in ascending order.
    Rows(Vec<i64>),
    /// The log does not reach back that far, or names more rows than there are to read.
    Unknown,
}

impl Snapshot<'_> {
    /// The rows that changed since the moment `as_of`; unknown as well where the table's history
    /// in this file does not have that moment.
    pub fn changes_from(&self, table: &TableState, as_of: AsOf) -> Result<Changes> {
        if !self.has_been(table, as_of)? {
            return Ok(Changes::Unknown);
        }
        self.changes_since(table, as_of.seq)
    }

    /// Whether the table is known to have been at that moment, in this file and before now.
    pub fn has_been(&self, table: &TableState, as_of: AsOf) -> Result<bool> {
        let AsOf { table_id, generation: _, seq, commit } = as_of;
        if table_id != table.schema.table_id {
            return Ok(false);
        }
        if seq == table.last_seq {
            return Ok(commit == table.last_commit);
        }
        if seq == table.log_start {
            return Ok(commit == table.log_start_commit);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT commit_bits FROM _feast_vector_changes WHERE seq = ?1 AND table_id = ?2",
        )?;
        let bits: Option<i64> =
            statement.query_row(params![seq, table_id], |row| row.get(0)).optional()?;
        Ok(bits.is_some_and(|bits| bits.cast_unsigned() == commit))
    }

    /// The rows that changed after the change number `seq` of this file.
    pub fn changes_since(&self, table: &TableState, seq: i64) -> Result<Changes> {
        if seq < table.log_start {
            return Ok(Changes::Unknown);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT row_ids FROM _feast_vector_changes WHERE table_id = ?1 AND seq > ?2",
        )?;
        let mut rows = statement.query(params![table.schema.table_id, seq])?;
        let mut runs = RowRuns::default();
        while let Some(row) = rows.next()? {
            let packed = row.get_ref(0)?.as_blob()?;
            // A change of the layout alone.
            if !packed.is_empty() {
                runs.add_packed(packed)?;
            }
        }
        runs.settle();
        if runs.len() > FEW && runs.len() > self.greatest_row_id(table)? {
            return Ok(Changes::Unknown);
        }
        Ok(Changes::Rows(runs.row_ids()))
    }

    /// The greatest `row_id`, which is at least the number of rows.
    fn greatest_row_id(&self, table: &TableState) -> Result<u64> {
        let sql = format!("SELECT max(row_id) FROM {}", quote(&table.schema.sql_name));
        let greatest: Option<i64> = self.connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(greatest.unwrap_or(0).max(0).cast_unsigned())
    }
}

/// A record of the log.
struct Record {
    seq: i64,
    /// Bytes of its row ids.
    length: i64,
}

impl WriteTxn<'_> {
    /// Logs that these rows were written or deleted.
    pub(super) fn log_rows(&self, table_id: i64, row_ids: &mut Vec<i64>) -> Result<()> {
        row_ids.sort_unstable();
        row_ids.dedup();
        let packed = RowRuns::of(row_ids).pack();
        let added = packed.len() as i64 + RECORD_BYTES;
        let log_bytes = self.log(table_id, "upsert", &packed)?;
        let options = self.store.options.change_log;
        if log_bytes <= options.keep_bytes {
            return Ok(());
        }
        // Not by every write: there has to be something to merge.
        let step = options.merged_bytes / 16;
        if !self.drop_records(table_id, log_bytes)?
            && log_bytes / step != (log_bytes - added) / step
        {
            self.merge_records(table_id, log_bytes)?;
        }
        Ok(())
    }

    /// Drops records that are too many, the oldest first; false if all are needed.
    fn drop_records(&self, table_id: i64, mut log_bytes: i64) -> Result<bool> {
        let options = self.store.options.change_log;
        let needed = self.indexed_changes(table_id)?.into_iter().min().unwrap_or(i64::MAX);
        let mut last = None;
        self.records(table_id, &mut |record| {
            let is_needed = record.seq >= needed;
            let most = if is_needed { options.most_bytes } else { options.keep_bytes };
            if log_bytes <= most {
                return false;
            }
            log_bytes -= record.length + RECORD_BYTES;
            last = Some(record.seq);
            true
        })?;
        let Some(last) = last else {
            return Ok(false);
        };
        let commit: i64 = self
            .connection
            .prepare_cached("SELECT commit_bits FROM _feast_vector_changes WHERE seq = ?1")?
            .query_row([last], |row| row.get(0))?;
        self.connection
            .prepare_cached("DELETE FROM _feast_vector_changes WHERE table_id = ?1 AND seq <= ?2")?
            .execute([table_id, last])?;
        self.connection
            .prepare_cached(
                "UPDATE _feast_vector_tables
                 SET log_start = ?2, log_start_commit = ?3, log_bytes = ?4 WHERE table_id = ?1",
            )?
            // Older versions counted fewer bytes for a record.
            .execute([table_id, last, commit, log_bytes.max(0)])?;
        Ok(true)
    }

    /// Merges the first adjacent records that are small into the last of them.
    fn merge_records(&self, table_id: i64, log_bytes: i64) -> Result<()> {
        let options = self.store.options.change_log;
        let indexed = self.indexed_changes(table_id)?;
        let mut run: Vec<Record> = Vec::new();
        let (mut length, mut behind) = (0, 0);
        self.all_records(table_id, &mut |record| {
            behind += record.length + RECORD_BYTES;
            // Readers that are not far behind find every record where it was.
            let is_recent = log_bytes - behind < options.keep_bytes / 2;
            let is_small = record.length <= options.merged_bytes / 2;
            let has_room = run.len() < options.records_per_write
                && length + record.length <= options.merged_bytes;
            // An index's own record stays the last of what it covers.
            let is_closed = run.last().is_some_and(|last| indexed.contains(&last.seq));
            if is_recent || !is_small || !has_room || is_closed {
                if is_recent || run.len() > 1 {
                    return false;
                }
                run.clear();
                length = 0;
            }
            if is_small {
                length += record.length;
                run.push(record);
            }
            true
        })?;
        let [first, .., last] = run.as_slice() else {
            return Ok(());
        };
        let mut runs = RowRuns::default();
        let mut statement = self.connection.prepare_cached(
            "SELECT row_ids FROM _feast_vector_changes
             WHERE table_id = ?1 AND seq BETWEEN ?2 AND ?3",
        )?;
        let mut rows = statement.query([table_id, first.seq, last.seq])?;
        while let Some(row) = rows.next()? {
            runs.add_packed(row.get_ref(0)?.as_blob()?)?;
        }
        drop(rows);
        runs.settle();
        let packed = runs.pack();
        let freed = length - packed.len() as i64 + (run.len() as i64 - 1) * RECORD_BYTES;
        self.connection
            .prepare_cached(
                "DELETE FROM _feast_vector_changes
                 WHERE table_id = ?1 AND seq >= ?2 AND seq < ?3",
            )?
            .execute([table_id, first.seq, last.seq])?;
        self.connection
            .prepare_cached("UPDATE _feast_vector_changes SET row_ids = ?2 WHERE seq = ?1")?
            .execute(params![last.seq, packed])?;
        self.connection
            .prepare_cached(
                "UPDATE _feast_vector_tables SET log_bytes = max(log_bytes - ?2, 0)
                 WHERE table_id = ?1",
            )?
            .execute([table_id, freed])?;
        Ok(())
    }

    /// The last changes that the table's indexes cover.
    fn indexed_changes(&self, table_id: i64) -> Result<Vec<i64>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq FROM _feast_vector_indexes WHERE table_id = ?1")?;
        let changes = statement.query_map([table_id], |row| row.get(0))?;
        Ok(changes.collect::<rusqlite::Result<_>>()?)
    }

    /// The oldest records, as many as one write may drop, as long as `each` says yes.
    fn records(&self, table_id: i64, each: &mut dyn FnMut(Record) -> bool) -> Result<()> {
        let mut left = self.store.options.change_log.records_per_write;
        self.all_records(table_id, &mut |record| {
            left = left.saturating_sub(1);
            each(record) && left > 0
        })
    }

    /// All records, the oldest first, as long as `each` says yes.
    fn all_records(&self, table_id: i64, each: &mut dyn FnMut(Record) -> bool) -> Result<()> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, length(row_ids) FROM _feast_vector_changes
             WHERE table_id = ?1 ORDER BY seq",
        )?;
        let mut rows = statement.query([table_id])?;
        while let Some(row) = rows.next()? {
            if !each(Record { seq: row.get(0)?, length: row.get(1)? }) {
                break;
            }
        }
        Ok(())
    }

    /// Logs that the table's layout changed, and no row: the moment is another one.
    pub(super) fn log_schema(&self, table_id: i64) -> Result<()> {
        self.log(table_id, "schema", &[]).map(drop)
    }

    /// Appends a record, and gives the bytes of the table's log.
    fn log(&self, table_id: i64, op: &str, packed: &[u8]) -> Result<i64> {
        let commit = random::bits().cast_signed();
        self.connection
            .prepare_cached(
                "INSERT INTO _feast_vector_changes (table_id, op, row_ids, commit_bits)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![table_id, op, packed, commit])?;
        let seq = self.connection.last_insert_rowid();
        let added = packed.len() as i64 + RECORD_BYTES;
        let log_bytes = self
            .connection
            .prepare_cached(
                "UPDATE _feast_vector_tables
                 SET last_seq = ?2, last_commit = ?3, log_bytes = log_bytes + ?4
                 WHERE table_id = ?1 RETURNING log_bytes",
            )?
            .query_row(params![table_id, seq, commit, added], |row| row.get(0))?;
        Ok(log_bytes)
    }
}
