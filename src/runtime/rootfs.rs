//! The container's file system as init builds it: mounts on held descriptors.
//!
//! Nothing here resolves a path that the image controls as a string. [`Root`] opens each target
//! with `openat2(RESOLVE_IN_ROOT)` below the root's descriptor, so that a symbolic link in the
//! image (`/etc -> ../../..`) can only lead to places inside, and mounts on the descriptor that it
//! got (CVE-2021-30465, CVE-2023-27561, CVE-2024-45310).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::call::Call;
use super::plan::{BindMount, FilesystemMount};
use super::{Overlay, overlay};
use crate::error::Failure;
use crate::sys::mount::{self, ATTR_RDONLY, Attributes};

/// Magic numbers of statfs(2).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// The root of a container in the making.
#[derive(Debug)]
pub struct Root {
    descriptor: OwnedFd,
    /// Whether it is an overlay made for this container alone, and not somebody's directory.
    own: bool,
}

/// Files that the engine mounts into every container.
const ENGINE_FILES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

impl Root {
    /// Mounts an overlay and takes it as root. Done by init in its own mount namespace, so that no
    /// crash of anybody can leave the mount on the host.
    pub fn mount_overlay(overlay: &Overlay) -> Result<Root> {
        rustix::process::chdir(&overlay.base).call("chdir").context("enter the overlay directory")?;
        if !overlay::takes_layers_apart() {
            overlay::mount_by_options(overlay)?;
            let merged = Root::open(&overlay.base.join(&overlay.merged))?;
            return Ok(Root { own: true, ..merged });
        }
        let mounted = overlay::by_parts(overlay).context("mount overlay")?;
        attach_at(mounted.as_fd(), CWD, &overlay.merged).call("move_mount").context("attach the overlay")?;
        Ok(Root { descriptor: mounted, own: true })
    }

    /// Takes a directory as root, as a mount of its own: pivot_root(2) demands one.
    pub fn use_directory(path: &Path) -> Result<Root> {
        let tree = rustix::mount::open_tree(
            CWD,
            path,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
        )
        .call("open_tree")
        .with_context(|| format!("open root {}", path.display()))?;
        attach_at(tree.as_fd(), CWD, path).call("move_mount")?;
        Ok(Root { descriptor: tree, own: false })
    }

    /// Opens the root that this process already has (exec, after entering the container).
    pub fn open(path: &Path) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags, Mode::empty()).call("open").context("open the root")?;
        Ok(Root { descriptor, own: false })
    }

    /// The root's descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Opens a path inside without reading it (O_PATH), symbolic links resolved below the root.
    pub fn open_path(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    fn open_with(&self, path: &str, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.trim_matches('/').is_empty() { "." } else { path.trim_start_matches('/') };
        // EAGAIN: a rename somewhere raced with a `..` of ours (openat2(2)).
        loop {
            match rustix::fs::openat2(&self.descriptor, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    /// Opens a directory inside, making it and its parents when missing, relative to held descriptors.
    pub fn make_directory(&self, path: &str) -> Result<OwnedFd> {
        match self.open_path(path) {
            Ok(found) if file_type(&found)? == FileType::Directory => Ok(found),
            Ok(_) => Err(Failure::engine(format!("{path} exists in the container and is not a directory")).into()),
            Err(Errno::NOENT) => {
                let (parent, name) = split(path)?;
                let parent = self.make_directory(parent)?;
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => bail!("{path} is a dangling symbolic link in the container"),
                    Err(error) => {
                        return Err(error).call("mkdirat").with_context(|| format!("make directory {path}"));
                    }
                }
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Ok(rustix::fs::openat(&parent, name, flags, Mode::empty()).call("openat")?)
            }
            Err(error) => Err(error).call("openat2").with_context(|| format!("open {path} in the container")),
        }
    }

    /// Opens a file inside as a mount point, making it empty when missing.
    ///
    /// Roots of whole machines have `/etc/resolv.conf` as a link to what only their own daemons make. As in Docker the
    /// engine's files take the place of such links, wherever those lead; others are followed.
    fn make_file(&self, path: &str) -> Result<OwnedFd> {
        let replaces_links = self.own && ENGINE_FILES.contains(&path);
        let follow = if replaces_links { OFlags::NOFOLLOW } else { OFlags::empty() };
        match self.open_with(path, OFlags::PATH | follow, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Ok(found) => match file_type(&found)? {
                FileType::Directory => {
                    Err(Failure::engine(format!("cannot mount a file on {path}: it is a directory in the container"))
                        .with_hint("mount a directory there, or choose another path inside")
                        .into())
                }
                // Only seen where links are not followed.
                FileType::Symlink => {
                    let (parent, name) = split(path)?;
                    let parent = self.make_directory(parent)?;
                    rustix::fs::unlinkat(&parent, name, AtFlags::empty())
                        .call("unlinkat")
                        .with_context(|| format!("replace the link {path} in the container"))?;
                    new_file(&parent, name, path)
                }
                _ => Ok(found),
            },
            Err(Errno::NOENT) => {
                let (parent, name) = split(path)?;
                new_file(&self.make_directory(parent)?, name, path)
            }
            Err(error) => Err(error).call("openat2").with_context(|| format!("open {path} in the container")),
        }
    }

    /// Mounts a new file system on a path inside. `/proc` and `/sys` must be real directories of
    /// the root: a symbolic link there would let the image choose where the kernel's files appear.
    pub fn mount_filesystem(&self, mount: &FilesystemMount) -> Result<()> {
        let target = self.make_directory(&mount.target)?;
        let kernel_own = matches!(mount.kind.as_str(), "proc" | "sysfs");
        if kernel_own && self.open_with(&mount.target, OFlags::PATH, ResolveFlags::NO_SYMLINKS).is_err() {
            return Err(Failure::engine(format!("{} is a symbolic link in the image", mount.target))
                .with_hint("the image is damaged or hostile; /proc and /sys must be directories")
                .into());
        }
        if !kernel_own {
            refuse_inside_proc(&target, &mount.target)?;
        }
        Ok(move_onto(&new_filesystem(mount)?, &target).call("move_mount")?)
    }

    /// Shows a host file or directory on a path inside.
    pub fn mount_bind(&self, bind: &BindMount) -> Result<()> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if bind.recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = rustix::mount::open_tree(CWD, &bind.source, flags)
            .call("open_tree")
            .with_context(|| format!("open mount source {}", bind.source.display()))?;
        self.attach(&tree, &bind.target)?;
        let attributes = Attributes {
            set: bind.attributes,
            clear: 0,
            propagation: bind.propagation & !libc::MS_REC,
            recursive: bind.recursive && (bind.attributes != 0 || bind.propagation & libc::MS_REC != 0),
        };
        if attributes.set != 0 || attributes.propagation != 0 {
            mount::set_attributes(tree.as_fd(), attributes).call("mount_setattr")?;
        }
        Ok(())
    }

    /// Mounts a detached tree on a path inside, made as a file or a directory to fit it.
    fn attach(&self, tree: &OwnedFd, path: &str) -> Result<()> {
        let target = match file_type(tree)? {
            FileType::Directory => self.make_directory(path)?,
            _ => self.make_file(path)?,
        };
        refuse_inside_proc(&target, path)?;
        Ok(move_onto(tree, &target).call("move_mount")?)
    }

    /// Mounts each path on itself, read-only. Missing ones are no matter: kernels differ.
    pub fn make_read_only(&self, paths: &[String]) -> Result<()> {
        for path in paths {
            let Some(held) = self.open_kernel_path(path)? else { continue };
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE;
            let tree = rustix::mount::open_tree(&held, "", flags).call("open_tree")?;
            mount::set_attributes(tree.as_fd(), Attributes { set: ATTR_RDONLY, recursive: true, ..Default::default() })
                .call("mount_setattr")?;
            move_onto(&tree, &held).call("move_mount").with_context(|| format!("make {path} read-only"))?;
        }
        Ok(())
    }

    /// Covers each path: directories by one empty read-only tmpfs, files by the null device.
    pub fn mask(&self, paths: &[String]) -> Result<()> {
        let mut empty: Option<OwnedFd> = None;
        let mut null: Option<OwnedFd> = None;
        for path in paths {
            let Some(held) = self.open_kernel_path(path)? else { continue };
            let cover = if file_type(&held)? == FileType::Directory { &mut empty } else { &mut null };
            // The first cover of a kind is attached itself, the others are copies of it: before
            // Linux 6.15 only an attached mount can be copied.
            let copy = match (&*cover, file_type(&held)?) {
                (Some(attached), _) => copy_mount(attached)?,
                (None, FileType::Directory) => empty_directory()?,
                (None, _) => copy_mount(&self.null_device()?)?,
            };
            move_onto(&copy, &held).call("move_mount").with_context(|| format!("mask {path}"))?;
            cover.get_or_insert(copy);
        }
        Ok(())
    }

    /// A path of `/proc` or `/sys`, verified to lie on the kernel's own file system and reached
    /// without any symbolic link; `None` when this kernel has no such path.
    fn open_kernel_path(&self, path: &str) -> Result<Option<OwnedFd>> {
        match self.open_with(path, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS) {
            Ok(held) => {
                let kind = rustix::fs::fstatfs(&held).call("fstatfs")?.f_type;
                if !matches!(kind, PROC_SUPER_MAGIC | SYSFS_MAGIC) {
                    bail!("{path} is not on procfs or sysfs");
                }
                Ok(Some(held))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).call("openat2").with_context(|| format!("open {path} in the container")),
        }
    }

    /// The container's null device, verified by its number (CVE-2025-31133).
    fn null_device(&self) -> Result<OwnedFd> {
        let held = self
            .open_with("/dev/null", OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
            .call("openat2")
            .context("open /dev/null in the container")?;
        let found = rustix::fs::fstat(&held).call("fstat")?;
        let device = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
        if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || device != (1, 3) {
            bail!("/dev/null in the container is not the null device");
        }
        Ok(held)
    }

    /// Writes kernel parameters through this container's own procfs, verified.
    pub fn write_sysctls(&self, values: &[(String, String)]) -> Result<()> {
        for (key, value) in values {
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
            let file = self
                .open_with(&path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
                .call("openat2")
                .with_context(|| format!("set kernel parameter {key}"))?;
            if rustix::fs::fstatfs(&file).call("fstatfs")?.f_type != PROC_SUPER_MAGIC {
                bail!("set kernel parameter {key}: {path} is not on procfs");
            }
            rustix::io::write(&file, value.as_bytes())
                .call("write")
                .with_context(|| format!("set kernel parameter {key} to {value:?}"))?;
        }
        Ok(())
    }

    /// Makes the mount on a path inside read-only; what is mounted on it keeps its own mode.
    pub fn seal(&self, path: &str) -> Result<()> {
        let held = self.open_path(path).call("openat2")?;
        mount::set_attributes(held.as_fd(), Attributes { set: ATTR_RDONLY, ..Default::default() })
            .call("mount_setattr")
            .with_context(|| format!("make {path} read-only"))?;
        Ok(())
    }

    /// Makes this the process's root and lets the old one go (pivot_root(2), "pivot_root(".", ".")").
    pub fn pivot(&self) -> Result<()> {
        rustix::process::fchdir(&self.descriptor).call("fchdir")?;
        rustix::process::pivot_root(".", ".").call("pivot_root")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).call("umount2").context("detach the old root")?;
        rustix::process::chdir("/").call("chdir")?;
        Ok(())
    }
}

/// Makes the empty file `name` in `parent`; `path` is what messages call it.
fn new_file(parent: &OwnedFd, name: &str, path: &str) -> Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) => {}
        Err(Errno::EXIST) => bail!("{path} is a dangling symbolic link in the container"),
        Err(error) => return Err(error).call("openat").with_context(|| format!("make file {path} in the container")),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty()).call("openat")?)
}

/// A new, detached file system.
fn new_filesystem(mount: &FilesystemMount) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC).call("fsopen")?;
    rustix::mount::fsconfig_set_string(&context, "source", mount.source.as_str()).call("fsconfig")?;
    for (key, value) in &mount.options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => rustix::mount::fsconfig_set_flag(&context, key.as_str()),
        }
        .call("fsconfig")
        .with_context(|| format!("mount option {key}"))?;
    }
    rustix::mount::fsconfig_create(&context).call("fsconfig")?;
    let attributes = MountAttrFlags::from_bits_retain(mount.attributes as u32);
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).call("fsmount")?)
}

/// An empty read-only tmpfs, detached.
fn empty_directory() -> Result<OwnedFd> {
    new_filesystem(&FilesystemMount {
        kind: "tmpfs".into(),
        source: "tmpfs".into(),
        target: String::new(),
        attributes: ATTR_RDONLY,
        options: vec![("size".into(), Some("4k".into())), ("mode".into(), Some("555".into()))],
    })
}

/// A detached copy of the mount behind a descriptor.
fn copy_mount(of: &OwnedFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(of, "", flags).call("open_tree")?)
}

/// Attaches a detached mount at a path of ours.
fn attach_at(mounted: BorrowedFd<'_>, base: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    rustix::mount::move_mount(mounted, "", base, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn move_onto(tree: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags)
}

/// Files of `/proc` that may be covered: what lxcfs provides, as runc allows.
const COVERABLE: [&str; 8] = ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"];

/// Refuses a mount on a path inside `/proc`: it could fake what security decisions rely on
/// (CVE-2019-16884, CVE-2019-19921).
fn refuse_inside_proc(target: &OwnedFd, path: &str) -> Result<()> {
    if rustix::fs::fstatfs(target).call("fstatfs")?.f_type != PROC_SUPER_MAGIC {
        return Ok(());
    }
    if path.strip_prefix("/proc/").is_some_and(|name| COVERABLE.contains(&name)) {
        return Ok(());
    }
    Err(Failure::engine(format!("cannot mount on {path}: it is inside /proc"))
        .with_hint("choose a path outside /proc")
        .into())
}

fn file_type(file: &OwnedFd) -> Result<FileType> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).call("statx")?;
    Ok(FileType::from_raw_mode(u32::from(found.stx_mode)))
}

/// Parent and last component of a clean absolute path.
pub(super) fn split(path: &str) -> Result<(&str, &str)> {
    let trimmed = path.trim_end_matches('/');
    let (parent, name) = trimmed.rsplit_once('/').with_context(|| format!("{path:?} is not an absolute path"))?;
    if name.is_empty() || name == ".." || name == "." {
        bail!("{path:?} is not a path inside the container");
    }
    Ok((if parent.is_empty() { "/" } else { parent }, name))
}
