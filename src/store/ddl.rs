//! Creating, changing and dropping the tables of feature views.

use std::fmt::Write as _;
use std::sync::Arc;

use rusqlite::params;

use super::cell;
use super::connections::WriteTxn;
use super::states::CellStates;
use super::unfilled::StaleValues;
use crate::error::{Error, ErrorKind, Result};
use crate::proto;
use crate::schema::{
    Column, FeatureSpec, JoinKey, JoinKeySpec, SchemaChange, Storage, TableSchema, ValueKind,
    ViewId, ViewSpec, quote,
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
    /// others, no row could be found by them, and the table starts empty. The text index becomes
    /// what the view wants; [`WriteTxn::upkeep`] fills it. Gives the stored values that have to be
    /// written again.
    pub fn apply(&self, spec: &ViewSpec) -> Result<Vec<StaleValues>> {
        let Some(state) = self.table(&spec.id)? else {
            self.create(spec)?;
            return Ok(Vec::new());
        };
        let (old, new) = (&state.schema, state.schema.rebuilt_for(spec));
        let mut stale = self.stale_values(old, spec)?;
        match old.change_to(spec) {
            SchemaChange::None => self.declare_join_keys(old, spec)?,
            change => {
                match change {
                    SchemaChange::None | SchemaChange::Catalog => self.save(&new)?,
                    SchemaChange::Append(added) => self.add_columns(&new, &added)?,
                    SchemaChange::Rebuild => self.rebuild(old, &new)?,
                    SchemaChange::Recreate => {
                        stale = self.lost_rows(old, spec)?;
                        self.drop_view(&spec.id)?;
                        self.create(spec)?;
                        return Ok(stale);
                    }
                }
                self.declare_join_keys(&new, spec)?;
            }
        }
        let indexed: Vec<u32> = old.text_columns().map(|column| column.id).collect();
        self.settle_text_index(spec, &indexed)?;
        Ok(stale)
    }

    /// The table for writing rows of the view: made, or widened by features that it lacks.
    pub fn table_for_writing(&self, spec: &ViewSpec) -> Result<Arc<TableSchema>> {
        let Some(state) = self.table(&spec.id)? else {
            return self.create(spec).map(Arc::new);
        };
        let is_missing = |f: &&FeatureSpec| state.schema.position(&f.name).is_none();
        let missing: Vec<_> = spec.features.iter().filter(is_missing).cloned().collect();
        let mut schema = state.schema;
        if !missing.is_empty() {
            schema = Arc::new(self.add_features(&schema, &missing, true)?);
        }
        self.ensure_text_index(schema, spec)
    }

    /// Adds columns for features: declared ones, or those that a writer just sent.
    pub(super) fn add_features(
        &self,
        schema: &TableSchema,
        features: &[FeatureSpec],
        declared: bool,
    ) -> Result<TableSchema> {
        let mut schema = schema.clone();
        schema.renew_generation();
        for feature in features {
            schema.add_feature(feature, declared);
        }
        self.add_columns(&schema, features)?;
        Ok(schema)
    }

    /// Adds columns for join keys: declared ones, or those that a written key just had.
    pub(super) fn add_join_keys(
        &self,
        schema: &TableSchema,
        join_keys: &[JoinKeySpec],
        declared: bool,
    ) -> Result<TableSchema> {
        let mut schema = schema.clone();
        schema.renew_generation();
        let table = quote(&schema.sql_name);
        for key in join_keys {
            schema.add_join_key(&key.name, &key.feast_type, declared);
            if let Some(key) = schema.join_keys.last() {
                let definition = join_key_definition(key);
                let sql = format!("ALTER TABLE {table} ADD COLUMN {definition}");
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
            self.drop_text_index(&state.schema)?;
            self.connection.execute_batch(&format!("DROP TABLE {table}"))?;
            self.forget_table(state.schema.table_id)?;
        }
        Ok(())
    }

    fn create(&self, spec: &ViewSpec) -> Result<TableSchema> {
        let mut schema = self.enter_table(&spec.id)?;
        for key in &spec.join_keys {
            schema.add_join_key(&key.name, &key.feast_type, true);
        }
        for feature in &spec.features {
            schema.add_feature(feature, true);
        }
        self.connection.execute_batch(&create_table(&schema, &schema.sql_name)?)?;
        let text_columns = schema.text_columns_among(&spec.text_features);
        self.create_text_index(&mut schema, &text_columns)?;
        self.save(&schema)?;
        Ok(schema)
    }

    fn add_columns(&self, schema: &TableSchema, features: &[FeatureSpec]) -> Result<()> {
        check_width(schema)?;
        let table = quote(&schema.sql_name);
        for column in features.iter().filter_map(|feature| schema.column(&feature.name)) {
            let definition = column_definition(column);
            self.connection
                .execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {definition}"))?;
        }
        self.save(schema)
    }

    /// Has the view's join keys as declared columns: a table that was written before its view was
    /// applied knows only those that the written keys had.
    fn declare_join_keys(&self, schema: &TableSchema, spec: &ViewSpec) -> Result<()> {
        let has = |key: &JoinKey| spec.join_keys.iter().any(|wanted| wanted.name == key.name);
        let mut declared = schema.clone();
        for key in declared.join_keys.iter_mut().filter(|key| has(key)) {
            key.declared = true;
        }
        let is_missing =
            |wanted: &&JoinKeySpec| schema.join_keys.iter().all(|key| key.name != wanted.name);
        let missing: Vec<_> = spec.join_keys.iter().filter(is_missing).cloned().collect();
        if missing.is_empty() && declared.join_keys == schema.join_keys {
            return Ok(());
        }
        self.add_join_keys(&declared, &missing, true).map(drop)
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
        self.restore_expiry_index(new)?;
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
            "{} has {columns} join keys and features, and a table holds {MAX_COLUMNS} (SQLite has \
             2,000 columns); split the view",
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
        let _ = write!(sql, ",\n  {}", join_key_definition(key));
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

fn join_key_definition(key: &JoinKey) -> String {
    let storage = ValueKind::from_feast_type(&key.feast_type).storage();
    format!("{} {}", quote(&key.sql_name), storage.sql_type())
}

fn column_definition(column: &Column) -> String {
    format!("{} {}", quote(&column.sql_name), Storage::sql_type(column.storage()))
}
