//! Paths of databases: one for each file, whatever it was named by.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Links that are followed to a file that is not there yet.
const MOST_LINKS: usize = 40;

/// Bytes of the longest path that SQLite opens.
const MOST_BYTES: usize = 504;

/// Refuses paths that lead to no file, in words that say what to write instead; SQLite would call
/// some an I/O error, and take others for an empty database.
pub(super) fn check(path: &Path) -> Result<()> {
    let refuse = |what: String| Err(Error::new(ErrorKind::CannotOpen, what));
    let text = path.as_os_str().as_encoded_bytes();
    if text.is_empty() {
        return refuse("`path` is empty; set it to a file, such as 'data/online.db'".to_owned());
    }
    if text == b":memory:" {
        return refuse(
            "the store is shared by processes and cannot live in memory; set `path` to a file"
                .to_owned(),
        );
    }
    if text.contains(&0) {
        return refuse("`path` has a zero byte in it; remove it".to_owned());
    }
    if text.len() > MOST_BYTES {
        let found = text.len();
        return refuse(format!(
            "`path` is {found} bytes long, and SQLite opens at most {MOST_BYTES}; set a shorter one"
        ));
    }
    let Ok(found) = fs::metadata(path) else {
        return Ok(());
    };
    if found.is_dir() {
        return refuse("`path` is a folder; add a file name, such as 'online.db'".to_owned());
    }
    if !found.is_file() {
        return refuse("`path` is a pipe, a device or a socket; set it to a file".to_owned());
    }
    Ok(())
}

/// The absolute path without symbolic links. It stays the same when the process changes its folder,
/// and a database that is named in two ways has one lock and one folder of index files. Where the
/// file, or folders above it, are not there yet, what is there of the path is resolved.
pub(super) fn real(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return path.to_owned();
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if cfg!(not(unix)) {
        return path;
    }
    resolve(path, MOST_LINKS)
}

fn resolve(path: PathBuf, links: usize) -> PathBuf {
    if let Ok(real) = fs::canonicalize(&path) {
        return real;
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return path;
    };
    if links > 0
        && let Ok(target) = fs::read_link(&path)
    {
        return resolve(folder.join(target), links - 1);
    }
    resolve(folder.to_owned(), links).join(name)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        #[cfg(unix)]
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let long = at(&"x".repeat(MOST_BYTES));
        for (path, words) in [
            (PathBuf::new(), "is empty"),
            (PathBuf::from(":memory:"), "cannot live in memory"),
            (PathBuf::from("a\0b"), "zero byte"),
            (long, "bytes long, and SQLite opens at most 504"),
            (folder.path().to_owned(), "is a folder"),
            (PathBuf::from("/dev/null"), "a device"),
            (at("socket"), "a socket"),
        ] {
            let error = check(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CannotOpen);
            assert!(error.to_string().contains(words), "{error}");
        }
        for name in ["online.db", "file:x?mode=memory", "~", "a\nb"] {
            check(&at(name)).unwrap();
        }
        fs::write(at("online.db"), "").unwrap();
        check(&at("online.db")).unwrap();
    }

    #[test]
    fn every_name_of_a_file_is_one_path() {
        let folder = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(folder.path()).unwrap();
        let target = folder.join("real").join("online.db");
        symlink(folder.join("real"), folder.join("link")).unwrap();
        symlink("real/online.db", folder.join("by name.db")).unwrap();
        // Before the folder is there, before the file is, and after.
        for step in 0..3 {
            assert_eq!(real(&folder.join("by name.db")), target, "step {step}");
            if step > 0 {
                assert_eq!(real(&folder.join("link/online.db")), target, "step {step}");
                assert_eq!(real(&folder.join("link/../real/./online.db")), target);
            }
            match step {
                0 => fs::create_dir(folder.join("real")).unwrap(),
                _ => fs::write(&target, "").unwrap(),
            }
        }
        symlink("loop.db", folder.join("loop.db")).unwrap();
        assert_eq!(real(&folder.join("loop.db")), folder.join("loop.db"));
        assert!(real(Path::new("online.db")).is_absolute());
        assert_eq!(real(Path::new(":memory:")), Path::new(":memory:"));
    }
}
