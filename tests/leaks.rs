//! The last test: nothing of any test's container is left on the machine. `make test` runs it once
//! more after everything else.
//!
//! What belongs to containers of the system-wide data root is the user's; what vanishes while we
//! look belonged to a suite that still runs.

#[path = "support/leftovers.rs"]
#[allow(dead_code, unreachable_pub)]
mod leftovers;
#[path = "support/processes.rs"]
#[allow(dead_code, unreachable_pub)]
mod processes;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer than any one test holds on to a container.
const WINDOW: Duration = Duration::from_secs(20);

#[test]
fn nothing_is_left_on_the_machine() {
    let deadline = Instant::now() + WINDOW;
    let mut left = leaks();
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "left behind:\n{}", left.into_iter().collect::<Vec<_>>().join("\n"));
        std::thread::sleep(Duration::from_millis(100));
        let now = leaks();
        left.retain(|leak| now.contains(leak));
    }
}

fn leaks() -> BTreeSet<String> {
    let users = leftovers::containers(Path::new("/var/lib/mydocker"));
    let ours = |text: &str| !users.iter().any(|id| text.contains(id.as_str()));

    let mut found = BTreeSet::new();
    found.extend(leftovers::mounts("mydocker").into_iter().filter(|line| ours(line)));
    for cgroup in leftovers::cgroups() {
        found.extend(Some(format!("cgroup: {}", cgroup.display())).filter(|line| ours(line)));
    }
    for (pid, line) in processes::all() {
        // A process of a user's container has the id in its cgroup.
        let stage = line.starts_with("mydocker: ");
        let inside = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if (stage && users.is_empty()) || (inside.contains("/mydocker/") && ours(&inside)) {
            found.insert(format!("process {pid}: {line}"));
        }
    }
    for name in names("/sys/class/net") {
        if name.starts_with("mydocker") {
            found.insert(format!("link: {name}"));
        }
    }
    for base in ["/var/tmp", "/dev/shm", env!("CARGO_TARGET_TMPDIR")] {
        for name in names(base) {
            if name.starts_with("mydocker-test.") {
                found.insert(format!("directory: {base}/{name}"));
            }
        }
    }
    found
}

fn names(directory: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
