//! How much of the processors a piece of work may take, in all of its threads together.
//!
//! Processor time and not time by the clock: so a call is not stopped for what others do on a busy
//! machine, nor for waiting for a lock or the disk, and the same call is stopped every time.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{CURRENT, Current, enter};
use crate::error::{Error, ErrorKind, Result};

/// Asking for a thread's processor time takes much longer than asking for the time.
const PAUSE: Duration = Duration::from_millis(1);

/// What a piece of work may take, and what it has taken.
pub(super) struct Bound {
    limit: Duration,
    spent_nanos: AtomicU64,
    is_passed: AtomicBool,
}

/// How far a thread's work is counted.
#[derive(Clone, Copy)]
struct Counted {
    /// The thread's own clock when it was counted last.
    clock: Duration,
    /// When that was; unset before the first time.
    at: Option<Instant>,
}

thread_local! {
    static COUNTED: Cell<Counted> = const { Cell::new(Counted { clock: Duration::ZERO, at: None }) };
}

impl Bound {
    fn new(limit: Duration) -> Self {
        Self { limit, spent_nanos: AtomicU64::new(0), is_passed: AtomicBool::new(false) }
    }

    /// Counts the current thread's work from now on.
    pub(super) fn begin() {
        COUNTED.set(Counted { clock: thread_clock(), at: None });
    }

    /// Adds what the thread has done since it was counted last.
    pub(super) fn count(&self) {
        let (clock, before) = (thread_clock(), COUNTED.get());
        COUNTED.set(Counted { clock, at: Some(Instant::now()) });
        let nanos = clock.saturating_sub(before.clock).as_nanos() as u64;
        let spent = self.spent_nanos.fetch_add(nanos, Relaxed) + nanos;
        if Duration::from_nanos(spent) >= self.limit {
            self.is_passed.store(true, Relaxed);
        }
    }

    pub(super) fn has_passed(&self) -> bool {
        let is_due = COUNTED.get().at.is_none_or(|at| at.elapsed() >= PAUSE);
        if is_due && !self.is_passed.load(Relaxed) {
            self.count();
        }
        self.is_passed.load(Relaxed)
    }
}

/// Does `work`, which stops once all of its threads together have worked for longer than `limit`:
/// then the answer is the error that `late` makes.
pub fn within<T>(
    limit: Option<Duration>,
    late: impl FnOnce(Duration) -> Error,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(limit) = limit else { return work() };
    let bound = Arc::new(Bound::new(limit));
    let outer = CURRENT.with_borrow(Clone::clone);
    let current = match outer {
        Some(current) => Current { bound: Some(Arc::clone(&bound)), ..current },
        None => Current {
            cancel: Arc::new(AtomicBool::new(false)),
            is_callers: true,
            bound: Some(Arc::clone(&bound)),
        },
    };
    let _restore = enter(Some(current));
    match work() {
        Err(error) if error.kind() == ErrorKind::Interrupted && bound.is_passed.load(Relaxed) => {
            Err(late(limit))
        }
        answer => answer,
    }
}

/// Does `work` that does not count, because later calls have the use of it, such as bringing what is
/// in memory up to date: given up each time, it would never end.
pub fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let bounded = CURRENT
        .with_borrow(|current| current.as_ref().filter(|current| current.bound.is_some()).cloned());
    let Some(current) = bounded else { return work() };
    let _restore = enter(Some(Current { bound: None, ..current }));
    work()
}

/// Whether the current thread's work was stopped by [`within`].
pub fn is_spent() -> bool {
    CURRENT.with_borrow(|current| {
        let bound = current.as_ref().and_then(|current| current.bound.as_ref());
        bound.is_some_and(|bound| bound.is_passed.load(Relaxed))
    })
}

/// How long the current thread has worked.
#[cfg(unix)]
fn thread_clock() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Elsewhere time by the clock stands for it.
#[cfg(not(unix))]
fn thread_clock() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::super::{Cancel, check, is_cancelled, map, with_cancel};
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn late(limit: Duration) -> Error {
        Error::new(ErrorKind::TooCostly, format!("more than {} seconds", limit.as_secs_f64()))
    }

    /// Works for so long.
    fn work(time: Duration) {
        let start = thread_clock();
        while thread_clock().saturating_sub(start) < time {
            std::hint::black_box((0..1000).sum::<u64>());
        }
    }

    fn spent() -> Duration {
        let bound = CURRENT.with_borrow(Clone::clone).unwrap().bound.unwrap();
        bound.count();
        Duration::from_nanos(bound.spent_nanos.load(Relaxed))
    }

    #[test]
    fn work_beyond_its_bound_is_stopped_in_every_thread() {
        let stopped = within(Some(Duration::ZERO), late, || {
            assert!(!is_spent());
            assert!(!map(vec![(); 3], |()| is_cancelled()).contains(&false));
            assert!(is_spent());
            check()
        });
        let error = stopped.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooCostly);
        assert_eq!(error.message(), "more than 0 seconds");
        assert!(!is_cancelled() && !is_spent());
        assert!(within(None, late, check).is_ok() && within(Some(LONG), late, check).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn all_threads_count_but_neither_waiting_nor_what_is_of_use_later() {
        let piece = Duration::from_millis(5);
        let done = within(Some(LONG), late, || {
            map(vec![(); 3], |()| work(piece));
            let all = spent();
            assert!(all >= piece * 3, "{all:?}");
            uncounted(|| work(piece * 10));
            std::thread::sleep(piece * 10);
            assert!(spent().saturating_sub(all) < piece * 10);
            Ok(())
        });
        assert!(done.is_ok());
    }

    #[test]
    fn what_does_not_count_is_not_stopped() {
        let stopped = within(Some(Duration::ZERO), late, || {
            assert!(check().is_err());
            assert!(uncounted(check).is_ok());
            check()
        });
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::TooCostly);
    }

    #[test]
    fn what_somebody_else_stops_was_interrupted() {
        let stop: Arc<dyn Cancel> = Arc::new(AtomicBool::new(true));
        let stopped = with_cancel(stop, || within(Some(LONG), late, || uncounted(check)));
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
