//! What a caller's SQL may use, by list: whatever SQLite or a build of it adds is refused until it
//! is entered here.

#![allow(unsafe_code, reason = "rusqlite has no call for dropping modules")]

use std::ffi::{CStr, c_char};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::error::{Error, ErrorKind, Result};

/// Functions: SQLite's core, dates, aggregates, windows, mathematics, JSON, and those that rank
/// full-text matches.
const FUNCTIONS: &[&str] = &[
    "->",
    "->>",
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg",
    "bm25",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "cos",
    "cosh",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "degrees",
    "dense_rank",
    "exp",
    "first_value",
    "floor",
    "format",
    "glob",
    "group_concat",
    "hex",
    "highlight",
    "if",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_array_length",
    "json_each",
    "json_error_position",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_tree",
    "json_type",
    "json_valid",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "match",
    "max",
    "median",
    "min",
    "mod",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "pi",
    "pow",
    "power",
    "printf",
    "quote",
    "radians",
    "random",
    "randomblob",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "sin",
    "sinh",
    "snippet",
    "sqlite_version",
    "sqrt",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "tan",
    "tanh",
    "time",
    "timediff",
    "total",
    "trim",
    "trunc",
    "typeof",
    "unhex",
    "unicode",
    "unistr",
    "unixepoch",
    "unlikely",
    "upper",
    "zeroblob",
];

/// Pragmas that read, and whether they take an argument. As `pragma_…` they are tables, too.
const PRAGMAS: &[(&str, bool)] = &[
    ("application_id", false),
    ("data_version", false),
    ("encoding", false),
    ("foreign_key_list", true),
    ("freelist_count", false),
    ("index_info", true),
    ("index_list", true),
    ("index_xinfo", true),
    ("page_count", false),
    ("page_size", false),
    ("schema_version", false),
    ("table_info", true),
    ("table_list", true),
    ("table_xinfo", true),
    ("user_version", false),
];

/// SQLite's own tables.
const OWN_TABLES: &[&str] = &[
    "sqlite_master",
    "sqlite_schema",
    "sqlite_sequence",
    "sqlite_stat1",
    "sqlite_stat4",
    "sqlite_temp_master",
    "sqlite_temp_schema",
];

/// Modules of virtual tables that a connection keeps: that of the text index. SQLite adds those of
/// `json_each`, `json_tree` and `pragma_…` when they are asked for.
const MODULES: [&CStr; 1] = [c"fts5"];

/// Leaves a connection no modules of virtual tables but those above, whatever was built into SQLite:
/// a file may hold tables of any.
pub(super) fn drop_modules(connection: &Connection) -> Result<()> {
    let mut kept: Vec<*const c_char> = MODULES.iter().map(|name| name.as_ptr()).collect();
    kept.push(std::ptr::null());
    // SAFETY: the connection is open for as long as it is borrowed; the list is of C strings that
    // live for ever, ends with a null, and is only read.
    let code =
        unsafe { rusqlite::ffi::sqlite3_drop_modules(connection.handle(), kept.as_mut_ptr()) };
    if code == rusqlite::ffi::SQLITE_OK {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, format!("SQLite: cannot drop its modules (code {code})")))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of an authorizer")]
pub(super) fn authorize(context: AuthContext<'_>) -> Authorization {
    let is_allowed = match context.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Read { table_name, .. } => may_read(table_name),
        AuthAction::Function { function_name } => contains(FUNCTIONS, function_name),
        AuthAction::Pragma { pragma_name, pragma_value } => PRAGMAS.iter().any(|(name, takes)| {
            name.eq_ignore_ascii_case(pragma_name) && (*takes || pragma_value.is_none())
        }),
        _ => false,
    };
    if is_allowed { Authorization::Allow } else { Authorization::Deny }
}

fn contains(list: &[&str], name: &str) -> bool {
    list.binary_search(&name.to_ascii_lowercase().as_str()).is_ok()
}

/// Any table of the file may be read; of those that SQLite makes up, the ones above.
fn may_read(table: &str) -> bool {
    let table = table.to_ascii_lowercase();
    if let Some(pragma) = table.strip_prefix("pragma_") {
        return PRAGMAS.iter().any(|(name, _)| *name == pragma);
    }
    !table.starts_with("sqlite_") || contains(OWN_TABLES, &table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted() {
        assert!(FUNCTIONS.is_sorted() && OWN_TABLES.is_sorted() && PRAGMAS.is_sorted());
    }
}
