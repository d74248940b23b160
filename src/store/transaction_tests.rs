//! Transactions that do not end as planned: panics, and files that are replaced meanwhile.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::lock::LockFile;
use super::tests::{count, spec, store, write};
use super::*;
use crate::schema::{FeatureSpec, TableSchema};

fn path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("online.db")
}

fn schema(store: &Store) -> Option<std::sync::Arc<TableSchema>> {
    store.read(|snapshot| Ok(snapshot.table(&spec().id)?.map(|table| table.schema))).unwrap()
}

#[test]
fn a_panic_in_a_transaction_rolls_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    write(&store, 0..3, "x").unwrap();
    let other = Store::new(StoreOptions {
        busy_timeout: Duration::from_millis(200),
        ..StoreOptions::new(path(&folder))
    });
    for _ in 0..3 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _ = store.write(|txn| -> crate::Result<()> {
                let mut wider = spec();
                wider.features.push(FeatureSpec {
                    name: "more".into(),
                    feast_type: "INT64".into(),
                    vector_length: None,
                });
                txn.apply(&wider)?;
                txn.connection.execute_batch("DELETE FROM p_v")?;
                panic!("on purpose")
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(schema(&store).unwrap().columns.len(), 2);
        // Neither the lock nor SQLite's is held on.
        write(&other, 0..1, "y").unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _ = store.read(|snapshot| -> crate::Result<()> {
                snapshot.table(&spec().id)?;
                panic!("on purpose")
            });
        }));
        assert!(panicked.is_err());
        write(&store, 3..4, "z").unwrap();
        assert_eq!(count(&store), 4);
        assert_eq!(count(&other), 4);
    }
}

#[test]
fn a_layout_is_known_to_others_once_it_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    store
        .write(|txn| {
            txn.apply(&spec())?;
            assert!(txn.table(&spec().id)?.is_some());
            assert!(store.schemas.lock().is_empty());
            Ok(())
        })
        .unwrap();
    assert!(store.schemas.lock().contains_key(&spec().id));
}

#[cfg(unix)]
#[test]
fn who_waits_for_the_lock_while_the_file_is_replaced_writes_to_the_new_one() {
    for lock_goes_too in [false, true] {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (waiting, new) = (store(&folder), store(&other));
        write(&waiting, 0..3, "old").unwrap();
        write(&new, 0..7, "new").unwrap();
        new.disconnect();
        let lock = LockFile::open(&path(&folder)).unwrap();
        let held = lock.acquire(Instant::now()).unwrap();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| write(&waiting, 100..101, "acknowledged"));
            std::thread::sleep(Duration::from_millis(50));
            for ending in ["-wal", "-shm"] {
                let _ = fs::remove_file(folder.path().join(format!("online.db{ending}")));
            }
            fs::rename(path(&other), path(&folder)).unwrap();
            if lock_goes_too {
                fs::remove_file(folder.path().join("online.db.lock")).unwrap();
            }
            drop(held);
            assert_eq!(writing.join().unwrap().unwrap().written, 1);
        });
        assert_eq!(count(&store(&folder)), 8);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_amid_a_write_takes_nothing_of_it() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (writer, new) = (store(&folder), store(&other));
    write(&writer, 0..3, "old").unwrap();
    write(&new, 0..7, "new").unwrap();
    new.disconnect();
    let error = writer
        .write(|txn| {
            txn.apply(&spec())?;
            for ending in ["-wal", "-shm"] {
                let _ = fs::remove_file(folder.path().join(format!("online.db{ending}")));
            }
            fs::rename(path(&other), path(&folder)).unwrap();
            Ok(())
        })
        .unwrap_err();
    assert!(error.message().contains("was replaced or deleted"), "{error}");
    write(&writer, 7..8, "x").unwrap();
    assert_eq!(count(&writer), 8);
}
