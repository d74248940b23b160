//! The thread that builds indexes in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::indexing::{Extent, Job, Outcome, run};
use crate::store::Store;

/// A build starts when nothing was written for this long …
const QUIET: Duration = Duration::from_millis(500);

/// … or when it was asked for this long ago.
const PATIENCE: Duration = Duration::from_secs(10);

/// An index whose build failed, or that another process was building, is not tried again for this
/// long.
const PAUSE: Duration = Duration::from_secs(2);

/// Builds one index at a time, in a thread that is there only while there is something to build.
#[derive(Debug)]
pub(super) struct Builder {
    shared: Arc<Shared>,
    threads: usize,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    cancelled: AtomicBool,
    /// Whether the process is about to end, and waits for what is left to build.
    hurried: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Job>,
    /// Jobs that are not to be tried before then.
    paused: Vec<(Job, Instant)>,
    thread: Option<JoinHandle<()>>,
    running: bool,
    last_write: Option<Instant>,
    notices: Vec<String>,
}

impl State {
    /// Whether there is something to build of what was written.
    fn is_busy(&self) -> bool {
        self.running && self.last_write.is_some()
    }
}

impl Builder {
    pub(super) fn new(store: Store, threads: usize) -> Self {
        let shared = Shared {
            store,
            cancelled: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared), threads }
    }

    /// Takes note of a write: a build had better wait for the next ones.
    pub(super) fn note_write(&self) {
        self.shared.state.lock().last_write = Some(Instant::now());
    }

    /// Has an index built, if it is worth it, soon.
    pub(super) fn request(&self, job: Job) {
        let mut state = self.shared.state.lock();
        let now = Instant::now();
        state.paused.retain(|(_, until)| *until > now);
        let is_known =
            state.waiting.contains(&job) || state.paused.iter().any(|(paused, _)| *paused == job);
        if is_known || self.shared.cancelled.load(SeqCst) {
            return;
        }
        state.waiting.push(job);
        self.shared.changed.notify_all();
        if !state.running {
            let shared = Arc::clone(&self.shared);
            let threads = self.threads;
            // Without a thread to be had, searches answer without an index.
            let spawned = std::thread::Builder::new()
                .name("feast-vector-index".to_owned())
                .spawn(move || shared.work(threads));
            if let Ok(thread) = spawned {
                state.thread = Some(thread);
                state.running = true;
            }
        }
    }

    /// Stops what is being built and waits until it has stopped. Nothing is built until
    /// [`Builder::resume`].
    pub(super) fn stop(&self) {
        self.shared.cancelled.store(true, SeqCst);
        self.shared.changed.notify_all();
        let thread = self.shared.state.lock().thread.take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.shared.state.lock().waiting.clear();
    }

    pub(super) fn resume(&self) {
        self.shared.cancelled.store(false, SeqCst);
    }

    /// Whether there is something to build of what was written.
    pub(super) fn is_busy(&self) -> bool {
        self.shared.state.lock().is_busy()
    }

    /// If something was written, waits until all that was asked for is built, and holds nothing off
    /// until it is quiet. Calls `waiting` from time to time, and stops waiting when that says no.
    pub(super) fn finish(&self, waiting: &mut dyn FnMut() -> bool) {
        self.shared.hurried.store(true, SeqCst);
        self.shared.changed.notify_all();
        let mut state = self.shared.state.lock();
        while state.is_busy() && waiting() {
            let _ = self.shared.changed.wait_for(&mut state, Duration::from_millis(100));
        }
        drop(state);
        self.shared.hurried.store(false, SeqCst);
    }

    /// Takes note of something that people should know.
    pub(super) fn notice(&self, sentence: String) {
        self.shared.state.lock().notices.push(sentence);
    }

    /// What went wrong in the background since the last call.
    pub(super) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state.lock().notices)
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn work(&self, threads: usize) {
        while let Some(job) = self.next() {
            let cancelled = || self.cancelled.load(SeqCst);
            let outcome =
                run(&self.store, &job, Extent::Worthwhile, Duration::ZERO, threads, &cancelled);
            let mut state = self.state.lock();
            match outcome {
                Ok(Outcome::Busy) => state.paused.push((job, Instant::now() + PAUSE)),
                Err(error) => {
                    state.notices.push(error.to_string());
                    state.paused.push((job, Instant::now() + 30 * PAUSE));
                }
                Ok(_) => {}
            }
        }
    }

    /// The next job, once it is quiet; `None`, and the thread is over, if there is none.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let asked = Instant::now();
        while !state.waiting.is_empty()
            && !self.cancelled.load(SeqCst)
            && !self.hurried.load(SeqCst)
            && asked.elapsed() < PATIENCE
            && let Some(rest) =
                state.last_write.and_then(|write| QUIET.checked_sub(write.elapsed()))
        {
            let _ = self.changed.wait_for(&mut state, rest + Duration::from_millis(1));
        }
        if state.waiting.is_empty() || self.cancelled.load(SeqCst) {
            state.running = false;
            self.store.disconnect();
            self.changed.notify_all();
            return None;
        }
        Some(state.waiting.remove(0))
    }
}
