//! Removal of directory trees whose shape somebody else chose.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// Opens the directory `name` in `parent`, not following a symbolic link.
pub fn open_directory(parent: BorrowedFd<'_>, name: impl Arg) -> Result<OwnedFd> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes `name` in `parent`, with everything below when it is a directory. Nothing there is success.
///
/// The depth of the tree does not matter: a directory that is not empty is first moved up to the top,
/// so neither the stack nor the number of descriptors grows.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    match remove_directory(parent, name) {
        Err(Errno::NOTEMPTY) => {}
        other => return other,
    }
    let top = open_directory(parent, name)?;
    loop {
        let names = entries(top.as_fd())?;
        if names.is_empty() {
            return remove_directory(parent, name);
        }
        for (child, is_directory) in names {
            if !is_directory {
                unlink(top.as_fd(), &child)?;
                continue;
            }
            match remove_directory(top.as_fd(), child.as_bytes()) {
                Err(Errno::NOTEMPTY) => {}
                other => {
                    other?;
                    continue;
                }
            }
            let directory = open_directory(top.as_fd(), &child)?;
            for (grandchild, is_directory) in entries(directory.as_fd())? {
                if is_directory {
                    renameat(&directory, &grandchild, &top, unique())?;
                } else {
                    unlink(directory.as_fd(), &grandchild)?;
                }
            }
        }
    }
}

fn unlink(directory: BorrowedFd<'_>, name: &CString) -> Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn remove_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// A name that no layer contains by accident; should one contain it on purpose, the rename fails and
/// nothing but the removal suffers.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!(".mydocker-removal-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Some of the names in a directory, and whether each is a directory itself; empty only when there
/// is none. Bounded, so that a directory of millions is worked through in parts.
fn entries(directory: BorrowedFd<'_>) -> Result<Vec<(CString, bool)>> {
    const PART: usize = 4096;
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            rustix::fs::FileType::Unknown => rustix::fs::FileType::from_raw_mode(
                rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            ),
            known => known,
        };
        names.push((name.to_owned(), kind == rustix::fs::FileType::Directory));
        if names.len() == PART {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn any_depth_goes() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let parent = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        rustix::fs::mkdirat(&parent, "top", Mode::RWXU).unwrap();
        let mut current = open_directory(parent.as_fd(), "top").unwrap();
        for _ in 0..5000 {
            rustix::fs::symlinkat(outside.path(), &current, "link").unwrap();
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            current = open_directory(current.as_fd(), "d").unwrap();
        }
        remove(parent.as_fd(), b"top").unwrap();
        remove(parent.as_fd(), b"top").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }
}
