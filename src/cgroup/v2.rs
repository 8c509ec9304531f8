//! What is particular to cgroups v2 (`Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::path::Path;

/// Makes the controllers of `mount` available to the children of `parent`, unless they are.
///
/// Errors are tolerated: where we are not in charge of the tree (inside another container, where the root holds
/// processes) groups still work without limits. Asking for all controllers in one write would fail for all if one
/// is missing, so what exists is read first.
pub(super) fn delegate(mount: &Path, parent: &Path) {
    // Not empty in all starts but the first; read rather than remembered, because a crash may have come between.
    let enabled = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
    if !enabled.trim().is_empty() {
        return;
    }
    let available = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    let request: Vec<String> = available.split_ascii_whitespace().map(|name| format!("+{name}")).collect();
    if request.is_empty() {
        return;
    }
    for directory in [mount, parent] {
        let file = directory.join("cgroup.subtree_control");
        if fs::write(&file, request.join(" ")).is_err() {
            for controller in &request {
                let _ = fs::write(&file, controller);
            }
        }
    }
}

/// Kills the whole subtree at once (Linux 5.14), frozen processes and ones forking meanwhile included.
pub(super) fn kill(group: &Path) -> std::io::Result<()> {
    fs::write(group.join("cgroup.kill"), "1")
}

/// Lets a paused group go on.
pub(super) fn thaw(group: &Path) {
    let _ = fs::write(group.join("cgroup.freeze"), "0");
}
