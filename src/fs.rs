//! Files and folders that somebody else may have put there: nothing is opened through a link, only
//! regular files are, and what is created takes the database's permissions.

use std::fs::{File, Metadata, OpenOptions, symlink_metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Permissions of a database that is private to its owner.
#[cfg(unix)]
const PRIVATE: u32 = 0o600;

/// Permissions of a database in a folder that a group shares.
#[cfg(unix)]
const SHARED: u32 = 0o660;

/// Opens a regular file for reading. A link, a pipe or a device is an error, and none is waited for.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = without_links(OpenOptions::new().read(true)).open(path).map_err(explain)?;
    regular(file)
}

/// What a small file says, unless it is a link, or of somebody who may not write `database`.
pub(crate) fn read_trusted(path: &Path, database: &Path) -> Option<String> {
    let file = open_regular(path).ok()?;
    let mut text = String::new();
    file.metadata().is_ok_and(|found| is_trusted(&found, database)).then_some(())?;
    file.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Creates a file that nobody else has: an error if the name is taken, be it by a link.
/// `like` is whose permissions it takes.
pub(crate) fn create_new(path: &Path, like: &Path) -> io::Result<File> {
    let file = create(path)?;
    take_permissions(&file, like, false);
    Ok(file)
}

/// Opens or creates a lock file. Only who may write `database` may open it: a reader who could lock
/// it would stop all writers.
pub(crate) fn open_lock(path: &Path, database: &Path) -> io::Result<File> {
    match create(path) {
        Ok(file) => {
            take_permissions(&file, database, true);
            Ok(file)
        }
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            let mut options = OpenOptions::new();
            let options = without_links(options.read(true).write(true));
            regular(options.open(path).map_err(explain)?)
        }
        Err(cause) => Err(cause),
    }
}

/// Creates the empty file of a database, unless there is one, with `mode` or else the permissions
/// that its folder suggests: those of a folder that a group shares (setgid and writable for the
/// group) let the group read and write, in any other the file is private to its owner.
///
/// SQLite then gives its `-wal` and `-shm` the same permissions.
pub(crate) fn create_database(path: &Path, mode: Option<u32>) -> io::Result<()> {
    let path = target(path);
    let file = match create(&path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(cause) => return Err(cause),
    };
    set_mode(&file, &path, mode)
}

/// Whether a folder of index files is there. An error says why it is not to be used: it is a link,
/// or belongs to somebody who may not write the database.
pub(crate) fn check_index_folder(folder: &Path, database: &Path) -> Result<bool, String> {
    let found = match symlink_metadata(folder) {
        Ok(found) => found,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(cause) => return Err(format!("it cannot be examined ({cause})")),
    };
    if !found.is_dir() {
        let what = if found.is_symlink() { "a symbolic link" } else { "not a directory" };
        return Err(format!("it is {what}; remove it, and it is created when it is needed"));
    }
    if is_trusted(&found, database) {
        return Ok(true);
    }
    Err("it belongs to another user, who may not write the database; remove it, or change its owner"
        .to_owned())
}

/// Creates a folder of index files, for those who may use the database.
pub(crate) fn create_index_folder(folder: &Path, database: &Path) -> io::Result<()> {
    std::fs::create_dir(folder)?;
    set_folder_mode(folder, database)
}

/// Where a database is that a link leads to, be it there or not.
fn target(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..16 {
        let Ok(link) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(link);
    }
    path
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, PRIVATE);
    options.open(path)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other(NO_FILE)) }
}

const NO_FILE: &str = "it is not a regular file";

#[cfg(unix)]
fn without_links(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    // NONBLOCK: a pipe would otherwise be waited for until somebody writes to it.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed())
}

#[cfg(not(unix))]
fn without_links(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// What `O_NOFOLLOW` and a folder answer, in words.
fn explain(cause: io::Error) -> io::Error {
    #[cfg(unix)]
    match rustix::io::Errno::from_io_error(&cause) {
        Some(rustix::io::Errno::LOOP) => return io::Error::other("it is a symbolic link"),
        Some(rustix::io::Errno::ISDIR | rustix::io::Errno::NXIO) => {
            return io::Error::other(NO_FILE);
        }
        _ => {}
    }
    cause
}

#[cfg(unix)]
fn take_permissions(file: &File, like: &Path, only_writers: bool) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(like) = std::fs::metadata(like) else { return };
    let mut mode = like.permissions().mode() & 0o666;
    if only_writers {
        let writers = mode & 0o222;
        mode = writers | writers << 1;
    }
    let is_of_group = take_owner(file, &like);
    // Where the file system has no such thing, the file stays private.
    let _ = file.set_permissions(PermissionsExt::from_mode(permitted(mode, is_of_group)));
}

/// Gives the file the other's owner and group, as far as the process may; whether it has the group.
#[cfg(unix)]
fn take_owner(file: &File, like: &Metadata) -> bool {
    use std::os::unix::fs::{MetadataExt, fchown};
    let Ok(own) = file.metadata() else { return false };
    if own.uid() != like.uid() {
        let _ = fchown(file, Some(like.uid()), None);
    }
    own.gid() == like.gid() || fchown(file, None, Some(like.gid())).is_ok()
}

/// What another group than the database's may not do.
#[cfg(unix)]
fn permitted(mode: u32, is_of_group: bool) -> u32 {
    mode & if is_of_group { 0o777 } else { 0o707 } | PRIVATE
}

#[cfg(not(unix))]
fn take_permissions(_file: &File, _like: &Path, _only_writers: bool) {}

#[cfg(unix)]
fn set_mode(file: &File, path: &Path, mode: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    const GROUP_SHARES: u32 = 0o2020;
    if let Some(mode) = mode {
        return file.set_permissions(PermissionsExt::from_mode(mode));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::metadata(folder.unwrap_or(Path::new(".")));
    if folder.is_ok_and(|folder| folder.mode() & GROUP_SHARES == GROUP_SHARES) {
        let _ = file.set_permissions(PermissionsExt::from_mode(SHARED));
    }
    Ok(())
}

#[cfg(not(unix))]
fn set_mode(_file: &File, _path: &Path, _mode: Option<u32>) -> io::Result<()> {
    Ok(())
}

/// Whoever may use the database may use the folder.
#[cfg(unix)]
fn set_folder_mode(folder: &Path, database: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(like) = std::fs::metadata(database) else { return Ok(()) };
    let folder = without_links(OpenOptions::new().read(true)).open(folder)?;
    let is_of_group = take_owner(&folder, &like);
    let mode = permitted(like.permissions().mode() & 0o666, is_of_group);
    // To search a folder is to read its files.
    let _ = folder.set_permissions(PermissionsExt::from_mode(mode | (mode & 0o444) >> 2));
    Ok(())
}

#[cfg(not(unix))]
fn set_folder_mode(_folder: &Path, _database: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether a folder's owner may write the database, so that nothing is gained by distrust: it is
/// this user's, the database's owner's, or of the group that may write the database.
#[cfg(unix)]
fn is_trusted(folder: &Metadata, database: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    if folder.uid() == rustix::process::geteuid().as_raw() {
        return true;
    }
    std::fs::metadata(database).is_ok_and(|database| {
        let is_of_group = database.mode() & 0o020 != 0 && folder.gid() == database.gid();
        folder.uid() == database.uid() || is_of_group
    })
}

#[cfg(not(unix))]
fn is_trusted(_folder: &Metadata, _database: &Path) -> bool {
    true
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn nothing_is_opened_or_created_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("victim"), "precious").unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        for name in ["link", "dangling", "pipe", "folder"] {
            assert!(create_new(&at(name), &at("victim")).is_err(), "{name}");
            let error = open_lock(&at(name), &at("victim")).unwrap_err();
            assert!(error.to_string().starts_with("it is "), "{name}: {error}");
            let error = open_regular(&at(name)).unwrap_err();
            assert!(error.to_string().starts_with("it is "), "{name}: {error}");
        }
        assert!(!at("nowhere").exists());
        assert_eq!(std::fs::read_to_string(at("victim")).unwrap(), "precious");
    }

    #[test]
    fn a_database_is_private_unless_its_folder_or_an_option_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        create_database(&at("private.db"), None).unwrap();
        assert_eq!(mode(&at("private.db")), 0o600);
        create_database(&at("chosen.db"), Some(0o664)).unwrap();
        assert_eq!(mode(&at("chosen.db")), 0o664);
        create_database(&at("chosen.db"), Some(0o600)).unwrap();
        assert_eq!(mode(&at("chosen.db")), 0o664, "what is there stays as it is");
        symlink("target.db", at("link.db")).unwrap();
        create_database(&at("link.db"), Some(0o640)).unwrap();
        assert_eq!(mode(&at("target.db")), 0o640);
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o2770)).unwrap();
        create_database(&at("shared.db"), None).unwrap();
        assert_eq!(mode(&at("shared.db")), 0o660);
    }

    #[test]
    fn what_is_beside_the_database_is_for_whom_the_database_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (database, segment, lock, index) in [
            (0o600, 0o600, 0o600, 0o700),
            (0o640, 0o640, 0o600, 0o750),
            (0o660, 0o660, 0o660, 0o770),
            (0o664, 0o664, 0o660, 0o775),
        ] {
            let name = |what: &str| at(&format!("{database:o}{what}"));
            create_database(&name(""), Some(database)).unwrap();
            create_new(&name(".seg"), &name("")).unwrap();
            open_lock(&name(".lock"), &name("")).unwrap();
            create_index_folder(&name(".index"), &name("")).unwrap();
            let found = [".seg", ".lock", ".index"].map(|what| mode(&name(what)));
            assert_eq!(found, [segment, lock, index], "{database:o}");
        }
    }

    #[test]
    fn an_index_folder_is_a_folder_of_somebody_who_may_write_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let check = || check_index_folder(&at("db.index"), &at("db"));
        create_database(&at("db"), None).unwrap();
        assert_eq!(check(), Ok(false));
        std::fs::create_dir(at("elsewhere")).unwrap();
        symlink(at("elsewhere"), at("db.index")).unwrap();
        assert!(check().unwrap_err().contains("symbolic link"));
        std::fs::remove_file(at("db.index")).unwrap();
        std::fs::write(at("db.index"), "").unwrap();
        assert!(check().unwrap_err().contains("not a directory"));
        std::fs::remove_file(at("db.index")).unwrap();
        create_index_folder(&at("db.index"), &at("db")).unwrap();
        assert_eq!(check(), Ok(true));
        // Only root can give a folder away.
        if chown(at("db.index"), Some(65_534), Some(65_534)).is_ok() {
            assert!(check().unwrap_err().contains("another user"));
            chown(at("db"), Some(65_534), None).unwrap();
            assert_eq!(check(), Ok(true));
        }
    }
}
