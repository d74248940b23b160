//! SQL that a caller brings: reading only, through our own connection.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Float64Array, Int64Array, NullArray, StringArray};
use rusqlite::Connection;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use crate::error::{Error, ErrorKind, Result};

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

/// The names and columns of what a single reading statement answers; on a connection that nobody
/// else uses meanwhile.
pub(super) fn read_only(
    connection: &mut Connection,
    sql: &str,
    parameters: &[SqlValue],
) -> Result<Vec<(String, ArrayRef)>> {
    connection.authorizer(Some(authorize))?;
    let answer = query(connection, sql, parameters);
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    answer
}

fn query(
    connection: &Connection,
    sql: &str,
    parameters: &[SqlValue],
) -> Result<Vec<(String, ArrayRef)>> {
    let mut batch = rusqlite::Batch::new(connection, sql);
    let mut statement = match batch.next() {
        Ok(Some(statement)) => statement,
        Ok(None) => return Err(invalid("there is no statement".to_owned())),
        Err(cause) => return Err(refused(&cause)),
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
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); names.len()];
    let mut rows =
        statement.query(rusqlite::params_from_iter(parameters)).map_err(|cause| refused(&cause))?;
    while let Some(row) = rows.next().map_err(|cause| refused(&cause))? {
        for (at, column) in columns.iter_mut().enumerate() {
            column.push(row.get(at)?);
        }
    }
    Ok(names.into_iter().zip(columns.into_iter().map(|column| array(&column))).collect())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidSql, message)
}

fn refused(cause: &rusqlite::Error) -> Error {
    match cause.sqlite_error_code() {
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => invalid(
            "the statement would change something; `sql` only reads. Write through Feast, or use \
             `delete`"
                .to_owned(),
        ),
        _ => invalid(cause.to_string()),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of an authorizer")]
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select
        | AuthAction::Read { .. }
        | AuthAction::Recursive
        | AuthAction::Function { .. }
        | AuthAction::Pragma { pragma_value: None, .. } => Authorization::Allow,
        // What FTS5 asks of itself, such as for its version.
        AuthAction::Pragma { pragma_name, .. }
            if pragma_name.starts_with("table_") || pragma_name.starts_with("index_") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

fn array(values: &[Value]) -> ArrayRef {
    let has = |is: fn(&Value) -> bool| values.iter().any(is);
    let integers = has(|value| matches!(value, Value::Integer(_)));
    let reals = has(|value| matches!(value, Value::Real(_)));
    let texts = has(|value| matches!(value, Value::Text(_)));
    let blobs = has(|value| matches!(value, Value::Blob(_)));
    match (integers, reals, texts, blobs) {
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
            let bytes = values.iter().map(|value| match value {
                Value::Blob(bytes) => Some(bytes.as_slice()),
                _ => None,
            });
            Arc::new(bytes.collect::<BinaryArray>())
        }
        _ => Arc::new(values.iter().map(as_text).collect::<StringArray>()),
    }
}

fn as_text(value: &Value) -> Option<String> {
    use std::fmt::Write as _;
    match value {
        Value::Null => None,
        Value::Integer(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Blob(bytes) => {
            let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            Some(format!("X'{hex}'"))
        }
    }
}
