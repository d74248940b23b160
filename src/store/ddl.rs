//! Creating, changing and dropping the tables of feature views.

use std::fmt::Write as _;
use std::sync::Arc;

use rusqlite::params;

use super::cell;
use super::connections::WriteTxn;
use super::states::CellStates;
use crate::error::{Error, ErrorKind, Result};
use crate::proto;
use crate::schema::{
    Column, FeatureSpec, SchemaChange, Storage, TableSchema, ValueKind, ViewId, ViewSpec, quote,
};

/// SQLite builds hold 2,000 columns by default; a wider table could not be opened elsewhere.
const MAX_COLUMNS: usize = 1_990;

/// The table under construction during a rebuild.
const REBUILD: &str = "_feast_vector_rebuild";

impl WriteTxn<'_> {
    /// Makes the view's table what its declaration says; rows stay, as far as they can be.
    ///
    /// Features that are no longer declared go with their data. A retyped feature keeps its
    /// values, as what they were written, until they are written again. If the join keys are
    /// others, no row could be found by them, and the table starts empty.
    pub fn apply(&self, spec: &ViewSpec) -> Result<()> {
        let Some(state) = self.table(&spec.id)? else {
            return self.create(spec).map(drop);
        };
        let old = &state.schema;
        match old.change_to(spec) {
            SchemaChange::None => self.complete_join_keys(old, spec),
            SchemaChange::Catalog => {
                self.save(&old.rebuilt_for(spec))?;
                self.complete_join_keys(old, spec)
            }
            SchemaChange::Append(added) => {
                let mut schema = old.rebuilt_for(spec);
                let names: Vec<_> = added.iter().map(|feature| feature.name.as_str()).collect();
                self.add_columns(&mut schema, &names)
            }
            SchemaChange::Rebuild => self.rebuild(old, &old.rebuilt_for(spec)),
            SchemaChange::Recreate => {
                self.drop_view(&spec.id)?;
                self.create(spec).map(drop)
            }
        }
    }

    /// The table for writing rows of the view: made, or widened by features that it lacks.
    pub fn table_for_writing(&self, spec: &ViewSpec) -> Result<Arc<TableSchema>> {
        let Some(state) = self.table(&spec.id)? else {
            return self.create(spec).map(Arc::new);
        };
        let missing: Vec<&FeatureSpec> =
            spec.features.iter().filter(|f| state.schema.position(&f.name).is_none()).collect();
        if missing.is_empty() {
            return Ok(state.schema);
        }
        let mut schema = TableSchema::clone(&state.schema);
        schema.generation += 1;
        for feature in &missing {
            schema.add_feature(feature, true);
        }
        let names: Vec<_> = missing.iter().map(|feature| feature.name.as_str()).collect();
        self.add_columns(&mut schema, &names)?;
        Ok(Arc::new(schema))
    }

    /// Adds columns for features that no view declares but a writer sent.
    pub(super) fn add_undeclared(
        &self,
        schema: &TableSchema,
        features: &[FeatureSpec],
    ) -> Result<TableSchema> {
        let mut schema = schema.clone();
        schema.generation += 1;
        for feature in features {
            schema.add_feature(feature, false);
        }
        let names: Vec<_> = features.iter().map(|feature| feature.name.as_str()).collect();
        self.add_columns(&mut schema, &names)?;
        Ok(schema)
    }

    /// Adds columns for join keys, which the first keys that were written have told.
    pub(super) fn add_join_keys(
        &self,
        schema: &TableSchema,
        join_keys: &[(String, ValueKind)],
    ) -> Result<TableSchema> {
        let mut schema = schema.clone();
        schema.generation += 1;
        let table = quote(&schema.sql_name);
        for (name, kind) in join_keys {
            schema.add_join_key(name, kind.name());
            if let Some(key) = schema.join_keys.last() {
                let column = quote(&key.sql_name);
                let sql_type = kind.storage().sql_type();
                let sql = format!("ALTER TABLE {table} ADD COLUMN {column} {sql_type}");
                self.connection.execute_batch(&sql)?;
            }
        }
        self.save(&schema)?;
        Ok(schema)
    }

    /// Drops the view's table in that version, if there is one.
    pub fn drop_view(&self, view: &ViewId) -> Result<()> {
        if let Some(state) = self.table(view)? {
            let table = quote(&state.schema.sql_name);
            self.connection.execute_batch(&format!("DROP TABLE {table}"))?;
            self.forget_table(state.schema.table_id)?;
        }
        Ok(())
    }

    fn create(&self, spec: &ViewSpec) -> Result<TableSchema> {
        let mut schema = self.enter_table(&spec.id)?;
        for key in &spec.join_keys {
            schema.add_join_key(&key.name, &key.feast_type);
        }
        for feature in &spec.features {
            schema.add_feature(feature, true);
        }
        self.connection.execute_batch(&create_table(&schema, &schema.sql_name)?)?;
        self.save(&schema)?;
        Ok(schema)
    }

    fn add_columns(&self, schema: &mut TableSchema, features: &[&str]) -> Result<()> {
        check_width(schema)?;
        let table = quote(&schema.sql_name);
        for column in features.iter().filter_map(|feature| schema.column(feature)) {
            let definition = column_definition(column);
            self.connection
                .execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {definition}"))?;
        }
        self.save(schema)
    }

    /// A table that was written before its view was applied may not know its join keys yet.
    fn complete_join_keys(&self, schema: &TableSchema, spec: &ViewSpec) -> Result<()> {
        if !schema.join_keys.is_empty() || spec.join_keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = spec
            .join_keys
            .iter()
            .map(|key| (key.name.clone(), ValueKind::from_feast_type(&key.feast_type)))
            .collect();
        self.add_join_keys(schema, &keys).map(drop)
    }

    fn rebuild(&self, old: &TableSchema, new: &TableSchema) -> Result<()> {
        self.connection.execute_batch(&create_table(new, REBUILD)?)?;
        let kept: Vec<(&Column, &Column)> = new
            .columns
            .iter()
            .filter_map(|column| Some((old.columns.iter().find(|c| c.id == column.id)?, column)))
            .collect();
        let fixed =
            "row_id, entity_key, event_timestamp, created_timestamp, expires_at, cell_states";
        let mut columns = fixed.to_owned();
        for key in &new.join_keys {
            let _ = write!(columns, ", {}", quote(&key.sql_name));
        }
        for (_, column) in kept.iter().filter(|(before, after)| before.kind == after.kind) {
            let _ = write!(columns, ", {}", quote(&column.sql_name));
        }
        let source = quote(&old.sql_name);
        self.connection.execute_batch(&format!(
            "INSERT INTO {REBUILD} ({columns}) SELECT {columns} FROM {source} ORDER BY row_id"
        ))?;
        for (before, after) in kept.iter().filter(|(before, after)| before.kind != after.kind) {
            self.convert_column(old, before, after)?;
        }
        self.connection.execute_batch(&format!(
            "DROP TABLE {source}; ALTER TABLE {REBUILD} RENAME TO {source}"
        ))?;
        self.save(new)
    }

    /// Carries a retyped feature's values over, each as exactly what it was.
    fn convert_column(&self, old: &TableSchema, before: &Column, after: &Column) -> Result<()> {
        let name = quote(&after.sql_name);
        let mut rows = self.connection.prepare(&format!(
            "SELECT o.row_id, o.{name}, n.cell_states
             FROM {} o JOIN {REBUILD} n USING (row_id)",
            quote(&old.sql_name)
        ))?;
        let mut update = self.connection.prepare(&format!(
            "UPDATE {REBUILD} SET {name} = ?2, cell_states = ?3 WHERE row_id = ?1"
        ))?;
        let mut rows = rows.query([])?;
        let mut message = Vec::new();
        while let Some(row) = rows.next()? {
            let mut states = CellStates::decode(row.get_ref(2)?.as_blob_or_null()?)?;
            message.clear();
            let state = states.get(before.id);
            if !cell::decode(before.kind, row.get_ref(1)?, state, &mut message)? {
                continue;
            }
            let value = proto::decode_value(&message)?;
            let (cell, state) = cell::encode(after.kind, value, &message);
            states.set(after.id, state);
            update.execute(params![row.get::<_, i64>(0)?, cell, states.encode()])?;
        }
        Ok(())
    }
}

fn check_width(schema: &TableSchema) -> Result<()> {
    let columns = schema.columns.len() + schema.join_keys.len();
    if columns <= MAX_COLUMNS {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "{} has {columns} join keys and features; a table holds {MAX_COLUMNS}. Split the view",
            schema.view
        ),
    ))
}

fn create_table(schema: &TableSchema, name: &str) -> Result<String> {
    check_width(schema)?;
    let mut sql = format!(
        "CREATE TABLE {} (\n  row_id INTEGER PRIMARY KEY,\n  entity_key BLOB NOT NULL UNIQUE",
        quote(name)
    );
    for key in &schema.join_keys {
        let sql_type = ValueKind::from_feast_type(&key.feast_type).storage().sql_type();
        let _ = write!(sql, ",\n  {} {sql_type}", quote(&key.sql_name));
    }
    sql.push_str(
        ",\n  event_timestamp INTEGER NOT NULL,\n  created_timestamp INTEGER,\
         \n  expires_at INTEGER,\n  cell_states BLOB",
    );
    for column in schema.columns_in_row_order() {
        let _ = write!(sql, ",\n  {}", column_definition(column));
    }
    sql.push_str("\n)");
    Ok(sql)
}

fn column_definition(column: &Column) -> String {
    format!("{} {}", quote(&column.sql_name), Storage::sql_type(column.storage()))
}
