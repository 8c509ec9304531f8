//! What containers leave behind when something is wrong: mounts, processes, cgroups, files.

use std::fs;
use std::path::{Path, PathBuf};

use mydocker::layout::Layout;
use mydocker::net::records::Records;

use super::processes;

/// Mounts of this namespace whose line mentions `text`.
pub fn mounts(text: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(text)).map(|line| format!("mount: {line}")).collect()
}

/// Processes whose command line mentions one of `texts`, this one excepted.
pub fn running(texts: &[String]) -> Vec<String> {
    let own = i32::try_from(std::process::id()).unwrap();
    let mut found = processes::all();
    found.retain(|(pid, line)| *pid != own && texts.iter().any(|text| line.contains(text.as_str())));
    found.into_iter().map(|(pid, line)| format!("process {pid}: {line}")).collect()
}

/// Every container's cgroup in every hierarchy: `…/mydocker/<id>`, or `mydocker-<id>.scope` in a slice of systemd's.
pub fn cgroups() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![base.to_path_buf()];
    hierarchies.extend(directories(base));
    let mut found: Vec<PathBuf> = hierarchies.iter().flat_map(|path| directories(&path.join("mydocker"))).collect();
    hierarchies.into_iter().for_each(|hierarchy| scopes(&hierarchy, &mut found));
    found.sort();
    found.dedup();
    found
}

fn scopes(parent: &Path, found: &mut Vec<PathBuf>) {
    for path in directories(parent) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".slice") {
            scopes(&path, found);
        } else if name.starts_with("mydocker-") && name.ends_with(".scope") {
            found.push(path);
        }
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // cpu → cpu,cpuacct and the like are links on some machines: one name a hierarchy is enough.
    found.retain(|path| path.is_dir() && !path.is_symlink());
    found
}

/// Container ids that have a directory below this data root.
pub fn containers(root: &Path) -> Vec<String> {
    names(&root.join("containers")).into_iter().filter(|name| name.len() == 64).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Ends of containers' device pairs in the calling thread's network namespace.
pub fn devices() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names.filter(|name| name.starts_with("veth")).map(|name| format!("device: {name}")).collect()
}

/// Rules of containers in the calling thread's network namespace. Asks only where a network was used.
pub fn rules(ids: &[String]) -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    if table.lines().count() <= 3 {
        return Vec::new();
    }
    let mut found = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let Ok(output) = std::process::Command::new(program).output() else { continue };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mentions = |line: &&str| ids.iter().any(|id| line.contains(&id[..12]));
        found.extend(text.lines().filter(mentions).map(|line| format!("{program}: {line}")));
    }
    found
}

/// Addresses that containers have not given back.
pub fn addresses(root: &Path) -> Vec<String> {
    let records = Records::open(&Layout::new(Some(root.to_path_buf())));
    let networks = records.list().map(|listing| listing.networks).unwrap_or_default();
    let leases = networks.iter().flat_map(|network| records.leases(network).unwrap());
    leases.map(|(address, owner)| format!("address: {address} of {owner}")).collect()
}

/// What containers that are gone have left below their data root.
pub fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |directory: &str, belongs: fn(&str) -> bool| {
        for name in names(&root.join(directory)) {
            if !belongs(&name) {
                found.push(format!("file: {}/{directory}/{name}", root.display()));
            }
        }
    };
    look("containers", |_| false);
    look("names", |name| name == ".lock");
    look("overlay2", |name| name == "layers");
    look("trash", |_| false);
    look("run", |name| !name.ends_with(".sock"));
    // Anonymous volumes go with their container; named ones stay.
    look("volumes", |name| name.len() != 64);
    found
}
