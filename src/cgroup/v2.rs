//! What is particular to cgroups v2 (`Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::path::Path;

/// Where the processes of a nested engine's own group go, so that the group may have children with limits.
const OWN_PROCESSES: &str = "mydocker-engine";

/// The controllers that `directory` may hand on to its children.
pub(super) fn controllers(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Makes the controllers of `mount` available to the children of `parent` (relative to it), unless they are.
///
/// Errors are tolerated: where we are not in charge of the tree groups still work without limits, and a limit that
/// cannot be set says so itself.
pub(super) fn delegate(mount: &Path, parent: &Path) {
    // Not empty in all starts but the first; read rather than remembered, because a crash may have come between.
    let enabled = fs::read_to_string(mount.join(parent).join("cgroup.subtree_control")).unwrap_or_default();
    if !enabled.trim().is_empty() {
        return;
    }
    let available = controllers(mount);
    let mut directory = mount.to_path_buf();
    enable(&directory, &available);
    for name in parent {
        directory.push(name);
        enable(&directory, &available);
    }
}

/// Asking for all controllers in one write fails for all when one is refused, so they are tried alone then.
fn enable(directory: &Path, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let file = directory.join("cgroup.subtree_control");
    let request = names.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    if fs::write(&file, &request).is_ok() {
        return;
    }
    // Not the tree's real root, but what a container sees as its root: processes and controllers for children
    // exclude each other there ("no internal processes"), so the processes move one level down.
    let nested = directory.join("cgroup.type").exists() && is_own_root(directory);
    if nested && evacuate(directory).is_ok() && fs::write(&file, &request).is_ok() {
        return;
    }
    for name in names {
        let _ = fs::write(&file, format!("+{name}"));
    }
}

/// Whether `directory` is the root of this process's cgroup namespace, and the process is directly in it.
fn is_own_root(directory: &Path) -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let at_root = own.lines().any(|line| line == "0::/");
    let pid = std::process::id().to_string();
    let listed = |text: String| text.lines().any(|line| line == pid);
    at_root && fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(listed)
}

fn evacuate(directory: &Path) -> std::io::Result<()> {
    let leaf = directory.join(OWN_PROCESSES);
    let _ = fs::create_dir(&leaf);
    // In rounds, because processes fork meanwhile.
    for _ in 0..8 {
        let members = fs::read_to_string(directory.join("cgroup.procs"))?;
        if members.trim().is_empty() {
            break;
        }
        for pid in members.lines() {
            let _ = fs::write(leaf.join("cgroup.procs"), pid);
        }
    }
    Ok(())
}

/// Kills the whole subtree at once (Linux 5.14), frozen processes and ones forking meanwhile included.
pub(super) fn kill(group: &Path) -> std::io::Result<()> {
    fs::write(group.join("cgroup.kill"), "1")
}
