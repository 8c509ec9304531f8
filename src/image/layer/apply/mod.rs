//! The layer applier: unpacks a tar stream below a directory that is held as a descriptor.
//!
//! A layer is a stranger's text. Every name is resolved below the layer's root by the kernel
//! (`openat2` with `RESOLVE_IN_ROOT`, openat2(2)), so neither `..`, nor an absolute name, nor a symbolic
//! link that an earlier member planted leads outside; the last component is only ever touched by `*at`
//! calls that do not follow links. Whiteouts (OCI image spec, layer.md) become what overlayfs takes for
//! them: a character device 0/0, or the attribute `trusted.overlay.opaque` on a directory.
//!
//! [`archive`] reads members and keeps the layer's recipe, [`place`] makes each of them, with what
//! [`directories`] knows of the directories above it, and [`owner`] sets what a member wears.

mod archive;
mod directories;
mod member;
mod opaque;
mod owner;
mod place;

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::image::tar::header::shown;
use archive::Archive;
use member::Member;
use place::Applier;

/// How much one layer may ask for; beyond is an error, not a full disk.
#[derive(Debug, Clone, Copy)]
pub(in crate::image) struct Limits {
    /// Members of the archive.
    pub(in crate::image) entries: u64,
    /// Bytes of all files together, holes included.
    pub(in crate::image) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { entries: 4_000_000, bytes: 64 << 30 }
    }
}

/// Whether a layer's tar can be told again from its contents and its recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Retold {
    /// Byte for byte: `recipe` is there.
    Exact,
    /// No, because members undo each other: there is no `recipe`, and `blob` is there whatever was asked. It
    /// holds the bytes as they came where those were to be kept, else the uncompressed tar.
    Not,
}

/// Whether somebody else keeps the bytes of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Bytes {
    /// Yes: a layer that cannot be told again is safe.
    Kept,
    /// No: should it not be possible to tell the layer again, its tar must be kept.
    Passing,
}

/// What a layer turned out to be.
#[derive(Debug)]
pub(in crate::image) struct Applied {
    /// Bytes of all files together.
    pub(in crate::image) size: u64,
    /// Whether the archive has its end mark; without one it may have been cut between two members.
    pub(in crate::image) has_end: bool,
    /// Whether it can be told again.
    pub(in crate::image) retold: Retold,
}

/// Unpacks the uncompressed tar stream `input` into the directory `root`, which is `<staging>/diff`, and writes
/// `<staging>/recipe`.
///
/// The calling thread's umask must be empty: files get their modes as they are made.
///
/// # Errors
/// The first member that is malformed, leads outside, exceeds `limits` or cannot be created. What was
/// unpacked until then is left for the caller to remove.
pub(in crate::image) fn apply(
    input: &mut dyn BufRead,
    staging: &Path,
    root: BorrowedFd<'_>,
    bytes: Bytes,
    limits: &Limits,
) -> Result<Applied> {
    let mut archive = Archive::new(input, staging, bytes)?;
    let mut applier = Applier::new(root, *limits);
    let mut member = Member::default();
    let mut count = 0;
    while archive.next(&mut member)? {
        count += 1;
        if count > limits.entries {
            bail!("the archive has more than {} members", limits.entries);
        }
        applier.member(&member, &mut archive).with_context(|| format!("unpack {}", shown(&member.name)))?;
        archive.pad().context("read archive")?;
    }
    applier.finish_directories()?;
    // The digest covers what follows the end mark too.
    archive.rest(limits.bytes)?;
    let (has_end, retold) = archive.finish()?;
    Ok(Applied { size: applier.size(), has_end, retold })
}

/// Opens the directory `path` as if `root` were the root of the file system.
fn open_below(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
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
pub(in crate::image) fn exists(root: BorrowedFd<'_>, path: &[u8]) -> Result<bool> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look for {}", shown(path))),
    }
}
