//! What the layers below a container's own show at a path: overlayfs's rules, told from the layers themselves.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, fstat, openat2};
use rustix::io::Errno;

/// What the lower layers together show at a path.
#[derive(Default)]
pub(super) struct Below {
    pub(super) stat: Option<Stat>,
    /// Where it is a directory: the layers whose entries are seen in it.
    pub(super) directories: Vec<usize>,
}

impl Below {
    /// `layers` are those that are seen in the directory above.
    pub(super) fn look(lowers: &[BorrowedFd<'_>], layers: &[usize], path: &[u8]) -> rustix::io::Result<Below> {
        let mut below = Below::default();
        for layer in layers {
            let Some(file) = open_at(lowers[*layer], path, OFlags::PATH)? else { continue };
            let stat = fstat(&file)?;
            if !is_directory(&stat) {
                // A file below a directory is hidden by it, and so is all further down.
                if below.stat.is_none() && !is_whiteout(&stat) {
                    below.stat = Some(stat);
                }
                break;
            }
            below.stat.get_or_insert(stat);
            below.directories.push(*layer);
            let directory = open_at(lowers[*layer], path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            if directory.is_some_and(|directory| is_opaque(directory.as_fd())) {
                break;
            }
        }
        Ok(below)
    }
}

/// What the layers together (the topmost first) show at `path`, which has no slash at either end; `None` for nothing,
/// and for what was taken away or is hidden.
pub(super) fn seen(lowers: &[BorrowedFd<'_>], path: &[u8]) -> rustix::io::Result<Option<Stat>> {
    let mut layers: Vec<usize> = (0..lowers.len()).collect();
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for slash in slashes {
        layers = Below::look(lowers, &layers, &path[..slash])?.directories;
    }
    Ok(Below::look(lowers, &layers, path)?.stat)
}

/// Opens a path without following any link; `None` when nothing is there.
pub(super) fn open_at(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<Option<OwnedFd>> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => return other.map(Some),
        }
    }
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    matches!(fgetxattr(directory, "trusted.overlay.opaque", &mut value[..]), Ok(1)) && value == *b"y"
}
