//! Letting go of what is cached of tables, columns and lengths of vectors that are gone, whoever
//! has dropped them.

use std::collections::HashSet;

use super::Engine;
use crate::error::Result;
use crate::schema::ViewId;
use crate::store::{IndexId, Snapshot, Store};

impl Engine {
    /// Compares what is cached with the tables that there are, if these have changed since the
    /// last call.
    pub(super) fn release_lost(&self, snapshot: &Snapshot<'_>) -> Result<()> {
        if self.vectors.len() + self.rows.len() + self.texts.len() == 0 {
            return Ok(());
        }
        let layouts = snapshot.layouts()?;
        if *self.layouts.lock() == Some(layouts) {
            return Ok(());
        }
        snapshot.forget_lost_schemas()?;
        let mut cached: HashSet<ViewId> = self.vectors.views();
        cached.extend(self.rows.views());
        cached.extend(self.texts.views());
        for view in &cached {
            let Some(table) = snapshot.table(view)? else {
                self.vectors.retain(view, |_, _| false);
                self.rows.forget(view);
                self.texts.forget(view);
                continue;
            };
            self.vectors.retain(view, |feature, length| {
                table.schema.column(feature).is_some_and(|column| {
                    column.kind.vector_element().is_some()
                        && column.vector_length.is_none_or(|declared| declared as usize == length)
                })
            });
        }
        *self.layouts.lock() = Some(snapshot.layouts()?);
        Ok(())
    }
}

/// The column's indexes of other lengths that there are no vectors of any more.
pub(super) fn lost_lengths(
    store: &Store,
    view: &ViewId,
    feature: &str,
    built: IndexId,
) -> Result<Vec<IndexId>> {
    store.read(|snapshot| {
        let mut lost = Vec::new();
        let Some(table) = snapshot.table(view)? else {
            return Ok(lost);
        };
        let Some(column) = table.schema.column(feature).filter(|c| c.id == built.column_id) else {
            return Ok(lost);
        };
        for dim in snapshot.indexed_lengths(built.table_id, built.column_id)? {
            if dim != built.dim && !snapshot.has_vectors_of_length(&table.schema, column, dim)? {
                lost.push(IndexId { dim, ..built });
            }
        }
        Ok(lost)
    })
}
