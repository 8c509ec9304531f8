//! How much a container has written. The tree belongs to the container, so it is walked on held
//! descriptors: no name in it, changed under our hands, leads outside.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};

use crate::container::ContainerId;
use crate::container::handle;
use crate::engine::Engine;
use crate::image::Store;

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Of the writable layer.
    pub writable: u64,
    /// Of the writable layer and the image's layers.
    pub total: u64,
}

impl Engine {
    /// Adds up the files of a container's layers. Takes as long as there are files.
    pub fn size_of(&self, id: &ContainerId) -> Result<Size> {
        let record = handle::load(&self.layout, id)?;
        let writable = tree(&self.layout.container_overlay(id).join("upper"))?;
        let store = Store::open(&self.layout);
        let mut total = writable;
        for layer in &record.config.image.layers {
            total = total.saturating_add(tree(&store.layer(layer))?);
        }
        Ok(Size { writable, total })
    }
}

/// Bytes of all regular files below `root`, each counted once; 0 when there is no such directory.
fn tree(root: &Path) -> Result<u64> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let top = match rustix::fs::openat(CWD, root, flags, Mode::empty()) {
        Ok(top) => top,
        Err(rustix::io::Errno::NOENT) => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("open {}", root.display())),
    };
    let mut bytes = 0u64;
    let mut seen = HashSet::new();
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop() {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        // Gone, or not a directory any more, or too deep to name: it counts for nothing.
        let Ok(directory) = rustix::fs::openat2(&top, &path, flags, Mode::empty(), resolve) else { continue };
        let Ok(entries) = Dir::read_from(&directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match entry.file_type() {
                FileType::Directory => pending.push(path.join(OsString::from_vec(name.to_bytes().to_vec()))),
                FileType::RegularFile => bytes = bytes.saturating_add(file(&directory, name, &mut seen)),
                _ => {}
            }
        }
    }
    Ok(bytes)
}

fn file(directory: &OwnedFd, name: &std::ffi::CStr, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return 0 };
    let counted = stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino));
    if counted { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn links_neither_lead_out_nor_count_twice() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("big"), vec![0; 9000]).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/f"), vec![0; 100]).unwrap();
        fs::hard_link(dir.path().join("a/b/f"), dir.path().join("a/g")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("a/out")).unwrap();
        assert_eq!(super::tree(dir.path()).unwrap(), 100);
        assert_eq!(super::tree(&dir.path().join("none")).unwrap(), 0);
    }
}
