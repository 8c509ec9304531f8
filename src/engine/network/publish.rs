//! Published ports: which there are, which host ports are held for them, and to which connection they
//! lead.

use std::net::SocketAddr;

use anyhow::Result;

use super::claim::Claim;
use crate::container::{Config, PortMapping, handle};
use crate::engine::Engine;
use crate::error::Failure;
use crate::net::ports::{self, Wanted};
use crate::net::{Driver, Protocol, Published, option};

impl Engine {
    /// Holds the host ports of a container, and says where they lead.
    pub(super) fn claim_ports(&self, config: &Config, claim: &mut Claim) -> Result<()> {
        let mappings = port_mappings(config);
        if mappings.is_empty() {
            return Ok(());
        }
        let Some(number) = publishing(claim) else {
            claim
                .warnings
                .push("Published ports are discarded: no network of the container leads to the outside".into());
            return Ok(());
        };
        let default = claim.networks[number].0.option(option::HOST_BINDING).and_then(|text| text.parse().ok());
        let endpoint = &claim.endpoints[number];
        let targets = [endpoint.address(false), endpoint.address(true)];
        let ours = |protocol, address: SocketAddr| self.publisher_of(protocol, address);
        let mut published = Vec::new();
        for mapping in &mappings {
            let wanted = Wanted {
                protocol: mapping.protocol,
                host_ip: mapping.host_ip.or(default),
                ports: mapping.host_ports,
                ipv4: targets[0].is_some(),
                ipv6: targets[1].is_some(),
            };
            if wanted.host_ip.is_some_and(|address| targets[usize::from(address.is_ipv6())].is_none()) {
                return Err(no_family(mapping));
            }
            let held = ports::hold(&wanted, &ours)?;
            claim.held.extend(held.sockets);
            for host in held.addresses {
                let target = if host.is_ipv6() { targets[1] } else { targets[0] };
                if let Some(target) = target {
                    let target = SocketAddr::new(target, mapping.port);
                    published.push(Published { host, target, protocol: mapping.protocol });
                }
            }
        }
        claim.endpoints[number].published = published;
        Ok(())
    }

    /// Which of our containers has a host port.
    fn publisher_of(&self, protocol: Protocol, address: SocketAddr) -> Option<String> {
        let clashes = |other: &Published| {
            other.protocol == protocol
                && other.host.port() == address.port()
                && (other.host.ip() == address.ip()
                    || (other.host.is_ipv4() == address.is_ipv4()
                        && (other.host.ip().is_unspecified() || address.ip().is_unspecified())))
        };
        handle::ids(self.layout()).ok()?.into_iter().find_map(|id| {
            let record = handle::load(self.layout(), &id).ok()?;
            let has = record.state.endpoints.iter().flat_map(|endpoint| &endpoint.published).any(clashes);
            (has && record.status().is_live()).then(|| record.config.name.clone())
        })
    }
}

/// What is to be published: what was said, and with `-P` every exposed port besides.
pub(in crate::engine) fn port_mappings(config: &Config) -> Vec<PortMapping> {
    let networking = &config.networking;
    let mut mappings = networking.ports.clone();
    if networking.publish_all {
        for exposed in &networking.exposed {
            let said = |mapping: &PortMapping| mapping.port == exposed.port && mapping.protocol == exposed.protocol;
            if !networking.ports.iter().any(said) {
                let (port, protocol) = (exposed.port, exposed.protocol);
                mappings.push(PortMapping { host_ip: None, host_ports: None, port, protocol });
            }
        }
    }
    mappings
}

/// The connection that published ports lead to: the first on a bridge with a way out.
fn publishing(claim: &Claim) -> Option<usize> {
    claim.networks.iter().position(|(network, _)| network.driver == Driver::Bridge && !network.internal)
}

fn no_family(mapping: &PortMapping) -> anyhow::Error {
    let address = mapping.host_ip.map(|address| address.to_string()).unwrap_or_default();
    Failure::usage(format!(
        "cannot publish port {}/{} on {address}: the container has no such address family",
        mapping.port, mapping.protocol
    ))
    .with_hint("connect it to a network with IPv6: mydocker network create --ipv6 NAME")
    .into()
}
