//! The facade: everything that can be asked of an online store, in Arrow terms.

mod answer;
mod backup;
mod builder;
mod context;
mod conversions;
mod exact;
mod features;
mod feed;
mod filters;
mod forks;
mod frozen;
mod gate;
mod indexes;
mod indexing;
mod job;
mod messages;
mod ranking;
mod read;
mod release;
mod request;
mod search;
mod serialize;
mod text_ranking;
mod texts;
mod typed;
mod upkeep;
mod vectors;
mod verify;
mod write;

#[cfg(test)]
mod cost_tests;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod growth_tests;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::parallel;
use crate::schema::{ViewId, ViewSpec};
pub use crate::store::Progress;
use crate::store::{self, Layouts, StaleValues, Store, StoreOptions};

use builder::Builder;
pub use features::{FeatureRead, FeatureReads, FeaturesAnswer};
use filters::RowCaches;
pub use forks::ForkedEngine;
use gate::Gate;
pub use job::IndexSettings;
pub use request::{Form, SearchRequest, TextQuery, VectorQuery};
pub use search::SearchAnswer;
pub use serialize::{Missing, serialize_entity_keys, serialize_values};
use texts::TextCaches;
use upkeep::Upkeep;
use vectors::VectorCaches;
pub use verify::verify_backup;
pub use write::WriteRequest;

/// An online store over one database file.
///
/// Creating one opens nothing; connections, vectors and threads come with the first use. It may be
/// shared by threads. A forked child cannot use it: see [`ForkedEngine`].
#[derive(Debug)]
pub struct Engine {
    store: Store,
    vectors: VectorCaches,
    rows: RowCaches,
    texts: TextCaches,
    /// The layouts that the caches were last compared with.
    layouts: Mutex<Option<Layouts>>,
    gate: Gate,
    builder: Builder,
    upkeep: Upkeep,
    options: EngineOptions,
}

/// How an engine uses its machine, and how much it is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineOptions {
    /// The most threads that one search uses; 0 means as many as there are cores.
    pub search_threads: usize,
    /// Whether vector indexes are built in the background; otherwise by [`Engine::optimize`] alone.
    pub builds_indexes: bool,
    /// How much one call may ask for.
    pub limits: Limits,
}

impl Engine {
    /// An engine over the file.
    pub fn new(store: StoreOptions, options: EngineOptions) -> Self {
        let store = Store::new(store);
        Self {
            builder: Builder::new(store.sibling()),
            upkeep: Upkeep::new(store.sibling()),
            store,
            vectors: VectorCaches::default(),
            rows: RowCaches::default(),
            texts: TextCaches::default(),
            layouts: Mutex::default(),
            gate: Gate::new(),
            options,
        }
    }

    /// How much one call may ask for.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Makes the project's tables what the views say, and drops those of `dropped` views in every
    /// version, in one transaction. Other views of the project stay as they are. Expired rows are
    /// deleted and text indexes filled after that, in short transactions; `progress` hears of the
    /// view, the rows done, and all there are. What is left undone if this is interrupted, the next
    /// `apply`, write or search for text goes on with.
    pub fn apply(
        &self,
        project: &str,
        views: &[ViewSpec],
        dropped: &[(String, Option<u32>)],
        progress: &mut dyn FnMut(&ViewId, u64, u64),
    ) -> Result<Vec<(ViewId, StaleValues)>> {
        let _entered = self.gate.enter()?;
        self.check_is_no_producer()?;
        let stale = self.store.write(|txn| {
            for (view, version) in dropped {
                for id in txn.views(project, Some(view))? {
                    if version.is_none_or(|version| version == id.version) {
                        txn.drop_view(&id)?;
                    }
                }
            }
            let mut all_stale = Vec::new();
            for view in views {
                let stale = txn.apply(view).map_err(|error| error.at(&view.id))?;
                all_stale.extend(stale.into_iter().map(|stale| (view.id.clone(), stale)));
            }
            Ok(all_stale)
        })?;
        self.let_go()?;
        for view in views {
            self.look_after(view, &mut |done, all| progress(&view.id, done, all))?;
        }
        Ok(stale)
    }

    /// Lets go of what is cached of tables that were just changed or dropped, and of their files.
    fn let_go(&self) -> Result<()> {
        // A file that cannot be deleted now is deleted by the next builder.
        let _ = self.delete_lost_index_files();
        self.store.read(|snapshot| self.release_lost(snapshot))
    }

    /// The table of Feast's own sqlite store in this file that has the view's rows, where ours has
    /// none.
    pub fn feast_sqlite_table(&self, view: &ViewId) -> Result<Option<String>> {
        let _entered = self.gate.enter()?;
        self.store.read(|snapshot| snapshot.feast_sqlite_table(view))
    }

    /// Drops every table of the project and shrinks the file. It stays, because other processes
    /// may have it open, and what they write to a deleted file would be lost.
    pub fn drop_project(&self, project: &str) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.store.write(|txn| {
            for id in txn.views(project, None)? {
                txn.drop_view(&id)?;
            }
            Ok(())
        })?;
        self.let_go()?;
        self.store.compact()
    }

    /// Closes every connection and lets go of all vectors. The next call opens anew.
    pub fn close(&self) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.builder.stop();
        self.builder.forget();
        self.upkeep.stop();
        self.builder.resume();
        self.upkeep.resume();
        self.store.disconnect();
        self.vectors.clear();
        self.rows.clear();
        self.texts.clear();
        Ok(())
    }
}

/// The clock: microseconds since 1970-01-01 UTC.
fn now() -> store::Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

impl Engine {
    /// The cores, shared among the operations under way.
    fn threads_for_one_search(&self) -> usize {
        let asked = self.options.search_threads;
        let most = if asked == 0 { parallel::cores() } else { asked };
        (most / self.gate.inside().max(1)).max(1)
    }
}

fn batch(columns: Vec<(String, ArrayRef)>) -> Result<RecordBatch> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(arrow_error)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn arrow_error(cause: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("Arrow: {cause}"))
}
