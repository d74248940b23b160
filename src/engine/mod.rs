//! The facade: everything that can be asked of an online store, in Arrow terms.

mod gate;
mod search;
mod write;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::{Error, ErrorKind, Result};
use crate::schema::{ViewId, ViewSpec};
use crate::store::{self, RowKey, Store, StoreOptions};

use gate::Gate;
pub use search::SearchRequest;
use search::VectorCaches;
pub use write::WriteRequest;

/// An online store over one database file.
///
/// Creating one opens nothing; connections, vectors and threads come with the first use. It may be
/// shared by threads. Around a `fork` see [`Engine::before_fork`].
#[derive(Debug)]
pub struct Engine {
    store: Store,
    vectors: VectorCaches,
    gate: Gate,
    search_threads: usize,
}

impl Engine {
    /// An engine over the file. `search_threads` is the most that one search uses; 0 means as many
    /// as there are cores.
    pub fn new(options: StoreOptions, search_threads: usize) -> Self {
        Self {
            store: Store::new(options),
            vectors: VectorCaches::default(),
            gate: Gate::new(),
            search_threads,
        }
    }

    /// Makes the project's tables what the views say, and drops those of `dropped` views in every
    /// version, in one transaction. Other views of the project stay as they are.
    pub fn apply(&self, project: &str, views: &[ViewSpec], dropped: &[String]) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.store.write(|txn| {
            for view in dropped {
                for id in txn.views(project, Some(view))? {
                    txn.drop_view(&id)?;
                }
            }
            for view in views {
                txn.apply(view).map_err(|error| error.at(&view.id))?;
                txn.purge_expired(view, now())?;
            }
            Ok(())
        })
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
        self.store.compact()
    }

    /// Reads features by entity key.
    ///
    /// `keys` holds serialized `EntityKey` messages. The answer has a row for each key, in their
    /// order: `event_timestamp` (UTC microseconds, null where there is no such row), then a binary
    /// column for each feature: the serialized `Value`, empty for a null, null for an absent
    /// feature. `features` of `None` means every feature that the table has.
    pub fn read(
        &self,
        view: &ViewId,
        keys: &[&[u8]],
        features: Option<&[String]>,
    ) -> Result<RecordBatch> {
        let _entered = self.gate.enter()?;
        self.store.read(|snapshot| {
            let table = snapshot.table(view)?;
            let features: Vec<&str> = match (features, &table) {
                (Some(features), _) => features.iter().map(String::as_str).collect(),
                (None, Some(table)) => {
                    table.schema.columns.iter().map(|c| c.feature.as_str()).collect()
                }
                (None, None) => Vec::new(),
            };
            let rows = match &table {
                Some(table) => {
                    snapshot.rows(&table.schema, RowKey::EntityKeys(keys), &features, now())?
                }
                None => store::no_rows(keys.len(), features.len()),
            };
            batch(vec![("event_timestamp", rows.event_timestamps)], &features, rows.features)
        })
    }

    /// Closes every connection and lets go of all vectors. The next call opens anew.
    pub fn close(&self) -> Result<()> {
        let _entered = self.gate.enter()?;
        self.store.disconnect();
        self.vectors.clear();
        Ok(())
    }

    /// To be called before the process forks: waits for running operations, for up to ten seconds,
    /// lets no new ones start, and closes every connection, because SQLite's must not be carried
    /// through a fork (<https://sqlite.org/howtocorrupt.html>, section 2.6). Cached vectors stay,
    /// shared with the child.
    pub fn before_fork(&self) {
        if self.gate.shut() {
            self.store.disconnect();
        }
    }

    /// To be called after the fork, in the parent and in the child.
    pub fn after_fork(&self) {
        self.gate.open();
    }
}

/// The clock: microseconds since 1970-01-01 UTC.
fn now() -> store::Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

fn batch(
    leading: Vec<(&str, ArrayRef)>,
    features: &[&str],
    columns: Vec<ArrayRef>,
) -> Result<RecordBatch> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (name, array) in leading {
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    for (name, array) in features.iter().zip(columns) {
        fields.push(Field::new(*name, DataType::Binary, true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(arrow_error)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn arrow_error(cause: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("Arrow: {cause}"))
}
