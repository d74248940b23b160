//! Moments of tables, and files that are restored or swapped under an open store.

use std::fs;
use std::path::PathBuf;

use super::tests::{spec, store, write};
use super::*;
use crate::schema::FeatureSpec;

fn path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("online.db")
}

fn as_of(store: &Store) -> AsOf {
    store.read(|snapshot| Ok(snapshot.table(&spec().id)?.unwrap().as_of())).unwrap()
}

fn changes(store: &Store, since: AsOf) -> Changes {
    store.read(|s| s.changes_from(&s.table(&spec().id)?.unwrap(), since)).unwrap()
}

/// Puts a copy in the place of the database, as who restores a backup does.
fn restore(folder: &tempfile::TempDir, copy: &[u8]) {
    for beside in ["online.db", "online.db-wal", "online.db-shm"] {
        let _ = fs::remove_file(folder.path().join(beside));
    }
    fs::write(path(folder), copy).unwrap();
}

#[test]
fn the_same_number_of_a_restored_file_is_another_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    write(&store, 1..4, "x").unwrap();
    let copied = as_of(&store);
    store.disconnect();
    let copy = fs::read(path(&folder)).unwrap();
    write(&store, 4..6, "lost").unwrap();
    let lost = as_of(&store);

    restore(&folder, &copy);
    assert_eq!(as_of(&store), copied);
    write(&store, 6..7, "y").unwrap();
    let now = as_of(&store);
    assert_eq!((now.table_id, now.generation, now.seq), (lost.table_id, lost.generation, lost.seq));
    assert_ne!(now, lost);
    // Who read the lost file reads anew, also once the numbers are past it; who read the copy
    // follows.
    assert_eq!(changes(&store, lost), Changes::Unknown);
    write(&store, [2].into_iter(), "z").unwrap();
    assert_eq!(changes(&store, lost), Changes::Unknown);
    assert_eq!(changes(&store, now), Changes::Rows(vec![2]));
    // Row ids are given out as in the lost file.
    assert_eq!(changes(&store, copied), Changes::Rows(vec![2, 4]));
}

#[test]
fn files_that_were_written_alike_are_at_other_moments() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = folders.each_ref().map(|folder| {
        let store = store(folder);
        write(&store, 1..4, "x").unwrap();
        as_of(&store)
    });
    assert_eq!((one.table_id, one.seq), (two.table_id, two.seq));
    assert_ne!(one.generation, two.generation);
    assert_ne!(one.commit, two.commit);
}

#[test]
fn a_change_of_the_layout_is_a_moment_that_can_be_followed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    write(&store, 1..4, "x").unwrap();
    let before = as_of(&store);
    let mut wider = spec();
    wider.features.push(FeatureSpec {
        name: "more".into(),
        feast_type: "INT64".into(),
        vector_length: None,
    });
    store.write(|txn| txn.apply(&wider)).unwrap();
    let after = as_of(&store);
    assert_ne!(after.generation, before.generation);
    assert_ne!(after.commit, before.commit);
    assert_eq!(changes(&store, before), Changes::Rows(vec![]));
    store.write(|txn| txn.apply(&wider)).unwrap();
    assert_eq!(as_of(&store), after);
}

#[test]
fn what_the_log_forgot_up_to_can_still_be_followed_from() {
    let folder = tempfile::tempdir().unwrap();
    let change_log =
        ChangeLogOptions { keep_bytes: 0, most_bytes: 0, ..ChangeLogOptions::default() };
    let store = Store::new(StoreOptions { change_log, ..StoreOptions::new(path(&folder)) });
    write(&store, 1..4, "x").unwrap();
    write(&store, 1..3, "y").unwrap();
    let state = store.read(|s| Ok(s.table(&spec().id)?.unwrap())).unwrap();
    assert_eq!(state.log_start, state.last_seq);
    assert_eq!(changes(&store, state.as_of()), Changes::Rows(vec![]));
    let other = AsOf { commit: state.as_of().commit ^ 1, ..state.as_of() };
    assert_eq!(changes(&store, other), Changes::Unknown);
}

#[test]
fn copies_of_an_older_file_are_at_other_moments_once_they_are_migrated() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/format-3.db");
    let moments = [(); 2].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(golden, path(&folder)).unwrap();
        let store = store(&folder);
        let view = crate::schema::ViewId::new("shop", "golden");
        store.read(|snapshot| Ok(snapshot.table(&view)?.map(|table| table.as_of()))).unwrap()
    });
    let [Some(one), Some(two)] = moments else { panic!("{moments:?}") };
    assert_eq!(one.seq, two.seq);
    assert_ne!(one.commit, two.commit);
}
