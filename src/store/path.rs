//! Paths of databases: one for each file, whatever it was named by.

use std::fs;
use std::path::{Path, PathBuf};

/// Links that are followed to a file that is not there yet.
const MOST_LINKS: usize = 40;

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
