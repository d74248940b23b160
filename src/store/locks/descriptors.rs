//! What is known of each descriptor that SQLite opened: a table of atomics that grows in chunks, so
//! that a lock costs no mutex, and a forked child finds nothing half done.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering::SeqCst};

/// What SQLite's descriptor of a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descriptor {
    /// None of SQLite's.
    Unknown,
    /// Of a file without locks: a log, a journal, a temporary file.
    Plain,
    /// Of a file that keeps POSIX locks.
    Posix,
    /// Of a file whose locks this descriptor holds.
    Locked(c_int),
    /// Inherited through a fork: the parent's.
    Ghost,
}

// In a slot: the generation of the process in the upper half, one of these or the number of the
// lock's descriptor, which is above 2, in the lower.
const PLAIN: u32 = 1;
const POSIX: u32 = 2;

const CHUNK: usize = 1 << 16;
/// Enough for every number that Linux gives out (`fs.nr_open` is at most 2^30).
const CHUNKS: usize = 1 << 14;

type Chunk = [AtomicU64; CHUNK];

static TABLE: [AtomicPtr<Chunk>; CHUNKS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS];

/// All of SQLite's descriptors are below.
static END: AtomicI32 = AtomicI32::new(0);

fn slot(fd: c_int) -> Option<&'static AtomicU64> {
    let fd = usize::try_from(fd).ok()?;
    let chunk = TABLE.get(fd / CHUNK)?.load(SeqCst);
    // SAFETY: null, or a chunk that `chunk_for` leaked.
    unsafe { chunk.as_ref() }.map(|chunk| &chunk[fd % CHUNK])
}

/// Makes room for a descriptor. The memory of a chunk is taken page by page as it is used.
fn chunk_for(fd: c_int) {
    let Some(place) = usize::try_from(fd).ok().and_then(|fd| TABLE.get(fd / CHUNK)) else { return };
    if !place.load(SeqCst).is_null() {
        return;
    }
    let fresh = Box::into_raw(vec![0_u64; CHUNK].into_boxed_slice()).cast::<Chunk>();
    if place.compare_exchange(std::ptr::null_mut(), fresh, SeqCst, SeqCst).is_err() {
        // Another thread was first.
        // SAFETY: made above as a boxed slice of as many u64, which AtomicU64 is laid out like.
        drop(unsafe {
            Box::from_raw(std::ptr::slice_from_raw_parts_mut(fresh.cast::<u64>(), CHUNK))
        });
    }
}

fn meaning(slot: u64, generation: u64) -> Descriptor {
    match slot as u32 {
        0 => Descriptor::Unknown,
        _ if (slot >> 32) as u32 != generation as u32 => Descriptor::Ghost,
        PLAIN => Descriptor::Plain,
        POSIX => Descriptor::Posix,
        lock => Descriptor::Locked(lock.cast_signed()),
    }
}

/// What the descriptor is to the process of that generation.
pub(super) fn get(fd: c_int, generation: u64) -> Descriptor {
    slot(fd).map_or(Descriptor::Unknown, |slot| meaning(slot.load(SeqCst), generation))
}

/// Notes a descriptor that was just opened.
pub(super) fn set(fd: c_int, descriptor: Descriptor, generation: u64) {
    let value = match descriptor {
        Descriptor::Plain => PLAIN,
        Descriptor::Posix => POSIX,
        Descriptor::Locked(lock) => lock.cast_unsigned(),
        Descriptor::Unknown | Descriptor::Ghost => 0,
    };
    chunk_for(fd);
    if let Some(slot) = slot(fd) {
        slot.store(generation << 32 | u64::from(value), SeqCst);
        END.fetch_max(fd.saturating_add(1), SeqCst);
    }
}

/// Forgets a descriptor that is about to be closed, while no other thread can be given its number.
pub(super) fn take(fd: c_int, generation: u64) -> Descriptor {
    slot(fd).map_or(Descriptor::Unknown, |slot| meaning(slot.swap(0, SeqCst), generation))
}

/// Forgets the descriptors that are open, and calls `close` with each.
pub(super) fn drain(close: impl Fn(c_int)) {
    for fd in 0..END.load(SeqCst) {
        if slot(fd).is_some_and(|slot| slot.swap(0, SeqCst) as u32 != 0) {
            close(fd);
        }
    }
}
