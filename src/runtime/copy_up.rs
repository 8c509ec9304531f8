//! Filling an empty volume with what the image has at its mount point.
//!
//! Both sides may be under an attacker's hand: the image's files, and the volume while other containers use it. So
//! both are walked by held descriptors, links are copied and never followed (CVE-2022-23648), mounts are not crossed,
//! and what exists already is left as it is. Descriptors open at a time and depth of recursion do not grow with the
//! tree: directories wait in a list and are opened again by path, below the root and without following links.
//!
//! A copy that a crash interrupts leaves a volume that is not empty, which the next start takes as it is, like Docker.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps, XattrFlags,
    chmodat, chownat, copy_file_range, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, ftruncate, futimens,
    linkat, mkdirat, mknodat, openat, openat2, readlinkat, seek, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

/// Files with several names that are remembered; beyond, each name becomes a file of its own.
const HARD_LINKS: usize = 65_536;
/// Largest extended attribute of the kernel, and largest list of them, in bytes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR: usize = 65_536;
/// Bytes asked of the kernel per copying call.
const CHUNK: usize = 16 << 20;

/// Whether a directory has no entries.
///
/// # Errors
/// It cannot be read.
pub fn is_empty(directory: BorrowedFd<'_>) -> Result<bool> {
    let reader = openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("open volume")?;
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(reader, &mut buffer);
    while let Some(entry) = entries.next() {
        if !is_dots(entry.context("read volume")?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies what is in `from` into `to` if `to` is empty, and gives `to` the owner, mode, times and extended
/// attributes of `from`; does nothing otherwise. Sparse files stay sparse, hard links hard links, devices and FIFOs
/// what they are; sockets are left out.
///
/// # Errors
/// Something could not be read or written. What was copied until then stays.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    if !is_empty(to)? {
        return Ok(());
    }
    let mut copy = Copy { from, to, links: HashMap::new(), waiting: vec![PathBuf::from(".")], done: Vec::new() };
    while let Some(path) = copy.waiting.pop() {
        copy.directory(&path).with_context(|| format!("copy {} into the volume", path.display()))?;
    }
    // Times last and innermost first: each entry made in a directory would have changed them.
    while let Some((path, times)) = copy.done.pop() {
        let directory = open_below(to, &path, OFlags::RDONLY | OFlags::DIRECTORY)
            .with_context(|| format!("open {} of the volume", path.display()))?;
        futimens(&directory, &times).with_context(|| format!("set times of {} of the volume", path.display()))?;
    }
    Ok(())
}

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// Device and inode of files with several names, and the name they were first copied to.
    links: HashMap<(u64, u64), PathBuf>,
    /// Directories, relative to both roots, made and not yet filled.
    waiting: Vec<PathBuf>,
    /// Directories filled, outer before inner, and the times they are to have.
    done: Vec<(PathBuf, Timestamps)>,
}

/// One entry of a directory being copied.
struct Entry<'a> {
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    name: &'a CStr,
    stat: &'a Stat,
}

impl Copy<'_> {
    /// Gives a directory its attributes and fills it; directories inside are made and left waiting.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let source = match open_below(self.from, path, flags) {
            // A mount point: what is mounted there is not the image's.
            Err(Errno::XDEV) => return Ok(()),
            result => result.context("open source")?,
        };
        let target = open_below(self.to, path, flags).context("open target")?;
        let stat = fstat(&source).context("stat source")?;
        set_attributes(source.as_fd(), target.as_fd(), &stat)?;
        for entry in Dir::read_from(&source).context("read source")? {
            let entry = entry.context("read source")?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            let below = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let stat = match statat(&source, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                result => result.with_context(|| format!("stat {}", below.display()))?,
            };
            let entry = Entry { source: source.as_fd(), target: target.as_fd(), name, stat: &stat };
            match self.entry(&entry, &below) {
                // Another container fills the same volume: who came first stays.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).with_context(|| format!("copy {}", below.display())),
            }
        }
        self.done.push((path.to_path_buf(), times(&stat)));
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>, below: &Path) -> Result<(), Errno> {
        let kind = FileType::from_raw_mode(entry.stat.st_mode);
        let shared = kind != FileType::Directory && entry.stat.st_nlink > 1;
        let inode = (entry.stat.st_dev, entry.stat.st_ino);
        if shared
            && let Some(first) = self.links.get(&inode)
            && let Ok(first) = open_below(self.to, first, OFlags::PATH | OFlags::NOFOLLOW)
        {
            // By descriptor, which needs CAP_DAC_READ_SEARCH; without it the file is copied again.
            match linkat(&first, "", entry.target, entry.name, AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT | Errno::PERM) => {}
                result => return result,
            }
        }
        match kind {
            FileType::Directory => {
                // Closed to others until it has its owner and mode.
                mkdirat(entry.target, entry.name, Mode::RWXU)?;
                self.waiting.push(below.to_path_buf());
            }
            FileType::RegularFile => regular(entry)?,
            FileType::Symlink => {
                let text = readlinkat(entry.source, entry.name, Vec::new())?;
                symlinkat(&text, entry.target, entry.name)?;
                chownat(entry.target, entry.name, owner(entry.stat), group(entry.stat), AtFlags::SYMLINK_NOFOLLOW)?;
                utimensat(entry.target, entry.name, &times(entry.stat), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => special(entry, kind)?,
            // A socket without the process that listens on it is nothing.
            _ => return Ok(()),
        }
        if shared && self.links.len() < HARD_LINKS {
            self.links.insert(inode, below.to_path_buf());
        }
        Ok(())
    }
}

fn regular(entry: &Entry<'_>) -> Result<(), Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = openat(entry.source, entry.name, flags | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    // It may have been exchanged for something else since it was looked at.
    let stat = fstat(&source)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    let create = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let target = openat(entry.target, entry.name, create, Mode::RUSR | Mode::WUSR)?;
    contents(&source, &target, stat.st_size.max(0) as u64)?;
    set_attributes(source.as_fd(), target.as_fd(), &stat)?;
    futimens(&target, &times(&stat))
}

/// Copies the data between holes; a file system that knows no holes reports one piece of data.
fn contents(source: &OwnedFd, target: &OwnedFd, size: u64) -> Result<(), Errno> {
    let mut at = 0;
    while at < size {
        let (start, end) = match seek(source, SeekFrom::Data(at)) {
            Ok(start) => (start, seek(source, SeekFrom::Hole(start))?.min(size)),
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (at, size),
            Err(errno) => return Err(errno),
        };
        piece(source, target, start, end)?;
        at = end;
    }
    // The hole at the end.
    ftruncate(target, size)
}

fn piece(source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let length = usize::try_from(end - read).unwrap_or(CHUNK).min(CHUNK);
        match copy_file_range(source, Some(&mut read), target, Some(&mut written), length) {
            // Cut short meanwhile.
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {
                return through_memory(source, target, read, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// For pairs of file systems between which the kernel does not copy.
fn through_memory(source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    use io::{Read, Seek};
    let copy = || -> io::Result<()> {
        let (mut source, mut target) = (File::from(source.try_clone()?), File::from(target.try_clone()?));
        source.seek(io::SeekFrom::Start(start))?;
        target.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut source.take(end - start), &mut target).map(|_| ())
    };
    copy().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn special(entry: &Entry<'_>, kind: FileType) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(entry.stat.st_mode & 0o7777);
    mknodat(entry.target, entry.name, kind, mode, entry.stat.st_rdev)?;
    let node = openat(entry.target, entry.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    chownat(&node, "", owner(entry.stat), group(entry.stat), AtFlags::EMPTY_PATH)?;
    // The umask may have taken bits. By way of /proc, because chmod(2) on a name could be led astray by a link.
    if fstat(&node)?.st_mode != entry.stat.st_mode {
        chmodat(rustix::fs::CWD, format!("/proc/self/fd/{}", node.as_raw_fd()), mode, AtFlags::empty())?;
    }
    utimensat(entry.target, entry.name, &times(entry.stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner, extended attributes and mode, in this order: changing the owner clears set-user-ID bits and file
/// capabilities (chown(2)).
fn set_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    fchown(target, owner(stat), group(stat))?;
    let mut names = vec![0u8; XATTR];
    let length = match flistxattr(source, &mut names[..]) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        result => result?,
    };
    let mut value = Vec::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CString::from_vec_with_nul(name.to_vec()) else { continue };
        // Overlay's own marks would give a directory of the volume a meaning it must not have.
        let overlay = [&b"trusted.overlay."[..], b"user.overlay."];
        if overlay.iter().any(|prefix| name.to_bytes().starts_with(prefix)) {
            continue;
        }
        value.resize(XATTR, 0u8);
        let length = match fgetxattr(source, &name, &mut value[..]) {
            Err(Errno::NODATA) => continue,
            result => result?,
        };
        match fsetxattr(target, &name, &value[..length], XattrFlags::empty()) {
            // The volume's file system has no such attributes, or none of that name space for us.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

/// Opens `path` below `root`, neither following a link nor entering a mount on the way.
fn open_below(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn owner(stat: &Stat) -> Option<Uid> {
    Some(Uid::from_raw(stat.st_uid))
}

fn group(stat: &Stat) -> Option<Gid> {
    Some(Gid::from_raw(stat.st_gid))
}

/// Access and modification times.
fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::process::Command;

    struct Pair {
        from: tempfile::TempDir,
        to: tempfile::TempDir,
    }

    impl Pair {
        fn new() -> Self {
            Pair { from: tempfile::tempdir().unwrap(), to: tempfile::tempdir().unwrap() }
        }

        fn copy(&self) -> Result<()> {
            let (from, to) = (File::open(self.from.path()).unwrap(), File::open(self.to.path()).unwrap());
            copy_tree(from.as_fd(), to.as_fd())
        }

        /// What ls(1) would show of a tree, with everything that has to be equal.
        fn listing(root: &Path) -> String {
            let format = "%P %y %m %U:%G %T@ %l %s\\n";
            let output = Command::new("find").arg(root).args(["-printf", format]).output().unwrap();
            let mut lines: Vec<_> = output.stdout.split(|b| *b == b'\n').map(String::from_utf8_lossy).collect();
            // The size of a directory is its file system's affair.
            for line in &mut lines {
                if line.split(' ').nth(1) == Some("d") {
                    *line = line.rsplit_once(' ').unwrap().0.to_owned().into();
                }
            }
            lines.sort();
            lines.join("\n")
        }
    }

    #[test]
    fn a_tree_arrives_with_everything() {
        let pair = Pair::new();
        let at = |name: &str| pair.from.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/file"), "contents").unwrap();
        fs::write(at("a/b/\u{fc}\n"), "").unwrap();
        fs::hard_link(at("a/file"), at("a/b/second")).unwrap();
        symlink("/etc/passwd", at("a/link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        mknodat(rustix::fs::CWD, at("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o622), 0x103).unwrap();
        std::os::unix::fs::chown(at("a/file"), Some(1000), Some(1001)).unwrap();
        std::os::unix::fs::lchown(at("a/link"), Some(7), Some(8)).unwrap();
        std::os::unix::fs::chown(at("fifo"), Some(9), None).unwrap();
        std::os::unix::fs::chown(pair.from.path(), Some(33), Some(34)).unwrap();
        for (name, mode) in [("a/file", 0o4755), ("a/b", 0o1777), ("fifo", 0o666), ("null", 0o666), ("", 0o2750)] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let file = File::open(at("a/file")).unwrap();
        fsetxattr(&file, "user.note", b"kept", XattrFlags::empty()).unwrap();
        fsetxattr(&file, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        for name in ["a/b", "a/link", "a", "."] {
            assert!(Command::new("touch").args(["-h", "-d", "2001-02-03"]).arg(at(name)).status().unwrap().success());
        }

        pair.copy().unwrap();
        assert_eq!(Pair::listing(pair.from.path()), Pair::listing(pair.to.path()));
        let to = |name: &str| pair.to.path().join(name);
        assert_eq!(fs::read_to_string(to("a/file")).unwrap(), "contents");
        assert_eq!(fs::metadata(to("a/file")).unwrap().ino(), fs::metadata(to("a/b/second")).unwrap().ino());
        assert_eq!(fs::metadata(to("null")).unwrap().rdev(), 0x103);
        let copied = File::open(to("a/file")).unwrap();
        let mut value = [0u8; 16];
        let length = fgetxattr(&copied, "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"kept");
        assert_eq!(fgetxattr(&copied, "trusted.overlay.opaque", &mut value[..]), Err(Errno::NODATA));
    }

    #[test]
    fn a_volume_with_contents_is_left_alone() {
        let pair = Pair::new();
        fs::write(pair.from.path().join("new"), "").unwrap();
        fs::write(pair.to.path().join("old"), "").unwrap();
        let before = Pair::listing(pair.to.path());
        pair.copy().unwrap();
        assert_eq!(Pair::listing(pair.to.path()), before);
    }

    #[test]
    fn holes_stay_holes() {
        let pair = Pair::new();
        let file = File::create(pair.from.path().join("sparse")).unwrap();
        file.write_all_at(b"middle", 64 << 20).unwrap();
        file.set_len(1 << 40).unwrap();
        pair.copy().unwrap();
        let copy = File::open(pair.to.path().join("sparse")).unwrap();
        let (mut text, meta) = ([0; 6], copy.metadata().unwrap());
        copy.read_exact_at(&mut text, 64 << 20).unwrap();
        assert_eq!((&text, meta.len()), (b"middle", 1 << 40));
        assert!(meta.blocks() < 1 << 12, "{} blocks", meta.blocks());
    }

    #[test]
    fn data_also_goes_through_memory() {
        let pair = Pair::new();
        let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        fs::write(pair.from.path().join("data"), &data).unwrap();
        let source = OwnedFd::from(File::open(pair.from.path().join("data")).unwrap());
        let target = OwnedFd::from(File::create(pair.to.path().join("data")).unwrap());
        through_memory(&source, &target, 1000, data.len() as u64).unwrap();
        assert_eq!(fs::read(pair.to.path().join("data")).unwrap()[1000..], data[1000..]);
    }

    #[test]
    fn deep_trees_need_few_descriptors() {
        let pair = Pair::new();
        let deep: PathBuf = std::iter::repeat_n("d", 1500).collect();
        fs::create_dir_all(pair.from.path().join(&deep)).unwrap();
        pair.copy().unwrap();
        assert!(pair.to.path().join(&deep).is_dir());
        // The standard library's removal holds a descriptor for each level: more than a process usually may have.
        for root in [&pair.from, &pair.to] {
            crate::sys::tree::remove(File::open(root.path()).unwrap().as_fd(), b"d").unwrap();
        }
    }
}
