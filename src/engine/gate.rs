//! The gate that every operation passes, so that a fork finds none under way.
//!
//! Atomics only: a lock held by another thread at the moment of a fork would stay locked forever
//! in the child, where that thread does not exist.

use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// How long a fork waits for running operations.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Gate {
    inside: AtomicUsize,
    shut: AtomicBool,
    /// Whether the fork found nobody inside.
    quiet: AtomicBool,
    process: AtomicU32,
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Entered<'a>(&'a Gate);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, SeqCst);
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            inside: AtomicUsize::new(0),
            shut: AtomicBool::new(false),
            quiet: AtomicBool::new(true),
            process: AtomicU32::new(process::id()),
        }
    }

    /// Passes the gate; waits while it is shut.
    pub(super) fn enter(&self) -> Result<Entered<'_>> {
        loop {
            if self.process.load(SeqCst) != process::id() {
                return Err(forked());
            }
            self.inside.fetch_add(1, SeqCst);
            let entered = Entered(self);
            if !self.shut.load(SeqCst) {
                return Ok(entered);
            }
            drop(entered);
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The operations under way.
    pub(super) fn inside(&self) -> usize {
        self.inside.load(SeqCst)
    }

    /// Shuts the gate and waits until nobody is inside; false if that takes too long.
    pub(super) fn shut(&self) -> bool {
        self.shut.store(true, SeqCst);
        let deadline = Instant::now() + PATIENCE;
        while self.inside() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(50));
        }
        let quiet = self.inside() == 0;
        self.quiet.store(quiet, SeqCst);
        quiet
    }

    /// Opens the gate again, in the parent or in the child. A child that was forked amid an
    /// operation is left with half of its state, and stays out.
    pub(super) fn open(&self) {
        if self.quiet.load(SeqCst) {
            self.process.store(process::id(), SeqCst);
        }
        self.shut.store(false, SeqCst);
    }
}

fn forked() -> Error {
    Error::new(
        ErrorKind::Forked,
        "this process was forked in the middle of an operation of another thread, or without \
         Python's fork hooks; create a new FeatureStore in this process",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutting_waits_for_those_inside_and_holds_others_off() {
        let gate = Gate::new();
        let inside = gate.enter().unwrap();
        std::thread::scope(|scope| {
            let shutting = scope.spawn(|| gate.shut());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!shutting.is_finished());
            drop(inside);
            assert!(shutting.join().unwrap());
            let entering = scope.spawn(|| gate.enter().map(drop));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!entering.is_finished());
            gate.open();
            entering.join().unwrap().unwrap();
        });
        assert_eq!(gate.inside(), 0);
    }

    #[test]
    fn another_process_stays_out_until_the_gate_is_opened_there() {
        let gate = Gate::new();
        gate.process.store(u32::MAX, SeqCst);
        assert_eq!(gate.enter().unwrap_err().kind(), ErrorKind::Forked);
        gate.shut();
        gate.open();
        assert!(gate.enter().is_ok());
    }
}
