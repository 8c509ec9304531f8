//! What there is of networks on a sandbox's host, seen past the program under test.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use mydocker::layout::Layout;
use mydocker::net::records::Records;

use super::{Sandbox, eventually, leftovers};

/// What networks have left: to be asked once all of them but the default one have been removed.
pub fn left(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let default = default_id(root);
    for directory in ["networks", "ipam", "names"] {
        let Ok(entries) = fs::read_dir(root.join("network").join(directory)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "bridge.json" && Some(&name) != default.as_ref() {
                found.push(format!("file: network/{directory}/{name}"));
            }
        }
    }
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    found.extend(names.filter(|name| !matches!(*name, "lo" | "mydocker0")).map(|name| format!("device: {name}")));
    let ours = |line: &str| {
        let foreign = default.as_ref().is_some_and(|id| line.contains(&id[..12]) || line.contains(&chain_of(id)));
        !foreign && (line.contains("\"mydocker ") || is_private(line))
    };
    for family in ["iptables-save", "ip6tables-save"] {
        found.extend(rules(family).into_iter().filter(|line| ours(line)).map(|line| format!("{family}: {line}")));
    }
    found
}

/// A chain of one network or container.
fn is_private(line: &str) -> bool {
    let Some(rest) = line.strip_prefix(":MYDOCKER-") else { return false };
    let name = rest.split(' ').next().unwrap_or_default();
    name.contains('-')
}

fn chain_of(network_id: &str) -> String {
    format!("MYDOCKER-NET-{}", &network_id[..8])
}

fn default_id(root: &Path) -> Option<String> {
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(root.join("network/networks/bridge.json")).ok()?).ok()?;
    record["id"].as_str().map(str::to_owned)
}

/// Every line of `iptables-save`, or `ip6tables-save`.
pub fn rules(program: &str) -> Vec<String> {
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Where TCP packets to a host port are sent: the targets of all rules for it.
pub fn targets_of(port: u16) -> Vec<String> {
    let wanted = format!("--dport {port} ");
    let lines = rules("iptables-save").into_iter().filter(|line| line.contains(&wanted));
    lines.filter_map(|line| line.split_once("--to-destination ").map(|(_, target)| target.to_owned())).collect()
}

/// Waits until no container has anything on the host, and a host port of theirs is free.
#[track_caller]
pub fn nothing_of_containers(sandbox: &Sandbox, ids: &[String], port: u16, what: &str) {
    let look = || {
        let mut left = leftovers::devices();
        left.extend(leftovers::files(&sandbox.root()));
        left.extend(leftovers::rules(ids));
        left.extend(leftovers::addresses(&sandbox.root()));
        let records = Records::open(&Layout::new(Some(sandbox.root())));
        for network in records.list().unwrap().networks {
            // The alias that these tests give.
            let found = records.zone(&network).lookup("db");
            left.extend(found.map(|addresses| format!("name: db on {} leads to {addresses:?}", network.name)));
        }
        if port != 0 && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err() {
            left.push(format!("port {port} is taken"));
        }
        left
    };
    // Devices go when the kernel gets to it.
    if !super::comes_true(super::patience(), || look().is_empty()) {
        panic!("{what}: left behind:\n{}", look().join("\n"));
    }
}

/// Nothing of any network is left but what all share.
#[track_caller]
pub fn nothing_at_all(sandbox: &Sandbox, what: &str) {
    // Devices of containers go when the kernel gets to it.
    if !super::comes_true(super::patience(), || left(&sandbox.root()).is_empty()) {
        panic!("{what}: left behind:\n{}", left(&sandbox.root()).join("\n"));
    }
}

/// Owners of a network's addresses, by address.
pub fn leases(sandbox: &Sandbox, network: &str) -> Vec<(String, String)> {
    let records = Records::open(&Layout::new(Some(sandbox.root())));
    let network = records.by_name(network).unwrap().expect("no such network");
    records.leases(&network).unwrap().into_iter().map(|(address, owner)| (address.to_string(), owner)).collect()
}

/// Waits until nobody has an address on a network.
#[track_caller]
pub fn no_leases(sandbox: &Sandbox, network: &str) {
    eventually(&format!("no leases on {network}"), || leases(sandbox, network).is_empty());
}
