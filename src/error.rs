//! Errors, cut by what a handler would do about them. Knows nothing of Python.

use std::fmt;

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What a handler would do: mend its input, name something that exists, wait, look at the disk,
/// or replace the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The call's arguments are wrong; the same call will fail again.
    InvalidInput,
    /// A feature view or feature of that name is not there.
    NotFound,
    /// Somebody else holds the database; trying again later may work.
    Busy,
    /// The operating system or the disk refused.
    Storage,
    /// The file is not one that this version can read.
    Format,
    /// A bug of ours.
    Internal,
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $class:ident;)*) => {
        /// What exactly went wrong. The code is stable: programs may compare it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorKind { $($(#[$doc])* $variant,)* }

        impl ErrorKind {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable machine-readable code.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The class that a handler dispatches on.
            pub fn class(self) -> ErrorClass {
                match self { $(Self::$variant => ErrorClass::$class,)* }
            }
        }
    };
}

error_kinds! {
    /// An argument that is wrong in itself: `top_k` of 0, an unusable name.
    InvalidArgument = "invalid_argument", InvalidInput;
    /// A query vector of the wrong length, with NaN, or without direction under cosine.
    InvalidQuery = "invalid_query", InvalidInput;
    /// A value that cannot be stored in its feature: a vector of the wrong length, broken bytes.
    InvalidValue = "invalid_value", InvalidInput;
    /// An entity key that cannot be encoded or decoded.
    InvalidKey = "invalid_key", InvalidInput;
    /// A filter with an operator or a value that its column cannot be compared by.
    InvalidFilter = "invalid_filter", InvalidInput;
    /// A metric that is none of cosine, L2 and inner product.
    UnknownMetric = "unknown_metric", InvalidInput;
    /// A search over a feature that holds no vectors.
    NotAVector = "not_a_vector", InvalidInput;
    /// A search for text in a view that has no text index.
    TextSearchOff = "text_search_off", InvalidInput;
    /// SQL that does not parse, or that would change something.
    InvalidSql = "invalid_sql", InvalidInput;
    /// A feature that the view does not have.
    UnknownFeature = "unknown_feature", NotFound;
    /// A search or a read that takes more of the processors than it may.
    TooCostly = "too_costly", InvalidInput;
    /// An answer or a batch of more bytes than one array or message holds.
    TooLarge = "too_large", InvalidInput;
    /// Another writer held the database for longer than `busy_timeout`.
    Busy = "busy", Busy;
    /// The process was forked in the middle of an operation of another thread.
    Forked = "forked", Storage;
    /// The operation was told to stop before its end; nothing of it was kept.
    Interrupted = "interrupted", Busy;
    /// The process is short of descriptors, memory or mappings for the moment.
    OutOfResources = "out_of_resources", Storage;
    /// No space left.
    DiskFull = "disk_full", Storage;
    /// The file or its folder cannot be written.
    ReadOnly = "read_only", Storage;
    /// The file cannot be opened or created where the path points.
    CannotOpen = "cannot_open", Storage;
    /// Any other failure of the file system or of SQLite.
    Io = "io", Storage;
    /// The file is not a SQLite database, or is one of another program.
    NotOurs = "not_a_feast_vector_file", Format;
    /// The file was written by a newer version.
    NewerFormat = "newer_format", Format;
    /// The database is damaged.
    Damaged = "damaged", Format;
    /// An index file is damaged or gone; what it held is searched without it, and it is built anew.
    IndexDamaged = "index_damaged", Format;
    /// An index file cannot be opened for the moment, though nothing is wrong with it; what it held
    /// is searched without it.
    IndexUnavailable = "index_unavailable", Storage;
    /// A bug in feast-vector: a panic, caught.
    Internal = "internal_error", Internal;
}

/// An error: a stable kind and a sentence that says what was wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// Whether the system is short of something for the moment, or refuses access: then nothing is
/// wrong with the file, and another try may succeed.
pub fn is_shortage(cause: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    // EAGAIN, ENOMEM, ENFILE and EMFILE, the same on Linux, macOS and the BSDs but for EAGAIN,
    // which has a kind; ERROR_TOO_MANY_OPEN_FILES, _NOT_ENOUGH_MEMORY and _NO_SYSTEM_RESOURCES.
    let codes: &[i32] = if cfg!(windows) { &[4, 8, 14, 1450, 1455] } else { &[12, 23, 24] };
    matches!(
        cause.kind(),
        K::OutOfMemory | K::PermissionDenied | K::WouldBlock | K::Interrupted | K::ResourceBusy
    ) || cause.raw_os_error().is_some_and(|code| codes.contains(&code))
}

impl Error {
    /// An error of `kind` that reads `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the call was wrong, rather than the file or the machine.
    pub fn is_callers(&self) -> bool {
        matches!(self.kind.class(), ErrorClass::InvalidInput | ErrorClass::NotFound)
    }

    /// The sentence for a person.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error, its message led by where it happened: `"feature view 'items': …"`.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{place}: {}", self.message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct() {
        let mut codes: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
        assert!(all > 10);
    }
}
