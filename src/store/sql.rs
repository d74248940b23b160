//! SQL that a caller brings: reading only, within limits, through connections of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BinaryArray, Float64Array, Int64Array, NullArray, StringArray};
use rusqlite::Connection;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::limits::Limit;
use rusqlite::types::{FromSql, ToSqlOutput, Value, ValueRef};

use super::allowed::authorize;
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;

/// Instructions of SQLite's machine between two looks at the clock: some ten microseconds.
const STEPS: i32 = 1000;

/// Bytes that a cell takes besides its text or BLOB.
const CELL_BYTES: usize = size_of::<Value>();

/// How far a caller's statement may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SqlLimits {
    /// How long it may take; `None` for as long as it likes.
    pub timeout: Option<Duration>,
    /// The most rows of its answer.
    pub max_rows: Option<usize>,
    /// The most bytes of its answer.
    pub max_bytes: Option<usize>,
    /// The most bytes of one value, and of one row on its way through SQLite: of those that are
    /// stored as well as of those in between (`SQLITE_LIMIT_LENGTH`).
    pub max_length: Option<usize>,
}

impl Default for SqlLimits {
    /// 30 seconds, a million rows of 256 MiB together, 16 MiB for a value.
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(30)),
            max_rows: Some(1_000_000),
            max_bytes: Some(256 << 20),
            max_length: Some(16 << 20),
        }
    }
}

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

impl rusqlite::ToSql for SqlValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Null => Ok(ToSqlOutput::Owned(Value::Null)),
            Self::Integer(number) => Ok(ToSqlOutput::Owned(Value::Integer(*number))),
            Self::Real(number) => Ok(ToSqlOutput::Owned(Value::Real(*number))),
            Self::Text(text) => Ok(ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))),
            Self::Blob(bytes) => Ok(ToSqlOutput::Borrowed(ValueRef::Blob(bytes))),
        }
    }
}

/// The names and columns of what a single reading statement answers; on a connection that runs
/// nothing but such statements.
pub(super) fn read_only(
    connection: &mut Connection,
    sql: &str,
    parameters: &[SqlValue],
    limits: &SqlLimits,
) -> Result<Vec<(String, ArrayRef)>> {
    connection.authorizer(Some(authorize))?;
    set_limits(connection, limits)?;
    let deadline = limits.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let late = Arc::new(AtomicBool::new(false));
    let is_late = Arc::clone(&late);
    connection.progress_handler(
        STEPS,
        Some(move || {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                is_late.store(true, Relaxed);
                return true;
            }
            parallel::is_cancelled()
        }),
    )?;
    let answer = query(connection, sql, parameters, limits);
    // A deadline is of one call.
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match answer {
        Err(_) if late.load(Relaxed) => Err(invalid(format!(
            "the statement took longer than {} seconds (`timeout`); have it do less, or raise \
                 `timeout`",
            limits.timeout.unwrap_or_default().as_secs_f64()
        ))),
        answer => answer,
    }
}

/// What of SQLite's own limits a reading statement of a person's does not need.
fn set_limits(connection: &Connection, limits: &SqlLimits) -> Result<()> {
    const MOST_LENGTH: usize = 1_000_000_000;
    let length = limits.max_length.unwrap_or(MOST_LENGTH).min(MOST_LENGTH);
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, length as i32),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 1_000_000),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 200),
        (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    Ok(())
}

fn query(
    connection: &Connection,
    sql: &str,
    parameters: &[SqlValue],
    limits: &SqlLimits,
) -> Result<Vec<(String, ArrayRef)>> {
    let refused = |cause: rusqlite::Error| refused(cause, limits);
    let mut batch = rusqlite::Batch::new(connection, sql);
    let mut statement = match batch.next() {
        Ok(Some(statement)) => statement,
        Ok(None) => return Err(invalid("there is no statement".to_owned())),
        Err(cause) => return Err(refused(cause)),
    };
    if !matches!(batch.next(), Ok(None)) {
        return Err(invalid("there is more than one statement; pass one at a time".to_owned()));
    }
    if statement.parameter_count() != parameters.len() {
        return Err(invalid(format!(
            "the statement has {} parameters, and {} values were passed",
            statement.parameter_count(),
            parameters.len()
        )));
    }
    if !statement.readonly() {
        return Err(invalid(CHANGES.to_owned()));
    }
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut answer = Answer { columns: vec![Column::default(); names.len()], rows: 0, bytes: 0 };
    let mut rows = statement.query(rusqlite::params_from_iter(parameters)).map_err(refused)?;
    while let Some(row) = rows.next().map_err(refused)? {
        answer.begin_row(limits)?;
        for (at, name) in names.iter().enumerate() {
            let value = Value::column_result(row.get_ref(at)?).map_err(|_| {
                invalid(format!(
                    "column '{}' of row {} is a text that is not UTF-8; read it as \
                     CAST(… AS BLOB)",
                    name, answer.rows
                ))
            })?;
            answer.take(at, value, limits)?;
        }
    }
    let columns = answer.columns.into_iter();
    names
        .into_iter()
        .zip(columns)
        .map(|(name, column)| {
            let array =
                column.array().map_err(|error| error.at(format_args!("column '{name}'")))?;
            Ok((name, array))
        })
        .collect()
}

const CHANGES: &str = "the statement would change something; `sql` only reads, and by no other \
                       functions, pragmas and tables of SQLite's than it knows to be safe. Write \
                       through Feast, or use `delete`";

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidSql, message)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(cause: rusqlite::Error, limits: &SqlLimits) -> Error {
    use rusqlite::ErrorCode;
    match cause.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied) => {
            invalid(format!("{CHANGES} (SQLite: {cause})"))
        }
        Some(ErrorCode::TooBig) => invalid(format!(
            "a value or a row is of more than {} bytes (`max_length`), or the statement is too \
             long; read less of it (substr), or raise `max_length`",
            limits.max_length.unwrap_or_default()
        )),
        Some(ErrorCode::OperationInterrupted) => {
            invalid("the statement was interrupted".to_owned())
        }
        _ => invalid(cause.to_string()),
    }
}

/// Rows as they come, counted.
struct Answer {
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl Answer {
    fn begin_row(&mut self, limits: &SqlLimits) -> Result<()> {
        if limits.max_rows.is_some_and(|most| self.rows >= most) {
            return Err(invalid(format!(
                "the answer has more than {} rows (`max_rows`); read fewer (LIMIT), or raise \
                 `max_rows`",
                self.rows
            )));
        }
        self.rows += 1;
        Ok(())
    }

    fn take(&mut self, column: usize, value: Value, limits: &SqlLimits) -> Result<()> {
        self.bytes += CELL_BYTES;
        match &value {
            Value::Text(text) => self.bytes += text.len(),
            Value::Blob(bytes) => self.bytes += bytes.len(),
            _ => {}
        }
        if let Some(most) = limits.max_bytes.filter(|most| self.bytes > *most) {
            return Err(invalid(format!(
                "the answer is of more than {most} bytes (`max_bytes`) after {} rows; read less, \
                 or raise `max_bytes`",
                self.rows
            )));
        }
        self.columns[column].0.push(value);
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
struct Column(Vec<Value>);

impl Column {
    fn array(self) -> Result<ArrayRef> {
        let values = self.0;
        let has = |is: fn(&Value) -> bool| values.iter().any(is);
        let integers = has(|value| matches!(value, Value::Integer(_)));
        let reals = has(|value| matches!(value, Value::Real(_)));
        let texts = has(|value| matches!(value, Value::Text(_)));
        let blobs = has(|value| matches!(value, Value::Blob(_)));
        Ok(match (integers, reals, texts, blobs) {
            (false, false, false, false) => Arc::new(NullArray::new(values.len())),
            (true, false, false, false) => {
                let number = |value: &Value| match value {
                    Value::Integer(number) => Some(*number),
                    _ => None,
                };
                Arc::new(values.iter().map(number).collect::<Int64Array>())
            }
            (_, true, false, false) => {
                let number = |value: &Value| match value {
                    Value::Integer(number) => Some(*number as f64),
                    Value::Real(number) => Some(*number),
                    _ => None,
                };
                Arc::new(values.iter().map(number).collect::<Float64Array>())
            }
            (false, false, false, true) => {
                fits(&values, 1)?;
                let bytes = values.iter().map(|value| match value {
                    Value::Blob(bytes) => Some(bytes.as_slice()),
                    _ => None,
                });
                Arc::new(bytes.collect::<BinaryArray>())
            }
            _ => {
                fits(&values, 2)?;
                Arc::new(values.into_iter().map(as_text).collect::<StringArray>())
            }
        })
    }
}

/// Whether the values' text or bytes are no more than a column of Arrow's holds.
fn fits(values: &[Value], of_blob: usize) -> Result<()> {
    // The most digits of a number, and the frame of `X'…'`.
    const LONGEST: usize = 350;
    let lengths = values.iter().map(|value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => LONGEST,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len() * of_blob + 3 * (of_blob - 1),
    });
    if i32::try_from(lengths.sum::<usize>()).is_ok() {
        return Ok(());
    }
    Err(invalid("more than 2 GiB; read it in pieces (LIMIT, OFFSET)".to_owned()))
}

fn as_text(value: Value) -> Option<String> {
    use std::fmt::Write as _;
    match value {
        Value::Null => None,
        Value::Integer(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Text(text) => Some(text),
        Value::Blob(bytes) => {
            let mut hex = String::with_capacity(bytes.len() * 2 + 3);
            hex.push_str("X'");
            for byte in bytes {
                let _ = write!(hex, "{byte:02x}");
            }
            hex.push('\'');
            Some(hex)
        }
    }
}
