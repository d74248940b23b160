use super::*;
use crate::error::{ErrorKind, Result};
use crate::proto::{DecodedKey, Val, Value};
use crate::schema::{FeatureSpec, JoinKeySpec, ViewId, ViewSpec};

pub(super) fn store(folder: &tempfile::TempDir) -> Store {
    Store::new(StoreOptions::new(folder.path().join("online.db")))
}

pub(super) fn spec() -> ViewSpec {
    let feature = |name: &str, feast_type: &str| FeatureSpec {
        name: name.to_owned(),
        feast_type: feast_type.to_owned(),
        vector_length: None,
    };
    ViewSpec {
        id: ViewId::new("p", "v"),
        join_keys: vec![JoinKeySpec { name: "id".into(), feast_type: "INT64".into() }],
        features: vec![feature("name", "STRING"), feature("e", "FLOAT_LIST")],
        text_features: Vec::new(),
        vector_indexes: Vec::new(),
    }
}

pub(super) fn write(
    store: &Store,
    ids: impl Iterator<Item = i64>,
    name: &str,
) -> Result<WriteCounts> {
    write_until(store, ids, name, 0, None)
}

/// The same at a time, of rows that expire.
pub(super) fn write_until(
    store: &Store,
    ids: impl Iterator<Item = i64>,
    name: &str,
    now: Micros,
    expires_at: Option<Micros>,
) -> Result<WriteCounts> {
    store.write(|txn| {
        let options =
            WriteOptions { conflict: Conflict::NewestEventWins, now, expires_at, first_row: 0 };
        let mut writer = txn.writer(&spec(), vec!["name".into()], options)?;
        let message = Value { val: Some(Val::String(name.to_owned())) };
        let message = prost::Message::encode_to_vec(&message);
        for id in ids {
            let key = DecodedKey { parts: vec![("id".into(), Val::Int64(id))] }.to_message();
            let row = RowWrite { entity_key: &key, event: 0, created: None };
            writer.write(&row, std::iter::once((0, Given::Message(&message))))?;
        }
        writer.finish()
    })
}

pub(super) fn count(store: &Store) -> i64 {
    store
        .read(|snapshot| {
            Ok(snapshot.connection.query_row("SELECT count(*) FROM p_v", [], |row| row.get(0))?)
        })
        .unwrap()
}

#[test]
fn a_full_disk_is_said_and_the_batch_is_gone_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    write(&store, 0..10, "small").unwrap();
    store
        .write(|txn| {
            let pages: i64 = txn.connection.pragma_query_value(None, "page_count", |r| r.get(0))?;
            let full = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            txn.connection.query_row(
                &format!("PRAGMA max_page_count = {}", pages + 2),
                [],
                full,
            )?;
            Ok(())
        })
        .unwrap();
    let error = write(&store, 10..500, &"large ".repeat(100)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull);
    assert!(error.message().contains("nothing of this batch was written"), "{error}");
    assert!(error.message().contains("online.db"), "{error}");
    assert_eq!(count(&store), 10);
    store.disconnect();
    assert_eq!(write(&store, 10..500, "small").unwrap().written, 490);
}

#[test]
fn connections_share_what_the_schema_is() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (store(&folder), store(&folder));
    write(&one, 0..3, "x").unwrap();
    let generation = |store: &Store| {
        store.read(|s| Ok(s.table(&spec().id)?.unwrap().schema.generation)).unwrap()
    };
    let before = generation(&two);
    let mut wider = spec();
    wider.features.push(FeatureSpec {
        name: "more".into(),
        feast_type: "INT64".into(),
        vector_length: None,
    });
    one.write(|txn| txn.apply(&wider)).unwrap();
    assert_ne!(generation(&two), before);
    assert_eq!(count(&two), 3);
}

#[test]
fn a_failed_schema_change_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    write(&store, 0..3, "x").unwrap();
    let failed: Result<()> = store.write(|txn| {
        let mut narrower = spec();
        narrower.features.pop();
        txn.apply(&narrower)?;
        Err(crate::Error::new(ErrorKind::Io, "on purpose"))
    });
    assert!(failed.is_err());
    let schema = store.read(|s| Ok(s.table(&spec().id)?.unwrap().schema)).unwrap();
    assert_eq!(schema.columns.len(), 2);
    assert_eq!(write(&store, 0..3, "y").unwrap().written, 3);
}

#[test]
fn the_log_is_copied_beside_the_work_and_stays_short() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let log = folder.path().join("online.db-wal");
    let mut longest_of_one = 0;
    for batch in 0..10 {
        write(&store, batch * 4_000..(batch + 1) * 4_000, &"long ".repeat(500)).unwrap();
        let length = std::fs::metadata(&log).unwrap().len();
        longest_of_one = if batch == 1 { length } else { longest_of_one };
        assert!(batch < 2 || length < 2 * longest_of_one, "batch {batch}: {length} bytes");
    }
    store.checkpointer.finish();
    let elsewhere = rusqlite::Connection::open(folder.path().join("online.db")).unwrap();
    let (in_log, copied): (i64, i64) = elsewhere
        .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?)))
        .unwrap();
    assert!(in_log > 1_000, "{in_log}");
    assert_eq!(in_log, copied);
    assert_eq!(count(&store), 40_000);
}

#[test]
fn a_checkpoint_makes_no_file_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("online.db");
    assert!(checkpoint::checkpoint(&StoreOptions::new(path.clone()), None).is_err());
    assert!(!path.exists());
}
