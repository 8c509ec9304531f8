//! The bridge of a network on the host: made when somebody first needs it, after a reboot again.
//!
//! A bridge is complete when it is up: its rules are there before it is, its addresses and parameters
//! before it comes up. So one look at the device tells whether there is anything to do, and a process
//! that was killed half-way leaves something that the next one completes.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;

use super::firewall::{self, Firewall, Forwarding};
use super::link::{self, Links};
use super::{MacAddress, Network, option};
use crate::error::Failure;
use crate::sys::network::device_state;

const FORWARD_IPV4: &str = "net/ipv4/ip_forward";
const FORWARD_IPV6: &str = "net/ipv6/conf/all/forwarding";

/// What stands in a bridge's alias: the data root's tag and the network's id.
fn mark(tag: &str, id: &str) -> String {
    format!("mydocker {tag} network {id}")
}

/// The bridge's number when it is complete.
pub fn find(network: &Network) -> Result<Option<u32>> {
    Ok(device_state(&network.device)
        .with_context(|| format!("look for device {}", network.device))?
        .filter(|device| device.up)
        .map(|device| device.index))
}

/// Whether a network's ports are isolated from each other. Where the rules see what goes from one port
/// of a bridge to another (br_netfilter, `Documentation/networking/ip-sysctl.rst`) they keep containers
/// apart, and isolated ports would do harm: a frame to a published port is translated inside the bridge,
/// and would be dropped on its way to the container that it is meant for.
pub fn is_isolating(network: &Network) -> bool {
    let filtered =
        ["iptables", "ip6tables"].iter().all(|of| read_parameter(&format!("net/bridge/bridge-nf-call-{of}")) == "1");
    !network.flag(option::ICC, true) && !filtered
}

/// Makes the bridge complete. To be called under the networks' lock.
///
/// Without an iptables program the bridge leads nowhere but to the host: a way out without rules would
/// make the host a router for its neighbours, and each network one for the others. That is said in
/// `warnings`.
pub fn make(links: &mut Links, network: &Network, firewall: &Firewall, warnings: &mut Vec<String>) -> Result<u32> {
    if let Some(index) = find(network)? {
        return Ok(index);
    }
    if firewall.is_available() {
        open_to_the_outside(network, firewall)?;
    } else {
        warnings.push(format!(
            "iptables is not installed: containers on network {} reach each other and the host, and nothing else. \
             Install it (apt-get install iptables, or the like), then run: mydocker doctor --fix",
            network.name
        ));
    }
    let name = network.device.as_str();
    let index = match Links::index_of(name)? {
        Some(index) => {
            let device = links.device(name)?.unwrap_or_default();
            if device.kind != "bridge" {
                return Err(taken(network, &device.kind));
            }
            index
        }
        None => {
            let gateway = network.subnets.iter().find_map(|subnet| subnet.gateway);
            let mac = gateway.map_or_else(|| random_mac(network), MacAddress::of);
            links.carry_out(vec![
                link::bridge(name, mac, mtu(network)),
                link::alias(name, &mark(firewall.tag(), &network.id)),
            ])?;
            Links::index_of(name)?.with_context(|| format!("find bridge {name}, made just now"))?
        }
    };
    for (file, value) in firewall::bridge_sysctls(network) {
        write_parameter(&file, &value)?;
    }
    let mut requests: Vec<link::Request> = network
        .subnets
        .iter()
        .filter_map(|subnet| gateway_address(subnet.gateway?, subnet.subnet))
        .map(|address| link::address(index, address))
        .collect();
    requests.push(link::up(index));
    links.carry_out(requests).with_context(|| format!("set up bridge {name}"))?;
    Ok(index)
}

/// Makes a parent device for a macvlan or ipvlan network that names none: one end of a cable whose other
/// end is plugged in nowhere. Containers on it reach each other and nobody else. (A dummy device would do,
/// but not every kernel has them.)
pub fn make_parent(links: &mut Links, network: &Network, firewall: &Firewall) -> Result<()> {
    let name = network.device.as_str();
    let other = format!("dq-{}", name.trim_start_matches("dm-"));
    links.carry_out(vec![
        link::cable(name, &other, random_mac(network)),
        link::alias(name, &mark(firewall.tag(), &network.id)),
    ])?;
    for end in [name, &other] {
        let index = Links::index_of(end)?.with_context(|| format!("find device {end}, made just now"))?;
        links.carry_out(vec![link::up(index)])?;
    }
    Ok(())
}

/// Takes the bridge and its rules away. To be called under the networks' lock. A device of that name
/// that is not ours stays.
pub fn remove(links: &mut Links, network: &Network, firewall: &Firewall) -> Result<()> {
    if let Some(device) = links.device(&network.device)?
        && device.alias == mark(firewall.tag(), &network.id)
    {
        links.carry_out(vec![link::delete(device.index)]).with_context(|| format!("remove bridge {}", device.name))?;
    }
    if firewall.is_available() { firewall.remove_network(network) } else { Ok(()) }
}

/// Devices that say they were made for a network of this data root: name and number of the device, id
/// of the network.
pub fn marked(links: &mut Links, firewall: &Firewall) -> Result<Vec<(String, u32, String)>> {
    let prefix = mark(firewall.tag(), "");
    let devices = links.devices()?.into_iter();
    Ok(devices
        .filter_map(|device| {
            let id = device.alias.strip_prefix(&prefix)?.to_owned();
            Some((device.name, device.index, id))
        })
        .collect())
}

/// Largest packet that the network's devices send, bytes; `None` for the kernel's choice.
pub fn mtu(network: &Network) -> Option<u32> {
    network.option(option::MTU).and_then(|text| text.parse().ok()).filter(|mtu| *mtu > 0)
}

fn gateway_address(gateway: IpAddr, subnet: IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(gateway, subnet.prefix()).ok()
}

/// From the network's id, so that it is the same each time.
fn random_mac(network: &Network) -> MacAddress {
    let byte = |index: usize| {
        network.id.get(index * 2..index * 2 + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    MacAddress([0x02, 0x42, byte(0), byte(1), byte(2), byte(3)])
}

fn taken(network: &Network, kind: &str) -> anyhow::Error {
    let kind = if kind.is_empty() { "device" } else { kind };
    Failure::conflict(format!("network {}: {} is the name of a {kind} of the host", network.name, network.device))
        .with_hint("rename that device, or make the network anew with --opt com.docker.network.bridge.name=NAME")
        .into()
}

/// Writes a network's rules and has the kernel forward packets between devices (ip-sysctl.rst), in this
/// order. Where it did not until now, the FORWARD chain's policy is to drop: the host must not become a
/// router for its neighbours, not for a moment.
pub fn open_to_the_outside(network: &Network, firewall: &Firewall) -> Result<()> {
    let off = |ipv6: bool, parameter: &str| {
        !network.internal && network.subnets_of(ipv6).next().is_some() && read_parameter(parameter) != "1"
    };
    let begun = Forwarding { ipv4: off(false, FORWARD_IPV4), ipv6: off(true, FORWARD_IPV6) };
    firewall.add_network(network, begun)?;
    if begun.ipv4 {
        write_parameter(FORWARD_IPV4, "1")?;
    }
    if begun.ipv6 {
        keep_router_advertisements();
        write_parameter(FORWARD_IPV6, "1")?;
    }
    Ok(())
}

/// A host that forwards IPv6 ignores router advertisements, and would lose its own way out, where
/// `accept_ra` is 1; 2 listens to them all the same (ip-sysctl.rst).
fn keep_router_advertisements() {
    let Ok(entries) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return };
    for entry in entries.flatten() {
        let file = entry.path().join("accept_ra");
        if entry.file_name() != "all" && fs::read_to_string(&file).is_ok_and(|text| text.trim() == "1") {
            let _ = fs::write(file, "2");
        }
    }
}

fn read_parameter(name: &str) -> String {
    fs::read_to_string(parameter(name)).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Sets a kernel parameter of the calling thread's network namespace.
pub fn write_parameter(name: &str, value: &str) -> Result<()> {
    let path = parameter(name);
    match fs::write(&path, value) {
        // A kernel, or a namespace, without IPv6.
        Err(error) if error.kind() == ErrorKind::NotFound && name.starts_with("net/ipv6/") => Ok(()),
        // Already so: a container's /proc/sys is read-only.
        Err(_) if read_parameter(name) == value => Ok(()),
        result => result.with_context(|| format!("set {} to {value}", path.display())),
    }
}

fn parameter(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}
