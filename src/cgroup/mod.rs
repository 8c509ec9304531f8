//! Control groups: one per container, in cgroups v1, v2 or the hybrid of both. Owns everything below
//! `<hierarchy>/mydocker/` (or another parent that was asked for) and knows nothing of containers but their
//! [`Place`]. Where systemd is to make the groups, [`systemd`] asks it to.
//!
//! Who joins how, and why (`docs/performance.md`): in v1 the container's process writes `0` to each
//! [`Group::join_files`] while it has a single thread, which costs 0.04 ms; a write to `cgroup.procs` from outside
//! would wait for an RCU grace period, 7–14 ms. In v2 the process is cloned into [`Group::v2_dir_fd`].
//!
//! The parent `mydocker` is made on demand and stays, like Docker's own: making it anew for each container would
//! double the work. [`Cgroups::remove_parent`] takes it away when nothing runs.

mod devices;
mod freezer;
mod group;
pub mod limits;
mod mountinfo;
mod oom;
mod place;
mod stats;
pub mod systemd;
mod v1;
mod v2;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use group::{Group, Member, View, ViewLink, ViewMount};
pub use limits::Setting;
pub use oom::OomWatch;
pub use place::{Place, Unit};
pub use stats::{Descriptors, Meter, Usage};

use crate::error::Failure;

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
    /// Controllers; several when co-mounted (`cpu`, `cpuacct`), none for the unified one.
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

impl Hierarchy {
    /// Whether this is the v2 tree.
    fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
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

    /// Makes the group in every hierarchy that containers use, and in those of the `extra` controllers. One that is
    /// there already is taken over.
    ///
    /// # Errors
    /// The host does not offer an `extra` controller, or a directory cannot be made; what was made is removed again.
    pub fn create(&self, place: &Place, extra: &[&str]) -> Result<Group> {
        let mut group = Group { mode: self.mode, members: Vec::new(), scope: scope_name(place) };
        for hierarchy in self.hierarchies_for(extra)? {
            let member = member(hierarchy, place);
            if let Err(error) = self.make(&member, place) {
                // The first error stays first; what cannot be removed now is empty and harmless.
                let _ = group.remove();
                return Err(explain(error, &member.path));
            }
            group.members.push(member);
        }
        group.members.extend(self.tracking(place));
        Ok(group)
    }

    /// The group as [`create`](Self::create) would return it with every controller, without making anything: for
    /// whoever meets it later. Directories that were not made are passed over when it is killed or removed.
    pub fn group(&self, place: &Place) -> Group {
        self.group_with(place, &v1::OPTIONAL)
    }

    /// The group as [`create`](Self::create) would return it with the `extra` controllers, without making anything.
    pub fn group_with(&self, place: &Place, extra: &[&str]) -> Group {
        let hierarchies = self.offered().filter(|h| h.is_unified() || v1::is_used(h, extra));
        let members = hierarchies.map(|hierarchy| member(hierarchy, place)).chain(self.tracking(place)).collect();
        Group { mode: self.mode, members, scope: scope_name(place) }
    }

    /// Whether `controller` can limit anything here.
    pub fn offers(&self, controller: &str) -> bool {
        match self.v2.as_deref().filter(|_| self.mode == Mode::V2) {
            Some(mount) => v2::controllers(mount).iter().any(|name| name == controller),
            None => self.v1.iter().any(|h| h.controllers.iter().any(|name| name == controller)),
        }
    }

    /// Whether groups below `place`'s parent have `file` of `controller`. The parent is made when missing, because a
    /// hierarchy's root lacks many of its files; slices are left to systemd.
    pub fn has_file(&self, place: &Place, controller: &str, file: &str) -> bool {
        if !self.offers(controller) {
            return false;
        }
        let found = self.offered().find(|h| h.is_unified() || h.controllers.iter().any(|name| name == controller));
        let Some(hierarchy) = found else { return false };
        let parent = hierarchy.mount.join(place.parent());
        if place.unit().is_some() {
            return has_file_in_slices(&hierarchy, &parent, controller, file);
        }
        if parent.join(file).exists() {
            return true;
        }
        let _ = fs::create_dir_all(&parent);
        if hierarchy.is_unified() {
            // Also when the parent is there: another command may have made it this very moment, and not yet have
            // got its controllers.
            v2::delegate(&hierarchy.mount, place.parent());
        }
        parent.join(file).exists()
    }

    /// Ids of all groups below the usual parent that exist in any hierarchy, sorted: for `doctor`, which compares
    /// them with the containers.
    pub fn ids(&self) -> Vec<String> {
        let mut ids = std::collections::BTreeSet::new();
        for hierarchy in self.offered() {
            let Ok(entries) = fs::read_dir(hierarchy.mount.join(place::PARENT)) else { continue };
            let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            ids.extend(directories.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        ids.into_iter().collect()
    }

    /// Removes the usual parent directories if no group is left in them; harmless otherwise.
    pub fn remove_parent(&self) {
        for hierarchy in self.offered() {
            let _ = fs::remove_dir(hierarchy.mount.join(place::PARENT));
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

    /// Where systemd keeps the processes of a scope beside the v1 controllers, and makes the groups itself: a hierarchy
    /// with its name, and the unified tree on hybrid hosts. Whoever joins must be in these, too.
    fn tracking(&self, place: &Place) -> impl Iterator<Item = Member> {
        let is_scope = place.unit().is_some() && self.mode != Mode::V2;
        let named = Hierarchy { controllers: vec!["systemd".into()], mount: systemd::NAMED_HIERARCHY.into() };
        let unified = self.v2.clone().map(|mount| Hierarchy { controllers: Vec::new(), mount });
        let hierarchies = Some(named).into_iter().chain(unified);
        hierarchies.filter(move |_| is_scope).map(|hierarchy| member(hierarchy, place))
    }

    /// The hierarchies that containers may be put into.
    fn offered(&self) -> impl Iterator<Item = Hierarchy> {
        let unified = self.v2.clone().filter(|_| self.mode == Mode::V2);
        let separate: &[Hierarchy] = if self.mode == Mode::V2 { &[] } else { &self.v1 };
        separate.iter().cloned().chain(unified.map(|mount| Hierarchy { controllers: Vec::new(), mount }))
    }

    /// Those of a container that needs `extra` controllers.
    fn hierarchies_for(&self, extra: &[&str]) -> Result<Vec<Hierarchy>> {
        if let Some(missing) = extra.iter().find(|name| !self.offers(name)) {
            return Err(Failure::engine(format!("this host has no cgroup controller {missing}"))
                .with_hint(format!("leave its limit away, or enable it; what is there: {}", self.describe()))
                .into());
        }
        Ok(self.offered().filter(|h| h.is_unified() || v1::is_used(h, extra)).collect())
    }

    /// The leaf first, and its parents only when that fails: they are there in all runs but the first.
    fn make(&self, member: &Member, place: &Place) -> io::Result<()> {
        // Repeated, because somebody may remove the parent between our two steps.
        for _ in 0..RACES {
            match make_dir(&member.path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(member.mount.join(place.parent()))?;
                }
                Err(error) => return Err(error),
                // systemd has handed on to its scope what there is, and its slices are not ours to change.
                Ok(()) if self.mode == Mode::V2 && place.unit().is_some() => return Ok(()),
                Ok(()) if self.mode == Mode::V2 => {
                    v2::delegate(&member.mount, place.parent());
                    return Ok(());
                }
                Ok(()) if member.controllers.iter().any(|name| name == "cpuset") => {
                    return v1::inherit_cpuset(&member.mount, place.path());
                }
                Ok(()) => return Ok(()),
            }
        }
        Err(io::Error::from(ErrorKind::NotFound))
    }
}

/// Whether slices have the file. systemd hands a controller on to slices only while somebody in them needs it; where
/// none has it, the kernel tells at the start.
fn has_file_in_slices(hierarchy: &Hierarchy, slice: &Path, controller: &str, file: &str) -> bool {
    let has_controller = |directory: &Path| match hierarchy.is_unified() {
        true => v2::controllers(directory).iter().any(|name| name == controller),
        false => directory.join("cgroup.procs").exists(),
    };
    let children = fs::read_dir(&hierarchy.mount).into_iter().flatten().flatten().map(|entry| entry.path());
    let example = std::iter::once(slice.to_path_buf()).chain(children).find(|directory| has_controller(directory));
    example.is_none_or(|directory| directory.join(file).exists())
}

fn scope_name(place: &Place) -> Option<String> {
    place.unit().map(|unit| unit.name.clone())
}

fn member(hierarchy: Hierarchy, place: &Place) -> Member {
    let path = hierarchy.mount.join(place.path());
    Member { controllers: hierarchy.controllers, mount: hierarchy.mount, path }
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
}
