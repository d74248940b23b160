//! Opening the database: its folder, its format, its migrations.

use std::fmt::{self, Write as _};
use std::io::ErrorKind as ErrorOfFile;
use std::path::Path;
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::files;
use super::format;
use super::lock::LockFile;
use super::options::StoreOptions;
use super::path;
use super::planted;
use super::swap;
use crate::error::{Error, ErrorKind, Result};
use crate::fs;
use crate::parallel;

/// The format that this version writes; kept in `PRAGMA user_version`.
pub const FORMAT_VERSION: i64 = 4;

/// `PRAGMA application_id`: the letters `FVec`.
const APPLICATION_ID: i64 = 0x4656_6563;

/// Bytes of a database page: rows with embeddings waste less of it than of a smaller one, and reads
/// cost the same (`docs/adr/0004`).
const PAGE_SIZE: i64 = 8192;

/// Bytes of page cache of each connection.
const CACHE_KIB: i64 = 16 * 1024;

/// Bytes of the database that are read by mapping them into memory, the most that SQLite does by
/// itself. Rows of more than the page cache are read in half the time (`docs/benchmarks.md`).
const MAPPED: i64 = 0x7FFF_0000;

/// Bytes that the write-ahead log keeps once its content is in the database.
const MAX_IDLE_LOG: i64 = 64 << 20;

/// Steps of SQLite's machine, some tens of microseconds, after which a statement asks whether to
/// stop.
const STEPS_BETWEEN_LOOKS: i32 = 2000;

/// Prepared statements kept by each connection.
const STATEMENT_CACHE: usize = 128;

/// How a database that is there is opened.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Each entry migrates a file from the format of its position + 1 to the next.
const MIGRATIONS: [fn(&Connection) -> Result<()>; (FORMAT_VERSION - 1) as usize] =
    [format::migrate_from_1, format::migrate_from_2, format::migrate_from_3];

/// Opens a connection, creating or migrating the database as needed.
pub(super) fn connect(options: &StoreOptions) -> Result<Connection> {
    prepare_folder(&options.path)?;
    let _opening = swap::creating(&options.path)?;
    create_file(options)?;
    let flags = FLAGS | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = Connection::open_with_flags(&options.path, flags)?;
    configure(&mut connection, options)?;
    if format_of(&connection)? != Format::Current {
        bring_to_current(&connection, options)?;
    }
    planted::check_own_tables(&connection)?;
    Ok(connection)
}

/// A connection to read through.
#[derive(Debug)]
pub(super) struct ToRead {
    pub(super) connection: Connection,
    /// Whether the file has tables of ours. If not, the connection has an empty catalog of its own.
    pub(super) is_ours: bool,
}

/// Opens a connection to a database that is there, migrating it as needed. One without tables of
/// ours is left as it is.
pub(super) fn connect_to_existing(options: &StoreOptions) -> Result<ToRead> {
    let _opening = swap::opening(&options.path)?;
    let mut connection = Connection::open_with_flags(&options.path, FLAGS)?;
    configure(&mut connection, options)?;
    let is_ours = match format_of(&connection)? {
        Format::Empty | Format::FeastSqlite => false,
        Format::Older(_) => {
            bring_to_current(&connection, options)?;
            true
        }
        Format::Current => true,
    };
    to_read(connection, is_ours)
}

fn to_read(connection: Connection, is_ours: bool) -> Result<ToRead> {
    if is_ours {
        planted::check_own_tables(&connection)?;
    } else {
        format::create_temporary(&connection)?;
    }
    Ok(ToRead { connection, is_ours })
}

/// An empty store in memory, for reading one that is not there; `None` if it is.
pub(super) fn connect_to_nothing(options: &StoreOptions) -> Result<Option<Connection>> {
    path::check(&options.path)?;
    if !is_missing(&options.path) {
        return Ok(None);
    }
    // Perhaps somebody is about to put it there.
    let _opening = swap::opening(&options.path)?;
    if !is_missing(&options.path) {
        return Ok(None);
    }
    let mut connection = Connection::open_in_memory()?;
    configure(&mut connection, options)?;
    format::create(&connection)?;
    Ok(Some(connection))
}

fn is_missing(path: &Path) -> bool {
    let found = std::fs::metadata(path).map_err(|cause| cause.kind());
    matches!(found, Err(ErrorOfFile::NotFound | ErrorOfFile::NotADirectory))
}

/// Opens a database that nobody changes, without files beside it. `None` if it cannot be opened
/// that way either.
pub(super) fn connect_frozen(options: &StoreOptions) -> Result<Option<ToRead>> {
    let log = files::with_suffix(&options.path, "-wal");
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            format!(
                "the database cannot be written here, and '{}' holds changes that have to be brought \
                 in first. Open and close it once where it can be written, or copy both files to a \
                 folder that can be",
                log.display()
            ),
        ));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{}?immutable=1", percent_encoded(&options.path));
    let Ok(mut connection) = Connection::open_with_flags(uri, flags) else {
        return Ok(None);
    };
    configure(&mut connection, options)?;
    let is_ours = match format_of(&connection)? {
        Format::Current => true,
        Format::Empty | Format::FeastSqlite => false,
        Format::Older(version) => {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "the database has format version {version} and cannot be written here; this \
                     version of feast-vector reads version {FORMAT_VERSION}. Open it once where it \
                     can be written, with any read"
                ),
            ));
        }
    };
    to_read(connection, is_ours).map(Some)
}

fn percent_encoded(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                out.push(char::from(*byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn configure(connection: &mut Connection, options: &StoreOptions) -> Result<()> {
    connection.busy_timeout(options.busy_timeout)?;
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(parallel::is_cancelled))?;
    planted::disarm(connection)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "mmap_size", MAPPED)?;
    connection.pragma_update(None, "journal_size_limit", MAX_IDLE_LOG)?;
    connection.pragma_update(None, "synchronous", options.durability.pragma())?;
    Ok(())
}

/// Creates the database with its permissions, which SQLite would leave to the process.
fn create_file(options: &StoreOptions) -> Result<()> {
    // Closing a descriptor of the file drops the locks that SQLite holds in this process, so no
    // connection may be opened between creating and closing it.
    static CREATING: Mutex<()> = Mutex::new(());
    let _alone = CREATING.lock();
    match fs::create_database(&options.path, options.file_mode) {
        Err(cause) if options.file_mode.is_some() && options.path.exists() => {
            let message = format!("cannot give the database its `file_mode` ({cause})");
            Err(Error::new(ErrorKind::CannotOpen, message))
        }
        // If it cannot be created, SQLite says so.
        _ => Ok(()),
    }
}

fn cannot(what: fmt::Arguments<'_>) -> Result<()> {
    Err(Error::new(ErrorKind::CannotOpen, what.to_string()))
}

pub(super) fn prepare_folder(path: &Path) -> Result<()> {
    path::check(path)?;
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    match std::fs::create_dir(folder) {
        Err(cause) if !folder.is_dir() => cannot(format_args!(
            "the folder '{}' does not exist and cannot be created ({cause}); create it, or mend \
             `path` in the online_store section of feature_store.yaml",
            folder.display()
        )),
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Format {
    Empty,
    /// Feast's own sqlite store, whose file a repo brings along that changes only the type. Its
    /// tables stay and ours come beside them; `docs/adr/0001` says why.
    FeastSqlite,
    Older(i64),
    Current,
}

fn format_of(connection: &Connection) -> Result<Format> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id")?;
    let version = pragma("user_version")?;
    if application == APPLICATION_ID {
        return match version {
            FORMAT_VERSION => Ok(Format::Current),
            _ if version > 0 && version < FORMAT_VERSION => Ok(Format::Older(version)),
            _ => Err(newer(connection, version)),
        };
    }
    let count = |condition: &str| {
        let sql = format!("SELECT count(*) FROM sqlite_schema WHERE {condition}");
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0))
    };
    if application == 0 && version == 0 {
        if count("TRUE")? == 0 {
            return Ok(Format::Empty);
        }
        if count("sql LIKE '%feature_name TEXT%vector_value BLOB%'")? > 0 {
            return Ok(Format::FeastSqlite);
        }
    }
    Err(Error::new(
        ErrorKind::NotOurs,
        "the file is a SQLite database of another program; feast-vector does not touch it. Set \
         another `path` in the online_store section of feature_store.yaml",
    ))
}

fn newer(connection: &Connection, version: i64) -> Error {
    let writer = format::meta(connection, "written_by")
        .ok()
        .flatten()
        .unwrap_or_else(|| "a newer feast-vector".to_owned());
    Error::new(
        ErrorKind::NewerFormat,
        format!(
            "the database has format version {version}, written by {writer}; feast-vector {} reads \
             up to version {FORMAT_VERSION}. Upgrade feast-vector, or set another `path`",
            env!("CARGO_PKG_VERSION")
        ),
    )
}

/// Creates or migrates under the writers' lock, so that one process does it and others wait.
fn bring_to_current(connection: &Connection, options: &StoreOptions) -> Result<()> {
    let lock = LockFile::open(&options.path)?;
    let _held = lock.acquire(Instant::now() + options.busy_timeout)?;
    let found = format_of(connection)?;
    if matches!(found, Format::Empty | Format::FeastSqlite) {
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Err(Error::new(
                ErrorKind::CannotOpen,
                "the file system there does not support SQLite's write-ahead log (network file \
                 systems do not); set `path` to a file on a local disk",
            ));
        }
    }
    let transaction =
        rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    match found {
        Format::Current => {}
        Format::Empty | Format::FeastSqlite => {
            format::create(&transaction)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        Format::Older(version) => {
            for migrate in &MIGRATIONS[(version - 1) as usize..] {
                migrate(&transaction)?;
            }
        }
    }
    let writer = format!("feast-vector {}", env!("CARGO_PKG_VERSION"));
    format::set_meta(&transaction, "written_by", &writer)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    transaction.commit()?;
    Ok(())
}
