//! Filters over scalars in memory, as of a snapshot.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard};

use crate::error::Result;
use crate::index::Rows;
use crate::parallel;
use crate::query::{self, Resolved};
use crate::schema::{Attribute, ViewId};
use crate::store::{AsOf, Changes, Micros, Snapshot, TableState};
use crate::vector::RowSet;

/// Filters whose answers are remembered.
const REMEMBERED: usize = 8;

/// Scalars in memory, by view.
#[derive(Debug, Default)]
pub(super) struct RowCaches(Mutex<HashMap<ViewId, Arc<RwLock<RowCache>>>>);

/// The scalars of one view as of one change of its table.
#[derive(Debug, Default)]
pub(super) struct RowCache {
    as_of: AsOf,
    rows: Rows,
    /// What the last filters let pass, as of then: the same ones are asked for again and again.
    remembered: Mutex<VecDeque<(Resolved, Arc<RowSet>)>>,
}

/// The cache, held since before a snapshot was taken, so that it can only be behind it. Others may
/// read it meanwhile.
pub(super) type HeldRows<'a> = RwLockUpgradableReadGuard<'a, RowCache>;

impl RowCaches {
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(super) fn entry(&self, view: &ViewId) -> Arc<RwLock<RowCache>> {
        Arc::clone(self.0.lock().entry(view.clone()).or_default())
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn views(&self) -> Vec<ViewId> {
        self.0.lock().keys().cloned().collect()
    }

    pub(super) fn forget(&self, view: &ViewId) {
        self.0.lock().remove(view);
    }
}

/// The rows that pass the filter in the snapshot, and have not expired by `now`.
pub(super) fn passing(
    cache: HeldRows<'_>,
    snapshot: &Snapshot<'_>,
    table: &TableState,
    filter: Resolved,
    now: Micros,
) -> Result<Arc<RowSet>> {
    let cache = parallel::uncounted(|| followed(cache, snapshot, table, &filter))?;
    let known = cache
        .remembered
        .lock()
        .iter()
        .find(|(known, _)| *known == filter)
        .map(|(_, rows)| Arc::clone(rows));
    if let Some(rows) = known {
        return Ok(rows);
    }
    let rows = Arc::new(query::matching(&filter, &cache.rows, now)?);
    if !cache.rows.expires() {
        let mut remembered = cache.remembered.lock();
        remembered.push_front((filter, Arc::clone(&rows)));
        remembered.truncate(REMEMBERED);
    }
    Ok(rows)
}

/// The cache, with the filter's attributes, brought to the snapshot's state.
fn followed<'a>(
    mut cache: HeldRows<'a>,
    snapshot: &Snapshot<'_>,
    table: &TableState,
    filter: &Resolved,
) -> Result<RwLockReadGuard<'a, RowCache>> {
    let wanted = filter.attributes();
    let is_current = {
        let resident = cache.rows.attributes();
        cache.as_of == table.as_of() && wanted.iter().all(|attribute| resident.contains(attribute))
    };
    if !is_current {
        cache.with_upgraded(|cache| cache.follow(snapshot, table, wanted))?;
    }
    Ok(RwLockUpgradableReadGuard::downgrade(cache))
}

impl RowCache {
    fn is_of(&self, table: &TableState) -> bool {
        (self.as_of.table_id, self.as_of.generation)
            == (table.schema.table_id, table.schema.generation)
    }

    fn follow(
        &mut self,
        snapshot: &Snapshot<'_>,
        table: &TableState,
        mut wanted: Vec<Attribute>,
    ) -> Result<()> {
        self.remembered.get_mut().clear();
        let resident = if self.is_of(table) { self.rows.attributes() } else { Vec::new() };
        let has_all = wanted.iter().all(|attribute| resident.contains(attribute));
        let changes = if has_all && self.is_of(table) && !self.rows.is_bloated() {
            snapshot.changes_from(table, self.as_of)?
        } else {
            Changes::Unknown
        };
        if let Changes::Rows(row_ids) = changes {
            // Rows that are still there stay in their place.
            let mut gone: HashSet<i64> = row_ids.iter().copied().collect();
            let rows = &mut self.rows;
            snapshot.scalars(
                &table.schema,
                &resident,
                Some(&row_ids),
                &mut |id, expires, row| {
                    gone.remove(&id);
                    rows.put(id, expires, row);
                },
            )?;
            for row_id in gone {
                rows.remove(row_id);
            }
        } else {
            wanted.extend(resident);
            let mut attributes: Vec<Attribute> = Vec::new();
            for attribute in wanted {
                if !attributes.contains(&attribute) {
                    attributes.push(attribute);
                }
            }
            let mut rows = Rows::new(&attributes);
            snapshot.scalars(&table.schema, &attributes, None, &mut |id, expires, row| {
                rows.put(id, expires, row);
            })?;
            self.rows = rows;
        }
        self.as_of = table.as_of();
        Ok(())
    }
}
