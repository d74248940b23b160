//! Building index files: what is read, what is built, and how it is published.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::frozen::damaged;
use super::job::{Extent, Job, Outcome};
use super::release::lost_lengths;
use super::vectors::{element_bytes, open_part, size_of_part};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{
    BuildOptions, Built, MIN_BYTES, Part, Plan, Staged, Staging, build, can_index, is_build_name,
    plan,
};
use crate::parallel;
use crate::random;
use crate::schema::Column;
use crate::store::{
    AsOf, Changes, IndexId, IndexState, RowRuns, SegmentEntry, Snapshot, Store, StoredVector,
    TableState,
};
use crate::vector::{Real, RowMeta};

/// What a build starts from.
struct Start {
    id: IndexId,
    /// What was read.
    as_of: AsOf,
    /// Whether there was an index, be it one that cannot be used.
    had_index: bool,
    /// Segments that stay, with all rows that are dead by now.
    kept: Vec<SegmentEntry>,
    vectors: StagedVectors,
}

enum StagedVectors {
    F32(Staged<f32>),
    F64(Staged<f64>),
}

/// Where vectors are on their way into a segment, and whose permissions the file takes.
#[derive(Clone, Copy)]
struct StagingFile<'a> {
    path: &'a Path,
    database: &'a Path,
}

/// What has to be read for a build.
enum Rows {
    All,
    /// These, in ascending order.
    Some(Vec<i64>),
}

/// Builds and publishes what the job asks for.
pub(super) fn run(
    store: &Store,
    job: &Job,
    extent: Extent,
    patience: Duration,
    threads: usize,
) -> Result<Outcome> {
    if !store.path().exists() {
        // For a database that is not there no files are made either.
        return Ok(Outcome::Nothing);
    }
    let Some(_lock) = store.lock_builder(patience)? else {
        return Ok(Outcome::Busy);
    };
    let folder = store.index_folder();
    store.create_index_folder()?;
    sweep(store)?;
    let started = Instant::now();
    let staging = folder.join(format!("staging-{:016x}.tmp", random::bits()));
    let staging = StagingFile { path: &staging, database: store.path() };
    let start = store.read(|snapshot| begin(snapshot, job, extent, &folder, staging));
    let _ = fs::remove_file(staging.path);
    let Some(start) = start? else {
        return Ok(if parallel::is_cancelled() { Outcome::Cancelled } else { Outcome::Nothing });
    };
    let built = match &start.vectors {
        StagedVectors::F32(staged) => assemble(staged, &start, job, store, threads),
        StagedVectors::F64(staged) => assemble(staged, &start, job, store, threads),
    };
    let Some(built) = built.map_err(|cause| cannot(&folder, &cause))? else {
        return Ok(Outcome::Cancelled);
    };
    if built.is_empty() && start.kept.is_empty() && !start.had_index {
        return Ok(Outcome::Nothing);
    }
    let lost = lost_lengths(store, &job.view, &job.feature, start.id)?;
    let report = publish(store, &folder, job, start, built, &lost, started)?;
    sweep(store)?;
    Ok(report.map_or(Outcome::Nothing, Outcome::Published))
}

/// A segment of the staged vectors; an empty `Vec` if there are none.
fn assemble<T: Real>(
    staged: &Staged<T>,
    start: &Start,
    job: &Job,
    store: &Store,
    threads: usize,
) -> std::io::Result<Option<Vec<Built>>> {
    let bytes = staged.rows.len() * staged.dim() * size_of::<T>();
    if staged.rows.is_empty() || (start.kept.is_empty() && bytes < MIN_BYTES) {
        return Ok(Some(Vec::new()));
    }
    let options = BuildOptions {
        folder: store.index_folder(),
        database: store.path().to_owned(),
        table_id: start.id.table_id,
        column_id: start.id.column_id,
        metric: job.settings.metric,
        index_type: job.settings.index_type,
        lists: None,
        target_recall: job.settings.target_recall,
        stamp: random::bits(),
        threads,
    };
    Ok(build(staged, &options)?.map(|built| vec![built]))
}

/// Decides what is to be built and reads it; `None` if that is nothing.
fn begin(
    snapshot: &Snapshot<'_>,
    job: &Job,
    extent: Extent,
    folder: &Path,
    staging: StagingFile<'_>,
) -> Result<Option<Start>> {
    let Some(table) = snapshot.table(&job.view)? else {
        return Ok(None);
    };
    let Some(column) = table.schema.column(&job.feature) else {
        return Ok(None);
    };
    let Some(dim) = length_of(snapshot, &table, column, job)?.filter(|dim| can_index(*dim)) else {
        return Ok(None);
    };
    let id = IndexId { table_id: table.schema.table_id, column_id: column.id, dim };
    let index = match snapshot.index(id) {
        // What cannot be read is replaced.
        Err(error) if error.kind() == ErrorKind::IndexDamaged => None,
        index => index?,
    };
    let changes = match &index {
        Some(index) => snapshot.changes_since(&table, index.seq)?,
        None => Changes::Unknown,
    };
    let usable = match (&index, &changes) {
        (Some(index), Changes::Rows(changed)) if extent == Extent::Worthwhile => {
            open_parts(index, changed, (id, column), job, folder)?
        }
        _ => None,
    };
    let element_bytes = element_bytes(column);
    let least = MIN_BYTES.div_ceil((dim * element_bytes).max(1));
    let had_index = index.is_some();
    let (rows, kept) = match (usable, index, changes) {
        (Some(parts), Some(index), Changes::Rows(changed)) => {
            let sizes: Vec<_> = parts.iter().map(size_of_part).collect();
            match plan(&sizes, changed.len(), dim * element_bytes) {
                Plan::Nothing => return Ok(None),
                Plan::Everything => (Rows::All, Vec::new()),
                Plan::Merge(merged) => select(&parts, &merged, index.segments, changed)?,
            }
        }
        // Too few rows for an index: comparing all of them is as fast. None is published where there
        // was none, for that would have every process load everything anew.
        (_, None, _) if !snapshot.has_vectors(&table.schema, column, least)? => return Ok(None),
        _ => (Rows::All, Vec::new()),
    };
    let vectors = if element_bytes == size_of::<f32>() {
        stage(snapshot, &table, column, dim, &rows, staging)?.map(StagedVectors::F32)
    } else {
        stage(snapshot, &table, column, dim, &rows, staging)?.map(StagedVectors::F64)
    };
    Ok(vectors.map(|vectors| Start { id, as_of: table.as_of(), had_index, kept, vectors }))
}

/// The segments as of now; `None` if they cannot be used, or were built for something else.
///
/// # Errors
/// [`ErrorKind::IndexUnavailable`] where one cannot be opened for the moment: it is as good as ever.
fn open_parts(
    index: &IndexState,
    changed: &[i64],
    (id, column): (IndexId, &Column),
    job: &Job,
    folder: &Path,
) -> Result<Option<Vec<Part>>> {
    let mut parts = Vec::with_capacity(index.segments.len());
    for entry in &index.segments {
        let mut part = match open_part(folder, id, entry, element_bytes(column), None) {
            Ok(part) => part,
            Err(damage) if damage.is_unavailable() => {
                let place = format!("index file '{}'", folder.join(&entry.file).display());
                return Err(damaged(&damage).at(place));
            }
            Err(_) => return Ok(None),
        };
        let is_for_another = part.segment.header().metric != job.settings.metric;
        if is_for_another || (job.is_suspect && part.segment.verify().is_err()) {
            return Ok(None);
        }
        if part.bury(RowRuns::of(changed).iter()).is_err() {
            return Ok(None);
        }
        parts.push(part);
    }
    Ok(Some(parts))
}

/// What is read for a merge: the rows that changed, and those still there of the segments to be
/// merged; and the segments that stay.
fn select(
    parts: &[Part],
    merged: &[usize],
    entries: Vec<SegmentEntry>,
    changed: Vec<i64>,
) -> Result<(Rows, Vec<SegmentEntry>)> {
    let mut rows = changed;
    let mut kept = Vec::new();
    for (at, (part, mut entry)) in parts.iter().zip(entries).enumerate() {
        let row_ids = part.segment.row_ids().map_err(|damage| damaged(&damage))?;
        let (dead, live): (Vec<_>, Vec<_>) =
            row_ids.iter().enumerate().partition(|(position, _)| part.is_dead(*position));
        if merged.contains(&at) {
            rows.extend(live.into_iter().map(|(_, row_id)| *row_id));
        } else {
            let mut dead: Vec<i64> = dead.into_iter().map(|(_, row_id)| *row_id).collect();
            dead.sort_unstable();
            entry.dead = RowRuns::of(&dead);
            kept.push(entry);
        }
    }
    rows.sort_unstable();
    rows.dedup();
    Ok((Rows::Some(rows), kept))
}

fn length_of(
    snapshot: &Snapshot<'_>,
    table: &TableState,
    column: &Column,
    job: &Job,
) -> Result<Option<usize>> {
    if column.kind.vector_element().is_none() {
        return Ok(None);
    }
    match job.dim.or(column.vector_length.map(|length| length as usize)) {
        Some(dim) => Ok(Some(dim)),
        None => snapshot.first_vector_length(&table.schema, column),
    }
}

fn stage<T: Real>(
    snapshot: &Snapshot<'_>,
    table: &TableState,
    column: &Column,
    dim: usize,
    rows: &Rows,
    StagingFile { path, database }: StagingFile<'_>,
) -> Result<Option<Staged<T>>> {
    let file = crate::fs::create_new(path, database);
    let mut staging = Staging::<T>::new(file.map_err(|cause| cannot(path, &cause))?, dim);
    let mut failed = None;
    let mut put = |vector: StoredVector<'_>| {
        let StoredVector { row_id, key, expires_at, event, element, bytes } = vector;
        let row = RowMeta { row_id, expires_at: expires_at.unwrap_or(i64::MAX), event };
        if failed.is_none() {
            failed = staging.put(row, key, element, bytes).err();
        }
    };
    match rows {
        Rows::All => snapshot.vectors_while(&table.schema, column, &mut |vector| {
            put(vector);
            !parallel::is_cancelled()
        })?,
        Rows::Some(row_ids) => {
            for row_ids in row_ids.chunks(1024) {
                if parallel::is_cancelled() {
                    return Ok(None);
                }
                snapshot.vectors_of(&table.schema, column, row_ids, &mut put)?;
            }
        }
    }
    if parallel::is_cancelled() {
        return Ok(None);
    }
    match failed {
        Some(cause) => Err(cannot(path, &cause)),
        None => staging.finish().map(Some).map_err(|cause| cannot(path, &cause)),
    }
}

/// Enters the segment into the manifest, unless its table or column has gone meanwhile, or the
/// database is not the one that was read: another may have been put in its place.
fn publish(
    store: &Store,
    folder: &Path,
    job: &Job,
    start: Start,
    built: Vec<Built>,
    lost: &[IndexId],
    started: Instant,
) -> Result<Option<Json>> {
    let mut segments = start.kept;
    let mut report = None;
    for built in built {
        let mut told = built.report;
        told["metric"] = json!(built.part.segment.header().metric.name());
        told["rows"] = json!(built.part.segment.header().rows);
        told["bytes"] = json!(built.part.segment.bytes());
        told["seconds"] = json!(started.elapsed().as_secs_f64());
        segments.push(SegmentEntry {
            segment_id: 0,
            file: built.file,
            stamp: built.part.segment.header().stamp,
            dead: RowRuns::default(),
            report: told.to_string(),
        });
        report = Some(told);
    }
    store.write(|txn| {
        let Some(table) = txn.table(&job.view)? else {
            return Ok(None);
        };
        let has_column = table.schema.columns.iter().any(|column| column.id == start.id.column_id);
        // The files may have been deleted, or moved away with the database that they were for.
        let has_files = segments.iter().all(|segment| folder.join(&segment.file).is_file());
        if !has_column || !has_files || !txn.has_been(&table, start.as_of)? {
            return Ok(None);
        }
        txn.publish_index(start.id, &IndexState { seq: start.as_of.seq, segments })?;
        for id in lost {
            txn.forget_index(*id)?;
        }
        Ok(report)
    })
}

/// Deletes the files of builds that no index has any more. Only who holds the builder's lock may.
/// Other files, links and folders stay, whoever put them there.
pub(super) fn sweep(store: &Store) -> Result<()> {
    // Where the database is gone for a moment, as for a restore, nothing is known of its files.
    if !store.path().exists() || !store.check_index_folder()? {
        return Ok(());
    }
    #[allow(clippy::redundant_closure_for_method_calls, reason = "a method is not general enough")]
    let wanted = store.read(|snapshot| snapshot.segment_files())?;
    let Ok(entries) = fs::read_dir(store.index_folder()) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && is_build_name(&name) && !wanted.contains(&name) {
            // Where it is in use it may not go; the next sweep tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn cannot(path: &Path, cause: &std::io::Error) -> Error {
    let kind = match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::ReadOnly
        }
        _ => ErrorKind::Io,
    };
    let message = format!(
        "cannot build the vector index in '{}' ({cause}); searches answer without it, only slower",
        PathBuf::from(path).display()
    );
    Error::new(kind, message)
}
