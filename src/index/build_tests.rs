//! Builds that do not come to their end.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use super::fuzzing::options;
use super::tests::{clustered, plain, stage};
use super::{build, is_build_name};
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

#[test]
fn what_a_sweep_may_delete_is_what_a_build_may_have_made() {
    for name in ["1-2-00000000000000ab.seg", "1-2-00000000000000ab.tmp", "staging.tmp"] {
        assert!(is_build_name(name), "{name}");
    }
    assert!(is_build_name("staging-00000000000000ab.tmp"));
    for name in ["staging", "staging.seg", "stagings.tmp", "staging-ab.tmp", "a.tmp", "1-2-x.seg"] {
        assert!(!is_build_name(name), "{name}");
    }
}
