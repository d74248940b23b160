//! The change log: which rows each transaction wrote or deleted. What is resident follows it.
//!
//! A record's `row_ids` are runs in ascending order, as LEB128 varints: the gap from the end of
//! the run before (from 0 for the first), then the run's length. Bulk loads are a few bytes.

use rusqlite::params;

use super::catalog::TableState;
use super::connections::{Snapshot, WriteTxn};
use crate::error::{Error, ErrorKind, Result};

/// A table's records are dropped when they exceed this; who is behind then reads everything anew.
/// (Little in tests, so that they get there.)
const MAX_LOG_BYTES: i64 = if cfg!(test) { 64 } else { 4 << 20 };

/// No transaction writes more rows than this in one run.
const MAX_RUN: i64 = 1 << 31;

/// What has happened to a table's rows.
#[derive(Debug, PartialEq, Eq)]
pub enum Changes {
    /// These rows were written or deleted, each named once, in ascending order.
    Rows(Vec<i64>),
    /// The log does not reach back that far.
    Unknown,
}

impl Snapshot<'_> {
    /// The rows that changed after the change number `seq`.
    pub fn changes_since(&self, table: &TableState, seq: i64) -> Result<Changes> {
        if seq < table.log_start {
            return Ok(Changes::Unknown);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT row_ids FROM _feast_vector_changes WHERE table_id = ?1 AND seq > ?2",
        )?;
        let mut rows = statement.query(params![table.schema.table_id, seq])?;
        let mut row_ids = Vec::new();
        while let Some(row) = rows.next()? {
            unpack(row.get_ref(0)?.as_blob().unwrap_or_default(), &mut row_ids)?;
        }
        row_ids.sort_unstable();
        row_ids.dedup();
        Ok(Changes::Rows(row_ids))
    }
}

impl WriteTxn<'_> {
    /// Logs that these rows were written or deleted.
    pub(super) fn log_rows(&self, table_id: i64, row_ids: &mut Vec<i64>) -> Result<()> {
        row_ids.sort_unstable();
        row_ids.dedup();
        let packed = pack(row_ids);
        let length = packed.len() as i64;
        self.connection
            .prepare_cached(
                "INSERT INTO _feast_vector_changes (table_id, op, row_ids)
                 VALUES (?1, 'upsert', ?2)",
            )?
            .execute(params![table_id, packed])?;
        let seq = self.connection.last_insert_rowid();
        let log_bytes: i64 = self
            .connection
            .prepare_cached(
                "UPDATE _feast_vector_tables SET last_seq = ?2, log_bytes = log_bytes + ?3
                 WHERE table_id = ?1 RETURNING log_bytes",
            )?
            .query_row(params![table_id, seq, length], |row| row.get(0))?;
        if log_bytes > MAX_LOG_BYTES {
            self.connection.execute(
                "DELETE FROM _feast_vector_changes WHERE table_id = ?1 AND seq < ?2",
                params![table_id, seq],
            )?;
            self.connection.execute(
                "UPDATE _feast_vector_tables SET log_start = ?2 - 1, log_bytes = ?3
                 WHERE table_id = ?1",
                params![table_id, seq, length],
            )?;
        }
        Ok(())
    }
}

pub(super) fn pack(sorted: &[i64]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut end = 0;
    for run in sorted.chunk_by(|a, b| a + 1 == *b) {
        prost::encoding::encode_varint((run[0] - end).cast_unsigned(), &mut out);
        prost::encoding::encode_varint(run.len() as u64, &mut out);
        end = run[0] + run.len() as i64;
    }
    out
}

pub(super) fn unpack(mut packed: &[u8], row_ids: &mut Vec<i64>) -> Result<()> {
    let damaged = || Error::new(ErrorKind::Damaged, "a record of the change log is broken");
    let mut next = |from: i64| {
        let step = prost::encoding::decode_varint(&mut packed).map_err(|_| damaged())?;
        let to = i64::try_from(step).ok().and_then(|step| from.checked_add(step));
        Ok::<_, Error>((to.ok_or_else(damaged)?, packed.is_empty()))
    };
    let mut end = 0;
    let mut done = false;
    while !done {
        let start = next(end)?.0;
        (end, done) = next(start)?;
        if end - start > MAX_RUN {
            return Err(damaged());
        }
        row_ids.extend(start..end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back() {
        for ids in [vec![1], vec![1, 2, 3, 9, 10, 500], (1..=100_000).collect()] {
            let packed = pack(&ids);
            let mut back = Vec::new();
            unpack(&packed, &mut back).unwrap();
            assert_eq!(back, ids);
        }
        assert!(pack(&(1..=100_000).collect::<Vec<_>>()).len() < 6);
        assert!(unpack(&[0x80], &mut Vec::new()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn broken_records_are_errors(packed in proptest::collection::vec(0u8..4, 1..30)) {
            let mut row_ids = Vec::new();
            proptest::prop_assert_eq!(unpack(&packed, &mut row_ids).is_ok(), packed.len() % 2 == 0);
        }
    }
}
