//! What a table has not: values that went stale with a schema change, and rows that are still in
//! the table of Feast's own sqlite store.

use rusqlite::{OptionalExtension, params};

use super::connections::{Snapshot, WriteTxn};
use crate::error::Result;
use crate::schema::{
    Column, Element, FeatureSpec, TableSchema, ViewId, ViewSpec, quote, table_name,
};

/// A feature whose stored values are not what its view declares any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleValues {
    /// The feature; none where it is the view's join keys that changed.
    pub feature: Option<String>,
    /// What it was declared as.
    pub was: String,
    /// What it is declared as.
    pub is: String,
    /// Rows whose values have to be written again.
    pub rows: u64,
}

impl WriteTxn<'_> {
    /// The stored values that will not be what the declaration says.
    pub(super) fn stale_values(
        &self,
        old: &TableSchema,
        spec: &ViewSpec,
    ) -> Result<Vec<StaleValues>> {
        let mut stale = Vec::new();
        for column in &old.columns {
            let Some(feature) = spec.features.iter().find(|f| f.name == column.feature) else {
                continue;
            };
            let Some(condition) = stale_condition(column, feature) else { continue };
            let rows = self.count_where(old, &condition)?;
            if rows > 0 {
                let name = |feast_type: &str, length: Option<u32>| match length {
                    Some(length) => format!("{feast_type} with vector_length={length}"),
                    None => feast_type.to_owned(),
                };
                stale.push(StaleValues {
                    feature: Some(column.feature.clone()),
                    was: name(&column.feast_type, column.vector_length),
                    is: name(&feature.feast_type, feature.vector_length),
                    rows,
                });
            }
        }
        Ok(stale)
    }

    /// The rows that are lost with other join keys.
    pub(super) fn lost_rows(&self, old: &TableSchema, spec: &ViewSpec) -> Result<Vec<StaleValues>> {
        let rows = self.count_where(old, "1")?;
        let names = |keys: Vec<&str>| keys.join(", ");
        let lost = StaleValues {
            feature: None,
            was: names(old.join_keys.iter().map(|key| key.name.as_str()).collect()),
            is: names(spec.join_keys.iter().map(|key| key.name.as_str()).collect()),
            rows,
        };
        Ok(if rows > 0 { vec![lost] } else { Vec::new() })
    }

    fn count_where(&self, schema: &TableSchema, condition: &str) -> Result<u64> {
        let table = quote(&schema.sql_name);
        let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
        let rows: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(rows.cast_unsigned())
    }
}

/// Which rows of a column are stale once the feature is declared so; none where all stay right.
fn stale_condition(column: &Column, feature: &FeatureSpec) -> Option<String> {
    let name = quote(&column.sql_name);
    if column.feast_type != feature.feast_type {
        return Some(format!("{name} IS NOT NULL"));
    }
    let width = column.kind.vector_element().map(Element::width)?;
    let length = feature.vector_length.filter(|_| feature.vector_length != column.vector_length)?;
    Some(format!("length({name}) <> {}", u64::from(length) * width as u64))
}

impl Snapshot<'_> {
    /// The table of Feast's own sqlite store in this file that has the view's rows, where ours has
    /// none.
    pub fn feast_sqlite_table(&self, view: &ViewId) -> Result<Option<String>> {
        let name = table_name(&view.project, &view.view, view.version);
        let columns: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM pragma_table_info(?1)
                 WHERE name IN ('entity_key', 'feature_name', 'value', 'event_ts')",
            )?
            .query_row(params![name], |row| row.get(0))?;
        if columns < 4 || !self.has_rows(&name)? {
            return Ok(None);
        }
        let ours = self.table(view)?;
        let is_filled = match ours {
            Some(table) => self.has_rows(&table.schema.sql_name)?,
            None => false,
        };
        Ok((!is_filled).then_some(name))
    }

    fn has_rows(&self, table: &str) -> Result<bool> {
        let sql = format!("SELECT 1 FROM {} LIMIT 1", quote(table));
        let found = self.connection.query_row(&sql, [], |_| Ok(())).optional()?;
        Ok(found.is_some())
    }
}
