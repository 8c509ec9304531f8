//! Mounts that crates do not offer: attributes on detached mounts.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{MountPropagationFlags, OpenTreeFlags};
use rustix::thread::UnshareFlags;

/// Attributes and propagation to be changed on a mount (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, or 0 to leave it.
    pub propagation: u64,
    /// The whole tree below, too.
    pub recursive: bool,
}

/// Mounted read-only.
pub const ATTR_RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// Set-user-id bits and file capabilities are ignored.
pub const ATTR_NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// Device nodes do not open.
pub const ATTR_NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// Programs do not execute.
pub const ATTR_NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Changes attributes of the mount that `mount` was opened on.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if attributes.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure outlives the call and its size is given; the path is empty.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A detached, read-only view of one file or directory: reachable through the descriptor alone.
pub fn detached_read_only(path: &CStr) -> io::Result<OwnedFd> {
    let tree = rustix::mount::open_tree(
        rustix::fs::CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    set_attributes(tree.as_fd(), Attributes { set: ATTR_RDONLY, ..Attributes::default() })?;
    Ok(tree)
}

/// A detached copy of the mount that is the root of the mount namespace of the process behind `pidfd`, without what
/// is mounted below: the process's file system as it writes to it. It goes with the descriptor, and so does nothing
/// that the process does keep it.
pub fn root_of(pidfd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    in_own_thread(|| {
        // A namespace is entered only by who shares root and working directory with nobody (setns(2)).
        // SAFETY: takes from this thread nothing but what it shares; the thread ends with this function.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        super::process::enter_namespaces(pidfd, libc::CLONE_NEWNS)?;
        Ok(rustix::mount::open_tree(
            rustix::fs::CWD,
            c"/",
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )?)
    })
}

/// Runs `action` in a mount namespace of its own, from which nothing that it mounts is seen outside; a directory
/// that it opens there keeps its mount for as long as it is open.
pub fn in_private_namespace<T: Send>(action: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    in_own_thread(|| {
        // SAFETY: as above.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        action()
    })
}

/// Runs `action` in a thread that ends with it: what it does to its namespaces concerns nobody else.
fn in_own_thread<T: Send>(action: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| scope.spawn(action).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
