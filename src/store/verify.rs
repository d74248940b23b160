//! Checks of the whole database: its pages, the catalog, and every row and cell.

use std::collections::HashSet;
use std::fmt::Write as _;

use rusqlite::{Connection, OpenFlags};

use super::catalog::TableState;
use super::connections::{Snapshot, Store};
use super::findings::{Finding, Findings};
use super::open;
use super::planted;
use super::progress::Progress;
use super::runs::RowRuns;
use super::verify_rows::RowChecker;
use crate::error::{ErrorKind, Result};
use crate::schema::{RESERVED_COLUMNS, TableSchema, ViewId, quote};

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
        let mut statement = self.connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let names = statement.query_map([&schema.sql_name], |row| row.get(0))?;
        let found: Vec<String> = names.collect::<rusqlite::Result<_>>()?;
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
