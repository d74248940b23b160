//! The system calls of SQLite's unix VFS that are replaced. Each ends in the one that was there
//! before, so that another program's, and its tests', are still called.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;

use rusqlite::ffi;

use super::descriptors::{self, Descriptor};
use super::originals::{
    Close, Fcntl, Fstat, ORIGINALS, Open, Originals, POSIX, Stat, really_close, really_fcntl,
};
use super::{files, fork, open_locks};

fn fail(errno: c_int) -> c_int {
    // SAFETY: the calling thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Whether SQLite locks files of that name. Logs, journals and temporary files it does not.
fn is_lockable(path: &CStr, flags: c_int) -> bool {
    let path = path.to_bytes();
    flags & (libc::O_EXCL | libc::O_DIRECTORY) == 0
        && !path.ends_with(b"-wal")
        && !path.ends_with(b"-journal")
        && !path.starts_with(b"/dev/")
}

unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    let generation = fork::generation();
    let Some(originals) = ORIGINALS.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite's path.
    let is_lockable = is_lockable(unsafe { CStr::from_ptr(path) }, flags);
    if is_lockable {
        // SAFETY: SQLite's path.
        if let Some((fd, descriptor)) = files::reuse(unsafe { CStr::from_ptr(path) }, flags) {
            descriptors::set(fd, descriptor, generation);
            return fd;
        }
    }
    // SAFETY: SQLite's arguments, passed on.
    let fd = unsafe { (originals.open)(path, flags, mode) };
    if fd < 0 {
        return fd;
    }
    let descriptor = if is_lockable {
        match files::enter(fd, flags) {
            Ok(descriptor) => descriptor,
            Err(cause) => {
                really_close(fd);
                return fail(cause);
            }
        }
    } else {
        Descriptor::Plain
    };
    descriptors::set(fd, descriptor, generation);
    fd
}

unsafe extern "C" fn close(fd: c_int) -> c_int {
    match descriptors::take(fd, fork::generation()) {
        Descriptor::Unknown | Descriptor::Plain => really_close(fd),
        Descriptor::Posix | Descriptor::Locked(_) => files::leave(fd),
        // Closing it would drop the POSIX locks that this process has on the file by now.
        Descriptor::Ghost => 0,
    }
}

/// SQLite calls it as a variadic function. On x86-64, ARM64 and RISC-V, Linux's calling
/// conventions pass the third argument of one in the register in which this function expects it
/// (Apple's do not). Stable Rust cannot define a variadic function; it can call one.
unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    let of_description = match command {
        libc::F_SETLK => libc::F_OFD_SETLK,
        libc::F_GETLK => libc::F_OFD_GETLK,
        libc::F_SETLKW => libc::F_OFD_SETLKW,
        _ => return really_fcntl(fd, command, argument),
    };
    match descriptors::get(fd, fork::generation()) {
        Descriptor::Locked(lock) => {
            // SAFETY: what these commands take.
            open_locks::set(lock, of_description, unsafe { &mut *argument.cast::<libc::flock>() })
        }
        Descriptor::Ghost => {
            // SAFETY: what these commands take.
            let flock = unsafe { &*argument.cast::<libc::flock>() };
            // What is asked about or let go of is the parent's; there is nothing to be had.
            let is_asking = command == libc::F_GETLK || i32::from(flock.l_type) == libc::F_UNLCK;
            if is_asking { 0 } else { fail(libc::EAGAIN) }
        }
        _ => really_fcntl(fd, command, argument),
    }
}

/// In a forked child no file is one that SQLite's inherited tables of locks know: it starts afresh.
fn hide(stat: *mut libc::stat, generation: u64) {
    // SAFETY: SQLite's structure, filled by the call before.
    unsafe { (*stat).st_dev ^= generation << 44 };
}

unsafe extern "C" fn fstat(fd: c_int, stat: *mut libc::stat) -> c_int {
    let generation = fork::generation();
    let Some(originals) = ORIGINALS.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite's arguments, passed on.
    let answer = unsafe { (originals.fstat)(fd, stat) };
    if answer == 0 && generation != 0 {
        hide(stat, generation);
    }
    answer
}

unsafe extern "C" fn stat(path: *const c_char, stat: *mut libc::stat) -> c_int {
    let generation = fork::generation();
    let Some(originals) = ORIGINALS.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite's arguments, passed on.
    let answer = unsafe { (originals.stat)(path, stat) };
    if answer == 0 && generation != 0 {
        hide(stat, generation);
    }
    answer
}

/// Replaces the calls, the first time; whether they are replaced.
pub(super) fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        if std::env::var_os("FEAST_VECTOR_LOCKS").is_some_and(|kind| kind == "posix") {
            POSIX.store(true, SeqCst);
        }
        // SAFETY: done once, before any file is opened through this VFS by this crate.
        fork::watch() && unsafe { replace() }.is_some()
    })
}

/// # Safety
///
/// No file may be open through SQLite's unix VFS.
unsafe fn replace() -> Option<()> {
    // SAFETY: a C string; the VFS lives as long as the process.
    let vfs = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
    // SAFETY: null, or as above.
    let (get, set) = unsafe {
        let methods = vfs.as_ref().filter(|vfs| vfs.iVersion >= 3)?;
        (methods.xGetSystemCall?, methods.xSetSystemCall?)
    };
    // SAFETY: the types are those by which SQLite calls these names.
    unsafe {
        let original = |name: &CStr| get(vfs, name.as_ptr());
        let originals = Originals {
            open: std::mem::transmute::<unsafe extern "C" fn(), Open>(original(c"open")?),
            close: std::mem::transmute::<unsafe extern "C" fn(), Close>(original(c"close")?),
            fcntl: std::mem::transmute::<unsafe extern "C" fn(), Fcntl>(original(c"fcntl")?),
            fstat: std::mem::transmute::<unsafe extern "C" fn(), Fstat>(original(c"fstat")?),
            stat: std::mem::transmute::<unsafe extern "C" fn(), Stat>(original(c"stat")?),
        };
        ORIGINALS.set(originals).ok()?;
        let ours: [(&CStr, *const ()); 5] = [
            (c"open", open as *const ()),
            (c"close", close as *const ()),
            (c"fcntl", fcntl as *const ()),
            (c"fstat", fstat as *const ()),
            (c"stat", stat as *const ()),
        ];
        for (name, call) in ours {
            let call = std::mem::transmute::<*const (), unsafe extern "C" fn()>(call);
            set(vfs, name.as_ptr(), Some(call));
        }
    }
    Some(())
}
