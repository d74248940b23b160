//! What opening makes and does not make.

use std::fs;

use super::file::FileConnection;
use super::open::connect_frozen;
use super::tests::{count, spec, store, write};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::schema::TableSchema;

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn schema(store: &Store) -> Option<std::sync::Arc<TableSchema>> {
    store.read(|snapshot| Ok(snapshot.table(&spec().id)?.map(|table| table.schema))).unwrap()
}

#[test]
fn a_read_makes_nothing_and_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    for at in ["online.db", "no/such/folder/online.db"] {
        let store = Store::new(StoreOptions::new(folder.path().join(at)));
        for _ in 0..3 {
            assert!(schema(&store).is_none());
            assert_eq!(store.sql("SELECT 1 AS one", &[], &SqlLimits::default()).unwrap().len(), 1);
        }
        let notices = store.take_notices();
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].contains(at) && notices[0].contains("does not exist"), "{notices:?}");
        assert!(names(&folder).is_empty(), "{:?}", names(&folder));
    }
    // The same store finds what others write there later.
    let reader = store(&folder);
    assert!(schema(&reader).is_none());
    write(&store(&folder), 0..3, "x").unwrap();
    assert_eq!(count(&reader), 3);
}

/// What Feast's own sqlite store makes.
const OF_FEAST: &str = "CREATE TABLE p_v (entity_key BLOB, feature_name TEXT, value BLOB,
        vector_value BLOB, event_ts timestamp, created_ts timestamp,
        PRIMARY KEY (entity_key, feature_name));
    INSERT INTO p_v (entity_key, feature_name, value) VALUES (x'00', 'name', x'00')";

#[test]
fn a_read_leaves_a_file_without_tables_of_ours_as_it_is() {
    let modes = ["", OF_FEAST, "PRAGMA journal_mode = WAL", "PRAGMA page_size = 512; VACUUM"];
    for mode in modes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("online.db");
        fs::write(&path, b"").unwrap();
        rusqlite::Connection::open(&path).unwrap().execute_batch(mode).unwrap();
        let before = fs::read(&path).unwrap();
        let reader = store(&folder);
        for _ in 0..3 {
            assert!(schema(&reader).is_none());
            let answer = reader.sql("SELECT 1 AS one", &[], &SqlLimits::default()).unwrap();
            assert_eq!(answer.len(), 1);
        }
        let notices = reader.take_notices();
        assert_eq!(notices.len(), 1, "{mode}: {notices:?}");
        assert!(notices[0].contains("online.db' has no tables"), "{mode}: {notices:?}");
        reader.disconnect();
        assert_eq!(names(&folder), ["online.db"], "{mode}");
        assert!(fs::read(&path).unwrap() == before, "{mode}: the file was changed");
        if mode != OF_FEAST {
            // The same store finds what others write there later.
            assert!(schema(&reader).is_none());
            write(&store(&folder), 0..3, "x").unwrap();
            assert_eq!(count(&reader), 3);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_store_that_is_gone_is_said_to_be() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("data");
    let store = Store::new(StoreOptions::new(folder.join("online.db")));
    write(&store, 0..3, "x").unwrap();
    assert!(schema(&store).is_some());
    let aside = outer.path().join("aside");
    fs::rename(&folder, &aside).unwrap();
    assert!(schema(&store).is_none());
    let error = write(&store, 3..4, "x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CannotOpen);
    assert!(error.message().contains("was there when the store was opened"), "{error}");
    assert!(!folder.exists());
    let notices = store.take_notices();
    assert!(notices.len() == 1 && notices[0].contains("is gone since"), "{notices:?}");
    fs::rename(&aside, &folder).unwrap();
    assert_eq!(count(&store), 3);
    write(&store, 3..4, "x").unwrap();
    assert_eq!(count(&store), 4);
}

#[cfg(unix)]
#[test]
fn names_of_one_file_share_a_lock_and_an_index_folder() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink("online.db", &link).unwrap();
    let (by_name, by_link) = (store(&folder), Store::new(StoreOptions::new(link)));
    write(&by_link, 0..3, "x").unwrap();
    write(&by_name, 3..5, "x").unwrap();
    assert_eq!(count(&by_link), 5);
    assert_eq!(by_name.index_folder(), by_link.index_folder());
    assert!(!names(&folder).iter().any(|name| name.starts_with("link.db.")));
}

#[test]
fn a_file_that_cannot_be_written_is_read_without_anything_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(StoreOptions::new(folder.path().join("a b?c#d%e.db")));
    write(&store, 0..3, "x").unwrap();
    let options = StoreOptions::new(store.path());
    let error = connect_frozen(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(error.message().contains("-wal"), "{error}");
    store.disconnect();
    let before = names(&folder);
    let cause = || Error::new(ErrorKind::CannotOpen, "");
    let opened = FileConnection::open_frozen(&options, cause()).unwrap().unwrap();
    let connection = &opened.connection;
    let rows: i64 = connection.query_row("SELECT count(*) FROM p_v", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 3);
    assert!(connection.execute_batch("DELETE FROM p_v").is_err());
    assert_eq!(names(&folder), before);
    // What was read holds until somebody writes the file elsewhere.
    opened.check_frozen(&options.path).unwrap();
    write(&store, 3..4, "y").unwrap();
    assert_eq!(opened.check_frozen(&options.path).unwrap_err().kind(), ErrorKind::Busy);
    drop(opened);
}
