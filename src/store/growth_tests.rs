//! What grows, and the bounds that hold it.

use std::collections::BTreeSet;

use super::tests::{spec, write, write_until};
use super::*;
use crate::proto::{DecodedKey, Val};

fn store_with(folder: &tempfile::TempDir, change_log: ChangeLogOptions) -> Store {
    Store::new(StoreOptions { change_log, ..StoreOptions::new(folder.path().join("online.db")) })
}

fn small_log() -> ChangeLogOptions {
    ChangeLogOptions {
        keep_bytes: 2_000,
        most_bytes: 6_000,
        records_per_write: 8,
        merged_bytes: 400,
    }
}

fn table(store: &Store) -> TableState {
    store.read(|snapshot| Ok(snapshot.table(&spec().id)?.unwrap())).unwrap()
}

fn changes(store: &Store, seq: i64) -> Changes {
    store.read(|s| s.changes_since(&s.table(&spec().id)?.unwrap(), seq)).unwrap()
}

fn number(store: &Store, sql: &str) -> i64 {
    store.read(|s| Ok(s.connection.query_row(sql, [], |row| row.get(0))?)).unwrap()
}

fn log_bytes(store: &Store) -> i64 {
    let real =
        number(store, "SELECT coalesce(sum(length(row_ids) + 40), 0) FROM _feast_vector_changes");
    assert_eq!(number(store, "SELECT log_bytes FROM _feast_vector_tables"), real);
    real
}

/// Has an index that covers all changes so far.
fn publish(store: &Store) -> i64 {
    let table = table(store);
    let id = IndexId { table_id: table.schema.table_id, column_id: 2, dim: 3 };
    let segment = SegmentEntry {
        segment_id: 0,
        file: format!("{}.seg", table.last_seq),
        stamp: 1,
        dead: RowRuns::of(&[1, 2, 7]),
        report: "{}".to_owned(),
    };
    let index = IndexState { seq: table.last_seq, segments: vec![segment] };
    store.write(|txn| txn.publish_index(id, &index)).unwrap();
    assert_eq!(store.read(|s| s.index(id)).unwrap().unwrap().segments[0].dead.len(), 3);
    table.last_seq
}

#[test]
fn the_log_forgets_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, small_log());
    write(&store, 1..4, "x").unwrap();
    let first = table(&store).last_seq;
    write(&store, [3, 1].into_iter(), "y").unwrap();
    assert_eq!(changes(&store, first), Changes::Rows(vec![1, 3]));
    assert_eq!(changes(&store, table(&store).last_seq), Changes::Rows(vec![]));
    for step in 0..60 {
        write(&store, [step, step * 7 % 41].into_iter(), "z").unwrap();
        assert!(log_bytes(&store) <= small_log().keep_bytes);
    }
    assert_eq!(changes(&store, first), Changes::Unknown);
    assert_eq!(changes(&store, table(&store).last_seq), Changes::Rows(vec![]));
    assert!(table(&store).log_start > first);
}

#[test]
fn what_an_index_covers_goes_first_and_the_index_is_followed_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, small_log());
    for round in 0..10 {
        for step in 0..30 {
            write(&store, [step, 100 + round].into_iter(), "x").unwrap();
        }
        let covered = publish(&store);
        write(&store, [5, 300].into_iter(), "y").unwrap();
        assert!(table(&store).log_start <= covered);
        let Changes::Rows(rows) = changes(&store, covered) else { panic!("not followed") };
        assert_eq!(rows.len(), 2);
        assert!(log_bytes(&store) <= small_log().keep_bytes + 200);
    }
    assert!(table(&store).log_start > 0);
}

#[test]
fn rows_that_change_again_and_again_are_in_the_log_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, small_log());
    write(&store, 0..50, "x").unwrap();
    let covered = publish(&store);
    let mut expected = BTreeSet::new();
    for step in 0..1_000 {
        write(&store, std::iter::once(step * 7 % 20), "y").unwrap();
        expected.insert(step * 7 % 20 + 1);
        assert!(log_bytes(&store) <= small_log().most_bytes);
        if step % 50 == 0 {
            let Changes::Rows(rows) = changes(&store, covered) else { panic!("step {step}") };
            assert!(rows.iter().copied().eq(expected.iter().copied()), "step {step}");
        }
    }
    // Who is but a little behind hears of little more than what happened.
    let recent = table(&store).last_seq - 5;
    assert_eq!(changes(&store, recent), Changes::Rows(vec![6, 7, 13, 14, 20]));
}

#[test]
fn an_index_that_is_never_rebuilt_does_not_keep_the_log_forever() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, small_log());
    write(&store, 0..3_000, "x").unwrap();
    let covered = publish(&store);
    for step in 0..400 {
        let ids: Vec<i64> = (0..8).map(|i| (step * 37 + i * 331) % 3_000).collect();
        write(&store, ids.into_iter(), "y").unwrap();
        assert!(log_bytes(&store) <= small_log().most_bytes);
    }
    assert_eq!(changes(&store, covered), Changes::Unknown);
    assert!(matches!(changes(&store, table(&store).last_seq - 3), Changes::Rows(_)));
}

#[test]
fn no_write_pays_for_a_long_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, ChangeLogOptions::default());
    write(&store, 0..3, "x").unwrap();
    store
        .write(|txn| {
            Ok(txn.connection.execute_batch(
                "WITH RECURSIVE r(x) AS (SELECT 3 UNION ALL SELECT x + 1 FROM r WHERE x < 20000)
                 INSERT INTO _feast_vector_changes SELECT x, 1, 'upsert', x'0101', x FROM r;
                 UPDATE _feast_vector_tables SET last_seq = 20000, log_bytes = 8 << 20",
            )?)
        })
        .unwrap();
    let records = || number(&store, "SELECT count(*) FROM _feast_vector_changes");
    for _ in 0..20 {
        let before = records();
        write(&store, 0..1, "y").unwrap();
        let dropped = before + 1 - records();
        assert!(dropped > 0 && dropped <= 256, "{dropped}");
    }
}

#[test]
fn a_record_of_more_rows_than_there_are_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, ChangeLogOptions::default());
    write(&store, 0..3, "x").unwrap();
    store
        .write(|txn| {
            // A run of 2^56 rows.
            Ok(txn.connection.execute_batch(
                "UPDATE _feast_vector_changes SET row_ids = x'01808080808080808001'",
            )?)
        })
        .unwrap();
    assert_eq!(changes(&store, 0), Changes::Unknown);
    store
        .write(|txn| {
            Ok(txn
                .connection
                .execute_batch("UPDATE _feast_vector_changes SET row_ids = x'0180'")?)
        })
        .unwrap();
    let error = store.read(|s| s.changes_since(&s.table(&spec().id)?.unwrap(), 0)).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Damaged);
}

/// Overlapping readers: each begins before the one before it ends, so that at no moment there is
/// none.
#[test]
fn the_write_ahead_log_is_bounded_under_readers_that_overlap() {
    let folder = tempfile::tempdir().unwrap();
    let (store, reader) = (store_with(&folder, small_log()), store_with(&folder, small_log()));
    let text = "long ".repeat(700);
    write(&store, 0..2_000, &text).unwrap();
    let log = folder.path().join("online.db-wal");
    let (ready, done) = (std::sync::Barrier::new(3), std::sync::atomic::AtomicBool::new(false));
    let mut longest = 0;
    std::thread::scope(|scope| {
        for turn in 0..2 {
            let (ready, done, reader) = (&ready, &done, &reader);
            scope.spawn(move || {
                let read = |pause| {
                    reader.read(|snapshot| {
                        snapshot.table(&spec().id)?;
                        std::thread::sleep(std::time::Duration::from_millis(pause));
                        Ok(())
                    })
                };
                ready.wait();
                read(15 * turn).unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    read(30).unwrap();
                }
            });
        }
        ready.wait();
        for step in 0..80 {
            let from = step * 100 % 2_000;
            write(&store, from..from + 200, &format!("{step} {text}")).unwrap();
            longest = longest.max(std::fs::metadata(&log).unwrap().len());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // 80 times 200 rows of a half page are 64 MB and more.
    assert!(longest < 48 << 20, "{longest}");
}

#[test]
fn a_reader_that_stays_does_not_stop_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let (store, reader) = (store_with(&folder, small_log()), store_with(&folder, small_log()));
    let text = "long ".repeat(700);
    write(&store, 0..100, &text).unwrap();
    let log = folder.path().join("online.db-wal");
    let length = || std::fs::metadata(&log).unwrap().len();
    reader
        .read(|snapshot| {
            snapshot.table(&spec().id)?;
            for step in 0..24 {
                write(&store, 0..1_000, &format!("{step} {text}")).unwrap();
            }
            Ok(())
        })
        .unwrap();
    assert!(length() > 64 << 20);
    for step in 0..6 {
        write(&store, 0..1_000, &format!("{step} {text}")).unwrap();
    }
    store.checkpointer.finish();
    write(&store, 0..10, "x").unwrap();
    assert!(length() <= 64 << 20, "{}", length());
}

fn rows(store: &Store) -> i64 {
    number(store, "SELECT count(*) FROM p_v")
}

#[test]
fn expired_rows_go_a_few_with_each_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, ChangeLogOptions::default());
    write_until(&store, 0..300, "x", 0, Some(10)).unwrap();
    write_until(&store, 300..400, "x", 5, Some(1_000)).unwrap();
    assert_eq!(rows(&store), 400);
    let seq = table(&store).last_seq;
    let mut left = 300;
    for step in 0..5 {
        let counts = write_until(&store, 900..901, "y", 20, None).unwrap();
        left -= 66.min(left);
        assert_eq!((rows(&store), counts.needs_upkeep), (101 + left, step < 4), "{step}");
    }
    // Followers hear of them.
    assert_eq!(changes(&store, seq), Changes::Rows((1..=300).chain([401]).collect()));
    // A batch takes as many along as it brings, and more.
    write_until(&store, 1_000..1_500, "x", 20, Some(30)).unwrap();
    write_until(&store, 2_000..2_500, "x", 40, Some(50)).unwrap();
    assert_eq!(rows(&store), 601);
    let plan: String = store
        .read(|s| {
            Ok(s.connection.query_row(
                "EXPLAIN QUERY PLAN SELECT row_id FROM p_v WHERE expires_at <= 5",
                [],
                |row| row.get(3),
            )?)
        })
        .unwrap();
    assert!(plan.contains("_feast_vector_expiry_1"), "{plan}");
}

#[test]
fn expired_rows_are_found_after_a_rebuild_and_in_tables_of_older_versions() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, ChangeLogOptions::default());
    write_until(&store, 0..1_100, "x", 0, Some(10)).unwrap();
    let mut narrower = spec();
    narrower.features.pop();
    store.write(|txn| txn.apply(&narrower)).unwrap();
    let purge = || store.write(|txn| txn.purge_expired(&spec().id, 20)).unwrap();
    assert!(purge());
    assert_eq!(rows(&store), 588);
    store
        .write(|txn| {
            Ok(txn.connection.execute_batch(
                "DROP INDEX _feast_vector_expiry_1; UPDATE _feast_vector_tables SET expires = 1",
            )?)
        })
        .unwrap();
    write_until(&store, 5_000..5_001, "y", 20, None).unwrap();
    assert!(purge());
    assert!(!purge());
    assert_eq!(rows(&store), 1);
}

fn texts(store: &Store, word: &str) -> usize {
    store
        .read(|s| {
            let table = s.table(&spec().id)?.unwrap();
            assert!(!table.schema.text_is_filling);
            Ok(s.text_matches(&table.schema, word)?.len())
        })
        .unwrap()
}

#[test]
fn a_text_index_is_filled_in_pieces_between_which_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(&folder, ChangeLogOptions::default());
    write(&store, 0..4_000, "red lamp").unwrap();
    let mut with_texts = spec();
    with_texts.text_features = vec!["name".into()];
    store.write(|txn| txn.apply(&with_texts)).unwrap();
    assert!(table(&store).schema.text_is_filling);
    // A row that is done, one that is not, a new one, and one that goes.
    write(&store, [5, 3_500, 9_000].into_iter(), "blue chair").unwrap();
    let key = |id| DecodedKey { parts: vec![("id".into(), Val::Int64(id))] }.to_message();
    store.write(|txn| txn.delete_rows(&spec().id, &[&key(7), &key(3_600)])).unwrap();
    // Another process goes on.
    let other = store_with(&folder, ChangeLogOptions::default());
    let mut pieces = 1;
    while other.write(|txn| txn.build_text_index(&with_texts)).unwrap().is_some() {
        pieces += 1;
    }
    assert_eq!(pieces, 3);
    for store in [&store, &other] {
        assert_eq!((texts(store, "lamp"), texts(store, "chair")), (3_996, 3));
    }
    assert_eq!(number(&store, "SELECT count(*) FROM _feast_vector_meta WHERE key LIKE 'text%'"), 0);
    // Nothing is left of one that is not wanted any more.
    let mut wanted = with_texts.clone();
    store.write(|txn| txn.apply(&spec())).unwrap();
    assert!(!table(&store).schema.has_text_index());
    wanted.text_features.clear();
    assert_eq!(store.write(|txn| txn.build_text_index(&wanted)).unwrap(), None);
}
