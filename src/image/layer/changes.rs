//! What a container changed, as `diff` tells it: the upper directory of its overlay against the layers below.

use std::collections::{BTreeMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{OFlags, RawDir, Stat, fstat};

use super::lower::{Below, is_directory, is_opaque, is_whiteout, open_at};
use super::mount_points::MountPoints;
use crate::image::tar::header::shown;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// `C`: a lower layer has it too, or something below it was changed.
    Changed,
    /// `A`: no lower layer has it.
    Added,
    /// `D`: a lower layer has it, the container no longer does.
    Deleted,
}

/// The longest path that can be looked up, in bytes.
const MAX_PATH: usize = 4095;

/// The changes in `upper` against `lowers` (the topmost first), sorted by path; paths begin with `/`.
///
/// The engine's mount points are no changes. As in Docker: a file counts as changed when its owner, mode, size or time
/// differ, a directory when its owner or mode do or something in it changed. What is below a directory that was deleted
/// is not told.
///
/// # Errors
/// A directory that cannot be read, a path that is too long to be looked up.
pub(in crate::image) fn changes(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    points: &MountPoints,
) -> Result<Vec<(Change, Vec<u8>)>> {
    let mut found = BTreeMap::new();
    // Directories to be visited, by path, each with the layers that have it and are seen there, and whether one above
    // it hides them: overlayfs marks what is made anew, and not what is then made in it.
    let mut open = vec![(Vec::new(), (0..lowers.len()).collect::<Vec<_>>(), false)];
    while let Some((path, below, hidden)) = open.pop() {
        let context = || format!("compare {}", shown(&path));
        if path.len() > MAX_PATH {
            bail!("compare {}: the path is longer than {MAX_PATH} bytes", shown(&path));
        }
        let Some(directory) = open_at(upper, &path, OFlags::RDONLY | OFlags::DIRECTORY).with_context(context)? else {
            continue;
        };
        let names = names(&directory).with_context(context)?;
        let hides = hidden || is_opaque(directory.as_fd());
        if hides {
            for name in seen_in(lowers, &below, &path).with_context(context)? {
                if names.binary_search(&name).is_err() {
                    found.insert(joined(&path, &name), Change::Deleted);
                }
            }
        }
        for name in names {
            let path = joined(&path, &name);
            if points.contains(&path) {
                continue;
            }
            let Some(file) = open_at(upper, &path, OFlags::PATH).with_context(context)? else { continue };
            let stat = fstat(&file)?;
            let lower = Below::look(lowers, &below, &path).with_context(context)?;
            if is_whiteout(&stat) {
                if lower.stat.is_some() {
                    found.insert(path, Change::Deleted);
                }
                continue;
            }
            match &lower.stat {
                None => drop(found.insert(path.clone(), Change::Added)),
                Some(before) if same(before, &stat) => {}
                Some(_) => drop(found.insert(path.clone(), Change::Changed)),
            }
            if is_directory(&stat) {
                open.push((path, lower.directories, hides));
            }
        }
    }
    for path in found.keys().cloned().collect::<Vec<_>>() {
        let mut above = &path[..];
        while let Some(slash) = above.iter().rposition(|byte| *byte == b'/') {
            above = &above[..slash];
            if found.contains_key(above) {
                break;
            }
            found.insert(above.to_vec(), Change::Changed);
        }
    }
    Ok(found.into_iter().map(|(path, change)| (change, [b"/", &path[..]].concat())).collect())
}

/// Names that the lower layers together show in a directory.
fn seen_in(lowers: &[BorrowedFd<'_>], layers: &[usize], path: &[u8]) -> Result<Vec<Box<[u8]>>> {
    let mut seen = Vec::new();
    let mut known: HashSet<Box<[u8]>> = HashSet::new();
    for layer in layers {
        let Some(directory) = open_at(lowers[*layer], path, OFlags::RDONLY | OFlags::DIRECTORY)? else { continue };
        for name in names(&directory)? {
            if !known.insert(name.clone()) {
                continue;
            }
            let file = open_at(lowers[*layer], &joined(path, &name), OFlags::PATH)?;
            if let Some(file) = file
                && !is_whiteout(&fstat(&file)?)
            {
                seen.push(name);
            }
        }
    }
    Ok(seen)
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// The names in a directory, sorted.
fn names(directory: &OwnedFd) -> Result<Vec<Box<[u8]>>> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        match entry?.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(Box::from(name)),
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a file was copied up and nothing of it changed: what Docker compares, which is less than all. The time of
/// a directory tells nothing but that something in it changed, and that is told of the thing itself.
fn same(before: &Stat, now: &Stat) -> bool {
    let worn = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    let content = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    worn(before) == worn(now) && (is_directory(now) || content(before) == content(now))
}
