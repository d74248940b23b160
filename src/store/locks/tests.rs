#![allow(unsafe_code)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "system calls on the test's own descriptors")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use super::descriptors::{self, Descriptor};
use super::{files, generation, hold_in, install, open_locks, originals};

/// For tests that look at what is open, or switch the kind of locks.
static ALONE: Mutex<()> = Mutex::new(());

struct Fixture {
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Fixture {
    fn new(posix: bool) -> Self {
        assert!(install());
        let alone = ALONE.lock();
        originals::keep_posix_locks(posix);
        Self { folder: tempfile::tempdir().unwrap(), _alone: alone }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("online.db")
    }

    /// A connection that has read, and so holds SQLite's shared lock on the file.
    fn connect(&self) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (x)")
            .unwrap();
        connection
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        originals::keep_posix_locks(false);
    }
}

/// SQLite's range of shared locks.
fn shared_range(kind: i32) -> libc::flock {
    let mut flock: libc::flock = unsafe { std::mem::zeroed() };
    flock.l_type = kind as i16;
    flock.l_start = 0x4000_0002;
    flock.l_len = 510;
    flock
}

/// Whether anybody holds a shared lock, as another process would see it: the descriptor that asks is
/// of no lock's owner. It stays open, since closing it drops POSIX locks.
fn is_locked(path: &Path) -> bool {
    let file = std::mem::ManuallyDrop::new(File::open(path).unwrap());
    let mut flock = shared_range(libc::F_WRLCK);
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut flock) };
    assert_eq!(asked, 0);
    i32::from(flock.l_type) != libc::F_UNLCK
}

#[test]
fn closing_another_descriptor_drops_posix_locks_and_not_ours() {
    for posix in [true, false] {
        let fixture = Fixture::new(posix);
        let path = fixture.database();
        let connection = fixture.connect();
        assert!(is_locked(&path));
        drop(File::open(&path).unwrap());
        assert_eq!(is_locked(&path), !posix);
        let copy = fixture.folder.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(is_locked(&path), !posix);
        drop(connection);
        assert!(!is_locked(&path));
    }
}

#[test]
fn connections_share_the_lock_and_the_last_gives_it_up() {
    let fixture = Fixture::new(false);
    let path = fixture.database();
    let (one, two) = (fixture.connect(), fixture.connect());
    drop(one);
    assert!(is_locked(&path));
    drop(two);
    assert!(!is_locked(&path));
}

#[test]
fn the_locks_of_another_sqlite_in_the_process_survive_ours() {
    let fixture = Fixture::new(false);
    let path = fixture.database();
    drop(fixture.connect());
    // Another library's connection.
    let theirs = File::open(&path).unwrap();
    let mut flock = shared_range(libc::F_RDLCK);
    assert_eq!(unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETLK, &raw mut flock) }, 0);
    drop((fixture.connect(), fixture.connect()));
    drop(fixture.connect());
    assert!(is_locked(&path));
    drop(theirs);
    assert!(!is_locked(&path));
}

#[test]
fn descriptors_are_used_again_and_given_back_when_the_file_is_gone() {
    let fixture = Fixture::new(false);
    let path = fixture.database();
    drop((fixture.connect(), fixture.connect()));
    let kept = files::kept_for(&path);
    assert!((1..=2).contains(&kept), "{kept}");
    for _ in 0..50 {
        drop((fixture.connect(), fixture.connect()));
    }
    assert_eq!(files::kept_for(&path), kept);
    let metadata = std::fs::metadata(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    drop(fixture.connect());
    assert_eq!(files::kept_for_id((metadata.dev(), metadata.ino())), 0);
}

#[test]
fn a_file_that_is_not_writable_any_more_is_not_written_through_an_old_descriptor() {
    if unsafe { libc::geteuid() } == 0 {
        // Root may write everything.
        return;
    }
    let fixture = Fixture::new(false);
    let path = fixture.database();
    drop(fixture.connect());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    let connection = Connection::open(&path).unwrap();
    assert!(connection.execute_batch("CREATE TABLE u (x)").is_err());
}

#[test]
fn changed_permissions_do_not_disturb_who_has_the_file_open() {
    let fixture = Fixture::new(false);
    let connection = Connection::open(fixture.database()).unwrap();
    // Before the first lock.
    std::fs::set_permissions(fixture.database(), PermissionsExt::from_mode(0o400)).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert!(is_locked(&fixture.database()));
}

#[test]
fn many_descriptors_and_many_files_stay_bounded() {
    let fixture = Fixture::new(false);
    let connections: Vec<_> = (0..60).map(|_| fixture.connect()).collect();
    drop(connections);
    assert!(files::kept_for(&fixture.database()) <= 16);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for number in 0..150 {
        let path = fixture.folder.path().join(format!("{number}.db"));
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
    }
    // Other tests open files meanwhile.
    assert!(open() < before + 200, "{} after {before}", open());
}

#[test]
fn descriptors_of_any_number_are_known() {
    let here = generation();
    for fd in [70_000, 1 << 20, (1 << 30) - 1] {
        assert_eq!(descriptors::get(fd, here), Descriptor::Unknown);
        descriptors::set(fd, Descriptor::Locked(77), here);
        assert_eq!(descriptors::get(fd, here), Descriptor::Locked(77));
        assert_eq!(descriptors::get(fd, here + 1), Descriptor::Ghost);
        assert_eq!(descriptors::take(fd, here), Descriptor::Locked(77));
        assert_eq!(descriptors::get(fd, here), Descriptor::Unknown);
    }
}

#[test]
fn a_file_on_a_high_descriptor_is_locked_like_any_other() {
    let fixture = Fixture::new(false);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) };
    let high = 66_000.min(limit.rlim_max as i32 - 100);
    let path = fixture.database();
    let file = File::create_new(&path).unwrap();
    let fd = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, high) };
    assert!(fd >= high);
    let Descriptor::Locked(lock) = files::enter(fd, libc::O_RDWR).unwrap() else {
        panic!("no lock of its own");
    };
    assert_eq!(open_locks::set(lock, libc::F_OFD_SETLK, &mut shared_range(libc::F_RDLCK)), 0);
    assert!(is_locked(&path));
    files::leave(fd);
    assert!(!is_locked(&path));
}

#[test]
fn folders_say_what_locks_their_files_get() {
    let fixture = Fixture::new(false);
    assert!(hold_in(fixture.folder.path()));
    originals::keep_posix_locks(true);
    assert!(!hold_in(fixture.folder.path()));
    assert!(!hold_in(Path::new("/nowhere/at/all")));
}
