//! Locks of open file descriptions, one call at a time; and the file systems that have them.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::AsRawFd as _;

use super::originals;

/// One lock call on a file's own descriptor.
pub(super) fn set(lock: c_int, command: c_int, flock: &mut libc::flock) -> c_int {
    // EINVAL otherwise; SQLite leaves it undefined.
    flock.l_pid = 0;
    originals::really_fcntl(lock, command, std::ptr::from_mut(flock).cast())
}

/// A lock of the whole file.
pub(super) fn everything(kind: c_int) -> libc::flock {
    // SAFETY: a plain C structure; zeros are all of the file, from its start.
    let mut flock: libc::flock = unsafe { std::mem::zeroed() };
    flock.l_type = kind as i16;
    flock
}

/// Locks a file of ours from end to end, or unlocks it, without waiting; whether that went.
pub(super) fn lock_whole(file: &std::fs::File, kind: c_int) -> bool {
    set(file.as_raw_fd(), libc::F_OFD_SETLK, &mut everything(kind)) == 0
}

/// Whether another descriptor has locked it so.
pub(super) fn is_locked_by_another(file: &std::fs::File) -> bool {
    let mut asked = everything(libc::F_WRLCK);
    set(file.as_raw_fd(), libc::F_OFD_GETLK, &mut asked) == 0
        && c_int::from(asked.l_type) != libc::F_UNLCK
}

pub(super) fn is_remote(file: &std::fs::File) -> bool {
    is_remote_fd(file.as_raw_fd())
}

/// Whether files in a folder that is open get such locks.
pub(super) fn supports(folder: &std::fs::File) -> bool {
    let fd = folder.as_raw_fd();
    !originals::keeps_posix_locks()
        && !is_remote_fd(fd)
        && set(fd, libc::F_OFD_GETLK, &mut everything(libc::F_RDLCK)) == 0
}

/// Whether the file system passes locks on to somebody who knows processes only, or may do so.
pub(super) fn is_remote_fd(fd: c_int) -> bool {
    // From statfs(2) and linux/magic.h.
    const REMOTE: [u32; 12] = [
        0x6969,      // NFS
        0x6573_5546, // FUSE
        0x0102_1997, // 9p
        0x0000_517B, // SMB
        0xFE53_4D42, // SMB2
        0xFF53_4D42, // CIFS
        0x00C3_6400, // Ceph
        0x5346_414F, // AFS
        0x0BD0_0BD0, // Lustre
        0x4750_4653, // GPFS
        0x7461_636F, // OCFS2
        0x0116_1970, // GFS2
    ];
    // SAFETY: a plain C structure, filled by the call.
    let mut statfs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to it.
    let known = unsafe { libc::fstatfs(fd, &raw mut statfs) } == 0;
    known && REMOTE.contains(&(statfs.f_type as u32))
}
