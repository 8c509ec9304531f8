//! Control groups: one per container, in cgroups v1, v2 or the hybrid of both. Owns everything below
//! `<hierarchy>/mydocker/` and knows nothing of containers but their id.
//!
//! Who joins how, and why (`docs/performance.md`): in v1 the container's process writes `0` to each
//! [`Group::join_files`] while it has a single thread, which costs 0.04 ms; a write to `cgroup.procs` from outside
//! would wait for an RCU grace period, 7–14 ms. In v2 the process is cloned into [`Group::v2_dir_fd`].
//!
//! The parent `mydocker` is made on demand and stays, like Docker's own: making it anew for each container would
//! double the work. [`Cgroups::remove_parent`] takes it away when nothing runs.

mod devices;
mod group;
mod mountinfo;
mod v1;
mod v2;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use group::{Group, Member, View, ViewLink, ViewMount};

use crate::error::Failure;

/// Parent of all containers' groups in each hierarchy.
const PARENT: &str = "mydocker";
/// Times a group is tried to be made while its parent is being removed under us.
const RACES: usize = 16;

/// What the host offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy alone.
    V2,
    /// v1 controllers, and a unified tree beside them that has none. Used like v1.
    Hybrid,
}

/// A v1 hierarchy: where it is mounted and which controllers it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Controllers; several when co-mounted (`cpu`, `cpuacct`).
    pub controllers: Vec<String>,
    /// Mount point on the host.
    pub mount: PathBuf,
}

/// The host's cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// Which version containers use.
    pub mode: Mode,
    /// v1 hierarchies with controllers; named ones (`name=systemd`) are left alone.
    pub v1: Vec<Hierarchy>,
    /// Mount point of the unified tree.
    pub v2: Option<PathBuf>,
}

impl Cgroups {
    /// Looks at this process's mounts, once.
    ///
    /// # Errors
    /// `/proc/self/mountinfo` cannot be read, or nothing is mounted.
    pub fn detect() -> Result<Self> {
        let text = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        Ok(Cgroups::from_mountinfo(&text)?)
    }

    /// The hierarchies that the lines of a mountinfo (proc_pid_mountinfo(5)) tell of.
    fn from_mountinfo(text: &[u8]) -> Result<Self, Failure> {
        let (v1, v2) = mountinfo::hierarchies(text);
        let mode = match (v1.is_empty(), &v2) {
            (false, Some(_)) => Mode::Hybrid,
            (false, None) => Mode::V1,
            (true, Some(_)) => Mode::V2,
            (true, None) => {
                return Err(Failure::engine("no cgroup file system is mounted")
                    .with_hint("mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup"));
            }
        };
        Ok(Cgroups { mode, v1, v2 })
    }

    /// Makes the group `id` in every hierarchy that containers use. One that is there already is taken over.
    ///
    /// # Errors
    /// `id` is no plain file name, or a directory cannot be made; what was made is removed again.
    pub fn create(&self, id: &str) -> Result<Group> {
        check_id(id)?;
        let mut group = Group { mode: self.mode, members: Vec::new() };
        for (controllers, mount) in self.used() {
            let path = mount.join(PARENT).join(id);
            if let Err(error) = self.make(mount, &path) {
                // The first error stays first; what cannot be removed now is empty and harmless.
                let _ = group.remove();
                return Err(explain(error, &path));
            }
            group.members.push(Member { controllers: controllers.to_vec(), path });
        }
        Ok(group)
    }

    /// The group of `id` as [`create`](Self::create) would return it, without making anything: for removing what a
    /// crash has left when no record of it survived.
    ///
    /// # Errors
    /// `id` is no plain file name.
    pub fn group(&self, id: &str) -> Result<Group> {
        check_id(id)?;
        let member = |(controllers, mount): (&[String], &Path)| Member {
            controllers: controllers.to_vec(),
            path: mount.join(PARENT).join(id),
        };
        Ok(Group { mode: self.mode, members: self.used().map(member).collect() })
    }

    /// Ids of all groups that exist in any hierarchy, sorted: for `doctor`, which compares them with the containers.
    pub fn ids(&self) -> Vec<String> {
        let mut ids = std::collections::BTreeSet::new();
        for (_, mount) in self.used() {
            let Ok(entries) = fs::read_dir(mount.join(PARENT)) else { continue };
            let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            ids.extend(directories.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        ids.into_iter().collect()
    }

    /// Removes the parent directories if no group is left in them; harmless otherwise.
    pub fn remove_parent(&self) {
        for (_, mount) in self.used() {
            let _ = fs::remove_dir(mount.join(PARENT));
        }
    }

    /// One line for `info`: `cgroups v1 and v2 (hybrid; containers use v1: cpu, memory)`.
    pub fn describe(&self) -> String {
        let names: Vec<&str> = self.v1.iter().flat_map(|h| h.controllers.iter().map(String::as_str)).collect();
        match self.mode {
            Mode::V2 => "cgroups v2".into(),
            Mode::V1 => format!("cgroups v1 ({})", names.join(", ")),
            Mode::Hybrid => format!("cgroups v1 and v2 (hybrid; containers use v1: {})", names.join(", ")),
        }
    }

    /// Controllers and mount point of every hierarchy that containers are put into.
    fn used(&self) -> impl Iterator<Item = (&[String], &Path)> {
        let unified = self.v2.as_deref().filter(|_| self.mode == Mode::V2);
        let separate = self.v1.iter().filter(|h| self.mode != Mode::V2 && v1::is_used(h));
        separate
            .map(|h| (h.controllers.as_slice(), h.mount.as_path()))
            .chain(unified.map(|mount| (&[] as &[String], mount)))
    }

    /// The leaf first, and its parent only when that fails: the parent is there in all runs but the first.
    fn make(&self, mount: &Path, leaf: &Path) -> io::Result<()> {
        let parent = mount.join(PARENT);
        // Repeated, because somebody may remove the parent between our two steps.
        for _ in 0..RACES {
            match make_dir(leaf) {
                Err(error) if error.kind() == ErrorKind::NotFound => make_dir(&parent)?,
                result => {
                    if result.is_ok() && self.mode == Mode::V2 {
                        v2::delegate(mount, &parent);
                    }
                    return result;
                }
            }
        }
        Err(io::Error::from(ErrorKind::NotFound))
    }
}

fn check_id(id: &str) -> Result<()> {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain || id.is_empty() || id.starts_with('.') || id.len() > 128 {
        bail!("name cgroup {id:?}: not an id");
    }
    Ok(())
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn explain(error: io::Error, path: &Path) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::ReadOnlyFilesystem => Some("the cgroup file system is mounted read-only; remount it writable"),
        ErrorKind::PermissionDenied => Some("run as root"),
        ErrorKind::StorageFull => Some("too many cgroups exist; remove stopped containers' or raise cgroup.max.*"),
        _ => None,
    };
    let failure = Failure::engine(format!("make cgroup {}: {error}", path.display()));
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn modes_are_told_apart() {
        let hybrid = Cgroups::from_mountinfo(HYBRID).unwrap();
        assert_eq!(hybrid.mode, Mode::Hybrid);
        assert_eq!(hybrid.v1.len(), 2);
        assert_eq!(hybrid.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(hybrid.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));

        let v2 = Cgroups::from_mountinfo(b"1 2 0:1 / /sys/fs/cgroup rw - cgroup2 none rw,nsdelegate\n").unwrap();
        assert_eq!((v2.mode, v2.describe().as_str()), (Mode::V2, "cgroups v2"));

        // A hierarchy that only carries systemd's name does not make a hybrid.
        let named = b"1 2 0:1 / /a rw - cgroup none rw,name=systemd\n2 2 0:2 / /b rw - cgroup2 none rw\n";
        assert_eq!(Cgroups::from_mountinfo(named).unwrap().mode, Mode::V2);
        assert_eq!(Cgroups::from_mountinfo(b"").unwrap_err().class, crate::error::Class::Engine);
    }

    #[test]
    fn ids_never_leave_the_parent() {
        let cgroups = Cgroups::from_mountinfo(HYBRID).unwrap();
        for id in ["", "..", ".", "a/b", "/etc", "a\0b"] {
            assert!(cgroups.group(id).is_err(), "{id:?}");
        }
        assert_eq!(cgroups.group("c1").unwrap().members.len(), 2);
    }
}
