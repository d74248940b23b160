//! Builds that do not come to their end.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use super::build;
use super::fuzzing::options;
use super::tests::{clustered, plain, stage};
use crate::parallel;
use crate::vector::Metric;

/// Says stop once it was asked so often.
struct AfterCalls(AtomicI32);

impl parallel::Cancel for AfterCalls {
    fn is_set(&self) -> bool {
        self.0.fetch_sub(1, SeqCst) <= 0
    }
}

#[test]
fn a_build_that_is_cancelled_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let staged = stage::<f32>(folder.path(), &plain(clustered(3000, 16, 29)));
    for tries in 0.. {
        let cancel = Arc::new(AfterCalls(AtomicI32::new(tries * tries)));
        let options = options(folder.path(), Metric::L2, Some(30));
        let built = parallel::with_cancel(cancel, || build(&staged, &options)).unwrap();
        if built.is_some() {
            assert!(tries > 3);
            break;
        }
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["staging"]);
    }
}
