//! The manifest of index files: which segments each index has, and which changes they cover.

use rusqlite::{OptionalExtension, Row, params};

use super::connections::{Snapshot, WriteTxn};
use super::runs::RowRuns;
use crate::error::{Error, ErrorKind, Result};
use crate::random;
use crate::schema::{Column, TableSchema};

/// What a build says of itself takes a few kilobytes.
const MAX_REPORT_BYTES: usize = 1 << 20;

/// Which vectors are indexed together: those of a column that have this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IndexId {
    /// The table.
    pub table_id: i64,
    /// The column.
    pub column_id: u32,
    /// Elements of a vector.
    pub dim: usize,
}

/// An index as a transaction sees it: the segments' rows, less those that are dead, are all rows
/// that had a vector after the change `seq`.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexState {
    /// Number of the last change that the segments cover.
    pub seq: i64,
    /// The segments, the oldest first.
    pub segments: Vec<SegmentEntry>,
}

/// A segment's entry in the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentEntry {
    /// Its number; 0 for one that is not entered yet.
    pub segment_id: i64,
    /// The name of its file.
    pub file: String,
    /// What its file has to say of itself.
    pub stamp: u64,
    /// Rows of it that were deleted or rewritten up to `seq`.
    pub dead: RowRuns,
    /// How it was built and what was measured; JSON.
    pub report: String,
}

impl Snapshot<'_> {
    /// The index, if there is one.
    pub fn index(&self, id: IndexId) -> Result<Option<IndexState>> {
        let key = params![id.table_id, id.column_id, id.dim as i64];
        let mut statement = self.connection.prepare_cached(
            "SELECT seq FROM _feast_vector_indexes
             WHERE table_id = ?1 AND column_id = ?2 AND dim = ?3",
        )?;
        let Some(seq) = statement.query_row(key, |row| row.get(0)).optional()? else {
            return Ok(None);
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT segment_id, file, stamp, dead, report FROM _feast_vector_segments
             WHERE table_id = ?1 AND column_id = ?2 AND dim = ?3 ORDER BY segment_id",
        )?;
        let mut rows = statement.query(key)?;
        let mut segments = Vec::new();
        while let Some(row) = rows.next()? {
            segments.push(entry(row).map_err(|_| broken())?);
        }
        Ok(Some(IndexState { seq, segments }))
    }

    /// See [`super::Store::check_index_folder`].
    pub fn check_index_folder(&self) -> Result<bool> {
        self.store.check_index_folder()
    }

    /// The lengths that vectors of a column are indexed by.
    pub fn indexed_lengths(&self, table_id: i64, column_id: u32) -> Result<Vec<usize>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT dim FROM _feast_vector_indexes WHERE table_id = ?1 AND column_id = ?2",
        )?;
        let lengths = statement
            .query_map(params![table_id, column_id], |row| row.get::<_, i64>(0))?
            .map(|length| length.map(|length| length as usize));
        Ok(lengths.collect::<rusqlite::Result<_>>()?)
    }

    /// The files of all segments of all indexes.
    pub fn segment_files(&self) -> Result<Vec<String>> {
        let mut statement =
            self.connection.prepare_cached("SELECT file FROM _feast_vector_segments")?;
        let files = statement.query_map([], |row| row.get(0))?;
        Ok(files.collect::<rusqlite::Result<_>>()?)
    }
}

/// A row of the manifest, which somebody may have edited.
fn entry(row: &Row<'_>) -> Result<SegmentEntry> {
    let report: String = row.get(4)?;
    if report.len() > MAX_REPORT_BYTES {
        return Err(broken());
    }
    Ok(SegmentEntry {
        segment_id: row.get(0)?,
        file: row.get(1)?,
        stamp: row.get::<_, i64>(2)?.cast_unsigned(),
        dead: RowRuns::unpack(row.get_ref(3)?.as_blob().map_err(|_| broken())?)?,
        report,
    })
}

fn broken() -> Error {
    Error::new(ErrorKind::IndexDamaged, "its entry in the list of index files cannot be read")
}

impl WriteTxn<'_> {
    /// Makes the index this, and tells whoever follows the table. Segments that are not among
    /// these are taken out, new ones entered.
    pub fn publish_index(&self, id: IndexId, index: &IndexState) -> Result<()> {
        self.remove_index(id)?;
        if !index.segments.is_empty() {
            self.connection.execute(
                "INSERT INTO _feast_vector_indexes VALUES (?1, ?2, ?3, ?4)",
                params![id.table_id, id.column_id, id.dim as i64, index.seq],
            )?;
        }
        for segment in &index.segments {
            self.connection.execute(
                "INSERT INTO _feast_vector_segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    (segment.segment_id > 0).then_some(segment.segment_id),
                    id.table_id,
                    id.column_id,
                    id.dim as i64,
                    segment.file,
                    segment.stamp.cast_signed(),
                    segment.dead.pack(),
                    segment.report,
                ],
            )?;
        }
        if self.note_index_change(id.table_id)? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::UnknownFeature, "the table of the index is gone"))
    }

    fn remove_index(&self, id: IndexId) -> Result<()> {
        for table in ["_feast_vector_indexes", "_feast_vector_segments"] {
            let sql =
                format!("DELETE FROM {table} WHERE table_id = ?1 AND column_id = ?2 AND dim = ?3");
            self.connection.execute(&sql, params![id.table_id, id.column_id, id.dim as i64])?;
        }
        Ok(())
    }

    /// Takes out an index of vectors that are gone.
    pub fn forget_index(&self, id: IndexId) -> Result<()> {
        self.remove_index(id)?;
        self.note_index_change(id.table_id).map(drop)
    }

    /// Takes out the indexes of columns that the table has no more, or that hold no vectors of
    /// that length any more.
    pub(super) fn forget_lost_indexes(&self, schema: &TableSchema) -> Result<()> {
        let mut statement = self.connection.prepare_cached(
            "SELECT column_id, dim FROM _feast_vector_indexes WHERE table_id = ?1",
        )?;
        let indexes = statement
            .query_map([schema.table_id], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for (column_id, dim) in indexes {
            let holds = |column: &Column| {
                column.id == column_id
                    && column.kind.vector_element().is_some()
                    && column.vector_length.is_none_or(|length| i64::from(length) == dim)
            };
            if !schema.columns.iter().any(holds) {
                let table_id = schema.table_id;
                self.forget_index(IndexId { table_id, column_id, dim: dim as usize })?;
            }
        }
        Ok(())
    }

    /// Tells whoever follows the table that its indexes are others; false if it is gone.
    fn note_index_change(&self, table_id: i64) -> Result<bool> {
        let changed = self.connection.execute(
            "UPDATE _feast_vector_tables SET index_version = ?2 WHERE table_id = ?1",
            params![table_id, random::bits().cast_signed()],
        )?;
        Ok(changed == 1)
    }
}
