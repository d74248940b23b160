//! Checks of the whole store; those of its vector indexes are here.

use std::path::Path;

use serde_json::Value as Json;

use super::Engine;
use super::vectors::{element_bytes, open_part, size_of_part};
use crate::error::Result;
use crate::index::{Damage, Part, row_differs};
use crate::schema::Column;
use crate::store::{
    Changes, Finding, Findings, IndexId, Progress, RowRuns, SegmentEntry, Snapshot, Store,
    StoreOptions, StoredVector, TableState, check_backup,
};
use crate::vector::RowMeta;

impl Engine {
    /// Checks the database's pages, its catalog, every row and cell, and the text and vector
    /// indexes against the rows, all as of one moment, while others read and write. Lists up to
    /// `limit` findings of each kind.
    pub fn verify(&self, limit: usize, progress: &Progress) -> Result<Json> {
        let _entered = self.gate.enter()?;
        verify(&self.store.sibling(), false, limit, progress)
    }
}

/// Checks a backup: its files against the manifest, then what is in them. Writes nothing to it.
pub fn verify_backup(folder: &Path, limit: usize, progress: &Progress) -> Result<Json> {
    check_backup(folder, progress)?;
    let store = Store::new(StoreOptions::new(folder.join("online.db")));
    verify(&store, true, limit, progress)
}

fn verify(store: &Store, is_immutable: bool, limit: usize, progress: &Progress) -> Result<Json> {
    let folder = store.index_folder();
    let live = (!is_immutable).then_some(store);
    let findings =
        store.verify(is_immutable, limit, progress, &mut |snapshot, table, findings| {
            for column in &table.schema.columns {
                for dim in snapshot.indexed_lengths(table.schema.table_id, column.id)? {
                    let id = IndexId { table_id: table.schema.table_id, column_id: column.id, dim };
                    let folder = &folder;
                    let check = IndexCheck { live, snapshot, table, column, id, folder, progress };
                    check.run(findings)?;
                }
            }
            Ok(())
        })?;
    Ok(findings.to_json())
}

/// The check of the vectors of a column that have one length.
struct IndexCheck<'a> {
    /// The store, where others may be building.
    live: Option<&'a Store>,
    snapshot: &'a Snapshot<'a>,
    table: &'a TableState,
    column: &'a Column,
    id: IndexId,
    folder: &'a Path,
    progress: &'a Progress,
}

impl IndexCheck<'_> {
    fn run(&self, findings: &mut Findings) -> Result<()> {
        let Some(index) = self.snapshot.index(self.id)? else {
            return Ok(());
        };
        let place = format!("{}, feature '{}'", self.table.schema.view, self.column.feature);
        let Changes::Rows(changed) = self.snapshot.changes_since(self.table, index.seq)? else {
            findings.note(format!(
                "{place}: so much has changed since the index was built that it is not used; \
                 build it with `feast-vector optimize`"
            ));
            return Ok(());
        };
        let mut parts = Vec::with_capacity(index.segments.len());
        let mut is_whole = true;
        for entry in &index.segments {
            self.progress.at("index files", 0, u64::MAX)?;
            match self.open(entry, &changed) {
                Ok(part) => parts.push(part),
                Err(damage) if damage.is_missing() && self.is_replaced(&entry.file)? => {
                    is_whole = false;
                    findings.note(format!("{place}: another index was built meanwhile"));
                }
                Err(damage) => {
                    is_whole = false;
                    self.add(findings, damage.to_string(), Some(&entry.file), None)?;
                }
            }
        }
        if is_whole {
            self.compare(&mut parts, &index.segments, &changed, findings)?;
        }
        Ok(())
    }

    /// Whether no index has the file any more: whoever built another has deleted it.
    fn is_replaced(&self, file: &String) -> Result<bool> {
        let Some(store) = self.live else {
            return Ok(false);
        };
        #[allow(
            clippy::redundant_closure_for_method_calls,
            reason = "a method is not general enough"
        )]
        let named = store.read(|snapshot| snapshot.segment_files())?;
        Ok(!named.contains(file))
    }

    /// Opens a segment, reads it through, and takes out the rows that it does not stand for.
    fn open(&self, entry: &SegmentEntry, changed: &[i64]) -> std::result::Result<Part, Damage> {
        let width = element_bytes(self.column);
        let mut part = open_part(self.folder, self.id, entry, width, None)?;
        part.segment.verify()?;
        part.bury(RowRuns::of(changed).iter())?;
        Ok(part)
    }

    /// Takes every row of the table out of the segments that it has to be in; what is left in them
    /// is in no row.
    fn compare(
        &self,
        parts: &mut [Part],
        entries: &[SegmentEntry],
        changed: &[i64],
        findings: &mut Findings,
    ) -> Result<()> {
        let total = parts.iter().map(|part| part.live as u64).sum::<u64>();
        let mut done = 0;
        let mut outcome = Ok(());
        let bytes_of = |element: crate::schema::Element| self.id.dim * element.width();
        self.snapshot.vectors_while(&self.table.schema, self.column, &mut |vector| {
            done += 1;
            outcome = self.progress.at("vectors", done, total.max(done + 1));
            if vector.bytes.len() == bytes_of(vector.element)
                && changed.binary_search(&vector.row_id).is_err()
                && outcome.is_ok()
            {
                outcome = self.compare_row(parts, entries, &vector, findings);
            }
            outcome.is_ok()
        })?;
        outcome?;
        for (part, entry) in parts.iter().zip(entries) {
            if size_of_part(part).live == 0 {
                continue;
            }
            for (position, row_id) in part.segment.row_ids().unwrap_or_default().iter().enumerate()
            {
                if !part.is_dead(position) {
                    let message = "the index has a vector that the row does not have".to_owned();
                    self.add(findings, message, Some(&entry.file), Some(*row_id))?;
                }
            }
        }
        Ok(())
    }

    fn compare_row(
        &self,
        parts: &mut [Part],
        entries: &[SegmentEntry],
        vector: &StoredVector<'_>,
        findings: &mut Findings,
    ) -> Result<()> {
        findings.vector();
        let row_id = vector.row_id;
        let expires_at = vector.expires_at.unwrap_or(i64::MAX);
        let row = RowMeta { row_id, expires_at, event: vector.event };
        let mut found = false;
        for (part, entry) in parts.iter_mut().zip(entries) {
            let looked = || -> std::result::Result<Option<&'static str>, Damage> {
                let Some(position) = part.segment.position(row_id)? else {
                    return Ok(None);
                };
                if part.is_dead(position) {
                    return Ok(None);
                }
                let differs = row_differs(
                    &part.segment,
                    position,
                    row,
                    vector.key,
                    vector.element,
                    vector.bytes,
                )?;
                part.bury(std::iter::once(row_id..row_id + 1))?;
                let twice = found.then_some("row");
                found = true;
                Ok(differs.or(twice))
            }();
            let message = match looked {
                Ok(None) => continue,
                Ok(Some("row")) => "two index files have the row".to_owned(),
                Ok(Some(what)) => format!("the index has another {what} than the row"),
                Err(damage) => damage.to_string(),
            };
            self.add(findings, message, Some(&entry.file), Some(row_id))?;
        }
        if !found {
            let message = "the row's vector is in no index file".to_owned();
            self.add(findings, message, None, Some(row_id))?;
        }
        Ok(())
    }

    fn add(
        &self,
        findings: &mut Findings,
        message: String,
        file: Option<&String>,
        row_id: Option<i64>,
    ) -> Result<()> {
        let key = match row_id {
            Some(row_id) => self.snapshot.shown_key(&self.table.schema, row_id)?,
            None => None,
        };
        findings.add(Finding {
            check: "index",
            message,
            view: Some(self.table.schema.view.clone()),
            feature: Some(self.column.feature.clone()),
            row_id,
            key,
            file: file.map(|file| self.folder.join(file).display().to_string()),
        });
        Ok(())
    }
}
