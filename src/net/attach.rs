//! Connecting a container's network namespace: devices inside, addresses, routes, parameters.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;

use super::link::{self, Links, VethPair};
use super::{Driver, Endpoint, Network, bridge, option};
use crate::error::Failure;
use crate::sys::network;

/// A container's network namespace, opened to be worked on.
#[derive(Debug)]
pub struct Inside<'a> {
    namespace: BorrowedFd<'a>,
    links: Links,
    /// Devices that have been looked for: name and number.
    known: Vec<(String, u32)>,
}

/// Where the namespace's packets go that have no other way: device and router, of each family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefaultRoutes {
    /// IPv4.
    pub v4: Option<Way>,
    /// IPv6.
    pub v6: Option<Way>,
}

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The device inside.
    pub interface: String,
    /// The router; `None` on a device that needs none (ipvlan in layer 3).
    pub gateway: Option<IpAddr>,
}

/// Parameters of a namespace in which nothing is yet; devices that come later start with them.
///
/// Router advertisements are ignored (CVE-2020-13401), and so are redirects: behind a translated port
/// the host is the router on purpose. Without an IPv6 address there is no IPv6 at all but on loopback
/// (CVE-2024-32473).
fn first_parameters(ipv6: bool) -> [(&'static str, &'static str); 5] {
    [
        ("net/ipv6/conf/default/disable_ipv6", if ipv6 { "0" } else { "1" }),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
    ]
}

/// Opens a namespace in which nothing is yet, prepares it, and has `also` do there what else must be
/// done inside.
pub fn prepare<'a, T>(namespace: BorrowedFd<'a>, ipv6: bool, also: impl FnOnce() -> T) -> Result<(Inside<'a>, T)> {
    let (links, value) = network::inside(namespace, || -> Result<_> {
        for (name, value) in first_parameters(ipv6) {
            bridge::write_parameter(name, value)?;
        }
        let links = Links::open()?;
        Ok((links, also()))
    })
    .context("enter the container's network namespace")??;
    Ok((Inside { namespace, links, known: Vec::new() }, value))
}

/// Opens the namespace of a container that runs.
pub fn open(namespace: BorrowedFd<'_>) -> Result<Inside<'_>> {
    let links = network::inside(namespace, Links::open).context("enter the container's network namespace")??;
    Ok(Inside { namespace, links, known: Vec::new() })
}

/// Makes the device of a connection, with its addresses and those of `routes` that lead through it, and
/// sets it up. `bridge` is the number of the network's bridge.
pub fn connect(
    host: &mut Links,
    inside: &mut Inside<'_>,
    network: &Network,
    bridge: Option<u32>,
    endpoint: &Endpoint,
    routes: &DefaultRoutes,
) -> Result<()> {
    let mtu = bridge::mtu(network);
    match (network.driver, bridge, &endpoint.host_interface) {
        (Driver::Bridge, Some(bridge), Some(name)) => {
            let pair =
                VethPair { name, peer: &endpoint.interface, namespace: inside.namespace, mac: endpoint.mac, mtu };
            let mut requests = vec![link::veth(&pair), link::port(name, bridge)];
            requests.extend(port_flags(network, endpoint));
            host.carry_out(requests)?;
        }
        (Driver::Bridge, ..) => anyhow::bail!("network {} has no bridge to connect to", network.name),
        (driver @ (Driver::Macvlan | Driver::Ipvlan), ..) => {
            let parent = Links::index_of(&network.device)?.ok_or_else(|| no_parent(network))?;
            let mode = network.option(mode_key(driver)).unwrap_or_default();
            let device =
                link::above(driver, mode, parent, &endpoint.interface, inside.namespace, Some(endpoint.mac), mtu);
            host.carry_out(vec![device]).map_err(|error| refused(network, error))?;
        }
    }
    let index = inside.index(&endpoint.interface)?;
    if endpoint.addresses.iter().any(IpNetwork::is_ipv6) {
        inside.allow_ipv6(&endpoint.interface)?;
    }
    let mut requests = vec![link::up(index)];
    requests.extend(endpoint.addresses.iter().map(|address| link::address(index, *address)));
    for (way, ipv6) in [(&routes.v4, false), (&routes.v6, true)] {
        if let Some(way) = way.as_ref().filter(|way| way.interface == endpoint.interface) {
            requests.push(link::default_route(index, way.gateway, ipv6));
        }
    }
    inside.links.carry_out(requests)
}

/// Makes the host's end of a connection a port of its bridge again: a bridge that is deleted lets its
/// ports go. An end that is gone meanwhile is nobody's.
pub fn return_to_bridge(host: &mut Links, network: &Network, index: u32, endpoint: &Endpoint) {
    if let Some(name) = &endpoint.host_interface
        && let Err(error) =
            host.carry_out(std::iter::once(link::port(name, index)).chain(port_flags(network, endpoint)).collect())
    {
        tracing::debug!("{error:#}");
    }
}

/// How the port of a connection passes frames on, where that is not the usual way.
fn port_flags(network: &Network, endpoint: &Endpoint) -> Option<link::Request> {
    let name = endpoint.host_interface.as_deref()?;
    let (isolated, hairpin) = (bridge::is_isolating(network), !endpoint.published.is_empty());
    (isolated || hairpin).then(|| link::port_flags(name, isolated, hairpin))
}

/// Lets a connection that has published ports only now be reached by them from its own container.
pub fn lead_back(host: &mut Links, network: &Network, endpoint: &Endpoint) -> Result<()> {
    port_flags(network, endpoint).map_or(Ok(()), |request| host.carry_out(vec![request]))
}

fn mode_key(driver: Driver) -> &'static str {
    if driver == Driver::Ipvlan { option::IPVLAN_MODE } else { option::MACVLAN_MODE }
}

/// Why the kernel did not make a device above another.
fn refused(network: &Network, error: anyhow::Error) -> anyhow::Error {
    let driver = if network.driver == Driver::Ipvlan { "ipvlan" } else { "macvlan" };
    let errno = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    match errno {
        Some(libc::EOPNOTSUPP) => error.context(
            Failure::engine(format!("this kernel has no {driver} devices"))
                .with_hint(format!("load the module (modprobe {driver}), or use a bridge network")),
        ),
        Some(libc::EBUSY) => error.context(
            Failure::conflict(format!("{} is in use by another kind of device", network.device)).with_hint(
                "a device can be the parent of macvlan or of ipvlan devices, or a port of a bridge, not both",
            ),
        ),
        _ => error.context(format!("make a {driver} device above {}", network.device)),
    }
}

fn no_parent(network: &Network) -> anyhow::Error {
    Failure::conflict(format!("network {}: its parent device {} does not exist", network.name, network.device))
        .with_hint("make it (ip link add …), or the network anew with --opt parent=DEVICE")
        .into()
}

/// The ways out that a container's connections offer: of each family the first with a router, those
/// with a higher priority before others.
pub fn default_routes<'e>(endpoints: impl Iterator<Item = (&'e Endpoint, i32)>) -> DefaultRoutes {
    let mut ordered: Vec<(&Endpoint, i32)> = endpoints.collect();
    ordered.sort_by_key(|(_, priority)| std::cmp::Reverse(*priority));
    let way = |ipv6: bool| {
        ordered.iter().find_map(|(endpoint, _)| {
            let gateway = endpoint.gateways.iter().find(|gateway| gateway.is_ipv6() == ipv6)?;
            // A layer-3 device has no neighbours to ask for a router.
            let gateway = (!gateway.is_unspecified()).then_some(*gateway);
            Some(Way { interface: endpoint.interface.clone(), gateway })
        })
    };
    DefaultRoutes { v4: way(false), v6: way(true) }
}

impl Inside<'_> {
    /// Sets the default routes of devices that are there already.
    pub fn route(&mut self, routes: &DefaultRoutes) -> Result<()> {
        let mut requests = Vec::new();
        for (way, ipv6) in [(&routes.v4, false), (&routes.v6, true)] {
            if let Some(way) = way {
                requests.push(link::default_route(self.index(&way.interface)?, way.gateway, ipv6));
            }
        }
        if requests.is_empty() { Ok(()) } else { self.links.carry_out(requests) }
    }

    /// Deletes a device inside, and with it its other end. One that is gone is no error.
    pub fn disconnect(&mut self, interface: &str) -> Result<()> {
        match self.find(interface)? {
            Some(index) => self.links.carry_out(vec![link::delete(index)]),
            None => Ok(()),
        }
    }

    /// A device name that is not taken: `eth0`, `eth1`, ….
    pub fn free_interface(&mut self) -> Result<String> {
        let devices = self.links.devices()?;
        let free = |name: &String| !devices.iter().any(|device| device.name == *name);
        (0..).map(|number| format!("eth{number}")).find(free).context("choose a device name")
    }

    /// Runs `action` inside.
    pub fn with<T>(&self, action: impl FnOnce() -> T) -> Result<T> {
        network::inside(self.namespace, action).context("enter the container's network namespace")
    }

    fn find(&self, interface: &str) -> Result<Option<u32>> {
        let state = network::inside(self.namespace.as_fd(), || network::device_state(interface))
            .context("enter the container's network namespace")?;
        Ok(state.with_context(|| format!("look for device {interface}"))?.map(|device| device.index))
    }

    fn index(&mut self, interface: &str) -> Result<u32> {
        if let Some((_, index)) = self.known.iter().find(|(name, _)| name == interface) {
            return Ok(*index);
        }
        let index = self.find(interface)?.with_context(|| format!("find device {interface} in the container"))?;
        self.known.push((interface.to_owned(), index));
        Ok(index)
    }

    /// A namespace that began without IPv6 gets it on this device.
    fn allow_ipv6(&self, interface: &str) -> Result<()> {
        self.with(|| {
            let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            if fs::read_to_string(&file).is_ok_and(|text| text.trim() == "1") {
                bridge::write_parameter(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
            }
            Ok(())
        })?
    }
}
