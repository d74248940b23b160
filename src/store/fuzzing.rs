//! The store's parsers, for [`crate::fuzzing`].

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

use super::cell;
use super::runs::RowRuns;
use super::states::{CellState, CellStates};
use super::text::TOKENIZER;
use super::text_search::expression_of;
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
