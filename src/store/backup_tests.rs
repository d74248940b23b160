//! Backups and restores of the store alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::tests::{store, write};
use super::*;
use crate::error::ErrorKind;

fn names(store: &Store) -> Vec<String> {
    store
        .read(|snapshot| {
            let sql = "SELECT DISTINCT name FROM p_v ORDER BY name";
            let mut statement = snapshot.connection.prepare(sql)?;
            let names = statement.query_map([], |row| row.get(0))?;
            Ok(names.collect::<rusqlite::Result<_>>()?)
        })
        .unwrap()
}

#[test]
fn writers_neither_restart_a_backup_nor_get_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = store(&folder);
    write(&source, 0..20_000, &"first ".repeat(20)).unwrap();
    // A write of everything after every few pages that are copied.
    let other = Arc::new(source.sibling());
    let writes = Arc::new(AtomicU64::new(0));
    let (writer, count) = (Arc::clone(&other), Arc::clone(&writes));
    let progress = Progress::new(move |stage, _, _| {
        if stage == "database" {
            let round = count.fetch_add(1, SeqCst);
            write(&writer, 0..20_000, &format!("later {round}")).unwrap();
        }
        true
    });
    let backup = folder.path().join("backup");
    source.backup(&backup, false, &progress).unwrap();
    assert!(writes.load(SeqCst) > 0);
    assert!(names(&source)[0].starts_with("later"));
    source.restore(&backup, false, &Progress::silent()).unwrap();
    assert_eq!(names(&source), ["first ".repeat(20)]);
    // The writer, whose connection is to the replaced file, writes into the restored one.
    write(&other, 20_000..20_001, "new").unwrap();
    assert_eq!(names(&source).len(), 2);
}

#[test]
fn a_backup_that_is_stopped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = store(&folder);
    write(&source, 0..10, "first").unwrap();
    for stopped in ["database", "files"] {
        let progress = Progress::new(move |stage, _, _| stage != stopped);
        let error = source.backup(&folder.path().join("backup"), false, &progress).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
    let left = std::fs::read_dir(folder.path()).unwrap().flatten();
    let is_database = |name: &str| name.starts_with("online.db");
    assert!(left.map(|e| e.file_name()).all(|name| is_database(&name.to_string_lossy())));
}

#[test]
fn a_restore_that_is_stopped_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = store(&folder);
    write(&source, 0..10, "first").unwrap();
    let backup = folder.path().join("backup");
    source.backup(&backup, false, &Progress::silent()).unwrap();
    write(&source, 0..10, "second").unwrap();
    let progress = Progress::new(|_, _, _| false);
    let error = source.restore(&backup, true, &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(names(&source), ["second"]);
    let left = std::fs::read_dir(folder.path()).unwrap().flatten();
    assert!(left.map(|e| e.file_name()).all(|name| !name.to_string_lossy().contains("restor")));
}
