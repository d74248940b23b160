//! What is left of writes and goes on beside them: text indexes to be filled, expired rows to be
//! deleted. Both in pieces, each a short transaction, so that writers get in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Engine, now};
use crate::error::{Error, Result};
use crate::parallel::{self, Cancel};
use crate::schema::ViewSpec;
use crate::store::{PerProcess, Store};

/// Between two pieces. Writers that wait for the lock try again more often than this.
const PAUSE: Duration = Duration::from_millis(8);

/// Works in a thread that is there only while there is something to do. What it leaves when it is
/// stopped, the next write or search goes on with.
#[derive(Debug)]
pub(super) struct Upkeep(PerProcess<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    store: Store,
    stopped: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<ViewSpec>,
    thread: Option<JoinHandle<()>>,
    running: bool,
}

impl Upkeep {
    pub(super) fn new(store: Store) -> Self {
        // A forked child has no thread.
        Self(PerProcess::new(move || {
            let (stopped, state) = (Arc::default(), Mutex::default());
            Arc::new(Shared { store: store.sibling(), stopped, state })
        }))
    }

    /// Has the view's table looked after soon.
    pub(super) fn request(&self, view: &ViewSpec) {
        let mut state = self.0.state.lock();
        if self.0.stopped.load(SeqCst) || state.waiting.iter().any(|waiting| waiting.id == view.id)
        {
            return;
        }
        state.waiting.push_back(view.clone());
        if !state.running {
            let shared = Arc::clone(&*self.0);
            // Without a thread to be had, the next write tries again.
            let spawned = std::thread::Builder::new().name("feast-vector upkeep".to_owned()).spawn(
                move || {
                    let stopped = Arc::clone(&shared.stopped) as Arc<dyn Cancel>;
                    parallel::with_cancel(stopped, || shared.work());
                },
            );
            match spawned {
                Ok(thread) => (state.thread, state.running) = (Some(thread), true),
                Err(_) => state.waiting.clear(),
            }
        }
    }

    /// Stops the piece under way, which is rolled back, and waits for that. Nothing is done until
    /// [`Upkeep::resume`].
    pub(super) fn stop(&self) {
        self.0.stopped.store(true, SeqCst);
        let thread = self.0.state.lock().thread.take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.0.state.lock().waiting.clear();
    }

    pub(super) fn resume(&self) {
        self.0.stopped.store(false, SeqCst);
    }

    /// Whether there is nothing to do.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        !self.0.state.lock().running
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let view = {
                let mut state = self.state.lock();
                let next = state.waiting.front().filter(|_| !self.stopped.load(SeqCst)).cloned();
                let Some(view) = next else {
                    state.running = false;
                    self.store.disconnect();
                    return;
                };
                view
            };
            // What fails is tried again after the next write.
            while !self.stopped.load(SeqCst) && self.piece(&view) {
                std::thread::sleep(PAUSE);
            }
            self.state.lock().waiting.pop_front();
        }
    }

    /// One piece of what there is to do; false if there is no more, or it fails.
    fn piece(&self, view: &ViewSpec) -> bool {
        if !self.store.path().exists() {
            // Upkeep creates no database.
            return false;
        }
        let piece = || {
            self.store.write(|txn| {
                let fills = txn.build_text_index(view)?.is_some();
                Ok(txn.purge_expired(&view.id, now())? || fills)
            })
        };
        parallel::catch("the upkeep", piece).is_ok_and(|more| more)
    }
}

impl Engine {
    /// Deletes all expired rows and fills the text index, for who waits for it. `progress` hears
    /// of the rows of the index that are done, and of all there are.
    pub(super) fn look_after(
        &self,
        view: &ViewSpec,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        while self.store.write(|txn| txn.purge_expired(&view.id, now()))? {
            parallel::check()?;
            std::thread::sleep(PAUSE);
        }
        self.fill_text_index(view, progress)
    }

    /// Makes the text index that the view wants, if there is none, and fills it.
    pub(super) fn fill_text_index(
        &self,
        view: &ViewSpec,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let is_missing = |snapshot: &crate::store::Snapshot<'_>| {
            let table = snapshot.table(&view.id)?.filter(|table| {
                let is_wanted = || !table.schema.text_columns_among(&view.text_features).is_empty();
                table.schema.text_is_filling || (!table.schema.has_text_index() && is_wanted())
            });
            table.map(|table| snapshot.count(&table.schema)).transpose()
        };
        let Some(all) = self.store.read(is_missing)? else {
            return Ok(());
        };
        let mut done = 0;
        while let Some(more) = self.store.write(|txn| txn.build_text_index(view))? {
            done += more;
            progress(done.min(all), all);
            parallel::check()?;
            std::thread::sleep(PAUSE);
        }
        progress(all, all);
        Ok(())
    }

    /// The same for a search, which changes nothing else.
    pub(super) fn ensure_text_index(&self, view: &ViewSpec) -> Result<()> {
        self.fill_text_index(view, &mut |_, _| {}).map_err(|error| {
            let advice = "the text index is not complete, and this search cannot complete it; run \
                          `feast apply`";
            Error::new(error.kind(), format!("{advice} ({error})")).at(&view.id)
        })
    }
}
