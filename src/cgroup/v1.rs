//! What is particular to cgroups v1 (`Documentation/admin-guide/cgroup-v1/`).

use std::path::Path;
use std::{fs, io};

use super::Hierarchy;

/// Controllers every container gets a group in.
const USED: [&str; 7] = ["memory", "cpu", "cpuacct", "pids", "freezer", "devices", "blkio"];

/// Controllers that only containers with such a limit get a group in.
///
/// A new `cpuset` group has no CPUs and no memory nodes and refuses every process until both files are copied from
/// its parent: six more system calls on every start. (Its `cgroup.clone_children` would do that, but is off by
/// default and not ours to switch on for the host.)
pub(super) const OPTIONAL: [&str; 2] = ["cpuset", "hugetlb"];

/// Super options of a v1 mount that are not controllers (cgroups(7), `kernel/cgroup/cgroup-v1.c`).
const FLAGS: [&str; 9] =
    ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "nofavordynmods", "favordynmods", "none"];

/// The controllers among a mount's super options; empty for a hierarchy that only has a name.
pub(super) fn controllers(options: &[u8]) -> Vec<String> {
    let options = String::from_utf8_lossy(options);
    let is_controller = |option: &&str| !option.is_empty() && !option.contains('=') && !FLAGS.contains(option);
    options.split(',').filter(is_controller).map(str::to_owned).collect()
}

/// Whether a container that needs the `extra` controllers is put into this hierarchy.
pub(super) fn is_used(hierarchy: &Hierarchy, extra: &[&str]) -> bool {
    let has = |name: &&str| hierarchy.controllers.iter().any(|controller| controller == name);
    USED.iter().any(has) || extra.iter().any(has)
}

/// Gives every directory of `path` below `mount` that has no CPUs or memory nodes those of its parent: until then
/// no process can join (`Documentation/admin-guide/cgroup-v1/cpusets.rst`).
pub(super) fn inherit_cpuset(mount: &Path, path: &Path) -> io::Result<()> {
    let mut parent = mount.to_path_buf();
    for name in path {
        let directory = parent.join(name);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = directory.join(file);
            if fs::read_to_string(&own)?.trim().is_empty() {
                fs::write(&own, fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
        parent = directory;
    }
    Ok(())
}
