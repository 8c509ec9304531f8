//! What listings and `inspect` show of networks.

mod filter;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::container::handle;
use crate::engine::Engine;
use crate::error::Failure;
use crate::layout::Layout;
use crate::net::records::{Listing, Records};
use crate::net::{DEFAULT_NETWORK, Driver, Endpoint, Network, Subnet};

pub use filter::NetworkFilter;

/// Networks that exist without having been made. Of these only the default one ever has a record,
/// from its first use on.
const BUILTIN: [(&str, &str); 3] = [(DEFAULT_NETWORK, "bridge"), ("host", "host"), ("none", "null")];

/// How Docker writes a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The id of `bridge`, `host` or `none`: the same in every data root, before and after the first use.
pub fn builtin_id(name: &str) -> String {
    let digest = Sha256::digest(format!("mydocker {name}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `bridge`, `host` or `none`: such a network cannot be made or removed.
pub(super) fn is_builtin_name(name: &str) -> bool {
    BUILTIN.iter().any(|(builtin, _)| *builtin == name)
}

/// A network as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSummary {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`; `host` and `null` of the networks of those names.
    pub driver: &'static str,
    /// When it was made; `None` of what was always there.
    pub created: Option<Timestamp>,
    /// Its subnets, IPv4 first; none of the default network before its first use.
    pub subnets: Vec<Subnet>,
    /// Containers get IPv4 addresses.
    pub ipv4: bool,
    /// Containers get IPv6 addresses.
    pub ipv6: bool,
    /// No way out and none in.
    pub internal: bool,
    /// `--attachable`.
    pub attachable: bool,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
}

impl NetworkSummary {
    /// As listings show a network that has a record.
    pub fn of(network: &Network) -> NetworkSummary {
        NetworkSummary {
            id: network.id.clone(),
            name: network.name.clone(),
            driver: driver_name(network.driver),
            created: Some(network.created),
            subnets: network.subnets.clone(),
            ipv4: network.subnets_of(false).next().is_some(),
            ipv6: network.has_ipv6(),
            internal: network.internal,
            attachable: network.attachable,
            labels: network.labels.clone(),
            options: network.options.clone(),
        }
    }

    fn builtin(name: &str, driver: &'static str) -> NetworkSummary {
        NetworkSummary {
            id: builtin_id(name),
            name: name.to_owned(),
            driver,
            created: None,
            subnets: Vec::new(),
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }

    /// It exists without having been made, and cannot be removed.
    pub fn is_builtin(&self) -> bool {
        is_builtin_name(&self.name)
    }
}

/// As `--driver` says it.
pub(super) fn driver_name(driver: Driver) -> &'static str {
    match driver {
        Driver::Bridge => "bridge",
        Driver::Macvlan => "macvlan",
        Driver::Ipvlan => "ipvlan",
    }
}

/// The answer of [`Engine::network_list`].
#[derive(Debug, Default)]
pub struct NetworkListing {
    /// By name.
    pub networks: Vec<NetworkSummary>,
    /// Records that could not be read.
    pub problems: Vec<anyhow::Error>,
}

/// A container's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerOnNetwork {
    /// The container's name.
    pub name: String,
    /// Its connection.
    pub endpoint: Endpoint,
}

/// Connections of running containers, by network and container.
pub type Connections = BTreeMap<String, BTreeMap<String, ContainerOnNetwork>>;

/// A network as `network inspect` shows it, under Docker's names and in Docker's order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's: https://docs.docker.com/reference/api/engine/")]
pub struct NetworkView {
    pub name: String,
    pub id: String,
    pub created: String,
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: IpamView,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: ConfigFromView,
    pub config_only: bool,
    pub containers: BTreeMap<String, ConnectionView>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// `IPAM`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct IpamView {
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub config: Vec<SubnetView>,
}

/// An element of `IPAM.Config`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct SubnetView {
    pub subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// `ConfigFrom`: always empty, there are no networks that are configuration only.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct ConfigFromView {
    pub network: String,
}

/// An element of `Containers`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct ConnectionView {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

impl NetworkView {
    fn new(network: NetworkSummary, containers: BTreeMap<String, ContainerOnNetwork>) -> NetworkView {
        NetworkView {
            created: network.created.map_or_else(|| NEVER.to_owned(), |time| time.to_string()),
            name: network.name,
            id: network.id,
            scope: "local".to_owned(),
            driver: network.driver.to_owned(),
            enable_ipv4: network.ipv4,
            enable_ipv6: network.ipv6,
            ipam: IpamView {
                driver: "default".to_owned(),
                options: BTreeMap::new(),
                config: network.subnets.iter().map(subnet_view).collect(),
            },
            internal: network.internal,
            attachable: network.attachable,
            ingress: false,
            config_from: ConfigFromView::default(),
            config_only: false,
            containers: containers.iter().map(|(id, on)| (id.clone(), connection_view(on))).collect(),
            options: network.options,
            labels: network.labels,
        }
    }
}

fn subnet_view(subnet: &Subnet) -> SubnetView {
    SubnetView {
        subnet: subnet.subnet.to_string(),
        ip_range: subnet.range.map(|range| range.to_string()),
        gateway: subnet.gateway.map(|gateway| gateway.to_string()),
        auxiliary_addresses: subnet.auxiliary.iter().map(|(name, at)| (name.clone(), at.to_string())).collect(),
    }
}

fn connection_view(on: &ContainerOnNetwork) -> ConnectionView {
    let address = |ipv6| {
        let address = on.endpoint.addresses.iter().find(|address| address.is_ipv6() == ipv6);
        address.map(ToString::to_string).unwrap_or_default()
    };
    ConnectionView {
        name: on.name.clone(),
        endpoint_id: on.endpoint.id.clone(),
        mac_address: on.endpoint.mac.to_string(),
        ipv4_address: address(false),
        ipv6_address: address(true),
    }
}

/// All networks by name, those that were always there included.
fn all(layout: &Layout) -> Result<NetworkListing> {
    let Listing { networks, problems } = Records::open(layout).list()?;
    let mut networks: Vec<NetworkSummary> = networks.iter().map(NetworkSummary::of).collect();
    for (name, driver) in BUILTIN {
        if !networks.iter().any(|network| network.name == name) {
            networks.push(NetworkSummary::builtin(name, driver));
        }
    }
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(NetworkListing { networks, problems })
}

/// Finds a network by its full id, its name, or an unambiguous prefix of its id, in that order.
fn find(networks: &[NetworkSummary], reference: &str) -> Result<NetworkSummary> {
    let exact = networks
        .iter()
        .find(|network| network.id == reference)
        .or_else(|| networks.iter().find(|network| network.name == reference));
    if let Some(network) = exact {
        return Ok(network.clone());
    }
    let matches: Vec<&NetworkSummary> =
        networks.iter().filter(|network| !reference.is_empty() && network.id.starts_with(reference)).collect();
    match matches.as_slice() {
        [network] => Ok((*network).clone()),
        [] => Err(Failure::not_found(format!("network {reference} not found")).into()),
        several => {
            let count = several.len();
            let message = format!("network {reference} is ambiguous ({count} matches found based on ID prefix)");
            Err(Failure::conflict(message).with_hint("give more digits").into())
        }
    }
}

/// Who is connected now, as the containers' records say. A container that cannot be read is on no
/// network here; `ps` tells of it.
fn connections(layout: &Layout) -> Result<Connections> {
    let mut connections = Connections::new();
    for id in handle::ids(layout)? {
        let Ok(record) = handle::load(layout, &id) else { continue };
        if record.state.endpoints.is_empty() || !record.status().is_live() {
            continue;
        }
        for endpoint in record.state.endpoints {
            let on = ContainerOnNetwork { name: record.config.name.clone(), endpoint };
            let network = connections.entry(on.endpoint.network_id.clone()).or_default();
            network.insert(id.to_string(), on);
        }
    }
    Ok(connections)
}

/// The id of a network that is known by its name.
pub(in crate::engine) fn id_of(layout: &Layout, name: &str) -> Option<String> {
    let listing = all(layout).ok()?;
    listing.networks.into_iter().find(|network| network.name == name).map(|network| network.id)
}

impl Engine {
    /// Lists networks by name. A record that cannot be read hides no other.
    pub fn network_list(&self, filters: &[NetworkFilter]) -> Result<NetworkListing> {
        let mut listing = all(&self.layout)?;
        let asks_for_use = filters.iter().any(|filter| matches!(filter, NetworkFilter::Dangling(_)));
        let used = if asks_for_use { connections(&self.layout)? } else { Connections::new() };
        listing.networks.retain(|network| filter::passes(filters, network, used.contains_key(&network.id)));
        Ok(listing)
    }

    /// One network and who is on it, by name, id, or prefix of an id.
    pub fn network_inspect(&self, reference: &str) -> Result<NetworkView> {
        let NetworkListing { networks, problems } = all(&self.layout)?;
        let network = find(&networks, reference).map_err(|error| {
            // The one that is asked for may be the one that cannot be read.
            let file = format!("/{reference}.json");
            problems.into_iter().find(|problem| format!("{problem:#}").contains(&file)).unwrap_or(error)
        })?;
        let containers = connections(&self.layout)?.remove(&network.id).unwrap_or_default();
        Ok(NetworkView::new(network, containers))
    }

    /// Name and id of the network that `reference` means, if there is one.
    pub(in crate::engine) fn network_named(&self, reference: &str) -> Option<(String, String)> {
        let listing = all(&self.layout).ok()?;
        find(&listing.networks, reference).ok().map(|network| (network.name, network.id))
    }
}
