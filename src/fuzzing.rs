//! Everything that is parsed, as functions of bytes: for fuzzers (`fuzz/`), and for the saved
//! corpus, which the tests run through the same functions everywhere.
//!
//! A target fails by panicking: on a broken promise, such as a value that does not come back.

pub(crate) mod bytes;

use bytes::Bytes;

use crate::engine::fuzzing as engine;
use crate::limits::Limits;
use crate::query::{Condition, Filter, Literal, Operator};
use crate::schema::{Column, JoinKey, TableSchema, ViewId};
use crate::store::fuzzing as store;
use crate::text::{TextMatch, indexable, phrases};

/// What a fuzzer runs.
pub type Target = fn(&[u8]);

/// The targets by name; `fuzz/fuzz_targets` has a file and `fuzz/corpus` a folder for each.
pub const TARGETS: &[(&str, Target)] = &[
    ("wire_messages", wire_messages),
    ("cells", store::cells),
    ("cell_states", store::cell_states),
    ("change_records", store::change_records),
    ("filters", filters),
    ("texts", texts),
    ("segments", crate::index::fuzzing::segments),
    ("index_manifests", engine::index_manifests),
    ("backup_manifests", store::backup_manifests),
    ("arrow_arrays", engine::arrow_arrays),
];

/// Runs the target of that name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|target| target.0 == name).expect("a target's name");
    target(data);
}

/// Serialized `Value` and `EntityKey` messages, and keys as they are stored.
pub fn wire_messages(data: &[u8]) {
    let _ = crate::proto::decode_value(data);
    if let Ok(key) = crate::proto::encode_key(data) {
        let decoded = crate::proto::decode_key(&key).expect("a key that was encoded");
        assert_eq!(decoded.encode().expect("a key that was decoded"), key);
    }
    if let Ok(key) = crate::proto::decode_key(data) {
        let again = crate::proto::encode_key(&key.to_message()).expect("a key that was decoded");
        assert_eq!(crate::proto::decode_key(&again).expect("a key that was encoded"), key);
    }
}

/// Filters of any shape, against a table with a column of each kind.
pub fn filters(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut conditions = Vec::new();
    while let Some(byte) = bytes.next() {
        conditions.push(match byte % 8 {
            0 => Condition::And(bytes.small()),
            1 => Condition::Or(bytes.small()),
            2 => Condition::Not,
            _ => compare(&mut bytes),
        });
    }
    if let Ok(filter) = Filter::new(conditions, &Limits::default()) {
        let _ = filter.resolve(&table());
    }
}

fn compare(bytes: &mut Bytes<'_>) -> Condition {
    const OPERATORS: [&str; 10] =
        ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "any_of"];
    let key = match bytes.small() {
        0 => "event_timestamp".to_owned(),
        1 => "id".to_owned(),
        number => format!("feature {number}"),
    };
    let operator = OPERATORS[bytes.small() % OPERATORS.len()];
    let operator = Operator::parse(operator).expect("an operator's name");
    let values = (0..bytes.small() % 5).map(|_| literal(bytes)).collect();
    Condition::Compare { key, operator, values }
}

fn literal(bytes: &mut Bytes<'_>) -> Literal {
    match bytes.small() % 7 {
        0 => Literal::Bool(bytes.small() % 2 == 1),
        1 => Literal::Integer(bytes.eight()),
        2 => Literal::Real(f64::from_bits(bytes.eight().cast_unsigned())),
        3 => Literal::Text(bytes.text()),
        4 => Literal::Bytes(bytes.text().into_bytes()),
        5 => Literal::Time(bytes.eight()),
        _ => Literal::Decimal(bytes.text()),
    }
}

fn table() -> TableSchema {
    let mut schema = TableSchema::new(1, 1, "t".to_owned(), ViewId::new("p", "v"), 100);
    schema.join_keys.push(JoinKey {
        name: "id".to_owned(),
        sql_name: "id".to_owned(),
        feast_type: "INT64".to_owned(),
        declared: true,
    });
    for number in 2..64 {
        let Some(kind) = store::kind_of(number) else { continue };
        schema.push_column(Column {
            id: number,
            feature: format!("feature {number}"),
            sql_name: format!("c{number}"),
            kind,
            feast_type: kind.name().to_owned(),
            vector_length: None,
            declared: true,
            text_indexed: false,
        });
    }
    schema
}

/// Texts, each of which is found by itself.
pub fn texts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for mode in ["any", "all", "phrase", "prefix"] {
        let mode = TextMatch::parse(mode).expect("a mode's name");
        if let Ok(phrases) = phrases(&text, mode, &Limits::default()) {
            store::found_by(&indexable(&text), &phrases);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_saved_corpus_passes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(folder.join(name)).unwrap().flatten().collect();
            assert!(!files.is_empty(), "no corpus for {name}");
            for file in files {
                target(&fs::read(file.path()).unwrap());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_pass(data in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            for (_, target) in TARGETS {
                target(&data);
            }
        }
    }
}
