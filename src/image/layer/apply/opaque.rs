//! Opaque directories. They hide all that layers below have, so a whiteout below one hides nothing; and overlayfs, which
//! filters whiteouts where it merges directories, would list it as a name that nobody can look up.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, fstat, statat, unlinkat};

use super::open_below;
use super::owner::set_opaque;
use crate::image::layer::lower::open_at;
use crate::image::tar::header::shown;

/// Bytes that the paths of one layer's opaque directories may take.
const MAX_PATHS: usize = 16 << 20;

/// The opaque directories of a layer that is being unpacked.
#[derive(Default)]
pub(super) struct Opaque {
    marked: Vec<Marked>,
    bytes: usize,
}

struct Marked {
    path: Box<[u8]>,
    /// Device and inode: a later member may put something else at the path.
    inode: (u64, u64),
}

impl Opaque {
    /// Makes `directory`, which is at `path`, opaque.
    pub(super) fn mark(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        set_opaque(directory)?;
        let stat = fstat(directory)?;
        self.bytes += path.len() + size_of::<Marked>();
        if self.bytes > MAX_PATHS {
            bail!("the names of opaque directories take more than {MAX_PATHS} bytes");
        }
        self.marked.push(Marked { path: path.into(), inode: (stat.st_dev, stat.st_ino) });
        Ok(())
    }

    /// Removes whiteouts from all opaque directories but the root, whose mark overlayfs does not heed.
    pub(super) fn settle(&self, root: BorrowedFd<'_>) -> Result<()> {
        for Marked { path, inode } in self.marked.iter().filter(|marked| !marked.path.is_empty()) {
            let Ok(directory) = open_below(root, path, OFlags::RDONLY) else { continue };
            let stat = fstat(&directory)?;
            if (stat.st_dev, stat.st_ino) == *inode {
                clear(directory.as_fd()).with_context(|| format!("clear opaque directory {}", shown(path)))?;
            }
        }
        Ok(())
    }
}

/// Removes the whiteouts below `top`.
fn clear(top: BorrowedFd<'_>) -> Result<()> {
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let Some(directory) = open_at(top, &path, OFlags::RDONLY | OFlags::DIRECTORY)? else { continue };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            match entry.file_type() {
                _ if matches!(name, b"." | b"..") => {}
                FileType::Directory => open.push([&path, name, b"/"].concat()),
                FileType::CharacterDevice | FileType::Unknown if is_whiteout(directory.as_fd(), name) => {
                    unlinkat(&directory, name, AtFlags::empty())?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether `name` is what overlayfs takes for a whiteout.
pub(super) fn is_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
}
