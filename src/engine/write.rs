//! Writing record batches of numbers and serialized messages.

use std::collections::VecDeque;

use arrow::array::{
    Array, ArrayAccessor, ArrayRef, AsArray, BinaryArray, BooleanArray, PrimitiveArray, RecordBatch,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampSecondType,
};

use super::feed::{self, Feed, MOST_KEPT, NextBatch};
use super::{Engine, arrow_error, now};
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;
use crate::proto::Number;
use crate::schema::ViewSpec;
use crate::store::{Conflict, Given, RowWrite, RowWriter, WriteCounts, WriteOptions};

/// How a batch is written.
#[derive(Debug, Clone, Copy)]
pub struct WriteRequest {
    /// What happens to rows that are there.
    pub conflict: Conflict,
    /// Seconds until the rows expire; `None` for never.
    pub ttl_seconds: Option<u64>,
    /// The number of the first row, for messages: rows before it may have been written already.
    pub first_row: u64,
}

/// Fewer rows than this, alone in a stream, are written sooner than a thread would start.
const ROWS_FOR_A_THREAD: usize = 256;

/// Batches that wait for the writer.
const QUEUED: usize = 4;

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
    /// column for each feature, named as it. Such a column is binary: serialized `Value`s, null
    /// where a row leaves the feature as it is; or a struct of numbers and, where these are null,
    /// of such a binary column. Numbers are of the Arrow type of a member of `Value`: int32, int64,
    /// double, float, bool, or timestamp in seconds.
    ///
    /// Batches are made by the calling thread while another writes those before them, so that
    /// neither waits for the other, nor the writer for Python's lock. A producer that is slow does
    /// not hold other writers off, unless the stream is of more than 64 MiB.
    pub fn write(
        &self,
        view: &ViewSpec,
        schema: &arrow::datatypes::Schema,
        mut batches: impl Iterator<Item = NextBatch>,
        request: WriteRequest,
    ) -> Result<WriteCounts> {
        let _entered = self.gate.enter()?;
        self.check_is_no_producer()?;
        let features: Vec<String> =
            schema.fields().iter().skip(FEATURES).map(|field| field.name().clone()).collect();
        let is_small =
            |batch: &NextBatch| matches!(batch, Ok(batch) if batch.num_rows() < ROWS_FOR_A_THREAD);
        let mut head: Vec<NextBatch> = batches.next().into_iter().collect();
        if head.iter().all(is_small) {
            head.extend(batches.next());
        }
        let counts = if head.len() < 2 && head.iter().all(is_small) {
            let mut all = head.into_iter().map(Some).chain([None]);
            self.write_all(view, &features, &mut all, request)
        } else {
            self.write_in_thread(view, &features, head.into_iter().chain(batches), request)
        }?;
        self.request_indexes(view);
        if counts.needs_upkeep {
            self.upkeep.request(view);
        }
        Ok(counts)
    }

    fn write_in_thread(
        &self,
        view: &ViewSpec,
        features: &[String],
        mut batches: impl Iterator<Item = NextBatch>,
        request: WriteRequest,
    ) -> Result<WriteCounts> {
        // Held until the writer is through with them: letting go of numpy's memory takes Python's
        // lock.
        let mut held = VecDeque::with_capacity(QUEUED + 2);
        let (mut bytes, address) = (0usize, self.address());
        let batches = std::iter::from_fn(|| {
            let batch = feed::produce(address, bytes > MOST_KEPT, || batches.next())?;
            bytes = bytes.saturating_add(batch.as_ref().map_or(0, feed::bytes_of));
            held.extend(batch.as_ref().ok().cloned());
            while held.len() > QUEUED + 2 && bytes > MOST_KEPT {
                held.pop_front();
            }
            Some(batch)
        });
        parallel::pipe(QUEUED, batches, |batches| {
            Feed::new(batches).write_all(|feed| self.write_all(view, features, feed, request))
        })
    }

    /// Refuses to wait for a lock that the calling thread's own write holds.
    pub(super) fn check_is_no_producer(&self) -> Result<()> {
        feed::check_is_no_producer(self.address())
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Writes the batches until [`None`] says that these were all; without that, none of them.
    fn write_all(
        &self,
        view: &ViewSpec,
        features: &[String],
        batches: &mut dyn Iterator<Item = Option<NextBatch>>,
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
                first_row: request.first_row,
            };
            let mut writer = txn.writer(view, features.to_vec(), options)?;
            loop {
                parallel::check()?;
                match batches.next() {
                    Some(Some(batch)) => write_batch(&mut writer, &batch.map_err(arrow_error)?)?,
                    Some(None) => return writer.finish(),
                    None => return Err(parallel::interrupted()),
                }
            }
        })
    }
}

fn write_batch(writer: &mut RowWriter<'_>, batch: &RecordBatch) -> Result<()> {
    let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
    if batch.num_columns() < FEATURES {
        return invalid("a batch needs the columns entity_key, event_timestamp, created_timestamp");
    }
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    // A time that overflows is an error, not a null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let time =
        |column| cast_with_options(batch.column(column), &micros, &options).map_err(arrow_error);
    let (events, created) = (time(EVENT)?, time(CREATED)?);
    let events = events.as_primitive::<TimestampMicrosecondType>();
    let created = created.as_primitive::<TimestampMicrosecondType>();
    let Some(keys) = batch.column(KEY).as_binary_opt::<i32>() else {
        return invalid("the column entity_key has to be of type binary");
    };
    let features =
        batch.columns()[FEATURES..].iter().map(FeatureColumn::new).collect::<Option<Vec<_>>>();
    let Some(features) = features else {
        return invalid(
            "feature columns have to be of type binary, or structs of a number and a message",
        );
    };
    if keys.null_count() > 0 || events.null_count() > 0 {
        return invalid("a row needs an entity key and an event timestamp");
    }
    for row in 0..batch.num_rows() {
        let values = features.iter().enumerate();
        let values = values.filter_map(|(at, column)| column.value(row).map(|value| (at, value)));
        let row = RowWrite {
            entity_key: keys.value(row),
            event: events.value(row),
            created: created.is_valid(row).then(|| created.value(row)),
        };
        writer.write(&row, values)?;
    }
    Ok(())
}

/// The values of a feature in a batch.
enum FeatureColumn<'a> {
    /// Messages.
    Messages(&'a BinaryArray),
    /// Numbers, and messages where these are null.
    Numbers(Numbers<'a>, &'a BinaryArray),
}

/// Numbers, by the member of `Value` that they are.
enum Numbers<'a> {
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Double(&'a PrimitiveArray<Float64Type>),
    Float(&'a PrimitiveArray<Float32Type>),
    Bool(&'a BooleanArray),
    UnixTimestamp(&'a PrimitiveArray<TimestampSecondType>),
}

impl<'a> FeatureColumn<'a> {
    /// `None` for a column of another type.
    fn new(column: &'a ArrayRef) -> Option<Self> {
        let Some(parts) = column.as_struct_opt() else {
            return column.as_binary_opt().map(Self::Messages);
        };
        let [numbers, messages] = parts.columns() else { return None };
        let numbers = match numbers.data_type() {
            DataType::Int32 => Numbers::Int32(numbers.as_primitive()),
            DataType::Int64 => Numbers::Int64(numbers.as_primitive()),
            DataType::Float64 => Numbers::Double(numbers.as_primitive()),
            DataType::Float32 => Numbers::Float(numbers.as_primitive()),
            DataType::Boolean => Numbers::Bool(numbers.as_boolean()),
            DataType::Timestamp(TimeUnit::Second, _) => {
                Numbers::UnixTimestamp(numbers.as_primitive())
            }
            _ => return None,
        };
        let messages = messages.as_binary_opt()?;
        (parts.null_count() == 0).then_some(Self::Numbers(numbers, messages))
    }

    /// The value of a row; `None` where the row leaves the feature as it is.
    fn value(&self, row: usize) -> Option<Given<'a>> {
        let messages = match self {
            Self::Messages(messages) => messages,
            Self::Numbers(numbers, messages) => match numbers.get(row) {
                Some(number) => return Some(Given::Number(number)),
                None => messages,
            },
        };
        messages.is_valid(row).then(|| Given::Message(messages.value(row)))
    }
}

impl Numbers<'_> {
    fn get(&self, row: usize) -> Option<Number> {
        fn at<A: ArrayAccessor + Copy>(array: A, row: usize) -> Option<A::Item> {
            array.is_valid(row).then(|| array.value(row))
        }
        match *self {
            Self::Int32(array) => at(array, row).map(Number::Int32),
            Self::Int64(array) => at(array, row).map(Number::Int64),
            Self::Double(array) => at(array, row).map(Number::Double),
            Self::Float(array) => at(array, row).map(Number::Float),
            Self::Bool(array) => at(array, row).map(Number::Bool),
            Self::UnixTimestamp(array) => at(array, row).map(Number::UnixTimestamp),
        }
    }
}
