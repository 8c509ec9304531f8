//! What `ps` and `inspect` say of a container's networks and ports.
//!
//! What a container got stands in its state and is true while it runs; what it asked for stands in
//! its config and is what is shown of one that does not run, with empty addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::inspect_view::*;
use crate::container::handle::Record;
use crate::container::{Attachment, Config, Endpoint, NetworkMode, PortMapping, Protocol};
use crate::engine::network::builtin_id;
use crate::net::DEFAULT_NETWORK;

/// A port as listings show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSummary {
    /// Address and port on the host; `None` of one that is exposed only.
    pub host: Option<SocketAddr>,
    /// Port of the container.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// A container's connections now; none of one that does not run.
pub(super) fn endpoints(record: &Record) -> &[Endpoint] {
    if record.status().is_live() { &record.state.endpoints } else { &[] }
}

/// The networks' names, in the order of the devices.
pub(super) fn names(record: &Record) -> Vec<String> {
    if record.config.namespaces.network != NetworkMode::Networks {
        return vec![mode(&record.config)];
    }
    let mut names: Vec<String> = Vec::new();
    let asked = attachments(&record.config).iter().map(|attachment| attachment.network.clone());
    // One that was connected meanwhile has an endpoint first.
    for name in asked.chain(endpoints(record).iter().map(|endpoint| endpoint.network.clone())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// What was asked for; nothing when it has been disconnected from all.
fn attachments(config: &Config) -> &[Attachment] {
    match config.namespaces.network {
        NetworkMode::Networks => &config.networking.attachments,
        _ => &[],
    }
}

/// `HostConfig.NetworkMode`.
pub(super) fn mode(config: &Config) -> String {
    match &config.namespaces.network {
        NetworkMode::Networks => {
            let first = config.networking.attachments.first().map(|attachment| attachment.network.clone());
            first.unwrap_or_else(|| "none".to_owned())
        }
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Container(id) => format!("container:{id}"),
    }
}

/// Its addresses, in the order of the devices.
pub(super) fn addresses(record: &Record) -> Vec<IpAddr> {
    endpoints(record).iter().flat_map(|endpoint| &endpoint.addresses).map(|address| address.ip()).collect()
}

/// The ports of a running container: published ones, and those that are only exposed.
pub(super) fn ports(record: &Record) -> Vec<PortSummary> {
    let published = endpoints(record).iter().flat_map(|endpoint| &endpoint.published);
    let mut ports: Vec<PortSummary> = published
        .map(|port| PortSummary { host: Some(port.host), port: port.target.port(), protocol: port.protocol })
        .collect();
    if record.status().is_live() && record.config.namespaces.network == NetworkMode::Networks {
        for (port, protocol) in exposed(&record.config) {
            if !ports.iter().any(|have| (have.port, have.protocol) == (port, protocol)) {
                ports.push(PortSummary { host: None, port, protocol });
            }
        }
    }
    ports.sort_unstable();
    // One published port stands at each of a container's endpoints that it leads to.
    ports.dedup();
    ports
}

/// Exposed ports; a published one is exposed, too.
fn exposed(config: &Config) -> impl Iterator<Item = (u16, Protocol)> {
    let said = config.networking.exposed.iter().map(|port| (port.port, port.protocol));
    said.chain(config.networking.ports.iter().map(|mapping| (mapping.port, mapping.protocol)))
}

/// `Config.ExposedPorts`.
pub(super) fn exposed_ports(config: &Config) -> BTreeMap<String, Empty> {
    exposed(config).map(|(port, protocol)| (format!("{port}/{protocol}"), Empty {})).collect()
}

/// `HostConfig.PortBindings`: what was asked for.
pub(super) fn port_bindings(config: &Config) -> Ports {
    let mut ports = Ports::new();
    for mapping in &config.networking.ports {
        let key = format!("{}/{}", mapping.port, mapping.protocol);
        ports.entry(key).or_default().get_or_insert_default().push(wish(mapping));
    }
    ports
}

fn wish(mapping: &PortMapping) -> PortBindingView {
    PortBindingView {
        host_ip: mapping.host_ip.map(|address| address.to_string()).unwrap_or_default(),
        host_port: match mapping.host_ports {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        },
    }
}

/// `HostConfig.Links`, in Docker's form.
pub(super) fn links(config: &Config) -> Option<Vec<String>> {
    let links = &config.networking.links;
    let one = |link: &crate::container::Link| format!("/{}:/{}/{}", link.container, config.name, link.alias);
    (!links.is_empty()).then(|| links.iter().map(one).collect())
}

/// `NetworkSettings`. `network_id` looks up the id of a network that no endpoint tells.
pub(super) fn settings(record: &Record, network_id: impl Fn(&str) -> Option<String>) -> NetworkSettingsView {
    let mut networks = BTreeMap::new();
    for attachment in attachments(&record.config) {
        networks.insert(attachment.network.clone(), asked(attachment));
    }
    if matches!(record.config.namespaces.network, NetworkMode::None | NetworkMode::Host) {
        networks.insert(mode(&record.config), EndpointView::default());
    }
    for endpoint in endpoints(record) {
        fill(networks.entry(endpoint.network.clone()).or_default(), endpoint);
    }
    for (name, view) in &mut networks {
        if view.network_id.is_empty() {
            let builtin = matches!(name.as_str(), DEFAULT_NETWORK | "host" | "none");
            let id = if builtin { Some(builtin_id(name)) } else { network_id(name) };
            view.network_id = id.unwrap_or_default();
        }
    }
    let live = record.live_init();
    let mut ports = Ports::new();
    for port in self::ports(record) {
        let bindings = ports.entry(format!("{}/{}", port.port, port.protocol)).or_default();
        if let Some(host) = port.host {
            bindings.get_or_insert_default().push(PortBindingView::of(host));
        }
    }
    // Docker repeats here what the default network says, and that one only.
    let first = networks.get(DEFAULT_NETWORK).cloned().unwrap_or_default();
    NetworkSettingsView {
        bridge: String::new(),
        sandbox_id: live.map(|_| record.config.id.to_string()).unwrap_or_default(),
        sandbox_key: live.map(|process| format!("/proc/{}/ns/net", process.pid)).unwrap_or_default(),
        ports,
        endpoint_id: first.endpoint_id,
        gateway: first.gateway,
        global_ipv6_address: first.global_ipv6_address,
        global_ipv6_prefix_len: first.global_ipv6_prefix_len,
        ip_address: first.ip_address,
        ip_prefix_len: first.ip_prefix_len,
        ipv6_gateway: first.ipv6_gateway,
        mac_address: first.mac_address,
        networks,
    }
}

/// What was asked of a network.
fn asked(attachment: &Attachment) -> EndpointView {
    let fixed = attachment.ip.is_some() || attachment.ip6.is_some();
    let options = &attachment.driver_options;
    EndpointView {
        ipam_config: fixed.then(|| IpamConfigView {
            ipv4_address: attachment.ip.map(|address| address.to_string()),
            ipv6_address: attachment.ip6.map(|address| address.to_string()),
        }),
        aliases: given(&attachment.aliases),
        mac_address: attachment.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        driver_opts: (!options.is_empty()).then(|| options.clone()),
        gw_priority: attachment.gateway_priority,
        ..EndpointView::default()
    }
}

/// Adds what was got.
fn fill(view: &mut EndpointView, endpoint: &Endpoint) {
    let address = |ipv6: bool| endpoint.addresses.iter().find(|address| address.is_ipv6() == ipv6);
    let gateway = |ipv6: bool| {
        let gateway = endpoint.gateways.iter().find(|gateway| gateway.is_ipv6() == ipv6);
        gateway.map(ToString::to_string).unwrap_or_default()
    };
    view.network_id.clone_from(&endpoint.network_id);
    view.endpoint_id.clone_from(&endpoint.id);
    view.mac_address = endpoint.mac.to_string();
    view.gateway = gateway(false);
    view.ipv6_gateway = gateway(true);
    if let Some(address) = address(false) {
        (view.ip_address, view.ip_prefix_len) = (address.ip().to_string(), address.prefix());
    }
    if let Some(address) = address(true) {
        (view.global_ipv6_address, view.global_ipv6_prefix_len) = (address.ip().to_string(), address.prefix());
    }
    view.dns_names = given(&endpoint.names);
}

/// Docker's JSON has `null` for a list nobody gave.
pub(super) fn given(list: &[String]) -> Option<Vec<String>> {
    if list.is_empty() { None } else { Some(list.to_vec()) }
}
