//! The thread that builds indexes in the background.

use std::collections::HashSet;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::indexing::run;
use super::job::{Extent, Job, Outcome};
use crate::error::ErrorKind;
use crate::parallel::{self, Cancel};
use crate::store::{PerProcess, Store};

/// A build starts when nothing was written for this long …
const QUIET: Duration = Duration::from_millis(500);

/// … or when it was asked for this long ago.
const PATIENCE: Duration = Duration::from_secs(10);

/// An index whose build failed, or that another process was building, is not tried again for this
/// long.
const PAUSE: Duration = Duration::from_secs(2);

/// Notices that are kept for whoever asks.
const MOST_NOTICES: usize = 100;

/// Builds one index at a time, in a thread that is there only while there is something to build.
/// The thread gives way to everything else and leaves a core free.
#[derive(Debug)]
pub(super) struct Builder {
    /// A forked child has no thread, and nothing to build.
    shared: PerProcess<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// Whether [`State::stops`] is above 0; what the build under way asks.
    cancelled: Arc<AtomicBool>,
    /// Whether the process is about to end, and waits a moment for what is left to build.
    hurried: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: Vec<Job>,
    /// Jobs that are not to be tried before then.
    paused: Vec<(Job, Instant)>,
    thread: Option<JoinHandle<()>>,
    running: bool,
    /// How many have stopped the builder and not let it go on yet.
    stops: usize,
    last_write: Option<Instant>,
    notices: Vec<String>,
    /// What is said once.
    told: HashSet<String>,
    process: u32,
}

impl State {
    /// Whether there is something to build of what was written.
    fn is_busy(&self) -> bool {
        self.running && self.last_write.is_some()
    }

    fn notice(&mut self, sentence: String) {
        if self.notices.len() < MOST_NOTICES {
            self.notices.push(sentence);
        }
    }
}

impl Builder {
    pub(super) fn new(store: Store) -> Self {
        let make = move || {
            let state = State {
                waiting: Vec::new(),
                paused: Vec::new(),
                thread: None,
                running: false,
                stops: 0,
                last_write: None,
                notices: Vec::new(),
                told: HashSet::new(),
                process: process::id(),
            };
            Arc::new(Shared {
                store: store.sibling(),
                cancelled: Arc::default(),
                hurried: AtomicBool::new(false),
                state: Mutex::new(state),
                changed: Condvar::new(),
            })
        };
        Self { shared: PerProcess::new(make) }
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
        if state.paused.iter().any(|(paused, _)| *paused == job) {
            return;
        }
        if !state.waiting.contains(&job) {
            state.waiting.push(job);
            self.shared.changed.notify_all();
        }
        self.start(&mut state);
    }

    /// Starts the thread, if there is something to do and none yet. Without a thread to be had,
    /// searches answer without an index, and the next request tries again.
    fn start(&self, state: &mut State) {
        if state.running || state.stops > 0 || state.waiting.is_empty() {
            return;
        }
        let shared = Arc::clone(&*self.shared);
        let spawned = std::thread::Builder::new()
            .name("feast-vector-index".to_owned())
            .spawn(move || shared.work());
        if let Ok(thread) = spawned {
            state.thread = Some(thread);
            state.running = true;
        }
    }

    /// Stops what is being built until [`Builder::resume`], and waits for that for so long at most;
    /// whether it has stopped.
    pub(super) fn interrupt(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        state.stops += 1;
        self.shared.cancelled.store(true, SeqCst);
        self.shared.changed.notify_all();
        while state.running {
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() {
                return !state.running;
            }
        }
        true
    }

    /// Stops what is being built and waits until it has stopped, some milliseconds. Nothing is
    /// built until [`Builder::resume`], which goes on with it.
    pub(super) fn stop(&self) {
        let thread = {
            let mut state = self.shared.state.lock();
            state.stops += 1;
            self.shared.cancelled.store(true, SeqCst);
            self.shared.changed.notify_all();
            state.thread.take()
        };
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Lets it go on after a [`Builder::stop`]. In a child of the process that asked for builds they
    /// are left to that process.
    pub(super) fn resume(&self) {
        let mut state = self.shared.state.lock();
        state.stops = state.stops.saturating_sub(1);
        if state.process != process::id() {
            state.process = process::id();
            state.waiting.clear();
            state.last_write = None;
        }
        if state.stops == 0 {
            self.shared.cancelled.store(false, SeqCst);
            self.start(&mut state);
        }
    }

    /// Builds nothing of what was asked for so far.
    pub(super) fn forget(&self) {
        self.shared.state.lock().waiting.clear();
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
        while self.is_busy() && waiting() {
            let mut state = self.shared.state.lock();
            if state.is_busy() {
                let _ = self.shared.changed.wait_for(&mut state, Duration::from_millis(50));
            }
        }
        self.shared.hurried.store(false, SeqCst);
    }

    /// Takes note of something that people should know.
    pub(super) fn notice(&self, sentence: String) {
        self.shared.state.lock().notice(sentence);
    }

    /// The same, but says it once about each subject.
    pub(super) fn notice_once(&self, subject: String, sentence: String) {
        let mut state = self.shared.state.lock();
        if state.told.insert(subject) {
            state.notice(sentence);
        }
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

/// The thread's end, however it comes.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // An orderly end is that of `next`, after which there may be another thread.
        if std::thread::panicking() {
            let mut state = self.0.state.lock();
            state.running = false;
            state.notice(
                "the thread that builds vector indexes ended by a bug in feast-vector; searches \
                 answer without an index, only slower, and the next write or search starts it again"
                    .to_owned(),
            );
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn work(&self) {
        let _ending = Ending(self);
        parallel::in_background();
        let cancel = Arc::clone(&self.cancelled) as Arc<dyn Cancel>;
        parallel::with_cancel(cancel, || {
            while let Some(job) = self.next() {
                self.build(job);
            }
        });
    }

    fn build(&self, job: Job) {
        let what = format!("building the vector index of {}, feature '{}'", job.view, job.feature);
        let threads = parallel::background_threads();
        let outcome = parallel::catch(&what, || {
            run(&self.store, &job, Extent::Worthwhile, Duration::ZERO, threads)
        });
        let mut state = self.state.lock();
        match outcome {
            Ok(Outcome::Busy) => state.paused.push((job, Instant::now() + PAUSE)),
            Ok(Outcome::Cancelled) => state.waiting.insert(0, job),
            Err(error) if error.kind() == ErrorKind::Interrupted => state.waiting.insert(0, job),
            Err(error) => {
                state.notice(error.to_string());
                state.paused.push((job, Instant::now() + 30 * PAUSE));
            }
            Ok(_) => {}
        }
    }

    /// The next job, once it is quiet; `None`, and the thread is over, if there is none.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let asked = Instant::now();
        while !state.waiting.is_empty()
            && state.stops == 0
            && !self.hurried.load(SeqCst)
            && asked.elapsed() < PATIENCE
            && let Some(rest) =
                state.last_write.and_then(|write| QUIET.checked_sub(write.elapsed()))
        {
            let _ = self.changed.wait_for(&mut state, rest + Duration::from_millis(1));
        }
        if state.waiting.is_empty() || state.stops > 0 {
            self.store.disconnect();
            state.running = false;
            self.changed.notify_all();
            return None;
        }
        Some(state.waiting.remove(0))
    }
}
