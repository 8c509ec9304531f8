//! Setting what a member wears: owner, mode, attributes, times.

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timestamps, XattrFlags, chownat, fchmod, fchown, fsetxattr, futimens, lsetxattr,
    openat, statat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::member::Owner;
use crate::image::tar::header::shown;

/// The bits that chown(2) takes away, and that mkdir(2) does not give.
pub(super) const SET_ID: Mode = Mode::SUID.union(Mode::SGID);
/// What a directory gives to all that is made in it: to be set when nothing more will be.
pub(super) const INHERITED: &[u8] = b"system.posix_acl_default";

/// Whom files belong to that this process makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker {
    uid: u32,
    gid: u32,
}

impl Maker {
    pub(super) fn this() -> Maker {
        Maker { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    /// Whether a file that this process makes is `owner`'s already: so are most of a layer.
    pub(super) fn is(self, owner: &Owner) -> bool {
        (self.uid, self.gid) == (owner.uid.as_raw(), owner.gid.as_raw())
    }
}

impl Owner {
    /// The mode that a new file gets at once: others than its owner never see set-id bits.
    pub(super) fn first_mode(&self) -> Mode {
        self.mode.difference(SET_ID)
    }

    pub(super) fn times(&self) -> Timestamps {
        Timestamps { last_access: self.mtime, last_modification: self.mtime }
    }

    /// Dresses a new file that has its [`Owner::first_mode`].
    pub(super) fn dress_file(&self, file: BorrowedFd<'_>, maker: Maker) -> Result<()> {
        // Owner first: chown(2) takes away set-id bits and capabilities.
        if !maker.is(self) {
            fchown(file, Some(self.uid), Some(self.gid))?;
        }
        if self.mode.intersects(SET_ID) {
            fchmod(file, self.mode)?;
        }
        self.attributes(file)?;
        Ok(futimens(file, &self.times())?)
    }

    /// Sets a directory's or a file's attributes, but for those that [`INHERITED`] names.
    pub(super) fn attributes(&self, file: BorrowedFd<'_>) -> Result<()> {
        for (name, value) in allowed(&self.xattrs).filter(|(name, _)| *name != INHERITED) {
            tolerate(fsetxattr(file, name, value, XattrFlags::empty()), name)?;
        }
        Ok(())
    }

    /// Dresses what is neither file nor directory. The mode of a symbolic link means nothing.
    pub(super) fn dress_name(&self, parent: BorrowedFd<'_>, name: &[u8], maker: Maker) -> Result<()> {
        if !maker.is(self) {
            chownat(parent, name, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        self.attributes_of_name(parent, name)?;
        Ok(utimensat(parent, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn attributes_of_name(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        for (xattr, value) in allowed(&self.xattrs) {
            // There is no setxattrat before Linux 6.13: the directory through its descriptor, the last
            // component not followed.
            let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            tolerate(lsetxattr(&path[..], xattr, value, XattrFlags::empty()), xattr)?;
        }
        Ok(())
    }

    /// Dresses the file that the hard link `name` is one to. It was dressed when it was made, and nearly always alike;
    /// where two headers of one file disagree the later one holds, as in Docker (GNU tar lets the first hold).
    pub(super) fn dress_link(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let moves = (stat.st_uid, stat.st_gid) != (self.uid.as_raw(), self.gid.as_raw());
        if moves {
            chownat(parent, name, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Ok(());
        }
        if moves || Mode::from_raw_mode(stat.st_mode) != self.mode {
            set_mode(parent, name, self.mode)?;
        }
        self.attributes_of_name(parent, name)?;
        if (stat.st_mtime, stat.st_mtime_nsec as i64) != (self.mtime.tv_sec, self.mtime.tv_nsec) {
            utimensat(parent, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Whether there is an attribute that [`Owner::attributes`] would set.
    pub(super) fn has_attributes(&self) -> bool {
        allowed(&self.xattrs).any(|(name, _)| name != INHERITED)
    }

    /// The access list that a directory hands down.
    pub(super) fn inherited(&self) -> Option<&[u8]> {
        self.xattrs.iter().find(|(name, _)| name == INHERITED).map(|(_, value)| &value[..])
    }
}

/// Gives what stands at `name`, which is no symbolic link, this mode.
pub(super) fn set_mode(parent: BorrowedFd<'_>, name: &[u8], mode: Mode) -> Result<()> {
    // Not through the name: chmod by name follows links, and has no form that does not before Linux 6.6. This
    // descriptor is of the file itself.
    let file = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)?)
}

/// Sets the access list that a directory hands down.
pub(super) fn set_inherited(directory: BorrowedFd<'_>, value: &[u8]) -> Result<()> {
    tolerate(fsetxattr(directory, INHERITED, value, XattrFlags::empty()), INHERITED)
}

/// Lets a directory hide what the layers below have by its name.
pub(super) fn set_opaque(directory: BorrowedFd<'_>) -> Result<()> {
    fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty()).context("make directory opaque")
}

/// The attributes a layer may bring: a user's own, capabilities and access lists. Not overlayfs's
/// (`trusted.overlay.redirect` would show other directories), nor the host's security labels.
fn allowed(xattrs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let permitted = |name: &[u8]| {
        (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
            || matches!(name, b"security.capability" | b"system.posix_acl_access" | INHERITED)
    };
    xattrs
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .filter(move |(name, _)| permitted(name) && !name.contains(&0))
}

/// File systems and file types that know no such attribute go without, as in Docker.
fn tolerate(result: rustix::io::Result<()>, name: &[u8]) -> Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") => Ok(()),
        other => other.with_context(|| format!("set attribute {}", shown(name))),
    }
}
