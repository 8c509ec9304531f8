//! A container's connections: claimed under the networks' lock, made real in its namespace, given
//! back when it has ended.
//!
//! ```text
//! claim    addresses, names, host ports: quick, on disk before anything is made
//! plug     devices, routes, rules, resolver sockets: while init mounts the container's root
//! release  rules, names, addresses: quick; devices go with the namespace, when the kernel gets to it
//! ```
//!
//! The record of the container says *starting* before a claim is made. So whoever finds claims
//! without a living container also finds that container orphaned, and releases by owner.

use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;

use super::claim::Claim;
use super::publish::port_mappings;
use crate::container::handle as record;
use crate::container::{Attachment, Config, ContainerId, NamespaceMode, NetworkMode, handle};
use crate::engine::Engine;
use crate::error::{Class, Failure};
use crate::net::attach::{self, DefaultRoutes};
use crate::net::firewall::Firewall;
use crate::net::link::Links;
use crate::net::records::random_id;
use crate::net::records::{Locked, Records};
use crate::net::{DEFAULT_NETWORK, Driver, Endpoint, MacAddress, Network, bridge, dns, option};
use crate::sys::random;

/// Hardware address of a connection that has no other.
const PLACEHOLDER: MacAddress = MacAddress([2, 0x42, 0, 0, 0, 1]);

impl Engine {
    /// The networks' records.
    pub(in crate::engine) fn networks(&self) -> Records {
        Records::open(self.layout())
    }

    /// The rules of this data root's networks.
    pub(in crate::engine) fn firewall(&self) -> Firewall {
        Firewall::open(&self.layout().tag())
    }

    /// Claims addresses, names and host ports for all networks of a container. When it fails nothing
    /// stays claimed.
    pub(in crate::engine) fn claim(&self, config: &Config) -> Result<Claim> {
        let mut claim = Claim::default();
        let claimed = self.claim_all(config, &mut claim);
        if let Err(error) = claimed {
            let _ = self.release(&config.id, &claim.endpoints);
            return Err(error);
        }
        Ok(claim)
    }

    fn claim_all(&self, config: &Config, claim: &mut Claim) -> Result<()> {
        let attachments = &config.networking.attachments;
        let records = self.networks();
        let lock = records.lock()?;
        for (number, attachment) in attachments.iter().enumerate() {
            let (network, index) = self.raise_usable(&lock, &attachment.network, &mut claim.warnings)?;
            let mut endpoint = endpoint(config, &network, attachment, format!("eth{number}"))?;
            self.claim_one(&lock, config, &network, attachment, &mut endpoint)?;
            claim.endpoints.push(endpoint);
            claim.networks.push((network, index));
        }
        drop(lock);
        self.claim_ports(config, claim)
    }

    /// The record of a network that is to be used; of the default one it is made.
    fn usable_network(&self, lock: &Locked, name: &str) -> Result<Network> {
        match self.networks().by_name(name)? {
            Some(network) => Ok(network),
            None if name == DEFAULT_NETWORK => self.make_default_network(lock),
            None => Err(Failure::not_found(format!("network {name} not found"))
                .with_hint(format!("it was removed; make it again: mydocker network create {name}"))
                .into()),
        }
    }

    /// The network of that name, made real. The default network moves to another device and subnet when
    /// somebody else has its device.
    fn raise_usable(&self, lock: &Locked, name: &str, warnings: &mut Vec<String>) -> Result<(Network, Option<u32>)> {
        let network = self.usable_network(lock, name)?;
        match self.raise(lock, &network, warnings) {
            Err(error) if name == DEFAULT_NETWORK && Failure::from_error(&error).class == Class::Conflict => {
                let network = self.make_default_network(lock)?;
                let index = self.raise(lock, &network, warnings)?;
                Ok((network, index))
            }
            index => Ok((network, index?)),
        }
    }

    /// Makes a network's device real when it is not, as after a reboot; the number of its bridge.
    pub(in crate::engine) fn raise(
        &self,
        _lock: &Locked,
        network: &Network,
        warnings: &mut Vec<String>,
    ) -> Result<Option<u32>> {
        if network.driver != Driver::Bridge {
            if network.option(option::PARENT).is_none() && Links::index_of(&network.device)?.is_none() {
                bridge::make_parent(&mut Links::open()?, network, &self.firewall())?;
            }
            return Ok(None);
        }
        let firewall = self.firewall();
        if let Some(index) = bridge::find(network, &firewall)? {
            return Ok(Some(index));
        }
        let mut links = Links::open()?;
        let index = bridge::make(&mut links, network, &firewall, warnings)?;
        // Of a bridge that somebody has deleted.
        for id in handle::ids(self.layout())? {
            let Ok(record) = handle::load(self.layout(), &id) else { continue };
            if record.status().is_live() {
                let endpoints = record.state.endpoints.iter().filter(|endpoint| endpoint.network_id == network.id);
                endpoints.for_each(|endpoint| attach::return_to_bridge(&mut links, network, index, endpoint));
            }
        }
        Ok(Some(index))
    }

    /// Claims addresses and names of one connection.
    pub(in crate::engine) fn claim_one(
        &self,
        lock: &Locked,
        config: &Config,
        network: &Network,
        attachment: &Attachment,
        endpoint: &mut Endpoint,
    ) -> Result<()> {
        let owner = config.id.as_str();
        let claimed = (|| -> Result<()> {
            for (ipv6, wanted) in [(false, attachment.ip.map(IpAddr::V4)), (true, attachment.ip6.map(IpAddr::V6))] {
                if let Some((address, gateway)) = self.claim_address(lock, network, owner, ipv6, wanted)? {
                    endpoint.addresses.push(address);
                    endpoint.gateways.extend(gateway);
                }
            }
            let addresses: Vec<IpAddr> = endpoint.addresses.iter().map(IpNetwork::ip).collect();
            lock.names(network).register(owner, &endpoint.names, &addresses)
        })();
        if let Err(error) = claimed {
            self.release_claim(lock, owner, endpoint);
            return Err(error);
        }
        let first = endpoint.addresses.first().map(IpNetwork::ip);
        endpoint.mac = attachment.mac.or_else(|| first.map(MacAddress::of)).unwrap_or(PLACEHOLDER);
        Ok(())
    }

    /// An address of one family and the network's router; `None` when the network has none of it.
    fn claim_address(
        &self,
        lock: &Locked,
        network: &Network,
        owner: &str,
        ipv6: bool,
        wanted: Option<IpAddr>,
    ) -> Result<Option<(IpNetwork, Option<IpAddr>)>> {
        let ipam = lock.ipam(network);
        let subnets: Vec<_> = network.subnets_of(ipv6).collect();
        let found = |subnet: &crate::net::Subnet, address: IpAddr| -> Result<_> {
            let gateway = subnet.gateway.filter(|_| !network.internal);
            let gateway = match network.option(option::IPVLAN_MODE) {
                Some("l3" | "l3s") if network.driver == Driver::Ipvlan => gateway.map(unspecified),
                _ => gateway,
            };
            Ok(Some((IpNetwork::new(address, subnet.subnet.prefix())?, gateway)))
        };
        if let Some(wanted) = wanted {
            let Some(subnet) = subnets.iter().find(|subnet| subnet.subnet.contains(wanted)) else {
                let list: Vec<String> = subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
                return Err(Failure::usage(format!("{wanted} is not an address of network {}", network.name))
                    .with_hint(format!("its subnets are: {}", list.join(", ")))
                    .into());
            };
            let address = match ipam.allocate(subnet, owner, Some(wanted)) {
                Ok(address) => address,
                // Of a container that did not live to give it back?
                Err(error) => match self.sweep(lock, network)? {
                    0 => return Err(error),
                    _ => ipam.allocate(subnet, owner, Some(wanted))?,
                },
            };
            return found(subnet, address);
        }
        for subnet in &subnets {
            if let Some(address) = ipam.try_allocate(subnet, owner)? {
                return found(subnet, address);
            }
        }
        let Some(last) = subnets.last() else { return Ok(None) };
        self.sweep(lock, network)?;
        // What was freed may lie in any of them; the last one's error says that all are in use.
        for subnet in &subnets {
            if let Some(address) = ipam.try_allocate(subnet, owner)? {
                return found(subnet, address);
            }
        }
        ipam.allocate(last, owner, None).map(|_| None)
    }

    /// Frees what containers that are down have left on a network; how many addresses that were.
    pub(in crate::engine) fn sweep(&self, lock: &Locked, network: &Network) -> Result<usize> {
        let freed = lock.ipam(network).sweep(&mut |owner| self.uses_networks(owner))?;
        for (_, owner) in &freed {
            lock.names(network).unregister_owner(owner)?;
            // Still under the lock: nobody has the address before nothing leads there any more.
            let record = ContainerId::parse(owner).map(|id| handle::load(self.layout(), &id));
            let publishes_nothing = |record: &handle::Record| port_mappings(&record.config).is_empty();
            if !record.is_some_and(|record| record.as_ref().is_ok_and(publishes_nothing)) {
                self.firewall().unpublish_owner(owner)?;
            }
        }
        Ok(freed.len())
    }

    /// Whether a container runs, or is being started: what it has claimed is its own. One whose record
    /// is damaged may run; its `rm -f` frees what it has.
    pub(in crate::engine) fn uses_networks(&self, owner: &str) -> bool {
        let Some(id) = ContainerId::parse(owner) else { return false };
        match handle::load(self.layout(), &id) {
            // A run whose end is about to be recorded still has what it has claimed.
            Ok(record) => record.status().is_live() || (record.state.status.is_live() && record.liveness().shim),
            Err(error) => Failure::from_error(&error).class != Class::NotFound,
        }
    }

    /// Makes what was claimed real. The resolver's sockets come back, to be served.
    pub(in crate::engine) fn plug(
        &self,
        config: &Config,
        claim: &Claim,
        namespace: BorrowedFd<'_>,
    ) -> Result<dns::Sockets> {
        let ipv6 = claim.networks.iter().any(|(network, _)| network.has_ipv6());
        let (mut inside, sockets) =
            attach::prepare(namespace, ipv6, || dns::Sockets::open().context("open the resolver's sockets"))?;
        let mut host = Links::open()?;
        let routes = default_routes(config, &claim.endpoints);
        for (endpoint, (network, bridge)) in claim.endpoints.iter().zip(&claim.networks) {
            attach::connect(&mut host, &mut inside, network, *bridge, endpoint, &routes)
                .with_context(|| format!("connect to network {}", network.name))?;
            if !endpoint.published.is_empty() {
                self.firewall().publish(config.id.as_str(), network, &endpoint.published)?;
            }
        }
        sockets
    }

    /// Gives back at once what takes microseconds: names, and addresses that no host port leads to. The
    /// others stay on record with their rules, for [`Engine::give_back`] when nobody waits any more:
    /// taking rules away takes the kernel some 13 ms.
    pub(in crate::engine) fn give_back_quickly(&self, container: &mut handle::Locked) {
        let endpoints = std::mem::take(&mut container.state.endpoints);
        let (published, others): (Vec<_>, Vec<_>) =
            endpoints.into_iter().partition(|endpoint| !endpoint.published.is_empty());
        // What could not be given back is found by the next who needs it.
        let _ = self.release(&container.config.id, &others);
        if !published.is_empty()
            && let Ok(lock) = self.networks().lock()
        {
            for endpoint in &published {
                self.release_names(&lock, container.config.id.as_str(), endpoint);
            }
        }
        container.state.endpoints = published;
    }

    /// Gives back what a run has claimed. Addresses that cannot be given back are found by the next who
    /// needs one; rules are nobody's business but the container's, so they stay on record until they are
    /// gone.
    pub(in crate::engine) fn give_back(&self, container: &mut handle::Locked) {
        let endpoints = std::mem::take(&mut container.state.endpoints);
        if let Err(error) = self.release(&container.config.id, &endpoints) {
            tracing::debug!("{error:#}");
            let publishes = |endpoint: &Endpoint| !endpoint.published.is_empty();
            container.state.endpoints = endpoints.into_iter().filter(publishes).collect();
        }
    }

    /// Gives back what a container has claimed, rules first: an address that is free must lead nowhere.
    /// What cannot be given back now is found by the next sweep; the first error is returned.
    pub(in crate::engine) fn release(&self, id: &ContainerId, endpoints: &[Endpoint]) -> Result<()> {
        if endpoints.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        let records = self.networks();
        for endpoint in endpoints.iter().filter(|endpoint| !endpoint.published.is_empty()) {
            let unpublished = self.unpublish(id, endpoint);
            outcome = outcome.and(unpublished);
        }
        let lock = records.lock()?;
        for endpoint in endpoints {
            self.release_claim(&lock, id.as_str(), endpoint);
        }
        outcome
    }

    fn unpublish(&self, id: &ContainerId, endpoint: &Endpoint) -> Result<()> {
        match self.networks().by_name(&endpoint.network) {
            Ok(Some(network)) if network.id == endpoint.network_id => {
                self.firewall().unpublish(id.as_str(), &network, &endpoint.published)
            }
            // Of a network that is gone, or whose record is damaged.
            _ => self.firewall().unpublish_owner(id.as_str()),
        }
    }

    /// Lets a container that runs be found by the name that it has now, and no longer by another.
    pub(in crate::engine) fn renew_names(&self, container: &mut record::Locked) -> Result<()> {
        if container.state.endpoints.is_empty() {
            return Ok(());
        }
        let owner = container.id().as_str().to_owned();
        let records = self.networks();
        let lock = records.lock()?;
        for endpoint in &mut container.state.endpoints {
            let Some(network) = records.by_name(&endpoint.network)? else { continue };
            let attachments = &container.config.networking.attachments;
            let Some(attachment) = attachments.iter().find(|wish| wish.network == endpoint.network) else { continue };
            let addresses: Vec<IpAddr> = endpoint.addresses.iter().map(IpNetwork::ip).collect();
            lock.names(&network).unregister(&owner, &endpoint.names, &addresses)?;
            endpoint.names = names(&container.config, attachment);
            lock.names(&network).register(&owner, &endpoint.names, &addresses)?;
        }
        drop(lock);
        container.save_state()
    }

    /// Gives names and addresses of one connection back.
    pub(in crate::engine) fn release_claim(&self, lock: &Locked, owner: &str, endpoint: &Endpoint) {
        let Some(network) = self.release_names(lock, owner, endpoint) else { return };
        if endpoint.addresses.is_empty() {
            // On record since before the claim: what came of that is not known.
            let _ = lock.names(&network).unregister_owner(owner);
            let _ = lock.ipam(&network).release_owner(owner);
        }
        for address in &endpoint.addresses {
            let _ = lock.ipam(&network).release(address.ip(), owner);
        }
    }

    /// Gives the names of one connection back; its network, unless that is gone.
    fn release_names(&self, lock: &Locked, owner: &str, endpoint: &Endpoint) -> Option<Network> {
        let network = self.networks().by_name(&endpoint.network).ok().flatten()?;
        if network.id != endpoint.network_id {
            return None;
        }
        let addresses: Vec<IpAddr> = endpoint.addresses.iter().map(IpNetwork::ip).collect();
        let _ = lock.names(&network).unregister(owner, &endpoint.names, &addresses);
        Some(network)
    }

    /// Gives back whatever a container has claimed of any network: its supervisor did not live to say
    /// what that was.
    pub(in crate::engine) fn release_by_owner(&self, config: &Config) -> Result<()> {
        if config.namespaces.network != NetworkMode::Networks {
            return Ok(());
        }
        let owner = config.id.as_str();
        if !port_mappings(config).is_empty() && self.firewall().is_available() {
            self.firewall().unpublish_owner(owner)?;
        }
        self.forget_owner(owner)
    }

    /// Frees addresses and names of an owner on all networks.
    pub(in crate::engine) fn forget_owner(&self, owner: &str) -> Result<()> {
        let records = self.networks();
        let lock = records.lock()?;
        for network in records.list()?.networks {
            lock.names(&network).unregister_owner(owner)?;
            lock.ipam(&network).release_owner(owner)?;
        }
        Ok(())
    }
}

/// A connection of which nothing is claimed yet.
pub(super) fn endpoint(
    config: &Config,
    network: &Network,
    attachment: &Attachment,
    interface: String,
) -> Result<Endpoint> {
    Ok(Endpoint {
        network: network.name.clone(),
        network_id: network.id.clone(),
        id: random_id().context("make an id")?,
        interface,
        host_interface: if network.driver == Driver::Bridge { Some(host_interface()?) } else { None },
        mac: PLACEHOLDER,
        addresses: Vec::new(),
        gateways: Vec::new(),
        names: names(config, attachment),
        published: Vec::new(),
    })
}

/// The default routes of a container with these connections.
pub(super) fn default_routes(config: &Config, endpoints: &[Endpoint]) -> DefaultRoutes {
    let priority = |endpoint: &Endpoint| {
        let attachments = &config.networking.attachments;
        attachments.iter().find(|wish| wish.network == endpoint.network).map_or(0, |wish| wish.gateway_priority)
    };
    attach::default_routes(endpoints.iter().map(|endpoint| (endpoint, priority(endpoint))))
}

/// The names of a container on a network; the first is the one that its address leads back to.
fn names(config: &Config, attachment: &Attachment) -> Vec<String> {
    let mut names = vec![config.name.clone(), config.id.short().to_owned()];
    names.extend(attachment.aliases.iter().cloned());
    if config.namespaces.uts == NamespaceMode::Private {
        names.push(config.hostname.clone());
    }
    let mut seen = Vec::new();
    names.retain(|name| {
        let lower = name.to_ascii_lowercase();
        let new = !seen.contains(&lower);
        seen.push(lower);
        new
    });
    names
}

fn unspecified(address: IpAddr) -> IpAddr {
    if address.is_ipv6() { IpAddr::from([0u16; 8]) } else { IpAddr::from([0, 0, 0, 0]) }
}

/// A name for the host's end of a device pair. Random, because the one of the last run may still be
/// there: the kernel deletes it when it gets to it.
fn host_interface() -> Result<String> {
    let mut bytes = [0; 4];
    random::fill(&mut bytes).context("choose a device name")?;
    Ok(format!("veth{:07x}", u32::from_ne_bytes(bytes) >> 4))
}

/// The network namespace of a container's first process.
pub(in crate::engine) fn namespace_of(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    rustix::fs::open(&path, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .with_context(|| format!("open {path}"))
}
