//! The files that SQLite locks: for each one descriptor that holds the locks of all connections of
//! the process, which SQLite counts itself.
//!
//! It is never a descriptor of SQLite's: a mapping pins the open file, so a forked child's mappings
//! would keep a dead parent's locks. It is opened with SQLite's first, when the file's permissions
//! are what SQLite found, and neither read, written, mapped nor handed out.
//!
//! Closing any descriptor of a file drops the *POSIX* locks that the process has on it. Ours are no
//! such, but those of another SQLite in the process are, Python's `sqlite3`. So descriptors are not
//! closed but kept and used again, until the file is deleted.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::descriptors::Descriptor;
use super::open_locks::{everything, is_remote_fd, set};
use super::{errno, originals};

/// Idle descriptors kept for each file, and idle files. Beyond, those are closed that nothing else in
/// the process has open.
const IDLE_DESCRIPTORS: usize = 16;
const IDLE_FILES: usize = 32;

type FileId = (u64, u64);

struct LockedFile {
    id: FileId,
    /// `None` where POSIX locks stay.
    lock: Option<c_int>,
    /// Whether `lock` may hold exclusive locks.
    writable: bool,
    /// Descriptors of SQLite's.
    users: usize,
    /// Descriptors that SQLite let go of, and how they are open (`O_RDWR` or `O_RDONLY`).
    idle: Vec<(c_int, c_int)>,
}

/// A spin lock: the waiters of a mutex would not survive a fork. Held for a few system calls.
pub(super) struct Files {
    taken: AtomicBool,
    table: UnsafeCell<Vec<LockedFile>>,
    /// Descriptors of ours that a forked child has to close.
    ours: UnsafeCell<Vec<c_int>>,
}

// SAFETY: the cells are reached only while `taken` is ours.
unsafe impl Sync for Files {}

pub(super) static FILES: Files = Files {
    taken: AtomicBool::new(false),
    table: UnsafeCell::new(Vec::new()),
    ours: UnsafeCell::new(Vec::new()),
};

impl Files {
    pub(super) fn lock(&self) {
        while self.taken.swap(true, SeqCst) {
            std::thread::yield_now();
        }
    }

    pub(super) fn unlock(&self) {
        self.taken.store(false, SeqCst);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<LockedFile>) -> T) -> T {
        self.lock();
        // SAFETY: the flag is ours.
        let answer = work(unsafe { &mut *self.table.get() });
        self.unlock();
        answer
    }

    pub(super) fn with_ours<T>(&self, work: impl FnOnce(&mut Vec<c_int>) -> T) -> T {
        self.lock();
        // SAFETY: the flag is ours.
        let answer = work(unsafe { &mut *self.ours.get() });
        self.unlock();
        answer
    }

    /// In a forked child: whether another thread was in the midst of a change, in which case the
    /// tables cannot be read; else they are ours from here on.
    pub(super) fn was_taken(&self) -> bool {
        self.taken.swap(true, SeqCst)
    }

    /// In a forked child: closes every descriptor of ours, without unlocking, for the locks are the
    /// parent's and end with it. System calls only: another thread may have been allocating memory.
    ///
    /// # Safety
    ///
    /// The flag has to be ours, and the tables whole.
    pub(super) unsafe fn close_inherited(&self) {
        // SAFETY: as the caller says.
        let (table, ours) = unsafe { (&mut *self.table.get(), &mut *self.ours.get()) };
        for file in table.iter() {
            for fd in file.lock.iter().chain(file.idle.iter().map(|(fd, _)| fd)) {
                originals::really_close(*fd);
            }
        }
        for fd in ours.iter() {
            originals::really_close(*fd);
        }
    }

    /// In a forked child: starts with empty tables. The memory of the old ones is left as it is.
    ///
    /// # Safety
    ///
    /// The flag has to be ours.
    pub(super) unsafe fn forget(&self) {
        // SAFETY: as the caller says; nothing is dropped.
        unsafe {
            self.table.get().write(Vec::new());
            self.ours.get().write(Vec::new());
        }
    }
}

/// What `fstat` says that matters here.
struct Status {
    id: FileId,
    is_regular: bool,
    is_deleted: bool,
}

fn status(fd: c_int) -> Option<Status> {
    // SAFETY: a plain C structure, filled by the call.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to it.
    (unsafe { libc::fstat(fd, &raw mut stat) } == 0).then_some(Status {
        id: (stat.st_dev, stat.st_ino),
        is_regular: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
        is_deleted: stat.st_nlink == 0,
    })
}

/// An idle descriptor of that file, opened the same way, if the file may still be opened so.
pub(super) fn reuse(path: &std::ffi::CStr, flags: c_int) -> Option<(c_int, Descriptor)> {
    if flags & (libc::O_EXCL | libc::O_TRUNC) != 0 || FILES.with(|files| files.is_empty()) {
        return None;
    }
    // SAFETY: a plain C structure, filled by the calls.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a C string, and a pointer to the structure.
    let found = unsafe {
        if flags & libc::O_NOFOLLOW == 0 {
            libc::stat(path.as_ptr(), &raw mut stat)
        } else {
            libc::lstat(path.as_ptr(), &raw mut stat)
        }
    };
    if found != 0 {
        return None;
    }
    let way = flags & libc::O_ACCMODE;
    let wanted = if way == libc::O_RDONLY { libc::R_OK } else { libc::R_OK | libc::W_OK };
    // SAFETY: a C string.
    if unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), wanted, libc::AT_EACCESS) } != 0 {
        return None;
    }
    FILES.with(|files| {
        let file = files.iter_mut().find(|file| file.id == (stat.st_dev, stat.st_ino))?;
        let at = file.idle.iter().position(|(_, idle)| *idle == way)?;
        if way != libc::O_RDONLY && !file.writable {
            return None;
        }
        file.users += 1;
        Some((file.idle.swap_remove(at).0, file.descriptor()))
    })
}

impl LockedFile {
    fn descriptor(&self) -> Descriptor {
        self.lock.map_or(Descriptor::Posix, Descriptor::Locked)
    }

    /// Whether something other than SQLite and this table has the file open in this process;
    /// `besides` descriptors are known of otherwise.
    fn is_open_elsewhere(&self, besides: usize) -> bool {
        let known = self.users + self.idle.len() + usize::from(self.lock.is_some()) + besides;
        open_descriptors(self.id) > known
    }
}

/// Enters a descriptor that SQLite has opened; with its file's first, opens one for the locks.
pub(super) fn enter(fd: c_int, flags: c_int) -> Result<Descriptor, c_int> {
    let status = status(fd).ok_or_else(errno)?;
    if !status.is_regular {
        return Ok(Descriptor::Plain);
    }
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    FILES.with(|files| {
        if let Some(file) = files.iter_mut().find(|file| file.id == status.id) {
            if writes && !file.writable {
                if file.users > 0 {
                    // Locks are held on a descriptor that was all there was to be had when the file
                    // was not writable. SQLite opens it for reading then, as it would have before.
                    return Err(libc::EACCES);
                }
                let (lock, writable) = open_lock(fd, writes)?;
                if let Some(old) = std::mem::replace(&mut file.lock, lock) {
                    originals::really_close(old);
                }
                file.writable = writable;
            }
            file.users += 1;
            return Ok(file.descriptor());
        }
        sweep(files);
        let (lock, writable) = open_lock(fd, writes)?;
        let file = LockedFile { id: status.id, lock, writable, users: 1, idle: Vec::new() };
        let descriptor = file.descriptor();
        files.push(file);
        Ok(descriptor)
    })
}

/// SQLite lets go of a descriptor: it is kept, or closed if nobody can miss its locks.
pub(super) fn leave(fd: c_int) -> c_int {
    let Some(status) = status(fd) else { return originals::really_close(fd) };
    // SAFETY: asks how a descriptor is open.
    let way = unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_ACCMODE;
    FILES.with(|files| {
        let Some(at) = files.iter().position(|file| file.id == status.id) else {
            return originals::really_close(fd);
        };
        let file = &mut files[at];
        file.users -= 1;
        let is_unused = file.users == 0;
        if let Some(lock) = file.lock.filter(|_| is_unused) {
            // By hand, since the descriptor stays open.
            let _ = set(lock, libc::F_OFD_SETLK, &mut everything(libc::F_UNLCK));
        }
        // 0 to 2 are closed for good: what somebody prints would go into the database.
        let is_kept = fd > 2
            && !status.is_deleted
            // The one that is being let go of is in neither count.
            && (file.idle.len() < IDLE_DESCRIPTORS || file.is_open_elsewhere(1));
        let answer = if is_kept {
            file.idle.push((fd, way));
            0
        } else {
            originals::really_close(fd)
        };
        if is_unused {
            // The oldest first.
            let file = files.remove(at);
            files.push(file);
            sweep(files);
        }
        answer
    })
}

/// Closes the idle descriptors of files that are gone; and of the oldest, if there are many.
fn sweep(files: &mut Vec<LockedFile>) {
    let mut idle = files.iter().filter(|file| file.users == 0).count();
    files.retain(|file| {
        let one = file.lock.or(file.idle.first().map(|(fd, _)| *fd));
        let is_gone = one.is_none_or(|fd| status(fd).is_none_or(|status| status.is_deleted));
        let is_needed = !is_gone && (idle <= IDLE_FILES || file.is_open_elsewhere(0));
        if file.users > 0 || is_needed {
            return true;
        }
        idle -= 1;
        for fd in file.lock.iter().chain(file.idle.iter().map(|(fd, _)| fd)) {
            originals::really_close(*fd);
        }
        false
    });
}

/// The process's descriptors of a file; many, if nobody can say.
fn open_descriptors(id: FileId) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return usize::MAX };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| status(*fd).is_some_and(|status| status.id == id))
        .count()
}

/// A descriptor for a file's locks, and whether it may hold exclusive ones. `None` where the locks
/// have to stay POSIX's: the kernel, the file system or `/proc` says no.
fn open_lock(fd: c_int, writes: bool) -> Result<(Option<c_int>, bool), c_int> {
    const POSIX: (Option<c_int>, bool) = (None, true);
    if originals::keeps_posix_locks() || is_remote_fd(fd) {
        return Ok(POSIX);
    }
    let path = format!("/proc/self/fd/{fd}\0");
    let open = |way| {
        // SAFETY: a C string.
        let lock = unsafe { libc::open(path.as_ptr().cast(), way | libc::O_CLOEXEC) };
        if lock < 0 { Err(errno()) } else { above_2(lock) }
    };
    let (lock, writable) = match (open(libc::O_RDWR), writes) {
        (Err(libc::EMFILE | libc::ENFILE | libc::ENOMEM), _) => return Err(errno()),
        (Ok(lock), _) => (lock, true),
        (Err(_), true) => return Ok(POSIX),
        (Err(_), false) => match open(libc::O_RDONLY) {
            Ok(lock) => (lock, false),
            Err(cause @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => return Err(cause),
            Err(_) => return Ok(POSIX),
        },
    };
    if set(lock, libc::F_OFD_GETLK, &mut everything(libc::F_RDLCK)) != 0 {
        originals::really_close(lock);
        return Ok(POSIX);
    }
    Ok((Some(lock), writable))
}

/// A descriptor above those that other code takes for the standard streams.
fn above_2(fd: c_int) -> Result<c_int, c_int> {
    if fd > 2 {
        return Ok(fd);
    }
    // SAFETY: duplicates a descriptor that was just opened.
    let higher = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    let cause = errno();
    originals::really_close(fd);
    if higher < 0 { Err(cause) } else { Ok(higher) }
}

/// For tests: the descriptors that are kept open for a file.
#[cfg(test)]
pub(super) fn kept_for(path: &std::path::Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::metadata(path) else { return 0 };
    kept_for_id((metadata.dev(), metadata.ino()))
}

/// As [`kept_for`], of a file that may have no name any more.
#[cfg(test)]
pub(super) fn kept_for_id(id: FileId) -> usize {
    FILES.with(|files| files.iter().find(|file| file.id == id).map_or(0, |file| file.idle.len()))
}
