//! Writing rows: upserts by entity key, where the newest event wins.

use std::sync::Arc;

use rusqlite::OptionalExtension;

use super::Micros;
use super::cell::{self, Cell};
use super::connections::WriteTxn;
use super::statements::Statements;
use super::states::{CellState, CellStates};
use super::validate::{RowWrite, check_cell, check_number, check_row};
use crate::error::Result;
use crate::proto::{self, DecodedKey, Number, Val};
use crate::schema::{DUMMY_JOIN_KEY, FeatureSpec, JoinKeySpec, TableSchema, ValueKind, ViewSpec};

/// What a write does to a row that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// It is ignored if its `(event timestamp, created timestamp)` is older; equal ones overwrite.
    /// Where either side has no created timestamp, event timestamps alone are compared.
    NewestEventWins,
    /// It overwrites, whatever the timestamps say.
    LastWriteWins,
}

/// How rows are written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// What happens to rows that are there.
    pub conflict: Conflict,
    /// The clock: rows that expired by now count as absent.
    pub now: Micros,
    /// When the rows written now expire.
    pub expires_at: Option<Micros>,
    /// The number of the first row, for messages: rows before it may have been written already.
    pub first_row: u64,
}

/// A feature's value as it is handed over.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// A serialized `Value` message.
    Message(&'a [u8]),
    /// What such a message would say.
    Number(Number),
}

/// What came of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Rows inserted or updated.
    pub written: u64,
    /// Rows older than what is stored.
    pub ignored: u64,
    /// Whether the table waits for [`WriteTxn::upkeep`].
    pub needs_upkeep: bool,
}

/// Writes rows of one view within a transaction.
pub struct RowWriter<'a> {
    txn: &'a WriteTxn<'a>,
    schema: Arc<TableSchema>,
    options: WriteOptions,
    features: Vec<String>,
    /// Position in the schema of each feature; `None` until an undeclared one has a value.
    positions: Vec<Option<usize>>,
    statements: Option<Statements<'a>>,
    touched: Vec<i64>,
    /// Rows whose texts were written.
    retexted: Vec<i64>,
    counts: WriteCounts,
    row: u64,
    /// Whether the last row that was looked for was not there.
    last_was_new: bool,
    /// Scratch.
    cells: Vec<WrittenCell>,
}

struct Stored {
    row_id: i64,
    states: CellStates,
}

impl<'a> WriteTxn<'a> {
    /// A writer of rows of the view with values for `features`, declared by the view or not.
    pub fn writer(
        &'a self,
        spec: &ViewSpec,
        features: Vec<String>,
        options: WriteOptions,
    ) -> Result<RowWriter<'a>> {
        let schema = self.table_for_writing(spec)?;
        let positions = features.iter().map(|feature| schema.position(feature)).collect();
        Ok(RowWriter {
            txn: self,
            schema,
            options,
            features,
            positions,
            statements: None,
            touched: Vec::new(),
            retexted: Vec::new(),
            counts: WriteCounts::default(),
            row: options.first_row,
            last_was_new: true,
            cells: Vec::new(),
        })
    }
}

impl<'a> RowWriter<'a> {
    /// Writes one row, with values by position among the writer's features; a feature that is not
    /// among them keeps what it has.
    pub fn write<'v>(
        &mut self,
        row: &RowWrite<'_>,
        values: impl Iterator<Item = (usize, Given<'v>)>,
    ) -> Result<()> {
        let number = self.row;
        self.row += 1;
        self.write_row(row, values).map_err(|error| {
            let entity = DecodedKey::from_message(row.entity_key)
                .map(|key| format!(" ({key})"))
                .unwrap_or_default();
            error.at(format_args!("{}, row {number}{entity}", self.schema.view))
        })
    }

    fn write_row<'v>(
        &mut self,
        row: &RowWrite<'_>,
        values: impl Iterator<Item = (usize, Given<'v>)>,
    ) -> Result<()> {
        let parts = DecodedKey::from_message(row.entity_key)?;
        check_row(row, &parts)?;
        let key = Key { bytes: parts.encode()?, parts };
        self.learn_join_keys(&key.parts)?;

        let mut cells = std::mem::take(&mut self.cells);
        cells.clear();
        for (feature, value) in values {
            cells.push(self.cell(feature, value)?);
        }
        let mut statements = self.statements_for(&cells)?;
        // Rows mostly come as those before them did: all new, or all there.
        let is_inserted = self.last_was_new && self.insert(&mut statements, &key, row, &cells)?;
        if !is_inserted {
            match self.stored(&mut statements, &key.bytes, row)? {
                Found::Newer => self.counts.ignored += 1,
                Found::Older(stored) => {
                    self.update(&mut statements, stored, row, &cells)?;
                    self.counts.written += 1;
                }
                Found::Nothing => {
                    self.insert(&mut statements, &key, row, &cells)?;
                }
            }
        }
        self.statements = Some(statements);
        self.cells = cells;
        Ok(())
    }

    /// Ends the batch: logs the changes for the indexes.
    pub fn finish(mut self) -> Result<WriteCounts> {
        if !self.touched.is_empty() {
            let (now, written) = (self.options.now, self.counts.written);
            let (expired, may_be_more) = self.txn.delete_few_expired(&self.schema, now, written)?;
            self.touched.extend(expired);
            self.counts.needs_upkeep = may_be_more || self.schema.text_is_filling;
            self.txn.log_rows(self.schema.table_id, &mut self.touched)?;
            self.txn.index_texts(&self.schema, &mut self.retexted)?;
        }
        if self.counts.written > 0 && self.options.expires_at.is_some() {
            self.txn.note_expiry(&self.schema)?;
        }
        Ok(self.counts)
    }

    fn cell(&mut self, feature: usize, value: Given<'_>) -> Result<WrittenCell> {
        let message = match value {
            Given::Number(number) => {
                let position = self.position(feature, || Val::from(number).kind())?;
                let column = &self.schema.columns[position];
                check_number(column, number)?;
                let (cell, state) = cell::encode_number(column.kind, number);
                return Ok(WrittenCell { position, cell, state });
            }
            Given::Message(message) => message,
        };
        let value = proto::decode_value(message)
            .map_err(|error| error.at(format_args!("feature '{}'", self.features[feature])))?;
        let position =
            self.position(feature, || value.as_ref().map_or(ValueKind::Null, Val::kind))?;
        let column = &self.schema.columns[position];
        check_cell(column, value.as_ref())?;
        let (cell, state) = cell::encode(column.kind, value, message);
        Ok(WrittenCell { position, cell, state })
    }

    /// Where the feature is in the schema, to which it is added if it is not there yet.
    fn position(&mut self, feature: usize, kind: impl FnOnce() -> ValueKind) -> Result<usize> {
        match self.positions[feature] {
            Some(position) => Ok(position),
            None => self.add_undeclared(feature, kind()),
        }
    }

    fn add_undeclared(&mut self, feature: usize, kind: ValueKind) -> Result<usize> {
        let name = self.features[feature].clone();
        let feature_type = kind.name().to_owned();
        let spec =
            FeatureSpec { name: name.clone(), feast_type: feature_type, vector_length: None };
        self.change_schema(|txn, schema| txn.add_features(schema, &[spec], false))?;
        let position = self.schema.columns.len() - 1;
        self.positions[feature] = Some(position);
        Ok(position)
    }

    fn learn_join_keys(&mut self, key: &DecodedKey) -> Result<()> {
        let unknown: Vec<_> = key
            .parts
            .iter()
            .filter(|(name, _)| {
                name != DUMMY_JOIN_KEY && self.schema.join_keys.iter().all(|key| key.name != *name)
            })
            .map(|(name, val)| JoinKeySpec {
                name: name.clone(),
                feast_type: val.kind().name().to_owned(),
            })
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.change_schema(|txn, schema| txn.add_join_keys(schema, &unknown, false))
    }

    fn change_schema(
        &mut self,
        change: impl FnOnce(&WriteTxn<'_>, &TableSchema) -> Result<TableSchema>,
    ) -> Result<()> {
        self.statements = None;
        self.schema = Arc::new(change(self.txn, &self.schema)?);
        Ok(())
    }

    fn stored(
        &mut self,
        statements: &mut Statements<'_>,
        key: &[u8],
        row: &RowWrite<'_>,
    ) -> Result<Found> {
        let found = statements
            .find
            .query_row([key], |stored| {
                let event: Micros = stored.get(1)?;
                let created: Option<Micros> = stored.get(2)?;
                let expires: Option<Micros> = stored.get(3)?;
                let states = stored.get_ref(4)?.as_blob_or_null()?.map(<[u8]>::to_vec);
                Ok((stored.get::<_, i64>(0)?, event, created, expires, states))
            })
            .optional()?;
        let Some((row_id, event, created, expires, states)) = found else {
            return Ok(Found::Nothing);
        };
        if expires.is_some_and(|at| at <= self.options.now) {
            self.txn.delete_row(&self.schema, row_id)?;
            self.touched.push(row_id);
            return Ok(Found::Nothing);
        }
        // A time that no reader can hold is no time: versions before this one took them.
        let stored_is_newer = proto::check::is_time(event)
            && (event > row.event
                || (event == row.event
                    && matches!((created, row.created), (Some(stored), Some(new)) if stored > new)));
        if stored_is_newer && self.options.conflict == Conflict::NewestEventWins {
            return Ok(Found::Newer);
        }
        let states = CellStates::decode(states.as_deref())?;
        Ok(Found::Older(Stored { row_id, states }))
    }

    fn update(
        &mut self,
        statements: &mut Statements<'_>,
        mut stored: Stored,
        row: &RowWrite<'_>,
        cells: &[WrittenCell],
    ) -> Result<()> {
        for cell in cells {
            stored.states.set(self.schema.columns[cell.position].id, cell.state);
        }
        let update = &mut statements.update;
        update.raw_bind_parameter(1, row.event)?;
        update.raw_bind_parameter(2, row.created)?;
        update.raw_bind_parameter(3, self.options.expires_at)?;
        update.raw_bind_parameter(4, stored.states.encode())?;
        for (at, written) in cells.iter().enumerate() {
            update.raw_bind_parameter(5 + at, &written.cell)?;
        }
        update.raw_bind_parameter(5 + cells.len(), stored.row_id)?;
        update.raw_execute()?;
        self.touched.push(stored.row_id);
        if cells.iter().any(|cell| self.schema.columns[cell.position].text_indexed) {
            self.retexted.push(stored.row_id);
        }
        Ok(())
    }

    /// Inserts the row; false where there is one with its key.
    fn insert(
        &mut self,
        statements: &mut Statements<'_>,
        key: &Key,
        row: &RowWrite<'_>,
        cells: &[WrittenCell],
    ) -> Result<bool> {
        let mut states = CellStates::default();
        for cell in cells.iter().filter(|cell| cell.state != CellState::Plain) {
            states.set(self.schema.columns[cell.position].id, cell.state);
        }
        let insert = &mut statements.insert;
        insert.raw_bind_parameter(1, &key.bytes)?;
        insert.raw_bind_parameter(2, row.event)?;
        insert.raw_bind_parameter(3, row.created)?;
        insert.raw_bind_parameter(4, self.options.expires_at)?;
        insert.raw_bind_parameter(5, states.encode())?;
        let mut at = 6;
        for join_key in &self.schema.join_keys {
            let part = key.parts.parts.iter().find(|(name, _)| *name == join_key.name);
            let cell = part
                .map_or(Cell::Null, |(_, val)| cell::encode(val.kind(), Some(val.clone()), &[]).0);
            insert.raw_bind_parameter(at, cell)?;
            at += 1;
        }
        for written in cells {
            insert.raw_bind_parameter(at, &written.cell)?;
            at += 1;
        }
        self.last_was_new = insert.raw_execute()? > 0;
        if !self.last_was_new {
            return Ok(false);
        }
        let row_id = self.txn.connection.last_insert_rowid();
        self.touched.push(row_id);
        if self.schema.has_text_index() {
            self.retexted.push(row_id);
        }
        self.counts.written += 1;
        Ok(true)
    }

    /// Statements for rows with values for these columns; mostly they are the last row's.
    fn statements_for(&mut self, cells: &[WrittenCell]) -> Result<Statements<'a>> {
        let columns = cells.iter().map(|cell| cell.position);
        if let Some(same) = self.statements.take_if(|known| known.are_for(columns.clone())) {
            return Ok(same);
        }
        // Back to the cache with them: one is the same for other columns.
        self.statements = None;
        Statements::prepare(self.txn.connection, &self.schema, columns.collect())
    }
}

/// The key of a row: in the bytes of its column, and what it says.
struct Key {
    bytes: Vec<u8>,
    parts: DecodedKey,
}

/// A cell on its way, and its column's position in the schema.
struct WrittenCell {
    position: usize,
    cell: Cell,
    state: CellState,
}

enum Found {
    Nothing,
    Older(Stored),
    Newer,
}
