//! The directories that members are in: found, made where they are missing, held open, and finished.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat, statat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::member::Owner;
use super::opaque::{Opaque, is_whiteout};
use super::open_below;
use super::owner::{SET_ID, set_inherited};
use crate::image::tar::header::shown;
use crate::sys::tree;

/// Directories that are held open: members of one come together, and often in turn with those of a few others.
const HELD: usize = 16;
/// Bytes that what is kept of directories to the end may take.
const MAX_LATE: usize = 64 << 20;

/// The directories of a layer that is being unpacked.
pub(super) struct Directories<'a> {
    root: BorrowedFd<'a>,
    /// By path, the last used last. Only good for `*at` calls (`O_PATH`).
    held: Vec<(Vec<u8>, Rc<OwnedFd>)>,
    late: Late,
    opaque: Opaque,
    /// Whether there is a whiteout.
    whiteouts: bool,
    /// Whether a directory or a link was replaced, so that paths may lead elsewhere now.
    moved: bool,
}

/// What directories get at the end, because every member below would change it or inherit from it. Each
/// record is a path, of which as much is left out as it shares with the one before, then time, mode and
/// access list: layers with a million directories are kept in mind with less than forty bytes for each.
#[derive(Default)]
struct Late {
    records: Vec<u8>,
    last: Vec<u8>,
}

/// Splits a plain path into its parent's and the last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

impl<'a> Directories<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Directories<'a> {
        Directories {
            root,
            held: Vec::with_capacity(HELD),
            late: Late::default(),
            opaque: Opaque::default(),
            whiteouts: false,
            moved: false,
        }
    }

    /// Finds a directory below the root.
    pub(super) fn find(&mut self, path: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
        if let Some(at) = self.held.iter().rposition(|(known, _)| known == path) {
            let last = self.held.len() - 1;
            if at != last {
                self.held[at..].rotate_left(1);
            }
            return Ok(Rc::clone(&self.held[last].1));
        }
        open_below(self.root, path, OFlags::PATH).map(|directory| self.hold(path, directory))
    }

    /// Finds a directory below the root, making those of its components that are missing.
    pub(super) fn find_or_make(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        match self.find(path) {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let directory = self.make(path)?;
                Ok(self.hold(path, directory))
            }
            Err(error) => Err(error).with_context(|| format!("open directory {}", shown(path))),
        }
    }

    fn hold(&mut self, path: &[u8], directory: OwnedFd) -> Rc<OwnedFd> {
        let directory = Rc::new(directory);
        let mut name = if self.held.len() == HELD { self.held.remove(0).0 } else { Vec::new() };
        name.clear();
        name.extend_from_slice(path);
        self.held.push((name, Rc::clone(&directory)));
        directory
    }

    /// Forgets what paths led to: something on them was replaced.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.moved = true;
    }

    /// Makes `directory`, which is at `path`, opaque.
    pub(super) fn make_opaque(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        self.opaque.mark(directory, path)
    }

    /// Takes note that there is a whiteout.
    pub(super) fn note_whiteout(&mut self) {
        self.whiteouts = true;
    }

    fn make(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let mut current = open_below(self.root, b"", OFlags::PATH)?;
        let mut fresh = false;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let (upto, name) = (&path[..end], split(&path[..end]).1);
            // Below what was just made nothing is to be found, and no link leads elsewhere.
            let found = if fresh { Err(Errno::NOENT) } else { open_below(self.root, upto, OFlags::PATH) };
            let next = match found {
                Err(Errno::NOENT) => {
                    fresh = true;
                    mkdirat(&current, name, Mode::from_raw_mode(0o755)).and_then(|()| {
                        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        openat(&current, name, flags, Mode::empty())
                    })
                }
                Err(Errno::NOTDIR) if is_whiteout(current.as_fd(), name) => {
                    // The directory goes on hiding the one below.
                    unlinkat(&current, name, AtFlags::empty())
                        .and_then(|()| mkdirat(&current, name, Mode::from_raw_mode(0o755)))
                        .with_context(|| format!("make directory {}", shown(upto)))?;
                    self.opaque.mark(tree::open_directory(current.as_fd(), name)?.as_fd(), upto)?;
                    open_below(self.root, upto, OFlags::PATH)
                }
                other => other,
            };
            current = next.with_context(|| format!("make directory {}", shown(upto)))?;
        }
        Ok(current)
    }

    /// Remembers what the new directory at `path` gets at the end.
    pub(super) fn finish_later(&mut self, path: &[u8], owner: &Owner) -> Result<()> {
        let mode = owner.mode.intersects(SET_ID).then_some(owner.mode);
        self.remember(path, owner, mode)
    }

    /// The same for a directory that may be to get another mode already.
    pub(super) fn finish_later_again(&mut self, path: &[u8], owner: &Owner) -> Result<()> {
        self.remember(path, owner, Some(owner.mode))
    }

    fn remember(&mut self, path: &[u8], owner: &Owner, mode: Option<Mode>) -> Result<()> {
        self.late.push(path, owner.mtime, mode, owner.inherited());
        if self.late.records.len() > MAX_LATE {
            bail!("the names of directories take more than {MAX_LATE} bytes");
        }
        Ok(())
    }

    /// Gives directories what they were to get at the end.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.whiteouts {
            self.opaque.settle(self.root)?;
        }
        let late = std::mem::take(&mut self.late);
        let mut path = Vec::new();
        let mut records = &late.records[..];
        while let Some(record) = Record::take(&mut records, &mut path) {
            match self.finish_one(&path, &record) {
                // A later member replaced it.
                Err(error)
                    if self.moved
                        && matches!(error.downcast_ref(), Some(&(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))) => {}
                other => other.with_context(|| format!("set times of {}", shown(&path)))?,
            }
        }
        Ok(())
    }

    fn finish_one(&mut self, path: &[u8], record: &Record<'_>) -> Result<()> {
        let times = Timestamps { last_access: record.mtime, last_modification: record.mtime };
        if path.is_empty() || record.mode.is_some() || record.inherited.is_some() {
            let directory = match split(path) {
                (b"", b"") => open_below(self.root, b"", OFlags::RDONLY)?,
                (parent, name) => tree::open_directory(self.find(parent)?.as_fd(), name)?,
            };
            if let Some(mode) = record.mode {
                fchmod(&directory, mode)?;
            }
            if let Some(value) = record.inherited {
                set_inherited(directory.as_fd(), value)?;
            }
            return Ok(futimens(&directory, &times)?);
        }
        let (parent, name) = split(path);
        let parent = self.find(parent)?;
        if self.moved {
            let stat = statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(());
            }
        }
        Ok(utimensat(&*parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

impl Late {
    fn push(&mut self, path: &[u8], mtime: Timespec, mode: Option<Mode>, inherited: Option<&[u8]>) {
        let shared = path.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        // Names are at most PATH_MAX long, attributes 64 KiB as the kernel has it: beyond, none is kept.
        let inherited = inherited.filter(|value| value.len() < usize::from(u16::MAX));
        let lengths = [shared, path.len() - shared, inherited.map_or(0, |value| value.len() + 1)];
        for length in lengths {
            self.records.extend_from_slice(&(length as u16).to_le_bytes());
        }
        self.records.extend_from_slice(&path[shared..]);
        self.records.extend_from_slice(inherited.unwrap_or_default());
        self.records.extend_from_slice(&mtime.tv_sec.to_le_bytes());
        self.records.extend_from_slice(&(mtime.tv_nsec as u32).to_le_bytes());
        self.records.extend_from_slice(&(mode.map_or(u16::MAX, |mode| mode.as_raw_mode() as u16)).to_le_bytes());
        self.last.clear();
        self.last.extend_from_slice(path);
    }
}

/// What one directory gets at the end.
struct Record<'a> {
    mtime: Timespec,
    mode: Option<Mode>,
    inherited: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Takes the next record off `records`; `path` becomes its path.
    fn take(records: &mut &'a [u8], path: &mut Vec<u8>) -> Option<Record<'a>> {
        let mut next = |length: usize| records.split_off(..length);
        let mut short = || Some(usize::from(u16::from_le_bytes(next(2)?.try_into().ok()?)));
        let (shared, rest, inherited) = (short()?, short()?, short()?);
        path.truncate(shared);
        path.extend_from_slice(next(rest)?);
        let inherited = match inherited {
            0 => None,
            length => Some(next(length - 1)?),
        };
        let tv_sec = i64::from_le_bytes(next(8)?.try_into().ok()?);
        let tv_nsec = u32::from_le_bytes(next(4)?.try_into().ok()?).into();
        let mode = u16::from_le_bytes(next(2)?.try_into().ok()?);
        let mode = (mode != u16::MAX).then(|| Mode::from_raw_mode(mode.into()));
        Some(Record { mtime: Timespec { tv_sec, tv_nsec }, mode, inherited })
    }
}
