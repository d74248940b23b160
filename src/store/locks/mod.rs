//! Locks that nothing else in the process can drop, and descriptors that survive a fork in order.
//!
//! SQLite's POSIX locks belong to the process: when anything in it closes any descriptor of the
//! file, all of them are gone, and another process may check the log into the file and delete it
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2). Linux has locks of *open file
//! descriptions* as well (`F_OFD_SETLK`), which belong to one descriptor and conflict with other
//! processes' POSIX locks as they should. `docs/adr/0006` has the reasons and the measurements.
//!
//! * `calls`: the system calls of SQLite's unix VFS that are replaced, by `xSetSystemCall`;
//!   `originals`: those that were there before;
//! * `descriptors`: what is known of each descriptor that SQLite opened;
//! * `files`: for each file the descriptor that holds its locks, and descriptors that are kept open
//!   because closing them would drop the locks of another SQLite in the process;
//! * `open_locks`: one such lock, and the file systems that have them;
//! * `fork`: which process this is, and what a forked child does with what it inherited.
//!
//! Only on Linux, and only where C passes the arguments of a variadic function as those of any
//! other; elsewhere SQLite keeps its own calls.

mod calls;
mod descriptors;
mod files;
mod fork;
mod open_locks;
mod originals;
#[cfg(test)]
mod tests;

use std::ffi::c_int;
use std::fs::File;
use std::path::Path;

pub(super) use fork::{InOperation, close_in_child, closed_here, generation, in_operation};

/// Whoever has this has the next turn at a lock file, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a File);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _ = open_locks::lock_whole(self.0, libc::F_UNLCK);
    }
}

/// Takes the next turn, unless somebody has it. It is a lock of another kind than that on the file
/// itself, which it does not touch.
pub(super) fn take_turn(lock_file: &File) -> Option<Turn<'_>> {
    // Where `flock` is a lock of bytes on a server, the two would be in each other's way.
    (!open_locks::is_remote(lock_file) && open_locks::lock_whole(lock_file, libc::F_WRLCK))
        .then_some(Turn(lock_file))
}

/// Whether somebody else has the next turn.
pub(super) fn is_somebodys_turn(lock_file: &File) -> bool {
    open_locks::is_locked_by_another(lock_file)
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Replaces the calls; done once, before the first connection is opened. Whether they are replaced.
pub(super) fn install() -> bool {
    calls::install()
}

/// Whether files in that folder get locks of open file descriptions.
pub(super) fn hold_in(folder: &Path) -> bool {
    install() && File::open(folder).is_ok_and(|folder| open_locks::supports(&folder))
}
