//! Vectors on their way from the database into a segment: in a file, so that a build needs little
//! memory however many they are, and no longer holds its snapshot.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};

use bytemuck::cast_slice;

use super::map::Map;
use super::resident::read_elements;
use crate::schema::Element;
use crate::vector::{Real, RowMeta};

/// Vectors being written.
#[derive(Debug)]
pub struct Staging<T> {
    file: BufWriter<File>,
    dim: usize,
    rows: Vec<RowMeta>,
    keys: Keys,
    scratch: Vec<T>,
}

/// Byte strings, one after the other.
#[derive(Debug, Default)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: Vec<u64>,
}

impl Keys {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len() as u64);
    }

    /// One of them.
    pub fn get(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[at] as usize]
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Vectors that were written, in the order they came.
#[derive(Debug)]
pub struct Staged<T> {
    /// Nothing, if there are no vectors.
    map: Option<Map>,
    dim: usize,
    /// What is known of the rows.
    pub rows: Vec<RowMeta>,
    /// Their entity keys.
    pub keys: Keys,
    element: std::marker::PhantomData<T>,
}

impl<T: Real> Staging<T> {
    /// Writes vectors of `dim` elements to an empty file, which nobody else may touch.
    pub fn new(file: File, dim: usize) -> Self {
        let file = BufWriter::with_capacity(1 << 20, file);
        Self { file, dim, rows: Vec::new(), keys: Keys::default(), scratch: Vec::new() }
    }

    /// Takes a row's vector and entity key; a vector of another length is passed over.
    pub fn put(
        &mut self,
        row: RowMeta,
        key: &[u8],
        element: Element,
        bytes: &[u8],
    ) -> io::Result<()> {
        if bytes.len() != self.dim * element.width() {
            return Ok(());
        }
        self.scratch.clear();
        read_elements(element, bytes, &mut self.scratch);
        self.file.write_all(cast_slice(&self.scratch))?;
        self.rows.push(row);
        self.keys.push(key);
        Ok(())
    }

    /// Number of vectors so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The vectors, for reading.
    pub fn finish(self) -> io::Result<Staged<T>> {
        let Self { file, dim, rows, keys, .. } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let map = if rows.is_empty() { None } else { Some(Map::of(&file)?) };
        Ok(Staged { map, dim, rows, keys, element: std::marker::PhantomData })
    }
}

impl<T: Real> Staged<T> {
    /// Elements of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// One vector.
    pub fn vector(&self, row: usize) -> &[T] {
        let vectors: &[T] = cast_slice(self.map.as_deref().unwrap_or_default());
        &vectors[row * self.dim..][..self.dim]
    }
}
