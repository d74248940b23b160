//! Reading by column: the response to `get_online_features`, as one message.

use std::collections::HashMap;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;

use super::request::too_costly;
use super::{Engine, now};
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;
use crate::proto::{self, EventTimes, FeaturesMessage};
use crate::schema::ViewId;
use crate::store::{self, RowKey, Rows, Snapshot};

/// What calls of `get_online_features` have in common that differ in their entities alone.
#[derive(Debug)]
pub struct FeatureReads {
    /// Names of the columns that the entities' values come in.
    pub columns: Vec<String>,
    /// The reads, in the order of the response.
    pub reads: Vec<FeatureRead>,
}

/// What is read of one feature view.
#[derive(Debug)]
pub struct FeatureRead {
    /// The feature view.
    pub view: ViewId,
    /// Its join keys, and the column that has the values of each.
    pub join_keys: Vec<(String, usize)>,
    /// The features, each once.
    pub features: Vec<String>,
    /// Their names in the response.
    pub names: Vec<String>,
}

/// The answer to several requests.
#[derive(Debug)]
pub struct FeaturesAnswer {
    /// A serialized `GetOnlineFeaturesResponse`: names and vectors in the order of the requests.
    pub message: Vec<u8>,
    /// For each request how many of its values are there.
    pub present: Vec<u64>,
}

impl Engine {
    /// Reads features of several views, all as of one moment, a row for each entity, in their
    /// order. An entity that is named several times is looked up once.
    ///
    /// `columns` are the entities' values: for each of [`FeatureReads::columns`] a serialized
    /// `RepeatedValue`, all of as many values. They lead the response, if `entities` says how many
    /// there are. `cpu` is what the call may take of the processors.
    pub fn features(
        &self,
        reads: &FeatureReads,
        columns: &[&[u8]],
        entities: Option<usize>,
        cpu: Option<Duration>,
    ) -> Result<FeaturesAnswer> {
        let late = |limit| {
            let views: Vec<_> = reads.reads.iter().map(|read| read.view.to_string()).collect();
            too_costly(&views.join(", "), "the read", limit, "ask for fewer entities at a time")
        };
        parallel::within(cpu, late, || self.features_within(reads, columns, entities))
    }

    fn features_within(
        &self,
        reads: &FeatureReads,
        columns: &[&[u8]],
        entities: Option<usize>,
    ) -> Result<FeaturesAnswer> {
        let _entered = self.gate.enter()?;
        if columns.len() != reads.columns.len() {
            let message =
                format!("{} columns for {} join keys", columns.len(), reads.columns.len());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let places = reads.reads.iter().flat_map(|read| &read.join_keys).map(|(_, at)| *at);
        if let Some(at) = places.max().filter(|at| *at >= columns.len()) {
            let message = format!("a join key is in column {at}, and there are {}", columns.len());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.store.read(|snapshot| {
            let now = now();
            let mut message = FeaturesMessage::default();
            if let Some(count) = entities {
                message.put_names(&reads.columns);
                for values in columns {
                    message.put_entities(values, count);
                }
            }
            let mut present = Vec::with_capacity(reads.reads.len());
            for read in &reads.reads {
                let (rows, places) = rows_of(snapshot, read, columns, now)?;
                let times = rows.event_timestamps.as_primitive::<TimestampMicrosecondType>();
                let time = |&row: &usize| times.is_valid(row).then(|| times.value(row));
                let times = EventTimes::new(places.iter().map(time));
                message.put_names(&read.names);
                let mut count = 0;
                for column in &rows.features {
                    parallel::check()?;
                    let column = column.as_binary::<i32>();
                    let value = |&row: &usize| column.is_valid(row).then(|| column.value(row));
                    count += message.put_vector(places.iter().map(value), &times);
                    // Protobuf reads no message of more; a row may be answered to many entities.
                    if message.len() > store::MOST_BYTES {
                        return Err(store::too_large(places.len(), message.len()).at(&read.view));
                    }
                }
                present.push(count);
            }
            Ok(FeaturesAnswer { message: message.finish(), present })
        })
    }
}

/// The rows of a read's distinct entities, and for each entity which of them is its own.
fn rows_of(
    snapshot: &Snapshot<'_>,
    read: &FeatureRead,
    columns: &[&[u8]],
    now: store::Micros,
) -> Result<(Rows, Vec<usize>)> {
    let join_keys: Vec<(&str, &[u8])> =
        read.join_keys.iter().map(|(name, at)| (name.as_str(), columns[*at])).collect();
    let keys = proto::encode_key_columns(&join_keys).map_err(|error| error.at(&read.view))?;
    parallel::check()?;
    let (unique, places) = unique(&keys);
    let features: Vec<&str> = read.features.iter().map(String::as_str).collect();
    let rows = match snapshot.table(&read.view)? {
        Some(table) => snapshot.rows(&table.schema, RowKey::Keys(&unique), &features, now)?,
        None => store::no_rows(unique.len(), features.len()),
    };
    Ok((rows, places))
}

/// The distinct keys, and for each key where among them it is.
fn unique(keys: &[Vec<u8>]) -> (Vec<&[u8]>, Vec<usize>) {
    let mut known: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
    let mut unique = Vec::with_capacity(keys.len());
    let places = keys
        .iter()
        .map(|key| {
            *known.entry(key).or_insert_with(|| {
                unique.push(key.as_slice());
                unique.len() - 1
            })
        })
        .collect();
    (unique, places)
}
