//! Names: of tables and columns in SQL, quoted and free ones, and of index files.

use std::collections::HashSet;

/// `name` as a quoted SQL identifier.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name of an index file. Nothing under another name is opened as one.
pub fn index_file_name(table_id: i64, column_id: u32, stamp: u64) -> String {
    format!("{table_id}-{column_id}-{stamp:016x}.seg")
}

/// Whether a name that somebody else may have written is one of an index file, which leads nowhere
/// else.
pub fn is_index_file_name(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some(stem) = name.strip_suffix(".seg") else { return false };
    match *stem.split('-').collect::<Vec<_>>() {
        [table, column, stamp] => is_number(table) && is_number(column) && is_stamp(stamp),
        _ => false,
    }
}

/// Whether it is a stamp as names of files have it.
pub fn is_stamp(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `wanted`, or `wanted_2`, `wanted_3`, … if it is in `taken`; adds the answer to `taken`.
///
/// SQLite compares identifiers without regard to ASCII case, so `taken` holds lower-case names.
/// A name cannot hold NUL, the one character that no quoting lets through: it becomes `_`.
#[allow(clippy::implicit_hasher, reason = "only ever called with the default")]
pub fn free_name(wanted: &str, taken: &mut HashSet<String>) -> String {
    let clean = if wanted.is_empty() { "_".to_owned() } else { wanted.replace('\0', "_") };
    let mut name = clean.clone();
    let mut next = 2;
    while !taken.insert(name.to_ascii_lowercase()) {
        name = format!("{clean}_{next}");
        next += 1;
    }
    name
}

/// The table that a feature view gets unless it is taken: `project_view` or `project_view_v2`,
/// as Feast's `compute_table_id` has it; names that SQLite or we keep for ourselves are led by
/// `view_`.
pub fn table_name(project: &str, view: &str, version: u32) -> String {
    let name = match version {
        0 => format!("{project}_{view}"),
        _ => format!("{project}_{view}_v{version}"),
    };
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("sqlite_") || lower.starts_with("_feast_vector") {
        format!("view_{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_quotes() {
        assert_eq!(quote(r#"a"b; drop table x"#), r#""a""b; drop table x""#);
    }

    #[test]
    fn taken_names_are_numbered_without_regard_to_case() {
        let mut taken = HashSet::from(["row_id".to_owned()]);
        assert_eq!(free_name("Row_ID", &mut taken), "Row_ID_2");
        assert_eq!(free_name("row_id", &mut taken), "row_id_3");
        assert_eq!(free_name("", &mut taken), "_");
        assert_eq!(free_name("a\0b", &mut taken), "a_b");
    }

    #[test]
    fn index_files_have_one_name() {
        let name = index_file_name(12, 3, 0xab);
        assert_eq!(name, "12-3-00000000000000ab.seg");
        assert!(is_index_file_name(&name));
        for other in [
            "",
            ".seg",
            "12-3-ab.seg",
            "12-3-00000000000000ab.tmp",
            "12--00000000000000ab.seg",
            "-1-3-00000000000000ab.seg",
            "../12-3-00000000000000ab.seg",
            "/tmp/12-3-00000000000000ab.seg",
            "12-3-00000000000000ab.seg/x",
        ] {
            assert!(!is_index_file_name(other), "{other}");
        }
    }

    #[test]
    fn reserved_table_names_are_led_by_a_prefix() {
        assert_eq!(table_name("shop", "items", 0), "shop_items");
        assert_eq!(table_name("shop", "items", 3), "shop_items_v3");
        assert_eq!(table_name("SQLite", "items", 0), "view_SQLite_items");
    }
}
