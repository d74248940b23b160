//! How far long work is, and whether it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use rusqlite::Connection;

use crate::error::Result;
use crate::parallel;

/// Milliseconds between two reports: often enough for Ctrl-C to be noticed at once.
const PAUSE: u64 = 50;

/// SQLite's virtual machine steps, or pages of an integrity check, between two looks at the clock.
const STEPS: i32 = 500;

/// Hears of a stage's name, of what is done of it and of all there is (`u64::MAX` where that is not
/// known), and says whether to go on.
type Report = dyn Fn(&'static str, u64, u64) -> bool + Send + Sync;

/// Reports how far long work is, at most every 50 ms.
#[derive(Clone)]
pub struct Progress {
    report: Arc<Report>,
    started: Instant,
    /// Milliseconds from the start to when the next report is due.
    next: Arc<AtomicU64>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    /// Progress that `report` hears of.
    pub fn new(report: impl Fn(&'static str, u64, u64) -> bool + Send + Sync + 'static) -> Self {
        Self {
            report: Arc::new(report),
            started: Instant::now(),
            next: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Progress that nobody hears of.
    pub fn silent() -> Self {
        Self::new(|_, _, _| true)
    }

    /// Reports, unless that was done a moment ago.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Interrupted`] where the work is not to go on.
    pub fn at(&self, stage: &'static str, done: u64, total: u64) -> Result<()> {
        parallel::check()?;
        let now = self.started.elapsed().as_millis() as u64;
        if now < self.next.load(Relaxed) && done < total {
            return Ok(());
        }
        self.next.store(now + PAUSE, Relaxed);
        if (self.report)(stage, done, total) { Ok(()) } else { Err(parallel::interrupted()) }
    }

    /// Has statements of the connection report, and stop where they are not to go on.
    pub(super) fn watch(&self, connection: &mut Connection, stage: &'static str) -> Result<()> {
        let progress = self.clone();
        let mut steps = 0;
        let handler = move || {
            steps += STEPS as u64;
            progress.at(stage, steps, u64::MAX).is_err()
        };
        Ok(connection.progress_handler(STEPS, Some(handler))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn statements_stop_when_told_to() {
        let mut connection = Connection::open_in_memory().unwrap();
        Progress::new(|_, _, _| false).watch(&mut connection, "counting").unwrap();
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT count(*) FROM n";
        let error = Error::from(connection.query_row(sql, [], |_| Ok(())).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
