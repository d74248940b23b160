//! The store's parsers, for [`crate::fuzzing`].

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ToSql, params};

use super::cell;
use super::connections::{Snapshot, Store};
use super::manifest::Manifest;
use super::options::StoreOptions;
use super::runs::RowRuns;
use super::states::{CellState, CellStates};
use super::text::TOKENIZER;
use super::text_search::expression_of;
use super::{IndexId, IndexState};
use crate::fuzzing::bytes::Bytes;
use crate::proto::{check, decode_value};
use crate::schema::ValueKind;
use crate::text::Phrase;

/// The first byte is a column's kind; a message goes into such a column and comes back, and a cell
/// of any content is read.
pub(crate) fn cells(data: &[u8]) {
    let Some((first, message)) = data.split_first() else { return };
    let Some(kind) = kind_of((*first).into()) else { return };
    let mut out = Vec::new();
    for state in [CellState::Plain, CellState::Null, CellState::NullVal, CellState::Wire] {
        for value in [ValueRef::Blob(message), ValueRef::Text(message), ValueRef::Null] {
            out.clear();
            let _ = cell::decode(kind, value, state, &mut out);
        }
    }
    let Ok(value) = decode_value(message) else { return };
    // What readers cannot make a value of is refused before it gets here.
    if value.as_ref().is_some_and(|value| check::check_value(value).is_err()) {
        return;
    }
    let (cell, state) = cell::encode(kind, value.clone(), message);
    let Ok(ToSqlOutput::Borrowed(stored)) = cell.to_sql() else { panic!("a cell is a value") };
    out.clear();
    assert!(cell::decode(kind, stored, state, &mut out).expect("a cell that was encoded"));
    let again = decode_value(&out).expect("a message that was written");
    // By what they print as, because NaN is not equal to itself.
    assert_eq!(format!("{again:?}"), format!("{value:?}"));
}

/// The column `cell_states`.
pub(crate) fn cell_states(data: &[u8]) {
    if let Ok(states) = CellStates::decode(Some(data)) {
        let encoded = states.encode();
        let again = CellStates::decode(encoded.as_deref()).expect("states that were encoded");
        assert_eq!(again.encode(), encoded);
    }
}

/// A record of the change log.
pub(crate) fn change_records(data: &[u8]) {
    if let Ok(runs) = RowRuns::unpack(data) {
        assert_eq!(RowRuns::unpack(&runs.pack()).expect("runs that were packed"), runs);
    }
}

/// What a backup says of itself.
pub(crate) fn backup_manifests(data: &[u8]) {
    let Ok(json) = serde_json::from_slice(data) else { return };
    if let Some(manifest) = Manifest::parse(&json) {
        let again = manifest.to_json();
        let parsed = Manifest::parse(&again).expect("a manifest that was written");
        assert_eq!(parsed.to_json(), again);
        assert!(parsed.index_files.iter().all(|(name, _)| !name.contains(['/', '\\'])));
        let _ = parsed.bytes();
    }
}

/// The entry of an index of one segment as it comes back, of values of any type.
pub(crate) fn index_manifest(data: &[u8]) -> Option<IndexState> {
    thread_local! {
        static STORE: (Store, Connection) = {
            let connection = Connection::open_in_memory().expect("memory");
            // As somebody else's may be: without types that are kept to.
            let create = "CREATE TABLE _feast_vector_indexes (table_id, column_id, dim, seq);
                CREATE TABLE _feast_vector_segments
                (segment_id, table_id, column_id, dim, file, stamp, dead, report)";
            connection.execute_batch(create).expect("tables");
            (Store::new(StoreOptions::new("/nowhere/online.db")), connection)
        };
    }
    let mut bytes = Bytes(data);
    let mut values: Vec<Value> = (0..5).map(|_| value(&mut bytes)).collect();
    // The report is what is left, and so the longest.
    if matches!(values[4], Value::Text(_)) {
        values[4] = Value::Text(String::from_utf8_lossy(bytes.0).into_owned());
    }
    STORE.with(|(store, connection)| {
        let delete = "DELETE FROM _feast_vector_indexes; DELETE FROM _feast_vector_segments";
        connection.execute_batch(delete).expect("empty tables");
        let insert = "INSERT INTO _feast_vector_indexes VALUES (1, 2, 3, ?1)";
        connection.execute(insert, params![values[0]]).expect("a row");
        let insert = "INSERT INTO _feast_vector_segments VALUES (?1, 1, 2, 3, ?2, ?3, ?4, ?5)";
        connection
            .execute(insert, params![1, values[1], values[2], values[3], values[4]])
            .expect("a row");
        let snapshot = Snapshot { store, connection, uncommitted: None };
        let id = IndexId { table_id: 1, column_id: 2, dim: 3 };
        let _ = snapshot.segment_files();
        snapshot.index(id).ok().flatten()
    })
}

fn value(bytes: &mut Bytes<'_>) -> Value {
    match bytes.small() % 5 {
        0 => Value::Null,
        1 => Value::Integer(bytes.eight()),
        2 => Value::Real(f64::from_bits(bytes.eight().cast_unsigned())),
        3 => Value::Text(bytes.text()),
        _ => Value::Blob(bytes.some().to_vec()),
    }
}

/// A text as it is indexed, which every one of these phrases has to match.
pub(crate) fn found_by(indexed: &str, phrases: &[Phrase]) {
    thread_local! {
        static INDEX: Connection = {
            let connection = Connection::open_in_memory().expect("memory");
            let sql = format!("CREATE VIRTUAL TABLE t USING fts5(c, tokenize = \"{TOKENIZER}\")");
            connection.execute_batch(&sql).expect("FTS5");
            connection
        };
    }
    INDEX.with(|index| {
        index.execute("DELETE FROM t", []).expect("an empty table");
        index.execute("INSERT INTO t VALUES (?1)", [indexed]).expect("a row");
        let mut statement =
            index.prepare_cached("SELECT count(*) FROM t WHERE t MATCH ?1").expect("a statement");
        // Marks alone are no words to FTS5.
        let is_word = |word: &String| word.chars().any(char::is_alphanumeric);
        for phrase in phrases.iter().filter(|phrase| phrase.words.iter().all(is_word)) {
            let expression = expression_of(phrase);
            let count = statement.query_row([&expression], |row| row.get::<_, i64>(0));
            assert_eq!(count.expect(&expression), 1, "{expression} in {indexed:?}");
        }
    });
}

/// The kind of that number, if there is one.
pub(crate) fn kind_of(number: u32) -> Option<ValueKind> {
    ValueKind::ALL.iter().copied().find(|kind| kind.number() == number)
}
