//! Reading by column: the response to `get_online_features`, as one message.

use std::collections::HashMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;

use super::{Engine, now};
use crate::error::Result;
use crate::proto::{self, EventTimes, FeaturesMessage};
use crate::schema::ViewId;
use crate::store::{self, RowKey};

/// What is asked of one feature view.
#[derive(Debug)]
pub struct FeatureRequest<'a> {
    /// The feature view.
    pub view: &'a ViewId,
    /// The entities: for each join key its name and a serialized `RepeatedValue`, a value a row.
    pub join_keys: &'a [(&'a str, &'a [u8])],
    /// The features, each once.
    pub features: &'a [String],
    /// Their names in the response.
    pub names: &'a [String],
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
    pub fn features(&self, requests: &[FeatureRequest<'_>]) -> Result<FeaturesAnswer> {
        let _entered = self.gate.enter()?;
        self.store.read(|snapshot| {
            let now = now();
            let mut message = FeaturesMessage::default();
            let mut present = Vec::with_capacity(requests.len());
            for request in requests {
                let keys = proto::encode_key_columns(request.join_keys)
                    .map_err(|error| error.at(request.view))?;
                let (unique, places) = unique(&keys);
                let features: Vec<&str> = request.features.iter().map(String::as_str).collect();
                let rows = match snapshot.table(request.view)? {
                    Some(table) => {
                        snapshot.rows(&table.schema, RowKey::Keys(&unique), &features, now)?
                    }
                    None => store::no_rows(unique.len(), features.len()),
                };
                let times = rows.event_timestamps.as_primitive::<TimestampMicrosecondType>();
                let time = |&row: &usize| times.is_valid(row).then(|| times.value(row));
                let times = EventTimes::new(places.iter().map(time));
                message.put_names(request.names);
                let mut count = 0;
                for column in &rows.features {
                    let column = column.as_binary::<i32>();
                    let value = |&row: &usize| column.is_valid(row).then(|| column.value(row));
                    count += message.put_vector(places.iter().map(value), &times);
                }
                present.push(count);
            }
            Ok(FeaturesAnswer { message: message.finish(), present })
        })
    }
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
