//! The table of a feature view: its columns, and what an edited view changes about them.

use std::collections::{HashMap, HashSet};

use super::{FeatureSpec, Storage, ValueKind, ViewId, ViewSpec};
use crate::random;

/// Columns that every table has, besides join keys and features.
pub const RESERVED_COLUMNS: [&str; 6] =
    ["row_id", "entity_key", "event_timestamp", "created_timestamp", "expires_at", "cell_states"];

/// A feature's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Stable within the table, never used again after the column is dropped.
    pub id: u32,
    /// Name of the feature.
    pub feature: String,
    /// Name of the column: the feature's, unless that is taken.
    pub sql_name: String,
    /// Name of the declared Feast type.
    pub feast_type: String,
    /// The kind of value that the column is made for.
    pub kind: ValueKind,
    /// The length that every vector must have, where one is declared.
    pub vector_length: Option<u32>,
    /// Whether a feature view declared the feature; otherwise a writer just sent it.
    pub declared: bool,
    /// Whether the text index has the feature's texts.
    pub text_indexed: bool,
}

impl Column {
    /// How values are stored in the column.
    pub fn storage(&self) -> Storage {
        self.kind.storage()
    }
}

/// A join key's column: for people and filters, the truth being `entity_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinKey {
    /// Name of the join key.
    pub name: String,
    /// Name of the column.
    pub sql_name: String,
    /// Name of the Feast type.
    pub feast_type: String,
    /// Whether a feature view declared the key; otherwise a written entity key just had it.
    pub declared: bool,
}

/// What has to be done so that a table fits an edited feature view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaChange {
    /// Nothing.
    None,
    /// Only the catalog: declarations such as the vector length.
    Catalog,
    /// New columns at the end of the row are enough.
    Append(Vec<FeatureSpec>),
    /// Columns go, change their kind, or belong before the wide ones: a new table is filled.
    Rebuild,
    /// The entities changed: no stored row can be found by the new keys.
    Recreate,
}

/// The layout of one table.
#[derive(Debug, Clone)]
pub struct TableSchema {
    /// Identity in the catalog, never used again after the table is dropped.
    pub table_id: i64,
    /// Random, and another with every change of the layout: of two files, or of one that was
    /// restored, the same one means the same layout.
    pub generation: i64,
    /// Name of the SQL table.
    pub sql_name: String,
    /// The feature view.
    pub view: ViewId,
    /// Join keys.
    pub join_keys: Vec<JoinKey>,
    /// Features, in the order of their ids.
    pub columns: Vec<Column>,
    /// The id that the next new column gets.
    pub next_column_id: u32,
    /// Whether the text index does not have all rows yet.
    pub text_is_filling: bool,
    by_feature: HashMap<String, usize>,
}

impl TableSchema {
    /// A layout of these parts.
    pub fn new(
        table_id: i64,
        generation: i64,
        sql_name: String,
        view: ViewId,
        next_column_id: u32,
    ) -> Self {
        Self {
            table_id,
            generation,
            sql_name,
            view,
            join_keys: Vec::new(),
            columns: Vec::new(),
            next_column_id,
            text_is_filling: false,
            by_feature: HashMap::new(),
        }
    }

    /// Notes that the layout is another now.
    pub(crate) fn renew_generation(&mut self) {
        self.generation = random::bits().cast_signed();
    }

    /// Position of a feature among the columns.
    pub fn position(&self, feature: &str) -> Option<usize> {
        self.by_feature.get(feature).copied()
    }

    /// The column of a feature.
    pub fn column(&self, feature: &str) -> Option<&Column> {
        self.position(feature).map(|at| &self.columns[at])
    }

    /// The features in words, for a message that lists what there is.
    pub fn feature_names(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|c| c.feature.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// The columns whose texts are indexed.
    pub fn text_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.text_indexed)
    }

    /// Whether there is a text index, be it [filled](Self::text_is_filling) or not.
    pub fn has_text_index(&self) -> bool {
        self.text_columns().next().is_some()
    }

    /// The table of the text index, if there is one.
    pub fn text_table(&self) -> String {
        format!("_feast_vector_text_{}", self.table_id)
    }

    /// Adds a column whose id and name are settled.
    pub fn push_column(&mut self, column: Column) {
        self.by_feature.insert(column.feature.clone(), self.columns.len());
        self.next_column_id = self.next_column_id.max(column.id + 1);
        self.columns.push(column);
    }

    /// Adds a column for a feature under a free name, and gives its position.
    pub fn add_feature(&mut self, feature: &FeatureSpec, declared: bool) -> usize {
        let sql_name = super::free_name(&feature.name, &mut self.taken_names());
        self.push_column(Column {
            id: self.next_column_id,
            feature: feature.name.clone(),
            sql_name,
            feast_type: feature.feast_type.clone(),
            kind: ValueKind::from_feast_type(&feature.feast_type),
            vector_length: feature.vector_length,
            declared,
            text_indexed: false,
        });
        self.columns.len() - 1
    }

    /// The columns that a text index of these features has: those among them that hold text.
    pub fn text_columns_among(&self, features: &[String]) -> Vec<u32> {
        let is_wanted = |column: &&Column| {
            column.kind == ValueKind::String && features.contains(&column.feature)
        };
        self.columns.iter().filter(is_wanted).map(|column| column.id).collect()
    }

    /// Adds a column for a join key under a free name.
    pub fn add_join_key(&mut self, name: &str, feast_type: &str, declared: bool) {
        let sql_name = super::free_name(name, &mut self.taken_names());
        self.join_keys.push(JoinKey {
            name: name.to_owned(),
            sql_name,
            feast_type: feast_type.to_owned(),
            declared,
        });
    }

    /// What the edited view asks for.
    pub fn change_to(&self, spec: &ViewSpec) -> SchemaChange {
        if self.join_keys_differ(spec) {
            return SchemaChange::Recreate;
        }
        let wanted: HashMap<&str, &FeatureSpec> =
            spec.features.iter().map(|feature| (feature.name.as_str(), feature)).collect();
        let fits = |column: &Column| {
            wanted
                .get(column.feature.as_str())
                .is_some_and(|f| ValueKind::from_feast_type(&f.feast_type) == column.kind)
        };
        if !self.columns.iter().all(fits) {
            return SchemaChange::Rebuild;
        }
        let added: Vec<FeatureSpec> = spec
            .features
            .iter()
            .filter(|feature| self.position(&feature.name).is_none())
            .cloned()
            .collect();
        if !added.is_empty() {
            let is_wide =
                |f: &FeatureSpec| ValueKind::from_feast_type(&f.feast_type).storage().is_wide();
            let in_order = added.iter().all(is_wide)
                || !self.columns.iter().any(|column| column.storage().is_wide());
            return if in_order { SchemaChange::Append(added) } else { SchemaChange::Rebuild };
        }
        let same = self.columns.iter().all(|column| {
            wanted.get(column.feature.as_str()).is_some_and(|feature| {
                column.declared
                    && feature.feast_type == column.feast_type
                    && feature.vector_length == column.vector_length
            })
        });
        if same { SchemaChange::None } else { SchemaChange::Catalog }
    }

    /// The layout after a rebuild for `spec`: surviving columns keep id and name, wide ones last.
    #[must_use]
    pub fn rebuilt_for(&self, spec: &ViewSpec) -> Self {
        let mut layout = Self::new(
            self.table_id,
            random::bits().cast_signed(),
            self.sql_name.clone(),
            self.view.clone(),
            self.next_column_id,
        );
        layout.join_keys.clone_from(&self.join_keys);
        layout.text_is_filling = self.text_is_filling;
        for feature in &spec.features {
            match self.column(&feature.name) {
                Some(old) => layout.push_column(Column {
                    feast_type: feature.feast_type.clone(),
                    kind: ValueKind::from_feast_type(&feature.feast_type),
                    vector_length: feature.vector_length,
                    declared: true,
                    ..old.clone()
                }),
                None => {
                    layout.add_feature(feature, true);
                }
            }
        }
        layout
    }

    /// Features in the order that their columns stand in a fresh table: wide ones last.
    pub fn columns_in_row_order(&self) -> impl Iterator<Item = &Column> {
        let narrow = self.columns.iter().filter(|column| !column.storage().is_wide());
        let wide = self.columns.iter().filter(|column| column.storage().is_wide());
        narrow.chain(wide)
    }

    fn join_keys_differ(&self, spec: &ViewSpec) -> bool {
        let declared = self.join_keys.iter().filter(|key| key.declared);
        let ours: HashSet<&str> = declared.map(|key| key.name.as_str()).collect();
        let theirs: HashSet<&str> = spec.join_keys.iter().map(|key| key.name.as_str()).collect();
        // A table that was written before its view was applied knows no entities: it fits any.
        !ours.is_empty() && !theirs.is_empty() && ours != theirs
    }

    fn taken_names(&self) -> HashSet<String> {
        RESERVED_COLUMNS
            .into_iter()
            .chain(self.join_keys.iter().map(|key| key.sql_name.as_str()))
            .chain(self.columns.iter().map(|column| column.sql_name.as_str()))
            .map(str::to_ascii_lowercase)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::JoinKeySpec;
    use super::*;

    fn spec(features: &[(&str, &str)]) -> ViewSpec {
        ViewSpec {
            id: ViewId::new("p", "v"),
            join_keys: vec![JoinKeySpec { name: "id".into(), feast_type: "INT64".into() }],
            features: features
                .iter()
                .map(|(name, feast_type)| FeatureSpec {
                    name: (*name).into(),
                    feast_type: (*feast_type).into(),
                    vector_length: None,
                })
                .collect(),
            text_features: Vec::new(),
            vector_indexes: Vec::new(),
        }
    }

    fn table(features: &[(&str, &str)]) -> TableSchema {
        let mut table = TableSchema::new(1, 1, "p_v".into(), ViewId::new("p", "v"), 1);
        table.add_join_key("id", "INT64", true);
        for feature in &spec(features).features {
            table.add_feature(feature, true);
        }
        table
    }

    #[test]
    fn reserved_and_repeated_names_are_escaped() {
        let table =
            table(&[("row_id", "INT64"), ("ID", "STRING"), ("name", "STRING"), ("Name", "STRING")]);
        let names: Vec<_> = table.columns.iter().map(|c| c.sql_name.as_str()).collect();
        assert_eq!(names, ["row_id_2", "ID_2", "name", "Name_2"]);
    }

    #[test]
    fn changes_are_as_small_as_they_can_be() {
        let scalar = table(&[("a", "INT64")]);
        let wide = table(&[("a", "INT64"), ("e", "FLOAT_LIST")]);
        let a = ("a", "INT64");
        let e = ("e", "FLOAT_LIST");
        assert_eq!(scalar.change_to(&spec(&[a])), SchemaChange::None);
        let added = spec(&[e]).features;
        assert_eq!(scalar.change_to(&spec(&[a, e])), SchemaChange::Append(added));
        assert_eq!(wide.change_to(&spec(&[a, e, ("b", "STRING")])), SchemaChange::Rebuild);
        assert_eq!(wide.change_to(&spec(&[a])), SchemaChange::Rebuild);
        assert_eq!(scalar.change_to(&spec(&[("a", "STRING")])), SchemaChange::Rebuild);
        let mut longer = spec(&[a, e]);
        longer.features[1].vector_length = Some(3);
        assert_eq!(wide.change_to(&longer), SchemaChange::Catalog);
        let mut other_entity = spec(&[a]);
        other_entity.join_keys[0].name = "item_id".into();
        assert_eq!(scalar.change_to(&other_entity), SchemaChange::Recreate);
    }

    #[test]
    fn a_rebuild_keeps_ids_and_puts_wide_columns_last() {
        let old = table(&[("e", "FLOAT_LIST"), ("gone", "INT64"), ("a", "INT64")]);
        let new = old.rebuilt_for(&spec(&[("e", "FLOAT_LIST"), ("a", "STRING"), ("b", "INT64")]));
        let ids: Vec<_> = new.columns.iter().map(|c| (c.feature.as_str(), c.id)).collect();
        assert_eq!(ids, [("e", 1), ("a", 3), ("b", 4)]);
        let order: Vec<_> = new.columns_in_row_order().map(|c| c.feature.as_str()).collect();
        assert_eq!(order, ["a", "b", "e"]);
    }
}
