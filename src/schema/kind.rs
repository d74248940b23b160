//! The kinds of Feast values, and how each is stored in a SQL column.

/// The element of a fixed-width list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// One byte, 0 or 1.
    Bool,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

impl Element {
    /// Bytes of one element in a packed column.
    pub fn width(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }
}

/// The form that values of a kind take in their column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// `INTEGER`.
    Integer,
    /// `REAL`; NaN and -0.0, which SQLite would change, as a BLOB of their bits.
    Real,
    /// `TEXT`, UTF-8.
    Text,
    /// `BLOB`, the bytes themselves.
    Blob,
    /// `BLOB` of little-endian elements without a header.
    Packed(Element),
    /// `TEXT`, a JSON array.
    Json,
    /// `BLOB`, the `Value` message's own wire bytes.
    Wire,
}

impl Storage {
    /// The SQL type of the column.
    pub fn sql_type(self) -> &'static str {
        match self {
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text | Self::Json => "TEXT",
            Self::Blob | Self::Packed(_) | Self::Wire => "BLOB",
        }
    }

    /// Whether values may be long, so that the column belongs at the end of the row.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::Blob | Self::Packed(_) | Self::Json | Self::Wire)
    }

    /// The name written into the catalog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
            Self::Blob => "blob",
            Self::Packed(Element::Bool) => "packed u8",
            Self::Packed(Element::I32) => "packed i32",
            Self::Packed(Element::I64) => "packed i64",
            Self::Packed(Element::F32) => "packed f32",
            Self::Packed(Element::F64) => "packed f64",
            Self::Json => "json",
            Self::Wire => "wire",
        }
    }
}

macro_rules! value_kinds {
    ($($variant:ident = $number:literal, $name:literal, $storage:expr;)*) => {
        /// A kind of Feast value: a member of the `val` oneof of `feast.types.Value`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ValueKind {
            $(#[doc = concat!("Feast's `", $name, "`.")] $variant,)*
            /// A kind that this version does not know: kept as wire bytes.
            Unknown,
        }

        impl ValueKind {
            /// Every kind of Feast 0.67.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Field number in the oneof, 0 for an unknown kind.
            pub fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* Self::Unknown => 0 }
            }

            /// Feast's name of the kind (`feast.ValueType`).
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* Self::Unknown => "UNKNOWN" }
            }

            /// How values of this kind are stored.
            pub fn storage(self) -> Storage {
                match self { $(Self::$variant => $storage,)* Self::Unknown => Storage::Wire }
            }

            /// The kind that holds values of the Feast type of that name.
            pub fn from_feast_type(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    // Feast has these as types of their own, and as values only bytes.
                    "PDF_BYTES" | "IMAGE_BYTES" => Self::Bytes,
                    _ => Self::Unknown,
                }
            }
        }
    };
}

value_kinds! {
    Bytes = 1, "BYTES", Storage::Blob;
    String = 2, "STRING", Storage::Text;
    Int32 = 3, "INT32", Storage::Integer;
    Int64 = 4, "INT64", Storage::Integer;
    Double = 5, "DOUBLE", Storage::Real;
    Float = 6, "FLOAT", Storage::Real;
    Bool = 7, "BOOL", Storage::Integer;
    UnixTimestamp = 8, "UNIX_TIMESTAMP", Storage::Integer;
    BytesList = 11, "BYTES_LIST", Storage::Wire;
    StringList = 12, "STRING_LIST", Storage::Json;
    Int32List = 13, "INT32_LIST", Storage::Packed(Element::I32);
    Int64List = 14, "INT64_LIST", Storage::Packed(Element::I64);
    DoubleList = 15, "DOUBLE_LIST", Storage::Packed(Element::F64);
    FloatList = 16, "FLOAT_LIST", Storage::Packed(Element::F32);
    BoolList = 17, "BOOL_LIST", Storage::Packed(Element::Bool);
    UnixTimestampList = 18, "UNIX_TIMESTAMP_LIST", Storage::Packed(Element::I64);
    Null = 19, "NULL", Storage::Wire;
    Map = 20, "MAP", Storage::Wire;
    MapList = 21, "MAP_LIST", Storage::Wire;
    BytesSet = 22, "BYTES_SET", Storage::Wire;
    StringSet = 23, "STRING_SET", Storage::Json;
    Int32Set = 24, "INT32_SET", Storage::Json;
    Int64Set = 25, "INT64_SET", Storage::Json;
    DoubleSet = 26, "DOUBLE_SET", Storage::Json;
    FloatSet = 27, "FLOAT_SET", Storage::Json;
    BoolSet = 28, "BOOL_SET", Storage::Json;
    UnixTimestampSet = 29, "UNIX_TIMESTAMP_SET", Storage::Json;
    Json = 32, "JSON", Storage::Text;
    JsonList = 33, "JSON_LIST", Storage::Json;
    Struct = 34, "STRUCT", Storage::Wire;
    StructList = 35, "STRUCT_LIST", Storage::Wire;
    Uuid = 36, "UUID", Storage::Text;
    TimeUuid = 37, "TIME_UUID", Storage::Text;
    UuidList = 38, "UUID_LIST", Storage::Json;
    TimeUuidList = 39, "TIME_UUID_LIST", Storage::Json;
    UuidSet = 40, "UUID_SET", Storage::Json;
    TimeUuidSet = 41, "TIME_UUID_SET", Storage::Json;
    ValueList = 42, "VALUE_LIST", Storage::Wire;
    ValueSet = 43, "VALUE_SET", Storage::Wire;
    Decimal = 44, "DECIMAL", Storage::Text;
    DecimalList = 45, "DECIMAL_LIST", Storage::Json;
    DecimalSet = 46, "DECIMAL_SET", Storage::Json;
    ScalarMap = 47, "SCALAR_MAP", Storage::Wire;
    ZonedTimestamp = 48, "ZONED_TIMESTAMP", Storage::Wire;
}

impl ValueKind {
    /// The element type, if values of this kind are lists of numbers that can be searched.
    pub fn vector_element(self) -> Option<Element> {
        match self {
            Self::FloatList => Some(Element::F32),
            Self::DoubleList => Some(Element::F64),
            Self::Int32List => Some(Element::I32),
            Self::Int64List => Some(Element::I64),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_correspond() {
        assert_eq!(ValueKind::ALL.len(), 44);
        for &kind in ValueKind::ALL {
            assert_eq!(ValueKind::from_feast_type(kind.name()), kind);
        }
        assert_eq!(ValueKind::from_feast_type("PDF_BYTES"), ValueKind::Bytes);
        assert_eq!(ValueKind::from_feast_type("HOLOGRAM"), ValueKind::Unknown);
    }
}
