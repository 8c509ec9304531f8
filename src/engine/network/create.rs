//! `network create`, and the default network, which is made when it is first needed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::NetworkCreated;
use super::view::{builtin_id, driver_name, is_builtin_name};
use crate::engine::Engine;
use crate::engine::events::Kind;
use crate::engine::request::NetworkRequest;
use crate::error::Failure;
use crate::net::link::Links;
use crate::net::pools::{self, Taken, Wishes};
use crate::net::records::{self, Locked, random_id};
use crate::net::{DEFAULT_DEVICE, DEFAULT_NETWORK, Driver, FORMAT_VERSION, Network, Subnet, bridge, option};

/// Where ranges that are spoken for come from.
#[derive(Debug, Default)]
struct Neighbourhood {
    /// Other networks of this data root.
    networks: Vec<Taken>,
    /// Addresses of the host's devices, with their subnets.
    addresses: Vec<Taken>,
    /// Ways that the host knows.
    routes: Vec<Taken>,
    /// Bridges of other networks of this data root, there or not: device and network.
    devices: Vec<(String, String)>,
}

impl Neighbourhood {
    fn all(&self) -> Vec<Taken> {
        [&self.networks, &self.addresses, &self.routes].into_iter().flatten().cloned().collect()
    }
}

impl Engine {
    /// Makes a network: recorded first, so that whoever is killed on the way leaves something that has
    /// a name and can be removed or used.
    pub fn network_create(&self, request: &NetworkRequest) -> Result<NetworkCreated> {
        records::validate_name(&request.name)?;
        if is_builtin_name(&request.name) {
            return Err(Failure::conflict(format!(
                "operation is not permitted on predefined {} network",
                request.name
            ))
            .into());
        }
        let driver = match request.driver.as_str() {
            "" | "bridge" => Driver::Bridge,
            "macvlan" => Driver::Macvlan,
            "ipvlan" => Driver::Ipvlan,
            other => {
                return Err(Failure::not_found(format!("could not find plugin {other} in v2 network driver plugins"))
                    .with_hint("the drivers are bridge, macvlan and ipvlan")
                    .into());
            }
        };
        let options: BTreeMap<String, String> =
            request.options.iter().map(|(key, value)| (option::long(key).to_owned(), value.clone())).collect();
        check_options(&options)?;
        let records = self.networks();
        let lock = records.lock()?;
        if let Some(other) = records.by_name(&request.name)? {
            return Err(Failure::conflict(format!("network with name {} already exists", other.name))
                .with_hint(format!("remove it first (mydocker network rm {}), or choose another name", other.name))
                .into());
        }
        let id = random_id().context("make a network id")?;
        let near = self.neighbourhood(&mut Links::open()?)?;
        let mut warnings = Vec::new();
        let subnets = self.subnets(driver, request, &near, &mut warnings)?;
        let network = Network {
            version: FORMAT_VERSION,
            device: device(driver, &request.name, &id, &options, &near.devices)?,
            id,
            name: request.name.clone(),
            driver,
            created: Timestamp::now(),
            subnets,
            internal: request.internal,
            ipv6: request.ipv6,
            attachable: request.attachable,
            labels: request.labels.clone(),
            options,
        };
        lock.save(&network)?;
        if let Err(error) = self.prepare_network(&lock, &network, &mut warnings) {
            let _ = self.take_network_away(&lock, &network);
            return Err(error);
        }
        drop(lock);
        self.note_network(&network, "create");
        Ok(NetworkCreated { id: network.id, warnings })
    }

    fn prepare_network(&self, lock: &Locked, network: &Network, warnings: &mut Vec<String>) -> Result<()> {
        lock.ipam(network).prepare()?;
        if network.driver != Driver::Bridge
            && network.option(option::PARENT).is_some()
            && Links::index_of(&network.device)?.is_none()
        {
            return Err(Failure::not_found(format!("the parent device {} does not exist", network.device))
                .with_hint("see the host's devices: ip link")
                .into());
        }
        self.raise(lock, network, warnings).map(drop)
    }

    /// Takes a network away: what is in the kernel first, the record last.
    pub(super) fn take_network_away(&self, lock: &Locked, network: &Network) -> Result<()> {
        bridge::remove(&mut Links::open()?, network, &self.firewall())?;
        lock.remove(network)
    }

    pub(super) fn note_network(&self, network: &Network, action: &str) {
        let attributes = [("name", network.name.clone()), ("type", driver_name(network.driver).to_owned())];
        self.note_object(Kind::Network, &network.id, action, &attributes);
    }

    /// Makes the record of the default network, on the first subnet that is free.
    pub(in crate::engine) fn make_default_network(&self, lock: &Locked) -> Result<Network> {
        let mut links = Links::open()?;
        let near = self.neighbourhood(&mut links)?;
        let subnet = free_subnet(&near)?;
        let subnets = pools::lay_out(&Wishes { subnets: &[subnet], ..Wishes::default() })?;
        let devices = links.devices()?;
        let free = |name: &String| {
            !devices.iter().any(|device| device.name == *name) && !near.devices.iter().any(|(taken, _)| taken == name)
        };
        // Another data root, or somebody else, may have the usual name.
        let names = (1..).map(|number| format!("mydocker{number}"));
        let device = std::iter::once(DEFAULT_DEVICE.to_owned()).chain(names).find(free);
        let network = Network {
            version: FORMAT_VERSION,
            id: builtin_id(DEFAULT_NETWORK),
            name: DEFAULT_NETWORK.to_owned(),
            driver: Driver::Bridge,
            created: Timestamp::now(),
            subnets,
            internal: false,
            ipv6: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            device: device.context("choose a device name")?,
        };
        lock.save(&network)?;
        Ok(network)
    }

    /// The subnets of a new network: those that were wished for, checked against others, or free ones.
    fn subnets(
        &self,
        driver: Driver,
        request: &NetworkRequest,
        near: &Neighbourhood,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Subnet>> {
        let mut wanted = request.subnets.clone();
        for subnet in &wanted {
            if let Some(other) = pools::overlap(*subnet, &near.networks) {
                return Err(overlap(*subnet, other));
            }
            // A macvlan's subnet is that of its parent.
            if driver != Driver::Bridge {
                continue;
            }
            if let Some(other) = pools::overlap(*subnet, &near.addresses) {
                return Err(overlap(*subnet, other));
            }
            if let Some(route) = pools::overlap(*subnet, &near.routes) {
                warnings.push(format!(
                    "{subnet} overlaps with {} ({}): the host reaches what lies in both through the new network",
                    route.network, route.by
                ));
            }
        }
        if !wanted.iter().any(IpNetwork::is_ipv4) {
            wanted.insert(0, free_subnet(near)?);
        }
        if request.ipv6 && !wanted.iter().any(IpNetwork::is_ipv6) {
            let pool = [pools::ula_pool(self.seed())];
            wanted.push(pools::free_subnet(&pool, &near.all()).context("all IPv6 subnets are in use")?);
        }
        // IPv4 first: the order of a container's addresses.
        wanted.sort_by_key(IpNetwork::is_ipv6);
        pools::lay_out(&Wishes {
            subnets: &wanted,
            gateways: &request.gateways,
            ranges: &request.ranges,
            auxiliary: &request.auxiliary,
        })
    }

    /// What makes this machine's unique local addresses unlike those of others (RFC 4193).
    fn seed(&self) -> u64 {
        let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let digits = id.trim().get(..16).unwrap_or_default();
        u64::from_str_radix(digits, 16).unwrap_or(0) ^ u64::from_str_radix(&self.layout().tag(), 16).unwrap_or(0)
    }

    fn neighbourhood(&self, links: &mut Links) -> Result<Neighbourhood> {
        let mut near = Neighbourhood::default();
        let mut own = Vec::new();
        for network in self.networks().list()?.networks {
            for subnet in &network.subnets {
                near.networks.push(Taken { network: subnet.subnet, by: format!("network {}", network.name) });
            }
            own.push(network.device.clone());
            if network.driver == Driver::Bridge {
                near.devices.push((network.device, network.name));
            }
        }
        let devices = links.devices()?;
        let name = |index: u32| devices.iter().find(|device| device.index == index).map_or("?", |device| &device.name);
        for (address, device) in links.addresses()? {
            let device = name(device);
            if device != "lo" && !own.iter().any(|own| own == device) && !is_link_local(address.ip()) {
                near.addresses.push(Taken { network: address, by: format!("the address {address} of {device}") });
            }
        }
        for route in links.routes()? {
            let device = name(route.device);
            if !own.iter().any(|own| own == device) && !is_link_local(route.destination.ip()) {
                near.routes.push(Taken { network: route.destination, by: format!("a route of {device}") });
            }
        }
        Ok(near)
    }
}

/// Addresses that every device has (RFC 4291 section 2.5.6; multicast likewise).
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local() || address.is_multicast())
}

fn free_subnet(near: &Neighbourhood) -> Result<IpNetwork> {
    pools::free_subnet(&pools::default_pools(), &near.all()).ok_or_else(|| {
        Failure::conflict("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network")
            .with_hint("remove networks that nobody uses (mydocker network prune), or choose with --subnet")
            .into()
    })
}

fn overlap(wanted: IpNetwork, other: &Taken) -> anyhow::Error {
    Failure::conflict(format!(
        "Pool overlaps with other one on this address space: {wanted} overlaps with {}, {}",
        other.network, other.by
    ))
    .with_hint("choose another --subnet, or leave it away and a free one is chosen")
    .into()
}

/// The device: the one that was asked for; else one that has the network's own name, where that can
/// be a device's name and is free; else one named after the id, as Docker's are.
fn device(
    driver: Driver,
    name: &str,
    id: &str,
    options: &BTreeMap<String, String>,
    taken: &[(String, String)],
) -> Result<String> {
    if driver != Driver::Bridge {
        return Ok(options.get(option::PARENT).cloned().unwrap_or_else(|| format!("dm-{}", &id[..12])));
    }
    if let Some(wanted) = options.get(option::BRIDGE_NAME) {
        if !is_device_name(wanted) {
            return Err(Failure::usage(format!("invalid device name {wanted:?}"))
                .with_hint("at most 15 characters, without slash, colon or blank")
                .into());
        }
        if let Some((_, other)) = taken.iter().find(|(device, _)| device == wanted) {
            return Err(
                Failure::conflict(format!("networks {name} and {other} have the same bridge name {wanted}")).into()
            );
        }
        return Ok(wanted.clone());
    }
    // After a reboot the bridge of another network is not there yet.
    if is_device_name(name) && !taken.iter().any(|(device, _)| device == name) && Links::index_of(name)?.is_none() {
        return Ok(name.to_owned());
    }
    Ok(format!("br-{}", &id[..12]))
}

/// What the kernel takes for a device's name (dev_valid_name), and what has no other meaning in the
/// directories of kernel parameters.
fn is_device_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 15
        && !matches!(name, "." | ".." | "all" | "default" | "lo")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in options {
        let text = value.as_str();
        let (valid, expected) = match key.as_str() {
            option::ICC | option::MASQUERADE => (BOOLEANS.contains(&text), "true or false"),
            option::MTU => (
                text.parse::<u32>().is_ok_and(|mtu| mtu == 0 || (68..=65535).contains(&mtu)),
                "a number of bytes from 68 to 65535",
            ),
            option::HOST_BINDING => (text.parse::<IpAddr>().is_ok(), "an address of the host"),
            option::MACVLAN_MODE => {
                (matches!(text, "bridge" | "private" | "vepa" | "passthru"), "bridge, private, vepa or passthru")
            }
            option::IPVLAN_MODE => (matches!(text, "l2" | "l3" | "l3s"), "l2, l3 or l3s"),
            _ => continue,
        };
        if !valid {
            return Err(Failure::usage(format!("invalid value {value:?} of option {key}"))
                .with_hint(format!("it is {expected}"))
                .into());
        }
    }
    Ok(())
}

/// Words for true and false, as Go's strconv.ParseBool takes them.
const BOOLEANS: [&str; 12] = ["true", "false", "1", "0", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False"];
