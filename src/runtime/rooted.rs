//! Opening what an image controls: always below a held directory descriptor of its root.
//!
//! Symbolic links, `..` and absolute link targets stay inside (`RESOLVE_IN_ROOT`, openat2(2)); nothing that is
//! not a regular file is ever opened for reading, so neither a FIFO nor a device node of the image can hang us
//! or be set off.

use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

/// Times a resolution is repeated that raced with a rename somewhere on the system (EAGAIN, openat2(2)).
const RACES: usize = 64;

/// Opens `path` inside `root`.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    for _ in 0..RACES {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens the regular file at `path` for reading; `EINVAL` for everything that is not a regular file.
pub(crate) fn open_regular(root: BorrowedFd<'_>, path: &Path) -> Result<File, Errno> {
    // Looked at before it is opened, because opening some devices has effects; and again after, because it
    // may have been exchanged.
    let seen = open(root, path, OFlags::PATH)?;
    regular(&seen)?;
    let file = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    regular(&file)?;
    Ok(File::from(file))
}

fn regular(fd: &OwnedFd) -> Result<(), Errno> {
    match FileType::from_raw_mode(fstat(fd)?.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

/// The contents of the regular file at `path`; `EFBIG` beyond `limit` bytes.
pub(crate) fn read(root: BorrowedFd<'_>, path: &Path, limit: u64) -> Result<Vec<u8>, Errno> {
    let mut contents = Vec::new();
    let file = open_regular(root, path)?;
    file.take(limit + 1).read_to_end(&mut contents).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    if contents.len() as u64 > limit {
        return Err(Errno::FBIG);
    }
    Ok(contents)
}
