//! Files of a backup: copied with a checksum, made durable, named so that they meet no others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::random;

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// A file's size and CRC-32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

/// How much of a stage is done, over several files.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) progress: &'a Progress,
    pub(super) name: &'static str,
    pub(super) done: u64,
    pub(super) total: u64,
}

impl Stage<'_> {
    fn add(&mut self, bytes: usize) -> Result<()> {
        self.done += bytes as u64;
        self.progress.at(self.name, self.done, self.total.max(self.done))
    }
}

/// Reads a file to its end.
pub(super) fn sum(path: &Path, stage: &mut Stage<'_>) -> Result<Sum> {
    let file = crate::fs::open_regular(path).map_err(|cause| cannot("read", path, &cause))?;
    pass(file, path, None, stage)
}

/// Copies what is left of a file into a new one of the permissions of `like`, and makes that
/// durable.
pub(super) fn copy(
    from: File,
    source: &Path,
    target: &Path,
    like: &Path,
    stage: &mut Stage<'_>,
) -> Result<Sum> {
    let to =
        crate::fs::create_new(target, like).map_err(|cause| cannot("create", target, &cause))?;
    let sum = pass(from, source, Some((&to, target)), stage)?;
    to.sync_all().map_err(|cause| cannot("write", target, &cause))?;
    Ok(sum)
}

fn pass(
    mut from: File,
    source: &Path,
    to: Option<(&File, &Path)>,
    stage: &mut Stage<'_>,
) -> Result<Sum> {
    let mut piece = vec![0; PIECE];
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(Sum { bytes, crc: hasher.finalize() }),
            Ok(read) => read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(cannot("read", source, &cause)),
        };
        hasher.update(&piece[..read]);
        if let Some((mut file, target)) = to {
            file.write_all(&piece[..read]).map_err(|cause| cannot("write", target, &cause))?;
        }
        bytes += read as u64;
        stage.add(read)?;
    }
}

/// Makes what is written to a file durable.
pub(super) fn sync(path: &Path) -> Result<()> {
    let synced = OpenOptions::new().write(true).open(path).and_then(|file| file.sync_all());
    synced.map_err(|cause| cannot("write", path, &cause))
}

/// Makes the names in a folder durable, where the system can do that.
pub(super) fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// The folder that a file is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The path with something behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Sixteen random hexadecimal digits.
pub(super) fn random_name() -> String {
    format!("{:016x}", random::bits())
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(cannot("remove", path, &cause))
        }
        _ => Ok(()),
    }
}

/// A folder that is removed with everything in it, unless it was moved away.
#[derive(Debug)]
pub(super) struct Temporary(pub(super) PathBuf);

impl Temporary {
    /// Creates it, for those who may use the database `like`.
    pub(super) fn create(path: PathBuf, like: &Path) -> Result<Self> {
        crate::fs::create_index_folder(&path, like)
            .map_err(|cause| cannot("create", &path, &cause))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn cannot(what: &str, path: &Path, cause: &io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        io::ErrorKind::NotFound => ErrorKind::CannotOpen,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cannot {what} '{}' ({cause})", path.display()))
}
