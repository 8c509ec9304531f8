//! What a container's start leaves in its upper directory without anybody having changed anything: the empty files
//! and directories on which the engine mounts (`/proc`, `/etc/hosts`), where the image has none, and `/.dockerenv`. Docker
//! keeps them in a layer of their own that is never committed; here they are told apart by being as they were made.

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, fstat, openat2};
use rustix::io::Errno;

use super::lower::{is_directory, seen};

/// Paths of an upper directory, without the slash at the front, that are no changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::image) struct MountPoints(BTreeSet<Vec<u8>>);

impl MountPoints {
    /// Those of `points` (absolute paths) that are only there to be mounted on, and directories that were copied up
    /// only for them.
    pub(in crate::image) fn find(
        upper: BorrowedFd<'_>,
        lowers: &[BorrowedFd<'_>],
        points: &[&str],
    ) -> Result<MountPoints> {
        let mut found = BTreeSet::new();
        let context = || "look for mount points".to_owned();
        for point in points {
            let path = point.trim_start_matches('/');
            let Some(file) = open(upper, path).with_context(context)? else { continue };
            let stat = fstat(&file).with_context(context)?;
            let untouched = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => is_empty(&stat) && stat.st_nlink == 1,
                FileType::Directory => is_left_out(&file, path, &BTreeSet::new()).with_context(context)?,
                _ => false,
            };
            let free = match seen(lowers, path.as_bytes()).with_context(context)? {
                None => true,
                // A link is replaced by a file to mount on (see `Root::make_file`); the image goes on having the link. An
                // empty file over an empty file, as an exported and imported root has them, is no change.
                Some(below) => (is_link(&below) && !is_directory(&stat)) || (is_empty(&below) && is_empty(&stat)),
            };
            if untouched && free {
                found.insert(path.as_bytes().to_vec());
            }
        }
        // Their directories, the deeper ones first.
        let parent = |path: &[u8]| Some(path[..path.iter().rposition(|byte| *byte == b'/')?].to_vec());
        let mut parents: Vec<Vec<u8>> = found.iter().filter_map(|path| parent(path)).collect();
        while let Some(path) = parents.pop() {
            let Ok(text) = std::str::from_utf8(&path) else { continue };
            let Some(directory) = open(upper, text).with_context(context)? else { continue };
            let stat = fstat(&directory).with_context(context)?;
            let before = seen(lowers, text.as_bytes()).with_context(context)?;
            let as_before = before.is_none_or(|before| same(&before, &stat));
            if as_before && is_left_out(&directory, text, &found).with_context(context)? {
                parents.extend(parent(&path));
                found.insert(path);
            }
        }
        Ok(MountPoints(found))
    }

    /// Whether the path, without a slash at either end, is one.
    pub(in crate::image) fn contains(&self, path: &[u8]) -> bool {
        self.0.contains(path)
    }
}

/// Whether a directory holds nothing but what is `left_out`, and hides nothing.
fn is_left_out(directory: &OwnedFd, path: &str, left_out: &BTreeSet<Vec<u8>>) -> rustix::io::Result<bool> {
    let mut value = [0; 1];
    if fgetxattr(directory, "trusted.overlay.opaque", &mut value[..]).is_ok() {
        return Ok(false);
    }
    for entry in Dir::read_from(openat2(directory, ".", READ | OFlags::DIRECTORY, Mode::empty(), INSIDE)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && !left_out.contains(&[path.as_bytes(), b"/", name].concat()) {
            return Ok(false);
        }
    }
    Ok(true)
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn open(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match openat2(root, path, flags, Mode::empty(), INSIDE) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => return other.map(Some),
        }
    }
}

fn is_empty(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

/// A directory's time changes with what is put into it; the rest is the image's.
fn same(before: &Stat, now: &Stat) -> bool {
    let worn = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    worn(before) == worn(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    #[test]
    fn only_what_is_as_it_was_made_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let (upper, lower) = (directory.path().join("upper"), directory.path().join("lower"));
        for path in [upper.join("etc"), upper.join("proc"), upper.join("dev/pts"), lower.join("etc")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("etc/hostname"), "").unwrap();
        let points = ["/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname"];
        let found = || {
            let (upper, lower) = (File::open(&upper).unwrap(), File::open(&lower).unwrap());
            let found = MountPoints::find(upper.as_fd(), &[lower.as_fd()], &points).unwrap().0;
            found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found(), ["etc", "etc/hostname", "etc/hosts", "proc"]);
        // Something beside them: the directory is a change, they are not.
        fs::write(upper.join("etc/passwd"), "").unwrap();
        assert_eq!(found(), ["etc/hostname", "etc/hosts", "proc"]);
        fs::remove_file(upper.join("etc/passwd")).unwrap();
        fs::write(upper.join("etc/hosts"), "x").unwrap();
        fs::write(lower.join("etc/hostname"), "h").unwrap();
        fs::remove_dir(upper.join("dev/pts")).unwrap();
        assert_eq!(found(), ["dev", "proc"]);
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::remove_file(lower.join("etc/hostname")).unwrap();
        fs::set_permissions(upper.join("etc"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(found(), ["dev", "etc/hostname", "etc/hosts", "proc"]);
    }

    #[test]
    fn what_the_image_hides_or_links_elsewhere_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let [upper, top, bottom] = ["upper", "top", "bottom"].map(|name| directory.path().join(name));
        for path in [&upper, &top, &bottom] {
            fs::create_dir_all(path.join("etc")).unwrap();
        }
        for name in ["etc/hosts", "etc/hostname"] {
            fs::write(upper.join(name), "").unwrap();
            fs::write(bottom.join(name), "of the image").unwrap();
        }
        let found = || {
            let [upper, top, bottom] = [&upper, &top, &bottom].map(|path| File::open(path).unwrap());
            let points = ["/etc/hosts", "/etc/hostname"];
            let found = MountPoints::find(upper.as_fd(), &[top.as_fd(), bottom.as_fd()], &points).unwrap().0;
            found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found(), [""; 0]);
        // Empty over empty: as an image of an exported root has it.
        fs::write(bottom.join("etc/hosts"), "").unwrap();
        assert_eq!(found(), ["etc/hosts"]);
        // One is a link that leads nowhere: the start replaced it.
        fs::write(bottom.join("etc/hosts"), "of the image").unwrap();
        std::os::unix::fs::symlink("../run/hosts", top.join("etc/hosts")).unwrap();
        assert_eq!(found(), ["etc/hosts"]);
        let etc = File::open(top.join("etc")).unwrap();
        rustix::fs::fsetxattr(&etc, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(found(), ["etc", "etc/hostname", "etc/hosts"]);
        fs::remove_dir_all(top.join("etc")).unwrap();
        assert_eq!(found(), [""; 0]);
        let whiteout = rustix::fs::FileType::CharacterDevice;
        let device = rustix::fs::makedev(0, 0);
        rustix::fs::mknodat(rustix::fs::CWD, top.join("etc"), whiteout, rustix::fs::Mode::empty(), device).unwrap();
        assert_eq!(found(), ["etc", "etc/hostname", "etc/hosts"]);
    }
}
