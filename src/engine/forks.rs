//! Engines and forks.
//!
//! A fork waits for nothing that takes long. If it finds no operation under way, the child goes on
//! with what its parent had in memory; otherwise with an empty engine over the same file. Either
//! has connections of its own.

use std::ops::Deref;
use std::time::Duration;

use super::{Engine, EngineOptions};
use crate::store::{PerProcess, StoreOptions, forks_are_safe};

/// How long a fork waits for operations to end, so that the child inherits what is in memory.
const PATIENCE: Duration = Duration::from_millis(10);

/// An [`Engine`] for each process: a forked child has its own, over the same file.
///
/// The three calls around a fork are optional; without them the child starts with nothing in memory.
#[derive(Debug)]
pub struct ForkedEngine(PerProcess<Engine>);

impl ForkedEngine {
    /// Engines over the file.
    pub fn new(store: StoreOptions, options: EngineOptions) -> Self {
        Self(PerProcess::new(move || Engine::new(store.clone(), options)))
    }

    /// To be called before the process forks. Lets no operation start, and waits some milliseconds
    /// for those under way.
    pub fn before_fork(&self) {
        self.0.prepare_fork();
    }

    /// To be called after the fork, in the process that forked.
    pub fn after_fork_in_parent(&self) {
        self.0.gate.open();
        if !forks_are_safe() {
            self.0.builder.resume();
            self.0.upkeep.resume();
        }
    }

    /// To be called after the fork, in the child.
    pub fn after_fork_in_child(&self) {
        let engine = self.0.inherited();
        if engine.gate.open_in_child() {
            engine.birth().adopt();
            // Connections stay the parent's.
            engine.store.disconnect();
        }
    }
}

impl Deref for ForkedEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Engine {
    /// Whether nothing else in the process can drop the locks on the database: not by opening and
    /// closing it, and not by a SQLite of its own.
    pub fn holds_locks(&self) -> bool {
        self.store.holds_locks()
    }

    fn prepare_fork(&self) {
        let is_quiet = self.gate.shut(PATIENCE);
        if forks_are_safe() {
            return;
        }
        self.upkeep.stop();
        if self.builder.interrupt(PATIENCE) && is_quiet {
            // What is open in the parent cannot be opened in the child.
            self.store.disconnect();
        }
    }
}
