//! What is particular to cgroups v1 (`Documentation/admin-guide/cgroup-v1/`).

use std::fs;
use std::path::Path;

use super::Hierarchy;

/// Controllers a container gets a group in.
///
/// Not `cpuset`: a new group there has no CPUs and no memory nodes, and refuses every process until both files
/// are copied from its parent, four more system calls on every start for a feature nobody has asked for yet. Its
/// `cgroup.clone_children` would do that, but is off by default and not ours to switch on for the host.
const USED: [&str; 7] = ["memory", "cpu", "cpuacct", "pids", "freezer", "devices", "blkio"];

/// Super options of a v1 mount that are not controllers (cgroups(7), `kernel/cgroup/cgroup-v1.c`).
const FLAGS: [&str; 9] =
    ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "nofavordynmods", "favordynmods", "none"];

/// The controllers among a mount's super options; empty for a hierarchy that only has a name.
pub(super) fn controllers(options: &[u8]) -> Vec<String> {
    let options = String::from_utf8_lossy(options);
    let is_controller = |option: &&str| !option.is_empty() && !option.contains('=') && !FLAGS.contains(option);
    options.split(',').filter(is_controller).map(str::to_owned).collect()
}

/// Whether containers are put into this hierarchy. One that carries `cpuset` beside others cannot be joined
/// without initialising it, see [`USED`].
pub(super) fn is_used(hierarchy: &Hierarchy) -> bool {
    let has = |name: &str| hierarchy.controllers.iter().any(|controller| controller == name);
    USED.iter().any(|name| has(name)) && !has("cpuset")
}

/// Lets a paused group go on, so that its processes can die: v1 delivers no SIGKILL to frozen ones.
pub(super) fn thaw(freezer: &Path) {
    let _ = fs::write(freezer.join("freezer.state"), "THAWED");
}
