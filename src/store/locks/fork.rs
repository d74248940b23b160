//! Which process this is, and what a forked child does with what it inherited.
//!
//! A child has a copy of the parent's memory and none of its threads, its descriptors but none of
//! its POSIX locks. SQLite's tables in it count locks that are the parent's. So the child starts
//! afresh: it closes the descriptors that hold locks (without unlocking), and hides every file from
//! the tables that it inherited (`calls::hide`). Connections are never used or closed by it.
//!
//! The C library calls the handlers below. A bare system call does not; a word in memory that the
//! kernel wipes in a child tells such a one at its next call.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::SeqCst};

use rusqlite::ffi;

use super::files::FILES;
use super::{descriptors, originals};

/// Forks between the process that came first and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The word that is zero in a forked child; null where the kernel knows no such memory.
static HERE: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
const CHILD: u32 = 0;
const WATCHED: u32 = 1;
const STARTING: u32 = 2;

thread_local! {
    /// Operations of this thread's that are under way.
    static OPERATIONS: Cell<u32> = const { Cell::new(0) };
}

/// An operation of this thread's, until it is dropped: a child that is forked amid one must not
/// close what the operation uses.
#[derive(Debug)]
pub(in crate::store) struct InOperation(std::marker::PhantomData<*const ()>);

/// Notes that this thread is about to use connections.
pub(in crate::store) fn in_operation() -> InOperation {
    OPERATIONS.with(|operations| operations.set(operations.get() + 1));
    InOperation(std::marker::PhantomData)
}

impl Drop for InOperation {
    fn drop(&mut self) {
        OPERATIONS.with(|operations| operations.set(operations.get() - 1));
    }
}

/// The number of this process among its forked ancestors.
pub(in crate::store) fn generation() -> u64 {
    let here = HERE.load(SeqCst);
    // SAFETY: null, or mapped for as long as the process lives.
    if let Some(here) = unsafe { here.as_ref() } {
        while here.load(SeqCst) != WATCHED {
            if here.compare_exchange(CHILD, STARTING, SeqCst, SeqCst).is_ok() {
                start_unprepared();
                here.store(WATCHED, SeqCst);
            }
        }
    }
    FORKS.load(SeqCst)
}

/// After a fork that ran no handlers.
fn start_unprepared() {
    if !FILES.was_taken() {
        // SAFETY: the flag is ours, and was nobody's.
        unsafe { FILES.close_inherited() };
    }
    // SAFETY: the flag is ours: of the parent's threads none is here.
    unsafe { FILES.forget() };
    FORKS.fetch_add(1, SeqCst);
    FILES.unlock();
}

/// SQLite's own static mutexes, in the order in which it nests them: VFS1, PRNG, MAIN, LRU, PMEM,
/// MEM. The child would find one locked for ever that another thread held.
const MUTEXES: [c_int; 6] = [11, 5, 2, 6, 7, 3];

unsafe extern "C" fn before_fork() {
    for id in MUTEXES {
        // SAFETY: static mutexes are never freed.
        unsafe { ffi::sqlite3_mutex_enter(ffi::sqlite3_mutex_alloc(id)) };
    }
    FILES.lock();
}

fn leave_mutexes() {
    for id in MUTEXES.into_iter().rev() {
        // SAFETY: entered by `before_fork` in this thread.
        unsafe { ffi::sqlite3_mutex_leave(ffi::sqlite3_mutex_alloc(id)) };
    }
}

unsafe extern "C" fn in_parent() {
    FILES.unlock();
    leave_mutexes();
}

/// System calls and atomics only: other threads of the parent's may have held any lock.
unsafe extern "C" fn in_child() {
    // SAFETY: taken by `before_fork`, when the tables were whole.
    unsafe { FILES.close_inherited() };
    // SAFETY: as above.
    unsafe { FILES.forget() };
    if OPERATIONS.with(Cell::get) == 0 {
        // Connections of the parent's are not used in this process, so nobody misses these. A file
        // that is deleted gives its space back.
        descriptors::drain(|fd| {
            originals::really_close(fd);
        });
    }
    FORKS.fetch_add(1, SeqCst);
    // SAFETY: null, or mapped for as long as the process lives.
    if let Some(here) = unsafe { HERE.load(SeqCst).as_ref() } {
        here.store(WATCHED, SeqCst);
    }
    FILES.unlock();
    leave_mutexes();
}

/// Watches for forks from now on; whether that is possible.
pub(super) fn watch() -> bool {
    // SAFETY: a page of its own, kept for as long as the process lives.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page != libc::MAP_FAILED && libc::madvise(page, 4096, libc::MADV_WIPEONFORK) == 0 {
            let word = page.cast::<AtomicU32>();
            (*word).store(WATCHED, SeqCst);
            HERE.store(word, SeqCst);
        }
    }
    // SQLite has to be initialized before its mutexes are taken.
    // SAFETY: no arguments; the handlers are functions of this module, which is never unloaded.
    unsafe {
        ffi::sqlite3_initialize() == ffi::SQLITE_OK
            && libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) == 0
    }
}

/// A descriptor that a forked child has to close, because it holds a lock of the parent's.
pub(in crate::store) fn close_in_child(fd: c_int) {
    let _ = generation();
    FILES.with_ours(|ours| ours.push(fd));
}

/// Such a descriptor is about to be closed.
pub(in crate::store) fn closed_here(fd: c_int) {
    FILES.with_ours(|ours| ours.retain(|other| *other != fd));
}
