//! Threads, and how work under way is told to stop.
//!
//! The only place that starts threads for a piece of work. Where the system has no thread to spare,
//! the calling thread does the work itself: slower, with the same result.
//!
//! A call brings a [`Cancel`], which the threads that it starts inherit. Long work asks
//! [`is_cancelled`] or [`check`] every few milliseconds; SQLite's statements ask by themselves.

mod bound;
mod pipe;

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, ErrorKind, Result};
use bound::Bound;

pub use bound::{is_spent, uncounted, within};
pub use pipe::{Items, Late, pipe};

/// How long a thread waits for others before it asks again whether to stop.
pub const PULSE: Duration = Duration::from_millis(20);

/// Tells work whether to stop.
pub trait Cancel: Send + Sync {
    /// Whether it was told to stop. Asked by every thread that works on the call.
    fn is_set(&self) -> bool;

    /// As [`Cancel::is_set`], by the thread of the call itself, which may look for signals.
    fn ask(&self) -> bool {
        self.is_set()
    }
}

/// What the current thread works for, and whether it is the thread of the call itself.
#[derive(Clone)]
struct Current {
    cancel: Arc<dyn Cancel>,
    is_callers: bool,
    /// What it may take of the processors, if that is bounded.
    bound: Option<Arc<Bound>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Puts back what the thread worked for before.
struct Restore(Option<Current>);

impl Drop for Restore {
    fn drop(&mut self) {
        // Fails only while the thread's own variables are being destroyed.
        let _ = CURRENT.try_with(|slot| switch(slot, self.0.take()));
    }
}

fn enter(current: Option<Current>) -> Restore {
    Restore(CURRENT.with(|slot| switch(slot, current)))
}

/// Has the thread work for something else from now on, and gives what it worked for.
fn switch(slot: &RefCell<Option<Current>>, current: Option<Current>) -> Option<Current> {
    let is_bounded = current.as_ref().is_some_and(|current| current.bound.is_some());
    let before = slot.replace(current);
    if let Some(Current { bound: Some(bound), .. }) = &before {
        bound.count();
    }
    if is_bounded {
        Bound::begin();
    }
    before
}

/// Does `work`, which stops early once `cancel` says so.
pub fn with_cancel<T>(cancel: Arc<dyn Cancel>, work: impl FnOnce() -> T) -> T {
    let _restore = enter(Some(Current { cancel, is_callers: true, bound: None }));
    work()
}

/// Does `work` to its end, whoever says stop: what has to be undone or kept in order.
pub fn uncancelled<T>(work: impl FnOnce() -> T) -> T {
    let _restore = enter(None);
    work()
}

/// Whether the current thread's work was told to stop. Costs some 30 nanoseconds.
pub fn is_cancelled() -> bool {
    let asked = CURRENT.try_with(|current| match &*current.borrow() {
        Some(Current { cancel, is_callers, bound }) => {
            bound.as_ref().is_some_and(|bound| bound.has_passed())
                || if *is_callers { cancel.ask() } else { cancel.is_set() }
        }
        None => false,
    });
    asked.unwrap_or(false)
}

/// [`ErrorKind::Interrupted`] if the current thread's work was told to stop.
pub fn check() -> Result<()> {
    if is_cancelled() { Err(interrupted()) } else { Ok(()) }
}

pub(crate) fn interrupted() -> Error {
    Error::new(
        ErrorKind::Interrupted,
        "the operation was interrupted before its end; nothing of it was kept",
    )
}

/// Does `work` for each part, in this thread and in as many others as there are parts besides and
/// threads to be had. The answers are in the order of the parts.
pub fn map<P: Send, A: Send>(parts: Vec<P>, work: impl Fn(P) -> A + Sync) -> Vec<A> {
    let count = parts.len();
    if count <= 1 {
        return parts.into_iter().map(work).collect();
    }
    let waiting = Mutex::new(parts.into_iter().enumerate());
    let answers: Mutex<Vec<Option<A>>> = Mutex::new((0..count).map(|_| None).collect());
    run(count, || {
        loop {
            let next = waiting.lock().next();
            let Some((at, part)) = next else { return };
            let answer = work(part);
            answers.lock()[at] = Some(answer);
        }
    });
    answers.into_inner().into_iter().flatten().collect()
}

/// Runs `work` in this thread and in up to `threads - 1` others at the same time. It has to share
/// itself out: one run of it does everything if there is no other.
pub fn run(threads: usize, work: impl Fn() + Sync) {
    let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    let guarded = || {
        if let Err(cause) = catch_unwind(AssertUnwindSafe(&work)) {
            panic.lock().get_or_insert(cause);
        }
    };
    let (inherited, caller, active) = (inherited(), thread::current(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 1..threads {
            let (inherited, caller) = (inherited.clone(), caller.clone());
            let (guarded, active) = (&guarded, &active);
            active.fetch_add(1, SeqCst);
            let spawned = thread::Builder::new().spawn_scoped(scope, move || {
                let _restore = enter(inherited);
                guarded();
                active.fetch_sub(1, SeqCst);
                caller.unpark();
            });
            // None to be had now: those that are there do the work.
            if spawned.is_err() {
                active.fetch_sub(1, SeqCst);
                break;
            }
        }
        guarded();
        wait_while(|| active.load(SeqCst) > 0);
    });
    if let Some(cause) = panic.into_inner() {
        resume_unwind(cause);
    }
}

/// Waits for other threads, which wake this one when there is news, and looks for signals.
fn wait_while(goes_on: impl Fn() -> bool) {
    while goes_on() {
        is_cancelled();
        thread::park_timeout(PULSE);
    }
}

/// What a thread that the current one starts works for.
fn inherited() -> Option<Current> {
    CURRENT.with(|current| current.borrow().clone()).map(|c| Current { is_callers: false, ..c })
}

/// Waits for the lock, and stops waiting when told to.
pub fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    loop {
        if let Some(guard) = mutex.try_lock_for(PULSE) {
            return Ok(guard);
        }
        check()?;
    }
}

/// The same until a deadline; `None` if it passes.
pub fn lock_until<T>(mutex: &Mutex<T>, deadline: Instant) -> Result<Option<MutexGuard<'_, T>>> {
    loop {
        let pulse = deadline.min(Instant::now() + PULSE);
        if let Some(guard) = mutex.try_lock_until(pulse) {
            return Ok(Some(guard));
        }
        check()?;
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Does `work`, whose panic becomes an error: one of ours, which says that it is a bug.
pub fn catch<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(what, &*panic)))
}

/// The error that a panic becomes.
pub fn panicked(what: &str, panic: &(dyn Any + Send)) -> Error {
    let cause = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let cause: String = cause.chars().take(500).collect();
    Error::new(
        ErrorKind::Internal,
        format!(
            "{what} failed by a bug in feast-vector {}, not by anything in the call ({cause}); \
             nothing of it was kept. Please report it with this message and the call",
            env!("CARGO_PKG_VERSION")
        ),
    )
}

/// Threads that a piece of background work may use: all but one of the cores.
pub fn background_threads() -> usize {
    cores().saturating_sub(1).max(1)
}

/// The cores that this process may use. Asking the system takes longer than a small search, so its
/// answer stands for a second: a process may be given other cores while it runs.
pub fn cores() -> usize {
    /// When it was asked, in seconds and one more, above the answer: one number, so that no lock
    /// can be held by another thread when the process forks.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    static START: OnceLock<Instant> = OnceLock::new();
    let second = START.get_or_init(Instant::now).elapsed().as_secs() + 1;
    let known = KNOWN.load(Relaxed);
    if known >> CORE_BITS == second {
        return (known & ((1 << CORE_BITS) - 1)) as usize;
    }
    let cores = thread::available_parallelism().map_or(1, usize::from).min((1 << CORE_BITS) - 1);
    KNOWN.store(second << CORE_BITS | cores as u64, Relaxed);
    cores
}

/// Bits that the number of cores takes.
const CORE_BITS: u32 = 20;

/// Lets everything else go first, from now on, in this thread and in those that it starts.
pub fn in_background() {
    // Elsewhere the priority is the process's, or cannot be changed by a safe call.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}

/// A flag that work is told to stop by.
impl Cancel for AtomicBool {
    fn is_set(&self) -> bool {
        self.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_answered_in_their_order() {
        let answers = map((0..100).collect(), |part: i32| part * 2);
        assert_eq!(answers, (0..100).map(|part| part * 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_in_any_thread_is_the_callers_and_an_error_once_caught() {
        let error = catch("a test", || {
            map(vec![1, 2, 3], |part| assert_ne!(part, 2, "two"));
            Ok(())
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("two") && error.message().contains("a test"), "{error}");
    }

    #[test]
    fn threads_inherit_what_they_work_for() {
        let stop = Arc::new(AtomicBool::new(false));
        with_cancel(Arc::clone(&stop) as Arc<dyn Cancel>, || {
            assert!(!map(vec![(); 3], |()| is_cancelled()).contains(&true));
            stop.store(true, SeqCst);
            assert!(!map(vec![(); 3], |()| is_cancelled()).contains(&false));
            assert!(uncancelled(check).is_ok());
            assert_eq!(check().unwrap_err().kind(), ErrorKind::Interrupted);
        });
        assert!(!is_cancelled());
    }

    #[test]
    fn a_pipe_says_whether_all_items_came() {
        let collect = |items: &mut dyn Items<Option<i32>>| Ok(items.collect::<Vec<_>>());
        let all = pipe(2, 0..50, collect).unwrap();
        assert_eq!(all, (0..50).map(Some).chain([None]).collect::<Vec<_>>());
        let seen = Mutex::new(Vec::new());
        let broken = (0..50).map(|item| if item == 20 { panic!("no more") } else { item });
        let caught = catch("a pipe", || {
            pipe(2, broken, |items| {
                seen.lock().extend(items);
                Ok(())
            })
        });
        assert_eq!(caught.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(seen.into_inner(), (0..20).map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn waiting_for_a_lock_ends_when_told_so_or_at_the_deadline() {
        let mutex = Mutex::new(());
        let held = mutex.lock();
        assert!(lock_until(&mutex, Instant::now() + PULSE).unwrap().is_none());
        let stop: Arc<dyn Cancel> = Arc::new(AtomicBool::new(true));
        assert!(with_cancel(stop, || lock(&mutex).is_err()));
        drop(held);
        assert!(lock(&mutex).is_ok());
    }
}
