//! What a row may hold, checked before it is written: one bad value would spoil every answer that
//! has it.

use super::Micros;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::{DecodedKey, Number, Val, check};
use crate::schema::{Column, ValueKind};

/// A row as Feast hands it over, its values aside.
#[derive(Debug)]
pub struct RowWrite<'a> {
    /// The serialized `EntityKey` message.
    pub entity_key: &'a [u8],
    /// Event timestamp.
    pub event: Micros,
    /// Created timestamp.
    pub created: Option<Micros>,
}

/// Refuses times that Python does not have, among a row's own and in its key.
pub(super) fn check_row(row: &RowWrite<'_>, key: &DecodedKey) -> Result<()> {
    check::check_time("the event timestamp", row.event)?;
    if let Some(created) = row.created {
        check::check_time("the created timestamp", created)?;
    }
    for (name, value) in &key.parts {
        if let Val::UnixTimestamp(_) = value {
            check::check_value(value)
                .map_err(|error| error.at(format_args!("join key '{name}'")))?;
        }
    }
    Ok(())
}

/// Refuses a number that is a time which Python does not have.
pub(super) fn check_number(column: &Column, number: Number) -> Result<()> {
    check::check_number(number).map_err(|error| at(column, error))
}

/// Refuses a value that Feast's reader could not read, or a vector of another length than its
/// feature declares.
pub(super) fn check_cell(column: &Column, value: Option<&Val>) -> Result<()> {
    let Some(value) = value else {
        return Ok(());
    };
    check_vector_length(column, value)?;
    let checked = match (column.kind, value) {
        // Feast reads texts by the declared type, too.
        (ValueKind::Uuid | ValueKind::TimeUuid, Val::String(text)) => check::check_uuid(text),
        (ValueKind::UuidList | ValueKind::TimeUuidList, Val::StringList(list))
        | (ValueKind::UuidSet | ValueKind::TimeUuidSet, Val::StringSet(list)) => {
            list.val.iter().try_for_each(|text| check::check_uuid(text))
        }
        _ => check::check_value(value),
    };
    checked.map_err(|error| at(column, error))
}

fn at(column: &Column, error: Error) -> Error {
    error.at(format_args!("feature '{}' ({})", column.feature, column.feast_type))
}

fn check_vector_length(column: &Column, value: &Val) -> Result<()> {
    let Some(expected) = column.vector_length else {
        return Ok(());
    };
    let length = match value {
        Val::FloatList(list) => list.val.len(),
        Val::DoubleList(list) => list.val.len(),
        Val::Int32List(list) => list.val.len(),
        Val::Int64List(list) => list.val.len(),
        _ => return Ok(()),
    };
    if length == expected as usize {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidValue,
        format!(
            "feature '{}' ({}): a vector of {length} values where the feature declares \
             vector_length={expected}; nothing of this batch was written. Mend the vector, or \
             change vector_length and run `feast apply`",
            column.feature, column.feast_type
        ),
    ))
}
