//! What a member of an archive is, once its headers are read.

use anyhow::{Context, Result, bail};
use rustix::fs::{Gid, Mode, Timespec, Uid};

use crate::image::tar::header::Header;
use crate::image::tar::pax::Pax;
use crate::image::tar::sparse::{self, OldMap, Segment};

/// One member. It is made once and filled anew for each, so that a name needs no new memory.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: Kind,
    /// As the archive says it.
    pub(super) name: Vec<u8>,
    /// What a link points at.
    pub(super) link: Vec<u8>,
    /// Bytes that follow in the archive.
    pub(super) stored: u64,
    /// Bytes of the file.
    pub(super) size: u64,
    /// Where the bytes that follow belong; `None`: one behind the other from the beginning.
    pub(super) map: Option<Map>,
    /// Major and minor number.
    pub(super) device: (u32, u32),
    pub(super) owner: Owner,
}

/// Where the data of a file with holes is described.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// In the headers.
    Known(Vec<Segment>),
    /// In the contents, before the data.
    InContents,
}

/// Owner, mode, time and attributes of a member.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) mode: Mode,
    pub(super) mtime: Timespec,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The types of members that a layer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Character,
    Block,
    Fifo,
    /// Records for all that follow; without effect, as in Docker.
    Global,
}

impl Default for Member {
    fn default() -> Self {
        let owner = Owner {
            uid: Uid::ROOT,
            gid: Gid::ROOT,
            mode: Mode::empty(),
            mtime: Timespec { tv_sec: 0, tv_nsec: 0 },
            xattrs: Vec::new(),
        };
        Member {
            kind: Kind::File,
            name: Vec::new(),
            link: Vec::new(),
            stored: 0,
            size: 0,
            map: None,
            device: (0, 0),
            owner,
        }
    }
}

/// What extension headers said before the member's own.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) pax: Option<Pax>,
    /// GNU's long name and long link target.
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
}

impl Member {
    /// Fills in what the headers say; where they disagree, as Go's archive/tar has it, so that a layer has the
    /// same contents here as in Docker.
    ///
    /// # Errors
    /// Types that are not supported, numbers that are malformed or out of range, maps that contradict sizes.
    pub(super) fn fill(&mut self, header: Header<'_>, extensions: &mut Extensions, old: Option<OldMap>) -> Result<()> {
        let pax = extensions.pax.take().unwrap_or_default();
        self.name.clear();
        match (pax.sparse.name.as_ref(), extensions.name.take(), &pax.path) {
            (Some(name), _, _) | (None, None, Some(name)) => self.name.extend_from_slice(name),
            (None, Some(name), _) => self.name.extend_from_slice(&name),
            (None, None, None) => header.name(&mut self.name),
        }
        self.link.clear();
        match (extensions.link.take(), &pax.link) {
            (Some(link), _) => self.link.extend_from_slice(&link),
            (None, Some(link)) => self.link.extend_from_slice(link),
            (None, None) => self.link.extend_from_slice(header.link()),
        }
        self.stored = pax.size.map_or_else(|| header.size(), Ok)?;
        self.kind = match header.kind() {
            // Archives from before POSIX mark a directory by the slash alone. In others it means nothing, as in Docker.
            0 if self.name.ends_with(b"/") && self.stored == 0 => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'g' => Kind::Global,
            other => bail!("members of type {:?} are not supported", char::from(other)),
        };
        if !matches!(self.kind, Kind::File | Kind::Global) {
            // Some writers say the size of what a link points at. Nothing follows.
            self.stored = 0;
        }
        self.size = self.stored;
        self.map = None;
        if let Some(old) = old {
            sparse::check(&old.segments, old.size, self.stored)?;
            (self.size, self.map) = (old.size, Some(Map::Known(old.segments)));
        } else if self.kind == Kind::File && pax.sparse.present {
            self.size = pax.sparse.size.unwrap_or(self.stored);
            self.map = Some(if pax.sparse.map_is_in_contents()? {
                Map::InContents
            } else {
                let map = pax.sparse.map()?;
                sparse::check(&map, self.size, self.stored)?;
                Map::Known(map)
            });
        }
        if self.size > i64::MAX as u64 {
            bail!("a size is out of range");
        }
        self.device = match self.kind {
            Kind::Character | Kind::Block => header.device()?,
            _ => (0, 0),
        };
        self.owner = Owner::read(header, pax)?;
        Ok(())
    }
}

impl Owner {
    fn read(header: Header<'_>, pax: Pax) -> Result<Owner> {
        // 4294967295 is not an owner but chown(2)'s "leave as it is".
        let id = |value: u64| u32::try_from(value).ok().filter(|id| *id != u32::MAX).context("owner out of range");
        let uid = id(pax.uid.map_or_else(|| header.uid(), Ok)?)?;
        let gid = id(pax.gid.map_or_else(|| header.gid(), Ok)?)?;
        let mtime = match pax.mtime {
            Some(time) => time,
            None => Timespec { tv_sec: header.mtime()?, tv_nsec: 0 },
        };
        let mode = Mode::from_raw_mode(header.mode()?);
        Ok(Owner { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), mode, mtime, xattrs: pax.xattrs })
    }
}
