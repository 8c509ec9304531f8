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

/// What stands in a bridge's alias before the network's id.
const MARK: &str = "mydocker network ";

/// The bridge's number when it is complete.
pub fn find(network: &Network) -> Result<Option<u32>> {
    Ok(device_state(&network.device)
        .with_context(|| format!("look for device {}", network.device))?
        .filter(|device| device.up)
        .map(|device| device.index))
}

/// Whether the rules see what goes from one port of a bridge to another (br_netfilter,
/// `Documentation/networking/ip-sysctl.rst`), in both families.
pub fn is_filtered() -> bool {
    ["iptables", "ip6tables"].iter().all(|of| read_parameter(&format!("net/bridge/bridge-nf-call-{of}")) == "1")
}

/// Makes the bridge complete. To be called under the networks' lock.
pub fn make(links: &mut Links, network: &Network, firewall: &Firewall) -> Result<u32> {
    if let Some(index) = find(network)? {
        return Ok(index);
    }
    let begun = turn_on_forwarding(network)?;
    firewall.add_network(network, begun)?;
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
                link::alias(name, &format!("{MARK}{}", network.id)),
            ])?;
            Links::index_of(name)?.with_context(|| format!("find bridge {name}, made just now"))?
        }
    };
    for (file, value) in firewall::bridge_sysctls(network) {
        write_parameter(&file, &value)?;
    }
    let mut requests: Vec<link::Request> =
        network.subnets.iter().filter_map(|subnet| gateway_address(subnet.gateway?, subnet.subnet)).map(|address| link::address(index, address)).collect();
    requests.push(link::up(index));
    links.carry_out(requests).with_context(|| format!("set up bridge {name}"))?;
    Ok(index)
}

/// Makes a parent device for a macvlan or ipvlan network that names none: a bridge without ports, which
/// leads nowhere. Containers on it reach each other and nobody else.
pub fn make_parent(links: &mut Links, network: &Network) -> Result<()> {
    let name = network.device.as_str();
    links.carry_out(vec![
        link::bridge(name, random_mac(network), mtu(network)),
        link::alias(name, &format!("{MARK}{}", network.id)),
    ])?;
    let index = Links::index_of(name)?.with_context(|| format!("find device {name}, made just now"))?;
    links.carry_out(vec![link::up(index)])
}

/// Takes the bridge and its rules away. To be called under the networks' lock. A device of that name
/// that is not ours stays.
pub fn remove(links: &mut Links, network: &Network, firewall: &Firewall) -> Result<()> {
    if let Some(device) = links.device(&network.device)?
        && device.alias == format!("{MARK}{}", network.id)
    {
        links.carry_out(vec![link::delete(device.index)]).with_context(|| format!("remove bridge {}", device.name))?;
    }
    firewall.remove_network(network)
}

/// Bridges that say they belong to networks: device name and network id.
pub fn marked(links: &mut Links) -> Result<Vec<(String, String)>> {
    let devices = links.devices()?.into_iter();
    Ok(devices.filter_map(|device| Some((device.name, device.alias.strip_prefix(MARK)?.to_owned()))).collect())
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

/// Has the kernel forward packets between devices (ip-sysctl.rst). Where it did not until now, the
/// FORWARD chain's policy is to drop: the host must not become a router for its neighbours.
fn turn_on_forwarding(network: &Network) -> Result<Forwarding> {
    let mut begun = Forwarding::default();
    if network.internal {
        return Ok(begun);
    }
    if network.subnets_of(false).next().is_some() && read_parameter("net/ipv4/ip_forward") != "1" {
        write_parameter("net/ipv4/ip_forward", "1")?;
        begun.ipv4 = true;
    }
    if network.has_ipv6() && read_parameter("net/ipv6/conf/all/forwarding") != "1" {
        keep_router_advertisements();
        write_parameter("net/ipv6/conf/all/forwarding", "1")?;
        begun.ipv6 = true;
    }
    Ok(begun)
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
