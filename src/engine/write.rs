//! Writing record batches of serialized messages.

use std::sync::mpsc;
use std::thread;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::{Engine, arrow_error, now};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::ViewSpec;
use crate::store::{Conflict, RowWrite, RowWriter, WriteCounts, WriteOptions};

/// How a batch is written.
#[derive(Debug, Clone, Copy)]
pub struct WriteRequest {
    /// What happens to rows that are there.
    pub conflict: Conflict,
    /// Seconds until the rows expire; `None` for never.
    pub ttl_seconds: Option<u64>,
}

/// What a stream of batches gives.
type NextBatch = std::result::Result<RecordBatch, ArrowError>;

/// Fewer rows than this, alone in a stream, are written sooner than a thread would start.
const ROWS_FOR_A_THREAD: usize = 256;

/// Columns that lead a batch; features follow.
const KEY: usize = 0;
const EVENT: usize = 1;
const CREATED: usize = 2;
const FEATURES: usize = 3;

impl Engine {
    /// Writes all batches in one transaction, or none of them.
    ///
    /// Columns of each batch: `entity_key` (binary, serialized `EntityKey` messages),
    /// `event_timestamp` and `created_timestamp` (timestamps, the latter may be null), then a
    /// binary column for each feature, named as it: serialized `Value`s, null where a row leaves
    /// the feature as it is.
    ///
    /// Batches are made by the calling thread while another writes those before them, so that
    /// neither waits for the other, nor the writer for Python's lock.
    pub fn write(
        &self,
        view: &ViewSpec,
        schema: &arrow::datatypes::Schema,
        mut batches: impl Iterator<Item = NextBatch>,
        request: WriteRequest,
    ) -> Result<WriteCounts> {
        let _entered = self.gate.enter()?;
        let features: Vec<String> =
            schema.fields().iter().skip(FEATURES).map(|field| field.name().clone()).collect();
        let is_small =
            |batch: &NextBatch| matches!(batch, Ok(batch) if batch.num_rows() < ROWS_FOR_A_THREAD);
        let mut head: Vec<NextBatch> = batches.next().into_iter().collect();
        if head.iter().all(is_small) {
            head.extend(batches.next());
        }
        let counts = if head.len() < 2 && head.iter().all(is_small) {
            self.write_all(view, features, head.into_iter(), request)
        } else {
            self.write_in_thread(view, features, head.into_iter().chain(batches), request)
        }?;
        self.request_indexes(view);
        Ok(counts)
    }

    fn write_in_thread(
        &self,
        view: &ViewSpec,
        features: Vec<String>,
        mut batches: impl Iterator<Item = NextBatch>,
        request: WriteRequest,
    ) -> Result<WriteCounts> {
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(1);
            let writer = thread::Builder::new()
                .name("feast-vector write".to_owned())
                .spawn_scoped(scope, || {
                    self.write_all(view, features, receiver.into_iter(), request)
                })
                .map_err(|cause| {
                    Error::new(ErrorKind::Io, format!("no thread to write: {cause}"))
                })?;
            // A writer that has failed takes no more, and says why when it is joined.
            let _ = batches.try_for_each(|batch| sender.send(batch));
            drop(sender);
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn write_all(
        &self,
        view: &ViewSpec,
        features: Vec<String>,
        batches: impl Iterator<Item = NextBatch>,
        request: WriteRequest,
    ) -> Result<WriteCounts> {
        self.store.write(|txn| {
            let now = now();
            let ttl = request.ttl_seconds.map(|seconds| {
                i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)
            });
            let options = WriteOptions {
                conflict: request.conflict,
                now,
                expires_at: ttl.map(|ttl| now.saturating_add(ttl)),
            };
            let mut writer = txn.writer(view, features, options)?;
            for batch in batches {
                write_batch(&mut writer, &batch.map_err(arrow_error)?)?;
            }
            writer.finish()
        })
    }
}

fn write_batch(writer: &mut RowWriter<'_>, batch: &RecordBatch) -> Result<()> {
    let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
    if batch.num_columns() < FEATURES {
        return invalid("a batch needs the columns entity_key, event_timestamp, created_timestamp");
    }
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let time = |column| cast(batch.column(column), &micros).map_err(arrow_error);
    let (events, created) = (time(EVENT)?, time(CREATED)?);
    let events = events.as_primitive::<TimestampMicrosecondType>();
    let created = created.as_primitive::<TimestampMicrosecondType>();
    let Some(keys) = batch.column(KEY).as_binary_opt::<i32>() else {
        return invalid("the column entity_key has to be of type binary");
    };
    let mut features = Vec::with_capacity(batch.num_columns() - FEATURES);
    for column in &batch.columns()[FEATURES..] {
        let Some(values) = column.as_binary_opt::<i32>() else {
            return invalid("feature columns have to be of type binary");
        };
        features.push(values);
    }
    if keys.null_count() > 0 || events.null_count() > 0 {
        return invalid("a row needs an entity key and an event timestamp");
    }
    let mut values = Vec::with_capacity(features.len());
    for row in 0..batch.num_rows() {
        values.clear();
        values.extend(
            features
                .iter()
                .enumerate()
                .filter(|(_, column)| column.is_valid(row))
                .map(|(feature, column)| (feature, column.value(row))),
        );
        writer.write(&RowWrite {
            entity_key: keys.value(row),
            event: events.value(row),
            created: created.is_valid(row).then(|| created.value(row)),
            values: &values,
        })?;
    }
    Ok(())
}
