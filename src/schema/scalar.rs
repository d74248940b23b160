//! Single values in native types, as filters compare them; and what of a row they are.

use std::borrow::Cow;

/// What of a row can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// The event timestamp.
    EventTimestamp,
    /// The created timestamp.
    CreatedTimestamp,
    /// The join key of that name, as the entity key has it.
    JoinKey(String),
    /// The feature whose column has that id.
    Feature(u32),
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar<'a> {
    /// Null, absent, or of a kind that nothing is compared with.
    Absent,
    /// A whole number, a truth value as 1 or 0, or a time.
    Integer(i64),
    /// A number.
    Real(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A list or a set.
    List(Vec<Scalar<'a>>),
}
