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
/// What stands in a device's alias before the network's id and the data root's tag.
const MARK: &str = "mydocker network ";

/// The bridge's number when it is complete and this network's. One that the user has made (`--opt
/// com.docker.network.bridge.name=…`) bears no mark of ours: what it lacks is for [`make`] to find out.
pub fn find(network: &Network, firewall: &Firewall) -> Result<Option<u32>> {
    Ok(device_state(&network.device)
        .with_context(|| format!("look for device {}", network.device))?
        .filter(|device| device.up && MacAddress(device.mac) == own_mac(network, firewall))
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

/// Makes the bridge complete, whatever there is of it. To be called under the networks' lock.
///
/// Without an iptables program the bridge leads nowhere but to the host: a way out without rules would
/// make the host a router for its neighbours, and each network one for the others. That is said in
/// `warnings`.
///
/// # Errors
/// A conflict when the device is not the network's: another kind of device, or of somebody else.
pub fn make(links: &mut Links, network: &Network, firewall: &Firewall, warnings: &mut Vec<String>) -> Result<u32> {
    let name = network.device.as_str();
    let found = links.device(name)?;
    // Before there are rules for it.
    if let Some(device) = &found
        && !may_use(device, network, firewall)
    {
        return Err(taken(network, device));
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
    let index = match found {
        Some(device) => device.index,
        None => {
            links.carry_out(vec![
                link::bridge(name, own_mac(network, firewall), mtu(network)),
                link::alias(name, &mark(network, firewall)),
            ])?;
            Links::index_of(name)?.with_context(|| format!("find bridge {name}, made just now"))?
        }
    };
    for (file, value) in firewall::bridge_sysctls(network) {
        write_parameter(&file, &value)?;
    }
    let gateways = network.subnets.iter().filter_map(|subnet| gateway_address(subnet.gateway?, subnet.subnet));
    let mut requests: Vec<link::Request> = gateways.map(|address| link::address(index, address)).collect();
    requests.push(link::up(index));
    links.carry_out(requests).with_context(|| format!("set up bridge {name}"))?;
    Ok(index)
}

/// Whether a device that has the name of the network's may be used: it is the network's own, or a bridge
/// that the user has named and made.
fn may_use(device: &link::Device, network: &Network, firewall: &Firewall) -> bool {
    let named = network.option(option::BRIDGE_NAME).is_some() && !device.alias.starts_with(MARK);
    device.kind == "bridge" && (named || device.alias == mark(network, firewall))
}

fn mark(network: &Network, firewall: &Firewall) -> String {
    format!("{MARK}{} {}", network.id, firewall.tag())
}

/// Makes a parent device for a macvlan or ipvlan network that names none: one end of a cable whose other
/// end is plugged in nowhere. Containers on it reach each other and nobody else. (A dummy device would do,
/// but not every kernel has them.)
pub fn make_parent(links: &mut Links, network: &Network, firewall: &Firewall) -> Result<()> {
    let name = network.device.as_str();
    let other = format!("dq-{}", name.trim_start_matches("dm-"));
    links.carry_out(vec![
        link::cable(name, &other, own_mac(network, firewall)),
        link::alias(name, &mark(network, firewall)),
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
        && device.alias == mark(network, firewall)
    {
        links.carry_out(vec![link::delete(device.index)]).with_context(|| format!("remove bridge {}", device.name))?;
    }
    if firewall.is_available() { firewall.remove_network(network) } else { Ok(()) }
}

/// Takes away the devices and rules of a network of which nothing is known but the id. To be called under
/// the networks' lock.
pub fn forget(links: &mut Links, id: &str, firewall: &Firewall) -> Result<()> {
    let mark = format!("{MARK}{id} {}", firewall.tag());
    for device in links.devices()?.into_iter().filter(|device| device.alias == mark) {
        links.carry_out(vec![link::delete(device.index)]).with_context(|| format!("remove bridge {}", device.name))?;
    }
    firewall.forget_network(id)
}

/// Devices that say they were made for a network of this data root: name and number of the device, id
/// of the network.
pub fn marked(links: &mut Links, firewall: &Firewall) -> Result<Vec<(String, u32, String)>> {
    let devices = links.devices()?.into_iter();
    let own = |device: link::Device| {
        let (id, tag) = device.alias.strip_prefix(MARK)?.split_once(' ')?;
        (tag == firewall.tag()).then(|| (device.name.clone(), device.index, id.to_owned()))
    };
    Ok(devices.filter_map(own).collect())
}

/// Largest packet that the network's devices send, bytes; `None` for the kernel's choice.
pub fn mtu(network: &Network) -> Option<u32> {
    network.option(option::MTU).and_then(|text| text.parse().ok()).filter(|mtu| *mtu > 0)
}

fn gateway_address(gateway: IpAddr, subnet: IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(gateway, subnet.prefix()).ok()
}

/// The bridge's hardware address: from the network's id and the data root's tag, so that it is the same
/// each time, and nobody else's.
fn own_mac(network: &Network, firewall: &Firewall) -> MacAddress {
    let byte = |text: &str, index: usize| {
        text.get(index * 2..index * 2 + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(|index| byte(&network.id, index) ^ byte(firewall.tag(), index));
    MacAddress([0x02, 0x42, a, b, c, d])
}

fn taken(network: &Network, device: &link::Device) -> anyhow::Error {
    let kind = match device.kind.as_str() {
        "" => "device",
        kind => kind,
    };
    let whose = if device.alias.starts_with(MARK) { "another data root's network" } else { "the host" };
    let text = format!("network {}: {} is the name of a {kind} of {whose}", network.name, network.device);
    Failure::conflict(text)
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
