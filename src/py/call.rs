//! What every call from Python runs under: panics become errors, and Ctrl-C ends long work.

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::types::PyModule;

use crate::error::{Error, ErrorKind, Result};
use crate::parallel::{self, Cancel};

/// How often Python is asked for signals; sooner than anybody waits for Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// A call under way.
pub(super) struct Call {
    interrupt: Arc<Interrupt>,
}

/// Whether the call is to stop, and what to raise then.
struct Interrupt {
    stopped: AtomicBool,
    error: Mutex<Option<PyErr>>,
    looks: Mutex<Looks>,
}

/// When Python was asked for signals. It handles them in its main thread alone; elsewhere it is
/// asked once, to find that out.
struct Looks {
    last: Instant,
    is_main: Option<bool>,
}

impl Call {
    /// Does the work of the core: without Python's lock, and stopped by a signal whose handler
    /// raises, such as Ctrl-C's.
    pub(super) fn detached<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> PyResult<T> {
        let interrupt = Arc::clone(&self.interrupt) as Arc<dyn Cancel>;
        let answer = py.detach(|| parallel::with_cancel(interrupt, work));
        match self.interrupt.error.lock().take() {
            Some(error) => Err(error),
            None => Ok(answer?),
        }
    }

    /// Stops the work, for which `error` is then raised: what a callback raised.
    pub(super) fn stop(&self, error: PyErr) {
        self.interrupt.stop(error);
    }
}

impl Interrupt {
    fn stop(&self, error: PyErr) {
        self.error.lock().get_or_insert(error);
        self.stopped.store(true, SeqCst);
    }
}

impl Cancel for Interrupt {
    fn is_set(&self) -> bool {
        self.stopped.load(SeqCst)
    }

    fn ask(&self) -> bool {
        let mut looks = self.looks.lock();
        if looks.is_main == Some(false) || looks.last.elapsed() < LOOK {
            return self.is_set();
        }
        Python::attach(|py| {
            // Unknown where Python cannot say: then signals are looked for, which does no harm.
            let is_main = looks.is_main.get_or_insert_with(|| is_main_thread(py).unwrap_or(true));
            if *is_main && let Err(error) = py.check_signals() {
                self.stop(error);
            }
        });
        looks.last = Instant::now();
        self.is_set()
    }
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    Ok(threading.call_method0("current_thread")?.is(threading.call_method0("main_thread")?))
}

/// Runs a call from Python. A panic anywhere in it is raised as an error of ours, which says what
/// failed; otherwise it would be an exception that `except Exception` does not catch.
pub(super) fn run<T>(what: &str, body: impl FnOnce(&Call) -> PyResult<T>) -> PyResult<T> {
    let looks = Looks { last: Instant::now(), is_main: None };
    let interrupt =
        Interrupt { stopped: AtomicBool::new(false), error: Mutex::default(), looks: looks.into() };
    let call = Call { interrupt: Arc::new(interrupt) };
    catch_unwind(AssertUnwindSafe(|| body(&call)))
        .unwrap_or_else(|panic| Err(parallel::panicked(what, &*panic).into()))
}

/// A time in seconds, as Python passes it.
pub(super) fn seconds(number: Option<f64>, name: &str) -> Result<Option<Duration>> {
    number.map(Duration::try_from_secs_f64).transpose().map_err(|cause| {
        let message = format!("{name} has to be a time in seconds: {cause}");
        Error::new(ErrorKind::InvalidArgument, message)
    })
}

/// Says what went wrong in the background. No call fails by it: a filter that makes warnings errors
/// has them logged instead.
pub(super) fn warn(py: Python<'_>, notices: Vec<String>) {
    for notice in notices {
        if warn_of(py, &notice).is_err()
            && let Err(error) = log(py, &notice)
        {
            error.write_unraisable(py, None);
        }
    }
}

fn warn_of(py: Python<'_>, notice: &str) -> PyResult<()> {
    let sentence = CString::new(notice.replace('\0', " "))?;
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &sentence, 1)
}

fn log(py: Python<'_>, notice: &str) -> PyResult<()> {
    let logger = PyModule::import(py, "logging")?.call_method1("getLogger", ("feast_vector",))?;
    logger.call_method1("warning", ("%s", notice)).map(drop)
}
