//! Descriptors: closing what is not ours to keep, standard streams that may be missing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};

/// Reads a small file that is replaced as a whole or made by the kernel (`/proc`) in one go: a read
/// that does not fill the buffer has met the end. Half the system calls of `std::fs::read`, which
/// listings make hundreds of times.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        let room = bytes.capacity() - bytes.len();
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut bytes)))?;
        if count < room {
            return Ok(bytes);
        }
        bytes.reserve(bytes.capacity());
    }
}

/// Makes sure that descriptors 0, 1 and 2 are open, on `/dev/null` where the caller closed them:
/// otherwise the next file opened would become somebody's standard output.
pub fn ensure_standard_streams() {
    loop {
        match rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
            // Kept open on purpose, for the life of the process.
            Ok(file) if file.as_raw_fd() <= 2 => std::mem::forget(file),
            _ => return,
        }
    }
}

/// Closes every descriptor of this process but `keep`.
///
/// Only for a process that has just been forked and owns nothing but what it lists: values that
/// still believe to own a closed descriptor must be forgotten, not dropped.
pub fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<RawFd> = keep.to_vec();
    keep.sort_unstable();
    let mut next: u32 = 0;
    for kept in keep {
        let kept = kept as u32;
        if kept > next {
            close_range(next, kept - 1, 0);
        }
        next = next.max(kept + 1);
    }
    close_range(next, u32::MAX, 0);
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
}

fn close_range(first: u32, last: u32, flags: u32) {
    // SAFETY: the callers own what they close, see above; the call has no memory effects. It fails
    // only on invalid arguments.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

/// Puts `file` in the place of descriptor `number` (dup2(2)), open across exec.
pub fn place(file: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: the target is one of the standard streams, which Rust's library treats as borrowed
    // by everyone and owned by nobody.
    match unsafe { libc::dup2(file.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The descriptor with this number, inherited from the process that started us by agreement.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only queries.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, checked above; the protocol (runtime/mod.rs) hands it to exactly one owner.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}

/// A standard stream of this process, to lend to others.
pub fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: `ensure_standard_streams` has opened 0 to 2 and nothing closes them before exit.
    unsafe { BorrowedFd::borrow_raw(number) }
}
