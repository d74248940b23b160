//! Arrays of serialized `Value`s in the making.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder};

use crate::error::{Error, ErrorKind, Result};

/// Messages being made.
pub(super) struct Messages {
    builder: BinaryBuilder,
    scratch: Vec<u8>,
}

impl Messages {
    pub(super) fn new(rows: usize) -> Self {
        Self { builder: BinaryBuilder::with_capacity(rows, rows * 16), scratch: Vec::new() }
    }

    pub(super) fn push(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.scratch.clear();
        put(&mut self.scratch);
        if self.builder.values_slice().len() + self.scratch.len() > i32::MAX as usize {
            let message = "more than 2 GiB of values in one batch; write fewer rows at a time";
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        self.builder.append_value(&self.scratch);
        Ok(())
    }

    pub(super) fn finish(mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

/// A message for each element, empty for a null.
pub(super) fn each(array: &dyn Array, put: impl Fn(usize, &mut Vec<u8>)) -> Result<ArrayRef> {
    let mut messages = Messages::new(array.len());
    for at in 0..array.len() {
        messages.push(|out| {
            if array.is_valid(at) {
                put(at, out);
            }
        })?;
    }
    Ok(messages.finish())
}

/// So many nulls.
pub(super) fn nulls(rows: usize) -> Result<ArrayRef> {
    let mut messages = Messages::new(rows);
    (0..rows).try_for_each(|_| messages.push(|_| {}))?;
    Ok(messages.finish())
}
