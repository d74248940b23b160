//! The gate that every operation passes, so that a fork may find none under way.
//!
//! Atomics only: a lock held by another thread at the moment of a fork would stay locked forever
//! in the child, where that thread does not exist.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::store::{Birth, Operation};

#[derive(Debug)]
pub(super) struct Gate {
    inside: AtomicUsize,
    /// Forks that are about to happen.
    shut: AtomicUsize,
    /// Whether they found nobody inside.
    quiet: AtomicBool,
    birth: Birth,
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    gate: &'a Gate,
    _operation: Operation,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.gate.inside.fetch_sub(1, SeqCst);
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            inside: AtomicUsize::new(0),
            shut: AtomicUsize::new(0),
            quiet: AtomicBool::new(false),
            birth: Birth::now(),
        }
    }

    /// Passes the gate; waits while it is shut.
    pub(super) fn enter(&self) -> Result<Entered<'_>> {
        loop {
            self.birth.check()?;
            self.inside.fetch_add(1, SeqCst);
            let entered = Entered { gate: self, _operation: Operation::begin() };
            if self.shut.load(SeqCst) == 0 {
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

    /// Shuts the gate and waits, for so long at most, until nobody is inside; whether that is so.
    pub(super) fn shut(&self, patience: Duration) -> bool {
        self.shut.fetch_add(1, SeqCst);
        let deadline = Instant::now() + patience;
        while self.inside() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(50));
        }
        let quiet = self.inside() == 0;
        self.quiet.store(quiet, SeqCst);
        quiet
    }

    /// Opens the gate again in the process that forked, if it was shut there.
    pub(super) fn open(&self) {
        let _ = self.shut.fetch_update(SeqCst, SeqCst, |shut| shut.checked_sub(1));
    }

    /// Opens the gate in a child, if what is behind it is whole: nobody was inside, and nobody could
    /// go in until the fork. Whether that is so.
    pub(super) fn open_in_child(&self) -> bool {
        let is_whole = self.shut.swap(0, SeqCst) > 0 && self.quiet.load(SeqCst);
        if is_whole {
            self.birth.adopt();
        }
        is_whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn shutting_waits_for_those_inside_and_holds_others_off() {
        let gate = Gate::new();
        let inside = gate.enter().unwrap();
        std::thread::scope(|scope| {
            let shutting = scope.spawn(|| gate.shut(LONG));
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
    fn the_gate_stays_shut_until_every_fork_is_over() {
        let gate = Gate::new();
        assert!(gate.shut(LONG) && gate.shut(LONG));
        gate.open();
        std::thread::scope(|scope| {
            let entering = scope.spawn(|| gate.enter().map(drop));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!entering.is_finished());
            gate.open();
            entering.join().unwrap().unwrap();
        });
        // One that was never shut.
        gate.open();
        assert!(gate.enter().is_ok());
    }

    #[test]
    fn a_child_goes_in_only_where_the_fork_found_nobody() {
        let gate = Gate::new();
        assert!(!gate.open_in_child());
        assert!(gate.shut(LONG));
        assert!(gate.open_in_child());
        let inside = gate.enter().unwrap();
        assert!(!gate.shut(Duration::ZERO));
        assert!(!gate.open_in_child());
        drop(inside);
    }
}
