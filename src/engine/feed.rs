//! What a write takes its batches from: made by the calling thread, perhaps slowly, and written by
//! another.
//!
//! The write lock is not held while a slow producer is waited for: where it is, the transaction is
//! rolled back, and begun again with what was kept once the stream has ended. Batches are kept up
//! to [`MOST_KEPT`]; a stream of more holds the lock until it ends.

use std::cell::Cell;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::error::ArrowError;

use crate::error::{Error, ErrorKind, Result};
use crate::parallel::{self, Items};

/// Bytes of batches that are kept, so that their transaction can be begun again.
pub(super) const MOST_KEPT: usize = 64 << 20;

/// How long a transaction waits for the next batch.
const STALL: Duration = Duration::from_millis(100);

/// What a stream of batches gives.
pub(super) type NextBatch = std::result::Result<RecordBatch, ArrowError>;

/// The writing end of a stream.
pub(super) struct Feed<'a> {
    source: &'a mut dyn Items<Option<NextBatch>>,
    /// Everything so far, as long as that is not too much.
    kept: Vec<RecordBatch>,
    kept_bytes: usize,
    /// The next of these.
    next: usize,
    /// Whether these are all.
    ended: bool,
    /// Whether the transaction under way has to be rolled back.
    stalled: bool,
}

impl<'a> Feed<'a> {
    pub(super) fn new(source: &'a mut dyn Items<Option<NextBatch>>) -> Self {
        Self { source, kept: Vec::new(), kept_bytes: 0, next: 0, ended: false, stalled: false }
    }

    /// Writes all batches by `write`, which is to fail where they end without saying that they
    /// were all. If that is because the producer is slow, it is called again with all of them.
    pub(super) fn write_all<T>(
        mut self,
        mut write: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<T> {
        loop {
            let answer = write(&mut self);
            if !std::mem::take(&mut self.stalled) {
                return answer;
            }
            self.next = 0;
            while !self.ended && self.keeps() {
                match self.source.next() {
                    Some(Some(Ok(batch))) => self.keep(batch),
                    Some(Some(Err(error))) => return Err(super::arrow_error(error)),
                    Some(None) => self.ended = true,
                    None => return Err(parallel::interrupted()),
                }
            }
        }
    }

    fn keeps(&self) -> bool {
        self.kept_bytes <= MOST_KEPT
    }

    fn keep(&mut self, batch: RecordBatch) {
        self.kept_bytes = self.kept_bytes.saturating_add(bytes_of(&batch));
        self.kept.push(batch);
    }
}

impl Iterator for Feed<'_> {
    type Item = Option<NextBatch>;

    fn next(&mut self) -> Option<Option<NextBatch>> {
        if let Some(batch) = self.kept.get(self.next) {
            self.next += 1;
            return Some(Some(Ok(batch.clone())));
        }
        if self.ended {
            return Some(None);
        }
        if !self.keeps() {
            // Too much to begin again: the lock is held to the end.
            self.kept.clear();
            self.next = 0;
            return self.source.next();
        }
        let Ok(batch) = self.source.next_within(STALL) else {
            self.stalled = true;
            return None;
        };
        match &batch {
            Some(Some(Ok(batch))) => {
                self.keep(batch.clone());
                self.next = self.kept.len();
            }
            Some(None) => self.ended = true,
            _ => {}
        }
        batch
    }
}

/// Bytes of the rows of a batch, whatever else their buffers hold.
pub(super) fn bytes_of(batch: &RecordBatch) -> usize {
    let bytes = |column: &arrow::array::ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(bytes).sum()
}

thread_local! {
    /// The engine whose stream this thread is being asked for the next batch of, while its write
    /// holds the lock for good; 0 for none.
    static HOLDING: Cell<usize> = const { Cell::new(0) };
}

/// Calls a producer for a write of `engine`, which `holds` the lock until the stream ends.
pub(super) fn produce<T>(engine: usize, holds: bool, next: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOLDING.set(self.0);
        }
    }
    let _restore = Restore(HOLDING.get());
    if holds {
        HOLDING.set(engine);
    }
    next()
}

/// An error in a producer whose own write holds the lock that it would wait for.
pub(super) fn check_is_no_producer(engine: usize) -> Result<()> {
    if HOLDING.get() != engine {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "this change comes from within the stream of a write to the same store, which is of \
             more than {} MiB and holds the write lock until the stream ends; make the change \
             before or after that write",
            MOST_KEPT >> 20
        ),
    ))
}
