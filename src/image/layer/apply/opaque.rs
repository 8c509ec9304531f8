//! Opaque directories. They hide all that layers below have, so a whiteout below one hides nothing; and overlayfs, which
//! filters whiteouts where it merges directories, would list it as a name that nobody can look up.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, fstat, statat, unlinkat};
use rustix::io::Errno;

use super::open_below;
use super::owner::set_opaque;
use crate::image::layer::lower::{is_opaque, open_at};
use crate::image::tar::header::shown;

/// Bytes that the paths of one layer's opaque directories may take.
const MAX_PATHS: usize = 16 << 20;

/// The opaque directories of a layer that is being unpacked.
#[derive(Default)]
pub(super) struct Opaque {
    paths: BTreeSet<Box<[u8]>>,
    bytes: usize,
}

type Inode = (u64, u64);

impl Opaque {
    /// Makes `directory`, which is at `path`, opaque.
    pub(super) fn mark(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        set_opaque(directory)?;
        if self.paths.insert(path.into()) {
            self.bytes += path.len() + size_of::<Box<[u8]>>();
        }
        if self.bytes > MAX_PATHS {
            bail!("the names of opaque directories take more than {MAX_PATHS} bytes");
        }
        Ok(())
    }

    /// Removes whiteouts from all opaque directories but the root, whose mark overlayfs does not heed. However they are
    /// nested and by whatever links they were named, each directory is looked through once.
    pub(super) fn settle(&self, root: BorrowedFd<'_>) -> Result<()> {
        let context = |path: &[u8]| format!("clear opaque directory {}", shown(path));
        let mut tops: HashMap<Inode, &[u8]> = HashMap::new();
        for path in self.paths.iter().filter(|path| !path.is_empty()) {
            match open_below(root, path, OFlags::RDONLY) {
                Ok(directory) if is_opaque(directory.as_fd()) => drop(tops.insert(inode(directory.as_fd())?, path)),
                // A later member put something else there.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error).with_context(|| context(path)),
            }
        }
        for path in tops.values() {
            let top = open_below(root, path, OFlags::RDONLY).with_context(|| context(path))?;
            clear(top.as_fd(), &tops).with_context(|| context(path))?;
        }
        Ok(())
    }
}

fn inode(file: BorrowedFd<'_>) -> rustix::io::Result<Inode> {
    fstat(file).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Removes the whiteouts below `top`, down to those of `tops`, which have their own turn.
fn clear(top: BorrowedFd<'_>, tops: &HashMap<Inode, &[u8]>) -> Result<()> {
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let Some(directory) = open_at(top, &path, OFlags::RDONLY | OFlags::DIRECTORY)? else { continue };
        if !path.is_empty() && tops.contains_key(&inode(directory.as_fd())?) {
            continue;
        }
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            match entry.file_type() {
                _ if matches!(name, b"." | b"..") => {}
                FileType::Directory => open.push([&path, name, b"/"].concat()),
                FileType::CharacterDevice if is_whiteout(directory.as_fd(), name) => {
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
