//! What a request asks of networks, checked and completed into what a config says. Nothing is made,
//! but the default network's record when it is needed.

use anyhow::Result;

use crate::container::{Attachment, ExposedPort, Link, NetworkMode, Networking, handle};
use crate::engine::Engine;
use crate::engine::request::CreateRequest;
use crate::error::Failure;
use crate::net::DEFAULT_NETWORK;

/// What became of a request's wishes.
#[derive(Debug)]
pub struct Resolved {
    /// Where the network namespace comes from.
    pub mode: NetworkMode,
    /// The wishes, networks and containers by name.
    pub networking: Networking,
    /// Things the user should know; not errors.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Resolves what a request asks of networks. `exposed` are the image's ports.
    pub(in crate::engine) fn resolve_networking(
        &self,
        request: &CreateRequest,
        exposed: &[ExposedPort],
    ) -> Result<Resolved> {
        let mut networking = request.networking.clone();
        for port in networking.ports.iter().map(|port| ExposedPort { port: port.port, protocol: port.protocol }) {
            networking.exposed.push(port);
        }
        networking.exposed.extend(exposed);
        networking.exposed.sort();
        networking.exposed.dedup();
        networking.links = self.resolve_links(&networking.links)?;
        let first = networking.attachments.first().map(|attachment| attachment.network.clone()).unwrap_or_default();
        let mode = match first.split_once(':') {
            Some(("container", peer)) => NetworkMode::Container(handle::find(self.layout(), peer)?.as_str().to_owned()),
            Some(_) => return Err(Failure::usage(format!("--network: invalid mode {first:?}")).into()),
            None if first == "none" => NetworkMode::None,
            None if first == "host" => NetworkMode::Host,
            None => NetworkMode::Networks,
        };
        let mut warnings = Vec::new();
        if mode == NetworkMode::Networks {
            networking.attachments = self.resolve_attachments(networking.attachments)?;
        } else {
            check_alone(&mode, request)?;
            if mode == NetworkMode::Host && (!networking.ports.is_empty() || networking.publish_all) {
                warnings.push("Published ports are discarded when using host network mode".to_owned());
                networking.ports.clear();
                networking.publish_all = false;
            }
            networking.attachments.clear();
        }
        Ok(Resolved { mode, networking, warnings })
    }

    fn resolve_attachments(&self, wanted: Vec<Attachment>) -> Result<Vec<Attachment>> {
        let wanted = if wanted.is_empty() { vec![Attachment::default()] } else { wanted };
        let mut attachments: Vec<Attachment> = Vec::new();
        for mut attachment in wanted {
            attachment.network = match attachment.network.as_str() {
                // Made at the first start: nothing to find before.
                "" | "default" | DEFAULT_NETWORK => DEFAULT_NETWORK.to_owned(),
                _ => self.network_for_use(&attachment.network)?.name,
            };
            if attachment.network == DEFAULT_NETWORK && (attachment.ip.is_some() || attachment.ip6.is_some()) {
                return Err(Failure::usage("user specified IP address is supported on user defined networks only")
                    .with_hint("make one: mydocker network create --subnet 10.5.0.0/24 NAME")
                    .into());
            }
            if attachments.iter().any(|other| other.network == attachment.network) {
                return Err(
                    Failure::conflict(format!("network {:?} is specified multiple times", attachment.network)).into()
                );
            }
            attachments.push(attachment);
        }
        Ok(attachments)
    }

    /// Links by the names of their containers.
    pub(in crate::engine) fn resolve_links(&self, links: &[Link]) -> Result<Vec<Link>> {
        links
            .iter()
            .map(|link| {
                let id = handle::find(self.layout(), &link.container)?;
                let container = handle::load(self.layout(), &id)?.config.name;
                Ok(Link { container, alias: link.alias.clone() })
            })
            .collect()
    }
}

/// Wishes that make no sense without a network of one's own.
fn check_alone(mode: &NetworkMode, request: &CreateRequest) -> Result<()> {
    let networking = &request.networking;
    let conflict = |what: &str| -> Result<()> { Err(Failure::usage(format!("conflicting options: {what}")).into()) };
    if networking.attachments.len() > 1 {
        return conflict("cannot attach both user-defined and non-user-defined network-modes");
    }
    let own = |attachment: &Attachment| {
        !attachment.aliases.is_empty()
            || attachment.ip.is_some()
            || attachment.ip6.is_some()
            || attachment.mac.is_some()
    };
    if networking.attachments.iter().any(own) {
        return conflict("addresses and aliases need a network of the container's own");
    }
    if let NetworkMode::Container(_) = mode {
        if !networking.ports.is_empty() || networking.publish_all {
            return conflict("port publishing and the container type network mode");
        }
        if !networking.links.is_empty() {
            return conflict("container type network can't be used with links");
        }
        if !networking.dns.servers.is_empty() || !networking.dns.search.is_empty() {
            return conflict("dns and the network mode");
        }
        if request.hostname.is_some() {
            return conflict("hostname and the network mode");
        }
        if !request.extra_hosts.is_empty() {
            return conflict("custom host-to-IP mapping and the network mode");
        }
    }
    if *mode == NetworkMode::Host && !networking.links.is_empty() {
        return conflict("host type networking can't be used with links. This would result in undefined behavior");
    }
    Ok(())
}

/// Exposed ports as an image writes them (`80/tcp`, `53/udp`, `443`); others are none.
pub(in crate::engine) fn exposed_ports(list: &[String]) -> Vec<ExposedPort> {
    let parse = |text: &String| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        Some(ExposedPort { port: port.parse().ok()?, protocol: protocol.parse().ok()? })
    };
    list.iter().filter_map(parse).collect()
}
