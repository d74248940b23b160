//! The vectors of a feature as of a snapshot: those in index files, and in memory the others.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::frozen::{Frozen, damaged};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Damage, Part, Probes, Resident, Segment, SegmentSize, VectorSet};
use crate::schema::{Column, Element, ViewId, index_file_name};
use crate::store::{
    AsOf, Changes, IndexId, RowRuns, SegmentEntry, Snapshot, StoredVector, TableState,
};
use crate::vector::RowMeta;

/// What is known of vectors, by (view, feature, length).
#[derive(Debug, Default)]
pub(super) struct VectorCaches(Mutex<HashMap<CacheKey, Arc<Mutex<VectorCache>>>>);

pub(super) type CacheKey = (ViewId, String, usize);

/// The vectors of one feature as of one change of its table.
#[derive(Debug, Default)]
pub(super) struct VectorCache {
    as_of: AsOf,
    index_version: i64,
    /// The vectors that are in no segment.
    vectors: Option<Vectors>,
    parts: Vec<Part>,
    /// The version of an index that was found to be damaged, and is not used any more.
    broken: Option<(i64, i64)>,
    /// The length of a vector that was left out for it, to say so in an error.
    other_length: Option<usize>,
    /// Whether it is for one search, whose index cannot be opened for the moment.
    is_without_index: bool,
}

/// In the precision of the column: integers in double precision.
#[derive(Debug)]
enum Vectors {
    F32(Resident<f32>),
    F64(Resident<f64>),
}

impl VectorCaches {
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(super) fn entry(&self, key: CacheKey) -> Arc<Mutex<VectorCache>> {
        Arc::clone(self.0.lock().entry(key).or_default())
    }

    /// Does without rows, in ascending order, that turned out not to be in the table.
    pub(super) fn bury(&self, key: Option<&CacheKey>, row_ids: &[i64]) {
        let Some(key) = key else {
            return;
        };
        let entry = self.entry(key.clone());
        let mut cache = entry.lock();
        for part in &mut cache.parts {
            // Damage is said by the next search.
            let _ = part.bury(row_ids.iter().map(|row_id| *row_id..row_id + 1));
        }
        if let Some(vectors) = &mut cache.vectors {
            for row_id in row_ids {
                vectors.remove(*row_id);
            }
        }
    }

    /// Number of caches.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// The views of which there are vectors.
    pub(super) fn views(&self) -> HashSet<ViewId> {
        self.0.lock().keys().map(|(view, _, _)| view.clone()).collect()
    }

    /// Forgets those vectors of a view of which `keeps` says no, by feature and length.
    pub(super) fn retain(&self, view: &ViewId, keeps: impl Fn(&str, usize) -> bool) {
        self.0.lock().retain(|(of, feature, length), _| of != view || keeps(feature, *length));
    }

    pub(super) fn forget(&self, key: &CacheKey) {
        self.0.lock().remove(key);
    }

    /// Forgets vectors of a length that there are none of; a query asked for them by mistake.
    pub(super) fn forget_if_none(&self, key: &CacheKey) {
        let mut caches = self.0.lock();
        let is_none = caches.get(key).and_then(|entry| entry.try_lock()).is_some_and(|cache| {
            cache.parts.is_empty() && cache.vectors.as_ref().is_none_or(|all| all.len() == 0)
        });
        if is_none {
            caches.remove(key);
        }
    }
}

/// That no stored vector has the query's length. Where the feature declares that very length, the
/// stored ones are of before.
pub(super) fn wrong_length(query: usize, stored: usize, declared: Option<u32>) -> Error {
    let message = match declared {
        Some(length) if length as usize == query => format!(
            "the stored vectors have {stored} values, and the feature declares \
             vector_length={length} by now; write them again, such as by `feast materialize`"
        ),
        Some(length) => format!(
            "the query vector has {query} values, but the feature declares vector_length={length}"
        ),
        None => {
            format!("the query vector has {query} values, but the stored vectors have {stored}")
        }
    };
    Error::new(ErrorKind::InvalidQuery, message)
}

/// Where an index is, and how big it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// Vectors in no segment.
    pub(super) loose: usize,
    /// Bytes of a vector.
    pub(super) row_bytes: usize,
    /// Whether there is an index that cannot be used.
    pub(super) is_broken: bool,
}

/// What a search has of a feature's vectors.
pub(super) struct Followed {
    pub(super) vectors: Frozen,
    pub(super) extent: Extent,
}

impl Followed {
    /// The sizes of the segments.
    pub(super) fn sizes(&self) -> Vec<SegmentSize> {
        self.vectors.parts().iter().map(size_of_part).collect()
    }
}

pub(super) fn size_of_part(part: &Part) -> SegmentSize {
    SegmentSize { live: part.live, dead: part.segment.header().rows - part.live }
}

/// The element that a column's vectors are searched in.
pub(super) fn element_bytes(column: &Column) -> usize {
    match column.kind.vector_element() {
        Some(Element::F32) => size_of::<f32>(),
        _ => size_of::<f64>(),
    }
}

/// Opens a segment of an index and takes out the rows that the manifest says are dead. What the
/// file says of itself has to be what the catalog says.
pub(super) fn open_part(
    folder: &Path,
    id: IndexId,
    entry: &SegmentEntry,
    element_bytes: usize,
    known: Option<Arc<Segment>>,
) -> std::result::Result<Part, Damage> {
    if entry.file != index_file_name(id.table_id, id.column_id, entry.stamp) {
        return Err(Damage::new("a build gives no file such a name"));
    }
    let segment = match known {
        Some(segment) => segment,
        None => Arc::new(Segment::open(&folder.join(&entry.file), entry.stamp)?),
    };
    let header = segment.header();
    if header.element_bytes != element_bytes {
        return Err(Damage::new("it holds numbers of another type than the column does now"));
    }
    if (header.table_id, header.column_id, header.dim) != (id.table_id, id.column_id, id.dim) {
        return Err(Damage::new(
            "it is of another table or column, or of vectors of another length",
        ));
    }
    let report: serde_json::Value = serde_json::from_str(&entry.report).unwrap_or_default();
    if report["metric"].as_str().is_some_and(|metric| metric != header.metric.name()) {
        return Err(Damage::new("it is made for another metric than it was built for"));
    }
    let exact = report["exact"].as_bool().unwrap_or(false);
    let mut part = Part::new(segment, Probes::from_json(&report["probes"]), exact);
    part.bury(entry.dead.iter())?;
    Ok(part)
}

/// Brings the cache to the snapshot's state and gives the vectors as of then.
///
/// # Errors
/// [`ErrorKind::IndexDamaged`] where an index file cannot be used.
pub(super) fn follow(
    mut cache: MutexGuard<'_, VectorCache>,
    snapshot: &Snapshot<'_>,
    table: &TableState,
    column: &Column,
    length: usize,
    folder: &Path,
) -> Result<Followed> {
    let schema = &table.schema;
    let same_index = (cache.as_of.table_id, cache.as_of.generation, cache.index_version)
        == (schema.table_id, schema.generation, table.index_version);
    let is_whole = cache.parts.iter().all(|part| part.segment.is_unchanged());
    let changes = match &cache.vectors {
        Some(_) if same_index && is_whole && cache.as_of == table.as_of() => {
            Changes::Rows(Vec::new())
        }
        Some(_) if same_index && is_whole => snapshot.changes_from(table, cache.as_of)?,
        _ => Changes::Unknown,
    };
    match changes {
        Changes::Rows(row_ids) if row_ids.is_empty() => {}
        Changes::Rows(row_ids) => cache.take_changes(snapshot, table, column, length, &row_ids)?,
        Changes::Unknown => {
            if !is_whole {
                cache.parts.clear();
            }
            cache.load(snapshot, table, column, length, folder)?;
        }
    }
    (cache.as_of, cache.index_version) = (table.as_of(), table.index_version);
    let extent = Extent {
        loose: cache.vectors.as_ref().map_or(0, Vectors::len),
        row_bytes: length * element_bytes(column),
        is_broken: cache.broken.is_some(),
    };
    let vectors = match &cache.vectors {
        Some(vectors) => vectors.freeze(cache.parts.clone()),
        None => Vectors::new(column, length).freeze(Vec::new()),
    };
    match cache.other_length {
        Some(stored) if vectors.len() == 0 => {
            Err(wrong_length(length, stored, column.vector_length)
                .at(format_args!("{}, feature '{}'", schema.view, column.feature)))
        }
        _ => Ok(Followed { vectors, extent }),
    }
}

/// Bytes of vectors that a search without its index reads into memory for itself.
const MOST_WITHOUT_INDEX: usize = 1 << 30;

impl VectorCache {
    /// For one search, whose index cannot be opened for the moment.
    pub(super) fn without_index() -> Self {
        Self { is_without_index: true, ..Self::default() }
    }

    /// Does without the index from now on, until there is another.
    pub(super) fn give_up_index(&mut self, table_id: i64, index_version: i64) {
        *self = Self { broken: Some((table_id, index_version)), ..Self::default() };
    }

    fn take_changes(
        &mut self,
        snapshot: &Snapshot<'_>,
        table: &TableState,
        column: &Column,
        length: usize,
        row_ids: &[i64],
    ) -> Result<()> {
        // Taken out of the cache, so that an error on the way leaves none that is half done.
        let mut vectors = self.vectors.take().unwrap_or_else(|| Vectors::new(column, length));
        let runs = RowRuns::of(row_ids);
        for part in &mut self.parts {
            part.bury(runs.iter()).map_err(|damage| damaged(&damage))?;
        }
        // Vectors that are still there stay in their place.
        let mut gone: HashSet<i64> = row_ids.iter().copied().collect();
        snapshot.vectors_of(&table.schema, column, row_ids, &mut |vector| {
            gone.remove(&vector.row_id);
            vectors.put(&vector);
        })?;
        for row_id in gone {
            vectors.remove(row_id);
        }
        self.vectors = Some(vectors);
        Ok(())
    }

    /// Starts from the index, if there is one that can be used, otherwise from the table.
    fn load(
        &mut self,
        snapshot: &Snapshot<'_>,
        table: &TableState,
        column: &Column,
        length: usize,
        folder: &Path,
    ) -> Result<()> {
        let known: HashMap<u64, Arc<Segment>> = std::mem::take(&mut self.parts)
            .into_iter()
            .map(|part| (part.segment.header().stamp, part.segment))
            .collect();
        (self.vectors, self.other_length) = (None, None);
        let id = IndexId { table_id: table.schema.table_id, column_id: column.id, dim: length };
        let version = (table.schema.table_id, table.index_version);
        if self.is_without_index {
            check_size(snapshot, id, length * element_bytes(column))?;
        } else if self.broken != Some(version) {
            self.broken = None;
            if let Some(index) = snapshot.index(id)? {
                let changes = snapshot.changes_since(table, index.seq)?;
                if let Changes::Rows(row_ids) = changes {
                    if let Err(refused) = snapshot.check_index_folder() {
                        return Err(Error::new(ErrorKind::IndexDamaged, refused.message()));
                    }
                    for entry in &index.segments {
                        let known = known.get(&entry.stamp).cloned();
                        let part = open_part(folder, id, entry, element_bytes(column), known);
                        self.parts.push(part.map_err(|damage| {
                            let file = folder.join(&entry.file);
                            damaged(&damage).at(format_args!("index file '{}'", file.display()))
                        })?);
                    }
                    return self.take_changes(snapshot, table, column, length, &row_ids);
                }
                // So much has changed that the index is not worth following the changes.
                self.broken = Some(version);
            }
        }
        let mut vectors = Vectors::new(column, length);
        let mut other_length = None;
        snapshot.vectors(&table.schema, column, &mut |vector| {
            if !vectors.put(&vector) {
                other_length = Some(vector.bytes.len() / vector.element.width());
            }
        })?;
        self.other_length = other_length;
        self.vectors = Some(vectors);
        Ok(())
    }
}

/// Whether a search may do without the index for once: it reads all vectors for itself.
fn check_size(snapshot: &Snapshot<'_>, id: IndexId, row_bytes: usize) -> Result<()> {
    let rows_of = |entry: &SegmentEntry| {
        let report: serde_json::Value = serde_json::from_str(&entry.report).unwrap_or_default();
        report["rows"].as_u64().unwrap_or_default() as usize
    };
    let segments = snapshot.index(id)?.map_or_else(Vec::new, |index| index.segments);
    let bytes = segments.iter().map(rows_of).sum::<usize>().saturating_mul(row_bytes);
    if bytes <= MOST_WITHOUT_INDEX {
        return Ok(());
    }
    let message = format!(
        "the vector index cannot be opened for the moment, and a search without it would read \
         {bytes} bytes of vectors into memory; try again, and raise the process's limit of open \
         files or memory, or let it read the index folder"
    );
    Err(Error::new(ErrorKind::OutOfResources, message))
}

impl Vectors {
    fn new(column: &Column, length: usize) -> Self {
        match column.kind.vector_element() {
            Some(Element::F32) => Self::F32(Resident::new(length)),
            _ => Self::F64(Resident::new(length)),
        }
    }

    fn put(&mut self, vector: &StoredVector<'_>) -> bool {
        let StoredVector { row_id, expires_at, event, element, bytes, .. } = *vector;
        let row = RowMeta { row_id, expires_at: expires_at.unwrap_or(i64::MAX), event };
        match self {
            Self::F32(resident) => resident.put(row, element, bytes),
            Self::F64(resident) => resident.put(row, element, bytes),
        }
    }

    fn remove(&mut self, row_id: i64) {
        match self {
            Self::F32(resident) => resident.remove(row_id),
            Self::F64(resident) => resident.remove(row_id),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(resident) => resident.len(),
            Self::F64(resident) => resident.len(),
        }
    }

    fn freeze(&self, parts: Vec<Part>) -> Frozen {
        match self {
            Self::F32(resident) => Frozen::F32(VectorSet::new(resident.blocks(), parts)),
            Self::F64(resident) => Frozen::F64(VectorSet::new(resident.blocks(), parts)),
        }
    }
}
