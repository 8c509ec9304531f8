//! A walk over a tree, whose files may change meanwhile.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, fgetxattr, flistxattr, fstat, lgetxattr, llistxattr,
    major, minor, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use super::write::{Archive, Contents, Entry};
use crate::error::Failure;
use crate::image::layer::lower::seen;
use crate::image::layer::mount_points::MountPoints;
use crate::image::tar::header::shown;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// Levels whose directories are held open; those above are opened anew when the walk comes back.
const HELD: usize = 64;
/// The longest name that a reader of the archive could make, in bytes.
const MAX_NAME: usize = 4095;
/// Warnings that go to the log; the rest is counted.
const WARNINGS: usize = 10;

/// What a tree is.
#[derive(Debug, Clone, Copy)]
pub(super) enum View<'a> {
    /// What overlayfs keeps of changes.
    Upper {
        /// The directories below it, the topmost first.
        lowers: &'a [BorrowedFd<'a>],
        /// The engine's mount points, which are no changes.
        points: &'a MountPoints,
    },
    /// What a container sees.
    Merged,
}

/// A walk in the order of names.
pub(super) struct Walk<'a> {
    root: BorrowedFd<'a>,
    view: View<'a>,
    archive: Archive<'a>,
    /// The directories from the root down to where the walk is.
    levels: Vec<Level>,
    /// Path of the directory where the walk is, with a slash behind it; the root's is empty.
    path: Vec<u8>,
    /// Files that have several names, by device and inode: the only thing that grows with the tree.
    links: HashMap<(u64, u64), Linked>,
    warnings: usize,
}

/// A file that has several names.
struct Linked {
    /// The one that it was packed by.
    first: Box<[u8]>,
    /// How many are still to come.
    left: u64,
}

/// A directory on the way.
struct Level {
    directory: Option<OwnedFd>,
    /// Nothing of the layers below is seen in it.
    hides: bool,
    /// Names yet to come, the next one last.
    names: Vec<(Box<[u8]>, FileType)>,
    /// How long the path of the directory above is.
    above: usize,
}

/// Attributes of a file, and what they say about it as a part of an overlay.
#[derive(Default)]
struct Attributes {
    packed: Vec<(Vec<u8>, Vec<u8>)>,
    opaque: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, view: View<'a>, sink: &'a mut dyn Write) -> Walk<'a> {
        let archive = Archive::new(sink);
        Walk { root, view, archive, levels: Vec::new(), path: Vec::new(), links: HashMap::new(), warnings: 0 }
    }

    pub(super) fn run(mut self) -> Result<()> {
        let root = self.open(self.root, b".", OFlags::DIRECTORY).context("open root")?;
        self.enter(root, 0, false)?;
        while let Some(level) = self.levels.last_mut() {
            let Some((name, kind)) = level.names.pop() else {
                self.path.truncate(level.above);
                self.levels.pop();
                continue;
            };
            if level.directory.is_none() {
                level.directory = Some(open(self.root, &self.path, OFlags::DIRECTORY).context("open directory")?);
            }
            let base = self.path.len();
            self.path.extend_from_slice(&name);
            let result = self.member(&name, kind, base);
            // A directory that was entered keeps its name on the path.
            result.with_context(|| format!("pack {}", shown(&self.path)))?;
        }
        if self.warnings > WARNINGS {
            tracing::warn!("pack: {} more warnings of this kind", self.warnings - WARNINGS);
        }
        self.archive.finish().context("write archive")
    }

    fn open(&self, directory: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        open(directory, name, flags)
    }

    /// The directory where the walk is.
    fn here(&self) -> BorrowedFd<'_> {
        self.levels.last().and_then(|level| level.directory.as_ref()).map_or(self.root, |directory| directory.as_fd())
    }

    /// One member, whose path is complete; `base` is how long its directory's is.
    fn member(&mut self, name: &[u8], kind: FileType, base: usize) -> Result<()> {
        if self.path.len() >= MAX_NAME {
            bail!("a path is longer than {MAX_NAME} bytes");
        }
        if matches!(self.view, View::Upper { points, .. } if points.contains(&self.path)) {
            self.path.truncate(base);
            return Ok(());
        }
        if matches!(self.view, View::Upper { .. }) && name.starts_with(WHITEOUT) {
            self.warn("a layer cannot have a file whose name begins with .wh.");
            self.path.truncate(base);
            return Ok(());
        }
        if kind == FileType::Directory
            && let Some(directory) = self.opened(name, OFlags::DIRECTORY)?
        {
            return self.directory(directory, base);
        }
        if kind != FileType::Directory {
            self.leaf(name, base)?;
        }
        self.path.truncate(base);
        Ok(())
    }

    /// Opens `name`; `None`, after whatever is to be said of it, when it is gone or another file system.
    fn opened(&mut self, name: &[u8], flags: OFlags) -> Result<Option<OwnedFd>> {
        match self.open(self.here(), name, flags) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => {
                self.warn("it went while the archive was written");
                Ok(None)
            }
            Err(Errno::XDEV) => {
                self.mount_point(name)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What stands where something is mounted: the place alone.
    fn mount_point(&mut self, name: &[u8]) -> Result<()> {
        let stat = statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let name = [&self.path[..], b"/"].concat();
                self.header(&Entry { name: &name, kind: b'5', ..entry(&stat) })
            }
            _ => self.archive.header(&Entry { name: &self.path, kind: b'0', ..entry(&stat) }).context("write archive"),
        }
    }

    fn directory(&mut self, directory: OwnedFd, base: usize) -> Result<()> {
        let stat = fstat(&directory)?;
        let attributes = self.attributes(&Attributed::Open(directory.as_fd()))?;
        self.path.push(b'/');
        self.archive
            .header(&Entry { name: &self.path, kind: b'5', xattrs: &attributes.packed, ..entry(&stat) })
            .context("write archive")?;
        if attributes.opaque {
            let name = [&self.path[..], OPAQUE_MARK].concat();
            self.header(&Entry { name: &name, kind: b'0', ..entry(&stat) })?;
        }
        let hides = attributes.opaque || self.levels.last().is_some_and(|level| level.hides);
        self.enter(directory, base, hides)
    }

    /// Goes down into a directory whose path is set.
    fn enter(&mut self, directory: OwnedFd, above: usize, hides: bool) -> Result<()> {
        let mut names = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(&directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
                known => known,
            };
            names.push((name.into(), kind));
        }
        names.sort_unstable_by(|(a, _), (b, _): &(Box<[u8]>, FileType)| b.cmp(a));
        if let Some(depth) = self.levels.len().checked_sub(HELD) {
            self.levels[depth].directory = None;
        }
        self.levels.push(Level { directory: Some(directory), hides, names, above });
        Ok(())
    }

    /// A member that is no directory.
    fn leaf(&mut self, name: &[u8], base: usize) -> Result<()> {
        let stat = match statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                self.warn("it went while the archive was written");
                return Ok(());
            }
            other => other?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 && matches!(self.view, View::Upper { .. }) {
            return self.whiteout(name, base, &stat);
        }
        if kind == FileType::Socket {
            self.warn("an archive cannot have sockets");
            // What it replaced does not come back for that.
            let hides = self.levels.last().is_some_and(|level| level.hides);
            return match self.view {
                View::Upper { lowers, .. } if !hides && seen(lowers, &self.path)?.is_some() => {
                    self.whiteout(name, base, &stat)
                }
                _ => Ok(()),
            };
        }
        if kind == FileType::RegularFile {
            return match self.opened(name, OFlags::NONBLOCK)? {
                Some(file) => self.file(&file.into()),
                None => Ok(()),
            };
        }
        if self.linked(&stat)? {
            return Ok(());
        }
        let kind = match kind {
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            FileType::Fifo => b'6',
            // A directory now: whoever puts one there meanwhile gets it into the next archive.
            _ => {
                self.warn("it was replaced while the archive was written");
                return Ok(());
            }
        };
        let link = if kind == b'2' { readlinkat(self.here(), name, Vec::new())?.into_bytes() } else { Vec::new() };
        let device =
            if matches!(kind, b'3' | b'4') { (major(stat.st_rdev), minor(stat.st_rdev)) } else { Default::default() };
        let attributes = self.attributes(&Attributed::named(self.here(), name))?;
        let xattrs = &attributes.packed;
        self.archive
            .header(&Entry { name: &self.path, kind, link: &link, device, xattrs, ..entry(&stat) })
            .context("write archive")
    }

    fn whiteout(&mut self, name: &[u8], base: usize, stat: &Stat) -> Result<()> {
        let hidden = [&self.path[..base], WHITEOUT, name].concat();
        self.header(&Entry { name: &hidden, kind: b'0', mode: 0o600, ..entry(stat) })
    }

    fn file(&mut self, file: &File) -> Result<()> {
        let stat = fstat(file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.warn("it was replaced while the archive was written");
            return Ok(());
        }
        if self.linked(&stat)? {
            return Ok(());
        }
        let attributes = self.attributes(&Attributed::Open(file.as_fd()))?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.archive
            .header(&Entry { name: &self.path, kind: b'0', size, xattrs: &attributes.packed, ..entry(&stat) })
            .context("write archive")?;
        if self.archive.contents(file, size).context("copy contents")? == Contents::Short {
            self.warn("it became shorter while the archive was written: zeros stand for the rest");
        }
        Ok(())
    }

    /// Writes a hard link when the file was written before by another name.
    fn linked(&mut self, stat: &Stat) -> Result<bool> {
        if stat.st_nlink <= 1 {
            return Ok(false);
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(known) = self.links.get_mut(&key) else {
            self.links.insert(key, Linked { first: self.path[..].into(), left: stat.st_nlink - 1 });
            return Ok(false);
        };
        known.left -= 1;
        let done = known.left == 0;
        let entry = Entry { name: &self.path, kind: b'1', link: &known.first, ..entry(stat) };
        self.archive.header(&entry).context("write archive")?;
        if done {
            self.links.remove(&key);
        }
        Ok(true)
    }

    fn header(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.archive.header(entry).context("write archive")
    }

    /// The attributes that go into a layer: a user's own, capabilities and access lists.
    fn attributes(&self, file: &Attributed<'_>) -> Result<Attributes> {
        let mut attributes = Attributes::default();
        let mut names = vec![0; 1024];
        let length = loop {
            match file.list(&mut names[..]) {
                Ok(length) => break length,
                // It went meanwhile, or its file system has none.
                Err(Errno::NOENT | Errno::OPNOTSUPP) => return Ok(attributes),
                // The kernel gives at most 64 KiB (xattr(7)).
                Err(Errno::RANGE) if names.len() < 128 << 10 => names.resize(names.len() * 2, 0),
                Err(error) => return Err(error).context("list attributes"),
            }
        };
        let mut names: Vec<&[u8]> = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        for name in names {
            if matches!(self.view, View::Upper { .. }) && name.starts_with(b"trusted.overlay.") {
                match &name[b"trusted.overlay.".len()..] {
                    b"opaque" => attributes.opaque = file.value(name)?.is_some_and(|value| value == b"y"),
                    b"redirect" | b"metacopy" => {
                        let message =
                            "the overlay was mounted with redirect_dir or metacopy: its changes make no layer";
                        return Err(Failure::engine(message)
                            .with_hint(
                                "turn both off (/sys/module/overlay/parameters/) and make the changes in a new container",
                            )
                            .into());
                    }
                    _ => {}
                }
            } else if (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
                || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
            {
                attributes.packed.extend(file.value(name)?.map(|value| (name.to_vec(), value)));
            }
        }
        Ok(attributes)
    }

    fn warn(&mut self, reason: &str) {
        self.warnings += 1;
        if self.warnings <= WARNINGS {
            tracing::warn!("pack {}: {reason}", shown(&self.path));
        }
    }
}

/// A file whose attributes are read.
enum Attributed<'a> {
    Open(BorrowedFd<'a>),
    /// By a path: what is no file and no directory is not opened.
    Named(Vec<u8>),
}

impl Attributed<'_> {
    /// There is no getxattrat before Linux 6.13: the directory through its descriptor, the last component not followed.
    fn named(directory: BorrowedFd<'_>, name: &[u8]) -> Self {
        let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        Attributed::Named(path)
    }

    fn list(&self, names: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Attributed::Open(file) => flistxattr(file, names),
            Attributed::Named(path) => llistxattr(&path[..], names),
        }
    }

    /// The value of an attribute; `None` when it is gone or means nothing.
    fn value(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; 256];
        loop {
            let length = match self {
                Attributed::Open(file) => fgetxattr(file, name, &mut value[..]),
                Attributed::Named(path) => lgetxattr(&path[..], name, &mut value[..]),
            };
            match length {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(Some(value));
                }
                // EINVAL: a capability that is none, which the kernel lets be written and does not tell.
                Err(Errno::NOENT | Errno::NODATA | Errno::INVAL) => return Ok(None),
                Err(Errno::RANGE) if value.len() < 128 << 10 => value.resize(value.len() * 2, 0),
                Err(error) => return Err(error).with_context(|| format!("read attribute {}", shown(name))),
            }
        }
    }
}

/// Opens what is at `name` below `directory` without leaving its file system or following links.
fn open(directory: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let name = if name.is_empty() { b"." } else { name };
    let attempt = |extra| {
        loop {
            match openat2(directory, name, flags | extra, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    };
    // Reading must not look like use; but only to the owner and who may act as such is that granted (open(2)).
    match attempt(OFlags::NOATIME) {
        Err(Errno::PERM) => attempt(OFlags::empty()),
        other => other,
    }
}

/// What a header says of every kind of file.
fn entry(stat: &Stat) -> Entry<'static> {
    Entry {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        ..Entry::default()
    }
}
