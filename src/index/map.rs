//! The bytes of a file, mapped into memory.
//!
//! Miri cannot map files and reads them instead, so that it can run the rest of the index.

#![allow(unsafe_code, reason = "mapping a file into memory")]

use std::fs::File;
use std::io;
use std::ops::Deref;

#[cfg(not(miri))]
use memmap2::Mmap as Bytes;

/// A file's bytes, at an address that is aligned for every number.
#[derive(Debug)]
pub(super) struct Map(Bytes);

#[cfg(not(miri))]
impl Map {
    /// Maps a file that this process does not change.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        // SAFETY: what a mapping asks for is that its bytes stay what they are, and only other
        // processes could break that: this one writes index files under another name, completes
        // them before they are renamed, and never writes them again; staged vectors are in a file
        // that nobody else has a name for. A process that may write the database's folder can
        // still write or truncate an index file in place. It is kept out by permissions, noticed
        // by `Segment::is_unchanged` before every search, and can break this in two ways only:
        //
        // * Bytes change between two reads. They are read as numbers, of which every bit pattern
        //   is valid, and a number is compared with the bounds where it is used: no unsafe code
        //   relies on what the file says. A changed number is a wrong answer, an error or a panic.
        // * The file becomes shorter. Reading a page that is gone ends the process (SIGBUS), and
        //   no memory is read or written that is not the file's; `docs/adr/0008` says why that
        //   is accepted.
        //
        // A forked child shares the mapping, which is read-only.
        unsafe { Bytes::map(file) }.map(Self)
    }

    /// These bytes, which were read from no file.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of_bytes(bytes: &[u8]) -> io::Result<Self> {
        let mut map = memmap2::MmapMut::map_anon(bytes.len())?;
        map.copy_from_slice(bytes);
        map.make_read_only().map(Self)
    }
}

#[cfg(miri)]
#[derive(Debug)]
struct Bytes(Vec<u64>, usize);

#[cfg(miri)]
impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }
}

#[cfg(miri)]
impl Map {
    pub(super) fn of(mut file: &File) -> io::Result<Self> {
        use std::io::{Read as _, Seek as _};
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Self::of_bytes(&bytes)
    }

    #[allow(clippy::unnecessary_wraps, reason = "mapping may fail")]
    pub(super) fn of_bytes(bytes: &[u8]) -> io::Result<Self> {
        let mut words = vec![0; bytes.len().div_ceil(size_of::<u64>())];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Ok(Self(Bytes(words, bytes.len())))
    }
}

impl Deref for Map {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
