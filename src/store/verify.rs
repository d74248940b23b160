//! Checks of the whole database: its pages, the catalog, and every row and cell.

use std::collections::HashSet;
use std::fmt::Write as _;

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OpenFlags};

use super::catalog::TableState;
use super::cell::{self, Cell};
use super::connections::{Snapshot, Store};
use super::findings::{Finding, Findings};
use super::open;
use super::planted;
use super::progress::Progress;
use super::runs::RowRuns;
use super::states::{CellState, CellStates};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::{self, DecodedKey, Val};
use crate::schema::{
    Column, DUMMY_JOIN_KEY, Element, RESERVED_COLUMNS, Storage, TableSchema, ValueKind, ViewId,
    quote,
};

/// What compares a table's vectors with their indexes.
pub(super) type IndexCheck<'a> =
    dyn FnMut(&Snapshot<'_>, &TableState, &mut Findings) -> Result<()> + 'a;

impl Store {
    /// Checks everything that is in the database, as of one moment, and has `indexes` check what
    /// is beside it. `is_immutable`: nobody uses the file, and it may not be written to, as that of
    /// a backup. Lists up to `limit` findings of each kind.
    pub fn verify(
        &self,
        is_immutable: bool,
        limit: usize,
        progress: &Progress,
        indexes: &mut IndexCheck<'_>,
    ) -> Result<Findings> {
        self.must_exist()?;
        let mut connection =
            if is_immutable { self.connect_immutable()? } else { open::connect(&self.options)? };
        let mut findings = Findings::new(limit);
        progress.watch(&mut connection, "pages")?;
        connection.execute_batch("BEGIN")?;
        check_pages(&connection, limit, &mut findings)?;
        connection.progress_handler(0, None::<fn() -> bool>)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version != open::FORMAT_VERSION {
            findings.note(format!(
                "the file has format version {version}: its pages were checked, and its rows are \
                 when it is restored and verified"
            ));
            return Ok(findings);
        }
        let snapshot = Snapshot { store: self, connection: &connection, uncommitted: None };
        let checked = snapshot.check_catalog(&mut findings).and_then(|views| {
            for view in views {
                let looked = snapshot.check_view(&view, progress, &mut findings, indexes);
                put_error(looked, "row", Some(&view), &mut findings)?;
            }
            Ok(())
        });
        put_error(checked, "catalog", None, &mut findings)?;
        Ok(findings)
    }

    fn connect_immutable(&self) -> Result<Connection> {
        let path = self.options.path.to_string_lossy();
        let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)?;
        planted::disarm(&connection)?;
        Ok(connection)
    }
}

/// An error that ends a check is a finding, unless it is about the check.
fn put_error(
    outcome: Result<()>,
    check: &'static str,
    view: Option<&ViewId>,
    findings: &mut Findings,
) -> Result<()> {
    match outcome {
        Err(error) if !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Busy) => {
            let message = format!("cannot be read to the end: {error}");
            findings.add(Finding { check, message, view: view.cloned(), ..Finding::default() });
            Ok(())
        }
        other => other,
    }
}

fn check_pages(connection: &Connection, limit: usize, findings: &mut Findings) -> Result<()> {
    let mut check = || -> Result<()> {
        let mut statement = connection.prepare(&format!("PRAGMA integrity_check({limit})"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let message: String = row.get(0)?;
            if message != "ok" {
                findings.add(Finding { check: "pages", message, ..Finding::default() });
            }
        }
        Ok(())
    };
    let outcome = check();
    put_error(outcome, "pages", None, findings)
}

impl Snapshot<'_> {
    /// Whether the catalog's tables are there, with their columns, and nothing of others; gives the
    /// views whose rows can be looked at.
    fn check_catalog(&self, findings: &mut Findings) -> Result<Vec<ViewId>> {
        let mut wrong = |message: String, view: Option<&ViewId>| {
            let view = view.cloned();
            findings.add(Finding { check: "catalog", message, view, ..Finding::default() });
        };
        let mut statement = self.connection.prepare(
            "SELECT project, view, version, t.table_name, t.table_id,
                    (SELECT type FROM sqlite_schema s WHERE s.name = t.table_name COLLATE NOCASE)
             FROM _feast_vector_tables t ORDER BY project, view, version",
        )?;
        let mut rows = statement.query([])?;
        let mut views = Vec::new();
        let (mut text_tables, mut owned) = (HashSet::new(), HashSet::new());
        while let Some(row) = rows.next()? {
            let view = ViewId { project: row.get(0)?, view: row.get(1)?, version: row.get(2)? };
            let (table, id): (String, i64) = (row.get(3)?, row.get(4)?);
            // One of older words is made again when it is wanted.
            owned.insert(format!("_feast_vector_text_{id}"));
            if row.get::<_, Option<String>>(5)?.as_deref() != Some("table") {
                wrong(format!("the table '{table}' is missing"), Some(&view));
                continue;
            }
            let Some(state) = self.table(&view)? else { continue };
            if state.schema.has_text_index() {
                text_tables.insert(format!("_feast_vector_text_{id}"));
            }
            let (missing, extra) = self.compare_columns(&state.schema)?;
            for column in extra {
                wrong(format!("the column '{column}' is not in the catalog"), Some(&view));
            }
            if missing.is_empty() {
                views.push(view);
                continue;
            }
            for column in missing {
                wrong(format!("the column '{column}' is missing"), Some(&view));
            }
        }
        for table in ["columns", "changes", "indexes", "segments"] {
            let sql = format!(
                "SELECT count(*) FROM _feast_vector_{table}
                 WHERE table_id NOT IN (SELECT table_id FROM _feast_vector_tables)"
            );
            let lost: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
            if lost > 0 {
                wrong(format!("{lost} rows of _feast_vector_{table} are of no table"), None);
            }
        }
        let mut found = HashSet::new();
        let mut statement = self.connection.prepare(
            "SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE%'
             AND name LIKE '\\_feast\\_vector\\_text\\_%' ESCAPE '\\'",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            found.insert(row.get::<_, String>(0)?);
        }
        for table in text_tables.difference(&found) {
            wrong(format!("the text index '{table}' is missing"), None);
        }
        for table in found.difference(&owned) {
            wrong(format!("the text index '{table}' is of no feature view"), None);
        }
        let mut statement =
            self.connection.prepare("SELECT seq, row_ids FROM _feast_vector_changes")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let packed = row.get_ref(1)?.as_blob().unwrap_or_default();
            if RowRuns::unpack(packed).is_err() {
                wrong(
                    format!("change {} of the change log cannot be read", row.get::<_, i64>(0)?),
                    None,
                );
            }
        }
        Ok(views)
    }

    /// The columns that the table lacks, and those that the catalog does not know.
    fn compare_columns(&self, schema: &TableSchema) -> Result<(Vec<String>, Vec<String>)> {
        let sql = format!("SELECT name FROM pragma_table_info({})", quote_text(&schema.sql_name));
        let mut statement = self.connection.prepare(&sql)?;
        let found: Vec<String> =
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let expected: Vec<&str> = RESERVED_COLUMNS
            .into_iter()
            .chain(schema.join_keys.iter().map(|key| key.sql_name.as_str()))
            .chain(schema.columns.iter().map(|column| column.sql_name.as_str()))
            .collect();
        let has = |name: &str| found.iter().any(|column| column.eq_ignore_ascii_case(name));
        let missing = expected.iter().filter(|name| !has(name)).map(|name| (*name).to_owned());
        let is_extra =
            |name: &&String| expected.iter().all(|column| !column.eq_ignore_ascii_case(name));
        Ok((missing.collect(), found.iter().filter(is_extra).cloned().collect()))
    }

    fn check_view(
        &self,
        view: &ViewId,
        progress: &Progress,
        findings: &mut Findings,
        indexes: &mut IndexCheck<'_>,
    ) -> Result<()> {
        let Some(state) = self.table(view)? else {
            return Ok(());
        };
        let rows = self.check_rows(&state, progress, findings);
        put_error(rows, "row", Some(view), findings)?;
        if state.schema.text_is_filling {
            findings.note(format!("{view}: the text index is being filled; it was not compared"));
        } else if state.schema.has_text_index() {
            let texts = self.check_texts(&state.schema, progress, findings);
            put_error(texts, "text", Some(view), findings)?;
        }
        put_error(indexes(self, &state, findings), "index", Some(view), findings)
    }

    fn check_rows(
        &self,
        state: &TableState,
        progress: &Progress,
        findings: &mut Findings,
    ) -> Result<()> {
        let schema = &state.schema;
        let mut sql = "SELECT row_id, entity_key, event_timestamp, created_timestamp, expires_at, \
                       cell_states"
            .to_owned();
        let join_keys = schema.join_keys.iter().map(|key| &key.sql_name);
        for name in join_keys.chain(schema.columns.iter().map(|column| &column.sql_name)) {
            let _ = write!(sql, ", {}", quote(name));
        }
        let table = quote(&schema.sql_name);
        let total = self.count(schema)?;
        let mut statement = self.connection.prepare(&format!("{sql} FROM {table} NOT INDEXED"))?;
        let mut rows = statement.query([])?;
        let mut checker = RowChecker { schema, expires: state.expires, scratch: Vec::new() };
        let mut done = 0;
        while let Some(row) = rows.next()? {
            done += 1;
            findings.row();
            progress.at("rows", done, total.max(done + 1))?;
            checker.check(row, findings)?;
        }
        Ok(())
    }
}

/// Looks at one row after the other.
struct RowChecker<'a> {
    schema: &'a TableSchema,
    expires: bool,
    scratch: Vec<u8>,
}

impl RowChecker<'_> {
    fn check(&mut self, row: &rusqlite::Row<'_>, findings: &mut Findings) -> Result<()> {
        let row_id: i64 = row.get(0)?;
        let view = Some(self.schema.view.clone());
        let key = match row.get_ref(1)? {
            ValueRef::Blob(bytes) => decode_whole(bytes),
            _ => Err("the entity key is not a BLOB".to_owned()),
        };
        let shown = key.as_ref().ok().map(ToString::to_string);
        let mut wrong = |check, feature: Option<&str>, message: String| {
            findings.add(Finding {
                check,
                message,
                view: view.clone(),
                feature: feature.map(str::to_owned),
                row_id: Some(row_id),
                key: shown.clone(),
                file: None,
            });
        };
        match &key {
            Ok(key) => {
                for (at, join_key) in self.schema.join_keys.iter().enumerate() {
                    let cell = row.get_ref(6 + at)?;
                    if !agrees(key, &join_key.name, &join_key.feast_type, cell) {
                        let message = format!(
                            "the column of join key '{}' differs from the entity key",
                            join_key.name
                        );
                        wrong("key", None, message);
                    }
                }
                let is_unknown = |name: &String| {
                    name != DUMMY_JOIN_KEY
                        && self.schema.join_keys.iter().all(|key| key.name != *name)
                };
                for (name, _) in key.parts.iter().filter(|(name, _)| is_unknown(name)) {
                    wrong("key", None, format!("the entity key has the unknown join key '{name}'"));
                }
            }
            Err(message) => wrong("key", None, message.clone()),
        }
        for (at, name, is_needed) in [
            (2, "event_timestamp", true),
            (3, "created_timestamp", false),
            (4, "expires_at", false),
        ] {
            match row.get_ref(at)? {
                ValueRef::Integer(_) => {}
                ValueRef::Null if !is_needed => {}
                _ => wrong("row", None, format!("{name} is not a time")),
            }
        }
        if !self.expires && row.get_ref(4)? != ValueRef::Null {
            wrong("row", None, "it expires, and the catalog says that no row does".to_owned());
        }
        let states = match row.get_ref(5)?.as_blob_or_null() {
            Ok(bytes) => CellStates::decode(bytes).map_err(|error| error.to_string()),
            Err(_) => Err("cell_states is not a BLOB".to_owned()),
        };
        let states = match states {
            Ok(states) => states,
            Err(message) => {
                wrong("row", None, message);
                return Ok(());
            }
        };
        let first = 6 + self.schema.join_keys.len();
        for (at, column) in self.schema.columns.iter().enumerate() {
            let cell = row.get_ref(first + at)?;
            if let Err(message) = check_cell(column, cell, states.get(column.id), &mut self.scratch)
            {
                wrong("cell", Some(&column.feature), message);
            }
        }
        Ok(())
    }
}

/// The key, if it is one and the only way to write it.
fn decode_whole(bytes: &[u8]) -> std::result::Result<DecodedKey, String> {
    let key = proto::decode_key(bytes).map_err(|error| error.to_string())?;
    match key.encode() {
        Ok(again) if again == bytes => Ok(key),
        _ => Err("the entity key is not in the form that Feast writes".to_owned()),
    }
}

/// Whether a join key's column says what the key says.
fn agrees(key: &DecodedKey, name: &str, feast_type: &str, cell: ValueRef<'_>) -> bool {
    let Some((_, val)) = key.parts.iter().find(|(part, _)| part == name) else {
        return cell == ValueRef::Null;
    };
    if val.kind() != ValueKind::from_feast_type(feast_type) {
        // SQLite made of it what the column's type says.
        return cell != ValueRef::Null;
    }
    let (expected, _) = cell::encode(val.kind(), Some(val.clone()), &[]);
    is_same(&expected, cell)
}

fn is_same(expected: &Cell, cell: ValueRef<'_>) -> bool {
    match (expected, cell) {
        (Cell::Null, ValueRef::Null) => true,
        (Cell::Integer(a), ValueRef::Integer(b)) => *a == b,
        (Cell::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
        (Cell::Text(a), ValueRef::Text(b)) => a.as_bytes() == b,
        (Cell::Blob(a), ValueRef::Blob(b)) => a == b,
        _ => false,
    }
}

/// Whether a cell holds what its column and its state say: no more than that, because what a value
/// was before it was damaged, nobody knows.
fn check_cell(
    column: &Column,
    cell: ValueRef<'_>,
    state: CellState,
    scratch: &mut Vec<u8>,
) -> std::result::Result<(), String> {
    let kind = column.kind;
    scratch.clear();
    if matches!(state, CellState::Null | CellState::NullVal) && cell != ValueRef::Null {
        return Err(format!("it holds {}, and its state is null", name_of(cell.data_type())));
    }
    let decoded = cell::decode(kind, cell, state, scratch);
    if !decoded.map_err(|error| describe(&error, kind, cell))? {
        return Ok(());
    }
    let is_text = matches!((kind.storage(), state, cell), (Storage::Text, CellState::Plain, _));
    let fits = match (state, kind, cell) {
        (CellState::Plain, ValueKind::Int32, ValueRef::Integer(number)) => {
            i32::try_from(number).is_ok()
        }
        (CellState::Plain, ValueKind::Bool, ValueRef::Integer(number)) => matches!(number, 0 | 1),
        (CellState::Plain, ValueKind::Float, ValueRef::Real(number)) => {
            f64::from(number as f32).to_bits() == number.to_bits()
        }
        (CellState::Plain, _, ValueRef::Blob(bytes))
            if kind.storage() == Storage::Packed(Element::Bool) =>
        {
            bytes.iter().all(|byte| *byte <= 1)
        }
        (CellState::Plain, _, ValueRef::Text(text)) if is_text => std::str::from_utf8(text).is_ok(),
        _ => true,
    };
    if !fits {
        return Err(format!("it is not a value of type {}", kind.name()));
    }
    if state == CellState::Wire || kind.storage() == Storage::Wire {
        let value = proto::decode_value(scratch)
            .map_err(|error| format!("its message cannot be parsed: {error}"))?;
        let found = value.as_ref().map_or(ValueKind::Unknown, Val::kind);
        if state == CellState::Plain && found != kind && kind != ValueKind::Unknown {
            return Err(format!("its message is not of type {}", kind.name()));
        }
    }
    Ok(())
}

fn describe(error: &Error, kind: ValueKind, cell: ValueRef<'_>) -> String {
    if error.kind() == ErrorKind::Damaged {
        return format!(
            "it is {}, which is not a value of type {}",
            name_of(cell.data_type()),
            kind.name()
        );
    }
    error.to_string()
}

fn name_of(kind: Type) -> &'static str {
    match kind {
        Type::Null => "NULL",
        Type::Integer => "an INTEGER",
        Type::Real => "a REAL",
        Type::Text => "a TEXT",
        Type::Blob => "a BLOB",
    }
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
