//! The layer applier: unpacks a tar stream below a directory that is held as a descriptor.
//!
//! A layer is a stranger's text. Every name is resolved below the layer's root by the kernel
//! (`openat2` with `RESOLVE_IN_ROOT`, openat2(2)), so neither `..`, nor an absolute name, nor a symbolic
//! link that an earlier member planted leads outside; the last component is only ever touched by `*at`
//! calls that do not follow links. Whiteouts (OCI image spec, layer.md) become what overlayfs takes for
//! them: a character device 0/0, or the attribute `trusted.overlay.opaque` on a directory.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use tar::EntryType;

use super::digest::Digest;
use super::header::{Pax, components, field, shown};
use super::stream::{Meter, Metered};
use crate::sys::tree;

/// How much one layer may ask for; beyond is an error, not a full disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Members of the archive.
    pub(super) entries: u64,
    /// Bytes of all files together, holes included.
    pub(super) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { entries: 4_000_000, bytes: 64 << 30 }
    }
}

/// Bytes that the headers of one member may take, long names and attributes included.
const MAX_HEADERS: u64 = 1 << 20;
/// Bytes that all names of directories together may take: they are kept to the end.
const MAX_DIRECTORY_NAMES: usize = 256 << 20;
const WHITEOUT: &[u8] = b".wh.";
/// Prefix of marks that AUFS kept for itself.
const AUFS_MARK: &[u8] = b".wh..wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// What a layer turned out to be.
#[derive(Debug)]
pub(super) struct Applied {
    /// Digest of the uncompressed archive.
    pub(super) diff_id: Digest,
    /// Bytes of all files together.
    pub(super) size: u64,
    /// Whether the archive has its end mark; without one it may have been cut between two members.
    pub(super) has_end: bool,
}

/// Unpacks the uncompressed tar stream `input` into `root`.
///
/// # Errors
/// The first member that is malformed, leads outside, exceeds `limits` or cannot be created. What was
/// unpacked until then is left for the caller to remove.
pub(super) fn apply(input: impl Read, root: BorrowedFd<'_>, limits: &Limits) -> Result<Applied> {
    let meter = Meter::new();
    let mut archive = tar::Archive::new(Metered::new(input, &meter));
    let mut applier =
        Applier { root, limits, parent: None, times: Vec::new(), name_bytes: 0, bytes: 0, buffer: vec![0; 128 << 10] };
    let mut members = archive.entries().context("read archive")?;
    let mut count = 0;
    let has_end = loop {
        meter.headers(MAX_HEADERS);
        let Some(member) = members.next() else {
            break meter.with_blocks(|blocks| blocks.len() >= 512 && blocks[..512].iter().all(|byte| *byte == 0));
        };
        let mut member = match member {
            Ok(member) => member,
            Err(_) if meter.ended() => bail!("archive is truncated"),
            Err(error) => return Err(error).context("read archive"),
        };
        count += 1;
        if count > limits.entries {
            bail!("the archive has more than {} members", limits.entries);
        }
        let pax = meter.with_blocks(Pax::read).context("read archive")?;
        let name = pax.path.clone().unwrap_or_else(|| member.path_bytes().into_owned());
        meter.content(member.size());
        applier.member(&mut member, &name, pax).with_context(|| format!("unpack {}", shown(&name)))?;
    };
    applier.directory_times()?;
    let size = applier.bytes;
    // The digest covers what follows the end mark too.
    meter.content(limits.bytes);
    let mut reader = archive.into_inner();
    std::io::copy(&mut reader, &mut std::io::sink()).context("read archive")?;
    Ok(Applied { diff_id: meter.digest(), size, has_end })
}

struct Applier<'a> {
    root: BorrowedFd<'a>,
    limits: &'a Limits,
    /// The directory looked up last, by name: members of one directory come together.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Times of directories, set at the end because every member below changes them.
    times: Vec<(Vec<u8>, Timespec)>,
    name_bytes: usize,
    bytes: u64,
    buffer: Vec<u8>,
}

/// Owner, mode, time and attributes of a member.
struct Metadata {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    mtime: Timespec,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    fn read(header: &tar::Header, pax: Pax) -> Result<Metadata> {
        // 4294967295 is not an owner but chown(2)'s "leave as it is".
        let id = |value: u64| u32::try_from(value).ok().filter(|id| *id != u32::MAX).context("owner out of range");
        let raw = header.as_old();
        let uid = id(pax.uid.map_or_else(|| field(&raw.uid, header.uid()), Ok)?)?;
        let gid = id(pax.gid.map_or_else(|| field(&raw.gid, header.gid()), Ok)?)?;
        // Times before 1970 stand in two's complement.
        let seconds = || header.mtime().unwrap_or(0).cast_signed();
        let mtime = pax.mtime.unwrap_or_else(|| Timespec { tv_sec: seconds(), tv_nsec: 0 });
        let mode = Mode::from_raw_mode(field(&raw.mode, header.mode())? & 0o7777);
        Ok(Metadata { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), mode, mtime, xattrs: pax.xattrs })
    }

    fn times(&self) -> Timestamps {
        Timestamps { last_access: self.mtime, last_modification: self.mtime }
    }
}

impl Applier<'_> {
    fn member<R: Read>(&mut self, member: &mut tar::Entry<'_, R>, name: &[u8], mut pax: Pax) -> Result<()> {
        let kind = member.header().entry_type();
        if kind.is_pax_global_extensions() {
            return self.skip(member);
        }
        if pax.sparse {
            bail!("sparse files in PAX form are not supported: pack it without --sparse");
        }
        if pax.size.is_some_and(|size| size != member.size()) {
            bail!("the archive contradicts itself about the size");
        }
        let path = components(name)?;
        let link = match pax.link.take() {
            Some(link) => Some(link),
            None => member.link_name_bytes().map(|link| link.into_owned()),
        };
        let metadata = Metadata::read(member.header(), pax)?;
        if path.iter().any(|part| part.starts_with(AUFS_MARK) && *part != OPAQUE_MARK) {
            return self.skip(member);
        }
        let Some((last, parents)) = path.split_last() else {
            if kind.is_dir() {
                self.dress_directory(self.root, Vec::new(), &metadata)?;
            }
            return self.skip(member);
        };
        if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
            bail!("a whiteout cannot have members below it");
        }
        let parent = self.directory(parents)?;
        if last.starts_with(WHITEOUT) {
            self.whiteout(&parent, last)?;
            return self.skip(member);
        }
        // Old archives mark a directory by the slash alone.
        let slashed = kind.is_file() && name.ends_with(b"/") && member.size() == 0;
        match kind {
            EntryType::Directory => self.make_directory(&parent, &path, &metadata)?,
            _ if slashed => self.make_directory(&parent, &path, &metadata)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.make_file(&parent, last, member, &metadata);
            }
            EntryType::Symlink => {
                let target = link.filter(|target| !target.is_empty()).context("a symbolic link has no target")?;
                self.replace(&parent, last)?;
                symlinkat(&target[..], &parent, *last)?;
                self.dress(&parent, last, &metadata)?;
            }
            EntryType::Link => self.hard_link(&parent, last, &link.context("a hard link has no target")?)?,
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let file_type = match kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let header = member.header();
                let device = match kind {
                    EntryType::Fifo => 0,
                    _ => {
                        makedev(header.device_major()?.unwrap_or_default(), header.device_minor()?.unwrap_or_default())
                    }
                };
                self.replace(&parent, last)?;
                mknodat(&parent, *last, file_type, Mode::RUSR | Mode::WUSR, device).context("make device node")?;
                self.dress(&parent, last, &metadata)?;
                // Not through the name: chmod by name follows links, and has no form that does not before
                // Linux 6.6. This descriptor is of the node itself.
                let node = openat(&parent, *last, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                rustix::fs::chmod(format!("/proc/self/fd/{}", node.as_raw_fd()), metadata.mode)?;
            }
            other => bail!("members of type {:?} are not supported", char::from(other.as_byte())),
        }
        self.skip(member)
    }

    /// Reads what a member without contents carries all the same.
    fn skip<R: Read>(&mut self, member: &mut tar::Entry<'_, R>) -> Result<()> {
        self.account(member.size())?;
        self.bytes -= member.size();
        std::io::copy(member, &mut std::io::sink())?;
        Ok(())
    }

    fn account(&mut self, size: u64) -> Result<()> {
        match self.bytes.checked_add(size).filter(|sum| *sum <= self.limits.bytes) {
            Some(sum) => self.bytes = sum,
            None => bail!("the layer unpacks to more than {} bytes", self.limits.bytes),
        }
        Ok(())
    }

    /// Opens a directory below the root, making those of its components that are missing.
    fn directory(&mut self, path: &[&[u8]]) -> Result<Rc<OwnedFd>> {
        let joined = path.join(&b'/');
        if let Some((name, directory)) = &self.parent
            && *name == joined
        {
            return Ok(Rc::clone(directory));
        }
        let directory = match open_below(self.root, &joined, OFlags::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => self.make_directories(path)?,
            Err(error) => return Err(error).with_context(|| format!("open directory {}", shown(&joined))),
        };
        let directory = Rc::new(directory);
        self.parent = Some((joined, Rc::clone(&directory)));
        Ok(directory)
    }

    fn make_directories(&self, path: &[&[u8]]) -> Result<OwnedFd> {
        let mut current = open_below(self.root, b"", OFlags::empty())?;
        for end in 1..=path.len() {
            let joined = path[..end].join(&b'/');
            let result = match open_below(self.root, &joined, OFlags::empty()) {
                Err(Errno::NOENT) => mkdirat(&current, path[end - 1], Mode::RWXU)
                    .and_then(|()| open_below(self.root, &joined, OFlags::empty()))
                    .and_then(|made| fchmod(&made, Mode::from_raw_mode(0o755)).map(|()| made)),
                other => other,
            };
            current = result.with_context(|| format!("make directory {}", shown(&joined)))?;
        }
        Ok(current)
    }

    /// What stands at `name`.
    fn existing(parent: &OwnedFd, name: &[u8]) -> Result<Option<Existing>> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Existing::Directory,
                FileType::CharacterDevice if stat.st_rdev == 0 => Existing::Whiteout,
                _ => Existing::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes room at `name`: a later member replaces an earlier one of the same name.
    fn replace(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        if Self::existing(parent, name)?.is_some() {
            self.parent = None;
            tree::remove(parent.as_fd(), name).context("remove what it replaces")?;
        }
        Ok(())
    }

    fn whiteout(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        if name == OPAQUE_MARK {
            return set_opaque(parent.as_fd());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            bail!("a whiteout must hide a name");
        }
        // A whiteout hides what layers below have; what this layer itself has by that name stays seen.
        match Self::existing(parent, hidden)? {
            None => Ok(mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
                .context("make whiteout")?),
            Some(Existing::Directory) => set_opaque(tree::open_directory(parent.as_fd(), hidden)?.as_fd()),
            Some(Existing::Whiteout | Existing::Other) => Ok(()),
        }
    }

    fn make_directory(&mut self, parent: &OwnedFd, path: &[&[u8]], metadata: &Metadata) -> Result<()> {
        let name = path[path.len() - 1];
        let existing = Self::existing(parent, name)?;
        if existing != Some(Existing::Directory) {
            self.replace(parent, name)?;
            mkdirat(parent, name, Mode::RWXU)?;
        }
        let directory = tree::open_directory(parent.as_fd(), name)?;
        if existing == Some(Existing::Whiteout) {
            // The whiteout came first: the directory must go on hiding the one below.
            set_opaque(directory.as_fd())?;
        }
        self.dress_directory(directory.as_fd(), path.join(&b'/'), metadata)
    }

    fn dress_directory(&mut self, directory: BorrowedFd<'_>, path: Vec<u8>, metadata: &Metadata) -> Result<()> {
        fchown(directory, Some(metadata.uid), Some(metadata.gid))?;
        fchmod(directory, metadata.mode)?;
        for (name, value) in allowed(&metadata.xattrs) {
            tolerate(fsetxattr(directory, name, value, XattrFlags::empty()), name)?;
        }
        self.name_bytes += path.len();
        if self.name_bytes > MAX_DIRECTORY_NAMES {
            bail!("the names of directories take more than {MAX_DIRECTORY_NAMES} bytes");
        }
        self.times.push((path, metadata.mtime));
        Ok(())
    }

    fn make_file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        member: &mut tar::Entry<'_, R>,
        metadata: &Metadata,
    ) -> Result<()> {
        let size = member.size();
        self.account(size)?;
        self.replace(parent, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
        let sparse = member.header().entry_type() == EntryType::GNUSparse;
        let mut left = size;
        while left > 0 {
            let count = match member.read(&mut self.buffer) {
                Ok(0) => bail!("archive is truncated"),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let chunk = &self.buffer[..count];
            if sparse && chunk.iter().all(|byte| *byte == 0) {
                std::io::Seek::seek_relative(&mut file, i64::try_from(count)?)?;
            } else {
                file.write_all(chunk)?;
            }
            left = left.checked_sub(count as u64).context("the archive contradicts itself about the size")?;
        }
        if sparse {
            file.set_len(size)?;
        }
        // Owner first: chown(2) takes away set-id bits and capabilities.
        fchown(&file, Some(metadata.uid), Some(metadata.gid))?;
        fchmod(&file, metadata.mode)?;
        for (name, value) in allowed(&metadata.xattrs) {
            tolerate(fsetxattr(&file, name, value, XattrFlags::empty()), name)?;
        }
        futimens(&file, &metadata.times())?;
        Ok(())
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &[u8], target: &[u8]) -> Result<()> {
        let target_path = components(target).context("hard link's target")?;
        let (target_name, target_parents) = target_path.split_last().context("a hard link to the root is refused")?;
        let joined = target_parents.join(&b'/');
        let context = || format!("link to {}", shown(target));
        let directory = open_below(self.root, &joined, OFlags::empty()).with_context(context)?;
        let found = statat(&directory, *target_name, AtFlags::SYMLINK_NOFOLLOW).with_context(context)?;
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(same) if (same.st_dev, same.st_ino) == (found.st_dev, found.st_ino) => return Ok(()),
            _ => self.replace(parent, name)?,
        }
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one to the link itself.
        linkat(&directory, *target_name, parent, name, AtFlags::empty()).with_context(context)
    }

    /// Owner, attributes and time of what is neither file nor directory. The mode of a symbolic link
    /// means nothing.
    fn dress(&self, parent: &OwnedFd, name: &[u8], metadata: &Metadata) -> Result<()> {
        chownat(parent, name, Some(metadata.uid), Some(metadata.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        for (xattr, value) in allowed(&metadata.xattrs) {
            // There is no setxattrat before Linux 6.13: the directory through its descriptor, the last
            // component not followed.
            let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            tolerate(lsetxattr(&path[..], xattr, value, XattrFlags::empty()), xattr)?;
        }
        Ok(utimensat(parent, name, &metadata.times(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn directory_times(&mut self) -> Result<()> {
        for (path, mtime) in std::mem::take(&mut self.times) {
            let directory = match open_below(self.root, &path, OFlags::NOFOLLOW) {
                Ok(directory) => directory,
                // A later member replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(error).with_context(|| format!("open directory {}", shown(&path))),
            };
            futimens(&directory, &Timestamps { last_access: mtime, last_modification: mtime })
                .with_context(|| format!("set times of {}", shown(&path)))?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Directory,
    Whiteout,
    Other,
}

/// Opens the directory `path` as if `root` were the root of the file system.
fn open_below(root: BorrowedFd<'_>, path: &[u8], extra: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | extra;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: something on the machine was renamed while `..` of a link was resolved (openat2(2)).
    for _ in 0..1000 {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Whether `path` leads to something below `root`, links included.
pub(super) fn exists(root: BorrowedFd<'_>, path: &[u8]) -> Result<bool> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look for {}", shown(path))),
    }
}

fn set_opaque(directory: BorrowedFd<'_>) -> Result<()> {
    fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty()).context("make directory opaque")
}

/// The attributes a layer may bring: a user's own, capabilities and access lists. Not overlayfs's
/// (`trusted.overlay.redirect` would show other directories), nor the host's security labels.
fn allowed(xattrs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let permitted = |name: &[u8]| {
        (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
            || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
    };
    xattrs.iter().map(|(name, value)| (&name[..], &value[..])).filter(move |(name, _)| permitted(name))
}

/// File systems and file types that know no such attribute go without, as in Docker.
fn tolerate(result: rustix::io::Result<()>, name: &[u8]) -> Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") => Ok(()),
        other => other.with_context(|| format!("set attribute {}", shown(name))),
    }
}
