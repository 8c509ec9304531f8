//! Members become files: one member at a time, each at its place below the layer's root.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, chownat, fchmod, fchown, linkat, makedev, mkdirat, mknodat, openat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::Limits;
use super::archive::Archive;
use super::directories::{Directories, split};
use super::member::{Kind, Map, Member};
use super::open_below;
use super::owner::{Maker, SET_ID, set_mode};
use crate::image::tar::header::{BLOCK, normalise, shown};
use crate::image::tar::sparse::{self, MapInContents, Segment};
use crate::sys::tree;

const WHITEOUT: &[u8] = b".wh.";
/// Prefix of marks that AUFS kept for itself.
const AUFS_MARK: &[u8] = b".wh..wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// Makes members below a root.
pub(super) struct Applier<'a> {
    root: BorrowedFd<'a>,
    limits: Limits,
    maker: Maker,
    directories: Directories<'a>,
    /// The member's name in its plain form.
    path: Vec<u8>,
    bytes: u64,
    skipped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Directory,
    Whiteout,
    Link,
    /// With contents.
    Data,
    /// Nothing that anything else could need.
    Other,
}

impl<'a> Applier<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, limits: Limits) -> Applier<'a> {
        let directories = Directories::new(root);
        Applier { root, limits, maker: Maker::this(), directories, path: Vec::new(), bytes: 0, skipped: 0 }
    }

    /// Bytes of all files together.
    pub(super) fn size(&self) -> u64 {
        self.bytes
    }

    /// Gives directories their times.
    pub(super) fn finish_directories(&mut self) -> Result<()> {
        self.directories.finish()
    }

    /// Makes one member, whose contents come next in `archive`.
    pub(super) fn member(&mut self, member: &Member, archive: &mut Archive<'_>) -> Result<()> {
        if member.kind == Kind::Global {
            return self.skip(member, archive);
        }
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        let result = normalise(&member.name, &mut path).and_then(|()| self.member_at(&path, member, archive));
        self.path = path;
        result
    }

    fn member_at(&mut self, path: &[u8], member: &Member, archive: &mut Archive<'_>) -> Result<()> {
        if path.is_empty() {
            if member.kind == Kind::Directory {
                let root = open_below(self.root, b"", OFlags::RDONLY)?;
                self.dress_directory(root.as_fd(), b"", member)?;
            }
            return self.skip(member, archive);
        }
        let (parents, last) = split(path);
        if path.windows(WHITEOUT.len()).any(|window| window == WHITEOUT) {
            let parts = || path.split(|byte| *byte == b'/');
            if parts().any(|part| part.starts_with(AUFS_MARK) && part != OPAQUE_MARK) {
                return self.skip(member, archive);
            }
            if parents.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
                bail!("a whiteout cannot have members below it");
            }
        }
        let parent = self.directories.find_or_make(parents)?;
        if last.starts_with(WHITEOUT) {
            self.whiteout(parent.as_fd(), parents, last)?;
            return self.skip(member, archive);
        }
        match member.kind {
            Kind::File => self.make_file(parent.as_fd(), path, member, archive),
            Kind::Directory => self.make_directory(parent.as_fd(), path, member, archive),
            Kind::Symlink => {
                if member.link.is_empty() {
                    bail!("a symbolic link has no target");
                }
                self.make(parent.as_fd(), last, archive, || symlinkat(&member.link[..], &parent, last))?;
                member.owner.dress_name(parent.as_fd(), last, self.maker)
            }
            Kind::HardLink => {
                self.hard_link(parent.as_fd(), last, &member.link, archive)?;
                member.owner.dress_link(parent.as_fd(), last)
            }
            Kind::Character => self.make_node(parent.as_fd(), last, FileType::CharacterDevice, member, archive),
            Kind::Block => self.make_node(parent.as_fd(), last, FileType::BlockDevice, member, archive),
            Kind::Fifo => self.make_node(parent.as_fd(), last, FileType::Fifo, member, archive),
            // Taken already.
            Kind::Global => Ok(()),
        }
    }

    /// Passes over contents that have no place.
    fn skip(&mut self, member: &Member, archive: &mut Archive<'_>) -> Result<()> {
        self.account(member.stored)?;
        self.bytes -= member.stored;
        self.skipped += member.stored;
        if archive.skip(member.stored)? < member.stored {
            bail!("archive is truncated");
        }
        Ok(())
    }

    fn account(&mut self, size: u64) -> Result<()> {
        let sum = self.bytes.checked_add(size).and_then(|sum| sum.checked_add(self.skipped));
        if sum.is_none_or(|sum| sum > self.limits.bytes) {
            bail!("the layer unpacks to more than {} bytes", self.limits.bytes);
        }
        self.bytes += size;
        Ok(())
    }

    /// What stands at `name`.
    fn existing(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Existing>> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Existing::Directory,
            FileType::CharacterDevice if stat.st_rdev == 0 => Existing::Whiteout,
            FileType::Symlink => Existing::Link,
            FileType::RegularFile if stat.st_size > 0 => Existing::Data,
            _ => Existing::Other,
        }))
    }

    /// Makes something at `name`. Nearly always nothing stands there, so that is seen by trying.
    fn make<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        archive: &mut Archive<'_>,
        mut make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.replace(parent, name, archive)?;
                Ok(make()?)
            }
            other => Ok(other?),
        }
    }

    /// Makes room at `name`: a later member replaces an earlier one of the same name.
    fn replace(&mut self, parent: BorrowedFd<'_>, name: &[u8], archive: &mut Archive<'_>) -> Result<()> {
        let Some(existing) = Self::existing(parent, name)? else { return Ok(()) };
        if existing == Existing::Directory && unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok() {
            self.directories.forget();
            return Ok(());
        }
        if matches!(existing, Existing::Directory | Existing::Data | Existing::Link) {
            archive.give_up_recipe()?;
        }
        if matches!(existing, Existing::Directory | Existing::Link) {
            self.directories.forget();
        }
        tree::remove(parent, name).context("remove what it replaces")
    }

    fn whiteout(&mut self, parent: BorrowedFd<'_>, parents: &[u8], name: &[u8]) -> Result<()> {
        if name == OPAQUE_MARK {
            let directory = openat(parent, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            return self.directories.make_opaque(directory.as_fd(), parents);
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            bail!("a whiteout must hide a name");
        }
        match mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Ok(()) => {
                self.directories.note_whiteout();
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context("make whiteout"),
        }
        // A whiteout hides what layers below have; what this layer itself has by that name stays seen.
        match Self::existing(parent, hidden)? {
            Some(Existing::Directory) => {
                let path = if parents.is_empty() { hidden.to_vec() } else { [parents, b"/", hidden].concat() };
                self.directories.make_opaque(tree::open_directory(parent, hidden)?.as_fd(), &path)
            }
            _ => Ok(()),
        }
    }

    fn make_directory(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        member: &Member,
        archive: &mut Archive<'_>,
    ) -> Result<()> {
        let (name, owner) = (split(path).1, &member.owner);
        match mkdirat(parent, name, owner.first_mode()) {
            Ok(()) => {
                if !self.maker.is(owner) {
                    chownat(parent, name, Some(owner.uid), Some(owner.gid), AtFlags::SYMLINK_NOFOLLOW)?;
                }
                if owner.has_attributes() {
                    owner.attributes(tree::open_directory(parent, name)?.as_fd())?;
                }
                return self.directories.finish_later(path, owner);
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let existing = Self::existing(parent, name)?;
        if existing != Some(Existing::Directory) {
            self.replace(parent, name, archive)?;
            mkdirat(parent, name, owner.first_mode())?;
        }
        let directory = tree::open_directory(parent, name)?;
        if existing == Some(Existing::Whiteout) {
            // The whiteout came first: the directory must go on hiding the one below.
            self.directories.make_opaque(directory.as_fd(), path)?;
        }
        self.dress_directory(directory.as_fd(), path, member)
    }

    fn dress_directory(&mut self, directory: BorrowedFd<'_>, path: &[u8], member: &Member) -> Result<()> {
        let owner = &member.owner;
        fchown(directory, Some(owner.uid), Some(owner.gid))?;
        fchmod(directory, owner.first_mode())?;
        owner.attributes(directory)?;
        self.directories.finish_later_again(path, owner)
    }

    fn make_file(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        member: &Member,
        archive: &mut Archive<'_>,
    ) -> Result<()> {
        self.account(member.size)?;
        let name = split(path).1;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = member.owner.first_mode();
        let mut file = File::from(self.make(parent, name, archive, || openat(parent, name, flags, mode))?);
        // As the archive has it, so that the recipe need not write it down; but a slash or a dot behind it
        // would ask for a directory.
        let noted = if split(&member.name).1 == name { &member.name } else { path };
        match &member.map {
            None if member.stored > 0 => {
                let crc = archive.content(member.stored, |bytes| file.write_all(bytes))?;
                archive.note_file(noted, 0, member.stored, crc)?;
            }
            None => {}
            Some(Map::Known(map)) => Self::write_map(&file, noted, map, archive)?,
            Some(Map::InContents) => {
                let map = Self::map_in_contents(member, archive)?;
                Self::write_map(&file, noted, &map, archive)?;
            }
        }
        if member.map.is_some() {
            file.set_len(member.size)?;
        }
        member.owner.dress_file(file.as_fd(), self.maker)
    }

    fn map_in_contents(member: &Member, archive: &mut Archive<'_>) -> Result<Vec<Segment>> {
        let mut reader = MapInContents::default();
        let mut left = member.stored;
        loop {
            let Some(rest) = left.checked_sub(BLOCK as u64) else { bail!("the map of a sparse file is cut short") };
            left = rest;
            if let Some(map) = reader.block(&archive.content_block()?)? {
                sparse::check(&map, member.size, left)?;
                return Ok(map);
            }
        }
    }

    fn write_map(file: &File, noted: &[u8], map: &[Segment], archive: &mut Archive<'_>) -> Result<()> {
        for segment in map {
            let mut position = segment.offset;
            let crc = archive.content(segment.length, |bytes| {
                file.write_all_at(bytes, position)?;
                position += bytes.len() as u64;
                Ok(())
            })?;
            archive.note_file(noted, segment.offset, segment.length, crc)?;
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        target: &[u8],
        archive: &mut Archive<'_>,
    ) -> Result<()> {
        let mut path = Vec::new();
        normalise(target, &mut path).context("hard link's target")?;
        if path.is_empty() {
            bail!("a hard link to the root is refused");
        }
        let (parents, target_name) = split(&path);
        let context = || format!("link to {}", shown(target));
        let directory = self.directories.find(parents).with_context(context)?;
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one to the link itself.
        match linkat(&directory, target_name, parent, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {}
            other => return other.with_context(context),
        }
        let found = statat(&directory, target_name, AtFlags::SYMLINK_NOFOLLOW).with_context(context)?;
        let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).with_context(context)?;
        if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino) {
            return Ok(());
        }
        self.replace(parent, name, archive)?;
        linkat(&directory, target_name, parent, name, AtFlags::empty()).with_context(context)
    }

    fn make_node(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        file_type: FileType,
        member: &Member,
        archive: &mut Archive<'_>,
    ) -> Result<()> {
        let (owner, device) = (&member.owner, makedev(member.device.0, member.device.1));
        self.make(parent, name, archive, || mknodat(parent, name, file_type, owner.first_mode(), device))
            .context("make device node")?;
        owner.dress_name(parent, name, self.maker)?;
        if owner.mode.intersects(SET_ID) {
            set_mode(parent, name, owner.mode)?;
        }
        Ok(())
    }
}
