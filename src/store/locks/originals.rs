//! The system calls that SQLite's unix VFS made before ours were put in their place.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

pub(super) type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
pub(super) type Close = unsafe extern "C" fn(c_int) -> c_int;
pub(super) type Fcntl = unsafe extern "C" fn(c_int, c_int, ...) -> c_int;
pub(super) type Fstat = unsafe extern "C" fn(c_int, *mut libc::stat) -> c_int;
pub(super) type Stat = unsafe extern "C" fn(*const c_char, *mut libc::stat) -> c_int;

/// The calls that were there before.
pub(super) struct Originals {
    pub(super) open: Open,
    pub(super) close: Close,
    pub(super) fcntl: Fcntl,
    pub(super) fstat: Fstat,
    pub(super) stat: Stat,
}

pub(super) static ORIGINALS: OnceLock<Originals> = OnceLock::new();

/// Whether files keep POSIX locks, as on a file system that has no others.
pub(super) static POSIX: AtomicBool = AtomicBool::new(false);

pub(super) fn keeps_posix_locks() -> bool {
    POSIX.load(SeqCst)
}

/// For tests: files opened from now on keep POSIX locks, or not.
#[cfg(test)]
pub(super) fn keep_posix_locks(keep: bool) {
    POSIX.store(keep, SeqCst);
}

pub(super) fn really_close(fd: c_int) -> c_int {
    match ORIGINALS.get() {
        // SAFETY: SQLite's close, of a descriptor that is SQLite's or ours.
        Some(originals) => unsafe { (originals.close)(fd) },
        // SAFETY: as above.
        None => unsafe { libc::close(fd) },
    }
}

pub(super) fn really_fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    match ORIGINALS.get() {
        // SAFETY: the caller's arguments, passed on.
        Some(originals) => unsafe { (originals.fcntl)(fd, command, argument) },
        // SAFETY: as above.
        None => unsafe { libc::fcntl(fd, command, argument) },
    }
}
