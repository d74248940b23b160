//! What belongs to which process. In a forked child, connections of the parent's must be neither
//! used nor closed, and its lock files not unlocked.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;

use super::locks;
use crate::error::{Error, ErrorKind, Result};

/// The process in which something was made.
#[derive(Debug)]
pub(crate) struct Birth(AtomicU64);

impl Birth {
    /// Here and now.
    pub(crate) fn now() -> Self {
        locks::install();
        Self(AtomicU64::new(locks::generation()))
    }

    /// Whether this is still that process, and not a forked child.
    pub(crate) fn is_here(&self) -> bool {
        self.0.load(SeqCst) == locks::generation()
    }

    /// An error in any other process.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(forked()) }
    }

    /// In a forked child: what was made in the parent is this process's from now on.
    pub(crate) fn adopt(&self) {
        self.0.store(locks::generation(), SeqCst);
    }
}

/// The error of whoever goes on in a child with what was begun in its parent.
pub(crate) fn forked() -> Error {
    Error::new(
        ErrorKind::Forked,
        "this process was forked in the middle of an operation, which goes on in the parent alone; \
         create a new FeatureStore in this process",
    )
}

/// An operation that this thread is amid, until it is dropped.
#[derive(Debug)]
pub(crate) struct Operation {
    _noted: locks::InOperation,
}

impl Operation {
    pub(crate) fn begin() -> Self {
        Self { _noted: locks::in_operation() }
    }
}

/// A value that only the process drops that made it.
#[derive(Debug)]
pub(crate) struct Own<T> {
    value: ManuallyDrop<T>,
    birth: Birth,
}

impl<T> Own<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), birth: Birth::now() }
    }

    pub(crate) fn birth(&self) -> &Birth {
        &self.birth
    }
}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Own<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.birth.is_here() {
            // SAFETY: dropped once, here; nobody reads it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// A value that each process has for itself: a forked child makes its own at its first use, and
/// leaves the parent's as it is, with all that its threads held at that moment.
pub(crate) struct PerProcess<T> {
    made: Made<T>,
    make: Box<dyn Fn() -> T + Send + Sync>,
}

struct Made<T> {
    value: Own<T>,
    /// The child's.
    next: OnceLock<Box<Self>>,
}

impl<T> PerProcess<T> {
    pub(crate) fn new(make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { made: Made::new(make()), make: Box::new(make) }
    }

    /// In a forked child: the value of the nearest process that made one.
    pub(crate) fn inherited(&self) -> &Own<T> {
        let mut made = &self.made;
        while let Some(next) = made.next.get() {
            made = next;
        }
        &made.value
    }
}

impl<T> Made<T> {
    fn new(value: T) -> Self {
        Self { value: Own::new(value), next: OnceLock::new() }
    }
}

impl<T> Deref for PerProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let mut made = &self.made;
        while !made.value.birth.is_here() {
            made = made.next.get_or_init(|| Box::new(Made::new((self.make)())));
        }
        &made.value
    }
}

impl<T: fmt::Debug> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inherited().fmt(f)
    }
}

/// Whether a forked child can open what its parent had open: its SQLite then knows nothing of the
/// parent's locks. Otherwise it takes them for its own, and what it writes may be lost.
pub(crate) fn forks_are_safe() -> bool {
    locks::install()
}

/// The files that are open, where forks are not safe.
static OPEN: Mutex<Vec<(PathBuf, Birth)>> = Mutex::new(Vec::new());

/// A file that is open, until this is dropped.
#[derive(Debug)]
pub(super) struct OpenFile(Option<PathBuf>);

/// How long a child waits for a lock that a thread of its parent's may have held.
const PATIENCE: Duration = Duration::from_millis(200);

impl OpenFile {
    /// Notes that the file is being opened; an error if it was open when this process was forked.
    pub(super) fn new(path: &Path) -> Result<Self> {
        if forks_are_safe() { Ok(Self(None)) } else { Self::noted(path) }
    }

    fn noted(path: &Path) -> Result<Self> {
        let mut open = OPEN.try_lock_for(PATIENCE).ok_or_else(|| unsafe_here(path))?;
        if open.iter().any(|(other, birth)| other == path && !birth.is_here()) {
            return Err(unsafe_here(path));
        }
        open.push((path.to_owned(), Birth::now()));
        Ok(Self(Some(path.to_owned())))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Some(mut open) = OPEN.try_lock_for(PATIENCE)
            && let Some(at) =
                open.iter().position(|(other, birth)| other == path && birth.is_here())
        {
            open.swap_remove(at);
        }
    }
}

fn unsafe_here(path: &Path) -> Error {
    Error::new(
        ErrorKind::Forked,
        format!(
            "this process was forked while its parent used '{}', and SQLite on this system takes \
             the parent's locks for its own. Start the process afresh: by \
             `multiprocessing.get_context(\"spawn\")`, or as a program of its own; or close the \
             parent's store before it forks",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elsewhere() -> Birth {
        Birth(AtomicU64::new(u64::MAX))
    }

    #[test]
    fn each_process_makes_its_own_value() {
        let made = AtomicU64::new(0);
        let made: &'static AtomicU64 = Box::leak(Box::new(made));
        let mut value = PerProcess::new(|| made.fetch_add(1, SeqCst));
        assert_eq!((*value, *value), (0, 0));
        value.made.value.birth = elsewhere();
        assert_eq!((*value, *value), (1, 1));
        assert!(value.inherited().birth().is_here());
        value.made.value.birth.adopt();
        assert_eq!(*value, 0);
    }

    #[test]
    fn a_file_that_the_parent_had_open_is_refused_in_the_child() {
        let path = Path::new("somewhere/online.db");
        drop(OpenFile::noted(path).unwrap());
        OPEN.lock().push((path.to_owned(), elsewhere()));
        let error = OpenFile::noted(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forked);
        assert!(error.message().contains("spawn"), "{error}");
        assert!(OpenFile::noted(Path::new("somewhere/else.db")).is_ok());
        OPEN.lock().retain(|(_, birth)| birth.is_here());
        assert!(OpenFile::noted(path).is_ok());
    }

    #[test]
    fn another_processes_values_are_not_dropped() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let mut own = Own::new(Bomb);
        own.birth = elsewhere();
        assert_eq!(own.birth().check().unwrap_err().kind(), ErrorKind::Forked);
        drop(own);
    }
}
