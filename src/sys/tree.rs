//! Directory trees whose shape somebody else chose: removing them, and adding up what they take.

use std::collections::HashSet;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, renameat, statat, unlinkat,
};
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

/// What a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all regular files.
    pub content: u64,
    /// Bytes on disk of everything, directories included: what du(1) says.
    pub disk: u64,
}

/// Adds up the file or tree at `root`, every inode once; nothing when it does not exist. Walked on held
/// descriptors: no name in it, changed under our hands, leads outside, nor into another mount.
pub fn usage(root: &Path) -> Result<Usage> {
    let mut sum = Usage::default();
    let mut seen = HashSet::new();
    let top = match statat(CWD, root, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(sum),
        Err(error) => return Err(error),
    };
    count(&top, &mut seen, &mut sum);
    if FileType::from_raw_mode(top.st_mode) != FileType::Directory {
        return Ok(sum);
    }
    let top = open_directory(CWD, root)?;
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop() {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        // Gone, or not a directory any more, or too deep to name: it counts for nothing.
        let Ok(directory) = openat2(&top, &path, flags, Mode::empty(), resolve) else { continue };
        let Ok(entries) = Dir::read_from(&directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            count(&stat, &mut seen, &mut sum);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                pending.push(path.join(OsString::from_vec(name.to_bytes().to_vec())));
            }
        }
    }
    Ok(sum)
}

fn count(stat: &rustix::fs::Stat, seen: &mut HashSet<(u64, u64)>, sum: &mut Usage) {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory && stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
        return;
    }
    // st_blocks counts units of 512 bytes whatever the file system's blocks are (stat(2)).
    sum.disk = sum.disk.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
    if kind == FileType::RegularFile {
        sum.content = sum.content.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_neither_lead_out_nor_count_twice() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("big"), vec![0; 9000]).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/f"), vec![1; 100]).unwrap();
        fs::hard_link(dir.path().join("a/b/f"), dir.path().join("a/g")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("a/out")).unwrap();
        let sum = usage(dir.path()).unwrap();
        assert_eq!(sum.content, 100);
        let du = std::process::Command::new("du").args(["-s", "-k"]).arg(dir.path()).output().unwrap();
        let du = String::from_utf8(du.stdout).unwrap();
        assert_eq!(du.split('\t').next().unwrap(), (sum.disk / 1024).to_string());
        assert_eq!(usage(&dir.path().join("none")).unwrap(), Usage::default());
    }

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
