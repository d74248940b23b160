//! Reading by entity key, deleting, counting, and the caller's own SQL.

use std::time::Duration;

use arrow::array::RecordBatch;

use super::answer::{features_of, typed_features};
use super::request::{Form, too_costly};
use super::{Engine, batch, now, typed};
use crate::error::Result;
use crate::parallel;
use crate::proto::encode_key;
use crate::query::{Filter, Resolved};
use crate::schema::ViewSpec;
use crate::store::{self, RowKey, Snapshot, SqlLimits, SqlValue};

impl Engine {
    /// Reads features by entity key.
    ///
    /// `keys` holds serialized `EntityKey` messages. The answer has a row for each key, in their
    /// order. As [`Form::Wire`]: `event_timestamp` (UTC microseconds, null where there is no such
    /// row), then a binary column for each feature: the serialized `Value`, empty for a null, null
    /// for an absent feature. As [`Form::Typed`]: the join keys, the features in native types, and
    /// `event_timestamp`. `features` of `None` means every feature that the table has. `cpu` is what
    /// the call may take of the processors.
    pub fn read(
        &self,
        view: &ViewSpec,
        keys: &[&[u8]],
        features: Option<&[String]>,
        form: Form,
        cpu: Option<Duration>,
    ) -> Result<RecordBatch> {
        let late = |limit| {
            let advice = "ask for fewer entities at a time";
            too_costly(&view.id.to_string(), "the read", limit, advice)
        };
        parallel::within(cpu, late, || self.read_within(view, keys, features, form))
    }

    fn read_within(
        &self,
        view: &ViewSpec,
        keys: &[&[u8]],
        features: Option<&[String]>,
        form: Form,
    ) -> Result<RecordBatch> {
        let _entered = self.gate.enter()?;
        let keys = keys.iter().map(|message| encode_key(message)).collect::<Result<Vec<_>>>();
        let keys = keys.map_err(|error| error.at(&view.id))?;
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.store.read(|snapshot| {
            let table = snapshot.table(&view.id)?;
            let schema = table.as_ref().map(|table| table.schema.as_ref());
            let features = features_of(view, schema, features);
            let rows = match schema {
                Some(schema) => snapshot.rows(schema, RowKey::Keys(&keys), &features, now())?,
                None => store::no_rows(keys.len(), features.len()),
            };
            let event = ("event_timestamp".to_owned(), rows.event_timestamps);
            if form == Form::Wire {
                let names = features.iter().map(|name| (*name).to_owned());
                return batch([event].into_iter().chain(names.zip(rows.features)).collect());
            }
            let mut columns = typed::join_keys(&view.join_keys, keys.iter().map(|key| Some(*key)))?;
            columns.extend(typed_features(view, schema, &features, &rows.features)?);
            columns.push(event);
            batch(columns)
        })
    }

    /// Deletes rows by entity key (serialized `EntityKey` messages), and says how many were there.
    /// They are gone from the table, from the text index and from every later answer.
    pub fn delete(&self, view: &ViewSpec, keys: &[&[u8]]) -> Result<u64> {
        let _entered = self.gate.enter()?;
        self.check_is_no_producer()?;
        self.store.write(|txn| txn.delete_rows(&view.id, keys))
    }

    /// How many rows there are that have not expired, and that pass the filter.
    pub fn count(&self, view: &ViewSpec, filter: Option<&Filter>) -> Result<u64> {
        let _entered = self.gate.enter()?;
        let entry = self.rows.entry(&view.id);
        let cache = entry.upgradable_read();
        let count = |snapshot: &Snapshot<'_>| {
            self.release_lost(snapshot)?;
            let Some(table) = snapshot.table(&view.id)? else {
                return Ok(0);
            };
            let filter = filter.map(|filter| filter.resolve(&table.schema)).transpose()?;
            let filter = filter.unwrap_or_else(Resolved::everything);
            if filter.is_trivial() && !table.expires {
                return snapshot.count(&table.schema);
            }
            let passing = super::filters::passing(cache, snapshot, &table, filter, now())?;
            Ok(passing.len() as u64)
        };
        let answer = parallel::catch("a count", || self.store.read(count));
        if answer.as_ref().is_err_and(|error| !error.is_callers()) {
            self.rows.forget(&view.id);
        }
        answer
    }

    /// Runs one reading SQL statement. A column of the answer is of int64, float64, text or
    /// binary, whichever its values are. It may read every project in the file, within `limits`.
    pub fn sql(
        &self,
        sql: &str,
        parameters: &[SqlValue],
        limits: &SqlLimits,
    ) -> Result<RecordBatch> {
        let _entered = self.gate.enter()?;
        let columns = self.store.sql(sql, parameters, limits)?;
        batch(columns)
    }
}
