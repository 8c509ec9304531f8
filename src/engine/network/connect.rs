//! `network connect` and `network disconnect`, of containers that run and of those that do not.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::plug::{self, default_routes};
use super::view::driver_name;
use crate::container::handle::{self, Locked};
use crate::container::{Attachment, ContainerId, NetworkMode};
use crate::engine::events::Kind;
use crate::engine::request::ConnectRequest;
use crate::engine::wire::Request;
use crate::engine::{Engine, files};
use crate::error::Failure;
use crate::net::attach::{self, Inside};
use crate::net::link::Links;
use crate::net::{Driver, Endpoint, Network, Published};
use crate::sys::channel::Channel;

impl Engine {
    /// Connects a container, running or not, to a network.
    ///
    /// The config is written last: a connection of a container that runs and that its config does not
    /// wish for was not finished, or not taken away, and goes first.
    pub fn network_connect(&self, request: &ConnectRequest) -> Result<()> {
        let id = handle::find(self.layout(), &request.container)?;
        let mut container = self
            .lock_settled(&id)?
            .ok_or_else(|| Failure::not_found(format!("No such container: {}", request.container)))?;
        if container.config.namespaces.network != NetworkMode::Networks {
            return Err(not_on_networks(&container));
        }
        let network = self.network_for_use(&request.attachment.network)?;
        let attachments = &container.config.networking.attachments;
        if attachments.iter().any(|attachment| attachment.network == network.name) {
            return Err(Failure::conflict(format!(
                "endpoint with name {} already exists in network {}",
                container.config.name, network.name
            ))
            .into());
        }
        if let Some(unfinished) = endpoint_on(&container, &network) {
            self.unplug(&mut container, unfinished)?;
        }
        let attachment = Attachment { network: network.name.clone(), ..request.attachment.clone() };
        let links = self.resolve_links(&request.links)?;
        container.config.networking.links.extend(links);
        container.config.networking.attachments.push(attachment.clone());
        let init = container.record().live_init();
        let Some(init) = init else {
            container.save_config()?;
            return Ok(());
        };
        let namespace = plug::namespace_of(init.pid)?;
        // Checked after opening: the number still belongs to that process.
        if container.record().live_init() != Some(init) {
            return Err(Failure::conflict(format!("container {} ended just now", container.config.name)).into());
        }
        let mut inside = attach::open(namespace.as_fd())?;
        let interface = inside.free_interface()?;
        let endpoint = plug::endpoint(&container.config, &network, &attachment, interface)?;
        // On record before anything is claimed: the container lives, so nobody else would find out.
        container.state.endpoints.push(endpoint.clone());
        container.save_state()?;
        if let Err(error) = self.plug_live(&mut container, &mut inside, &network, &attachment) {
            let endpoint = container.state.endpoints.pop().unwrap_or(endpoint);
            let _ = inside.disconnect(&endpoint.interface);
            let _ = self.release(&id, std::slice::from_ref(&endpoint));
            let _ = container.save_state();
            return Err(error);
        }
        self.tell_networks_changed(&container);
        self.note_connections(&id, &[endpoint], "connect");
        Ok(())
    }

    /// Claims and makes the last of a running container's connections, which is on record.
    fn plug_live(
        &self,
        container: &mut Locked,
        inside: &mut Inside<'_>,
        network: &Network,
        attachment: &Attachment,
    ) -> Result<()> {
        let lock = self.networks().lock()?;
        // Once more under the lock: somebody may have removed it.
        let network = lock.records().find(&network.id)?;
        let bridge = self.raise(&lock, &network, &mut Vec::new())?;
        let mut endpoint = container.state.endpoints.pop().context("the connection is not on record")?;
        let claimed = self.claim_one(&lock, &container.config, &network, attachment, &mut endpoint);
        container.state.endpoints.push(endpoint.clone());
        claimed?;
        drop(lock);
        container.save_state()?;
        let routes = default_routes(&container.config, &container.state.endpoints);
        attach::connect(&mut Links::open()?, inside, &network, bridge, &endpoint, &routes)?;
        files::refresh(self.layout(), &container.config, &container.state.endpoints)?;
        container.save_config()
    }

    /// Disconnects a container from a network. With `force` a container that cannot be found is no
    /// obstacle.
    pub fn network_disconnect(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let network = self.network_for_use(network)?;
        let id = match handle::find(self.layout(), container) {
            Ok(id) => id,
            Err(error) => return if force { Ok(()) } else { Err(error) },
        };
        let mut container =
            self.lock_settled(&id)?.ok_or_else(|| Failure::not_found(format!("No such container: {container}")))?;
        let wished = container.config.networking.attachments.iter().position(|wish| wish.network == network.name);
        let had = endpoint_on(&container, &network);
        if wished.is_none() && had.is_none() {
            return Err(Failure::conflict(format!(
                "container {} is not connected to network {}",
                container.config.name, network.name
            ))
            .into());
        }
        if let Some(index) = wished {
            container.config.networking.attachments.remove(index);
        }
        container.save_config()?;
        if let Some(index) = had {
            let endpoint = self.unplug(&mut container, index)?;
            self.tell_networks_changed(&container);
            self.note_connections(&id, &[endpoint], "disconnect");
        }
        Ok(())
    }

    /// Takes away one connection of a container. It stays on record until nothing of it is left, so
    /// that this can be repeated, or done by who finds the container dead. The device goes first:
    /// an address that others may get must not answer here.
    fn unplug(&self, container: &mut Locked, index: usize) -> Result<Endpoint> {
        let endpoint = container.state.endpoints[index].clone();
        self.move_ports(container, index)?;
        let namespace = container.record().live_init().map(|init| plug::namespace_of(init.pid)).transpose()?;
        let mut inside = namespace.as_ref().map(|namespace| attach::open(namespace.as_fd())).transpose()?;
        if let Some(inside) = &mut inside {
            inside.disconnect(&endpoint.interface)?;
        }
        self.release(&container.id().clone(), std::slice::from_ref(&endpoint))?;
        container.state.endpoints.remove(index);
        if let Some(inside) = &mut inside {
            inside.route(&default_routes(&container.config, &container.state.endpoints))?;
        }
        files::refresh(self.layout(), &container.config, &container.state.endpoints)?;
        container.save_state()?;
        Ok(endpoint)
    }

    /// Published ports of a connection that is about to go lead to another one, if there is one that
    /// can have them; the sockets that hold them stay with the shim. On record before they do.
    fn move_ports(&self, container: &mut Locked, from: usize) -> Result<()> {
        let ports = container.state.endpoints[from].published.clone();
        if ports.is_empty() {
            return Ok(());
        }
        let id = container.id().clone();
        for index in (0..container.state.endpoints.len()).filter(|index| *index != from) {
            let endpoint = &mut container.state.endpoints[index];
            let Some(network) = self.networks().by_name(&endpoint.network)? else { continue };
            if network.driver != Driver::Bridge || network.internal || network.id != endpoint.network_id {
                continue;
            }
            let target = |port: &Published| {
                let mut port = *port;
                port.target.set_ip(endpoint.address(port.target.is_ipv6())?);
                Some(port)
            };
            let published: Vec<Published> = ports.iter().filter_map(target).collect();
            endpoint.published.clone_from(&published);
            attach::lead_back(&mut Links::open()?, &network, endpoint)?;
            container.save_state()?;
            return self.firewall().publish(id.as_str(), &network, &published);
        }
        Ok(())
    }

    /// A network by name or id; the default one is made when it is named.
    pub(in crate::engine) fn network_for_use(&self, reference: &str) -> Result<Network> {
        let records = self.networks();
        match reference {
            "" | "default" | crate::net::DEFAULT_NETWORK => {
                if let Some(network) = records.by_name(crate::net::DEFAULT_NETWORK)? {
                    return Ok(network);
                }
                let lock = records.lock()?;
                match records.by_name(crate::net::DEFAULT_NETWORK)? {
                    Some(network) => Ok(network),
                    None => self.make_default_network(&lock),
                }
            }
            "host" | "none" => Err(Failure::conflict(format!(
                "container cannot be connected to network {reference} when it runs with networks of its own"
            ))
            .with_hint(format!("run it with --network {reference} instead"))
            .into()),
            reference => records.find(reference),
        }
    }

    fn tell_networks_changed(&self, container: &Locked) {
        // A shim that is gone serves nobody; the record is true.
        if let Ok(shim) = Channel::connect(&self.layout().socket(container.id())) {
            let _ = shim.send(&Request::NetworksChanged, &[]);
        }
    }

    /// Tells that a container was connected to a network, or disconnected from it.
    pub(in crate::engine) fn note_connections(&self, id: &ContainerId, endpoints: &[Endpoint], action: &str) {
        for endpoint in endpoints {
            let network = self.networks().by_name(&endpoint.network).ok().flatten();
            let driver = network.map_or("bridge", |network| driver_name(network.driver));
            let attributes = [
                ("container", id.as_str().to_owned()),
                ("name", endpoint.network.clone()),
                ("type", driver.to_owned()),
            ];
            self.note_object(Kind::Network, &endpoint.network_id, action, &attributes);
        }
    }
}

/// Which of a container's connections is to this network.
fn endpoint_on(container: &Locked, network: &Network) -> Option<usize> {
    container.state.endpoints.iter().position(|endpoint| endpoint.network_id == network.id)
}

fn not_on_networks(container: &Locked) -> anyhow::Error {
    let name = &container.config.name;
    let why = match &container.config.namespaces.network {
        NetworkMode::Host => "it has the host's network",
        NetworkMode::Container(_) => "it has the network of another container",
        _ => "it was made with --network none",
    };
    Failure::conflict(format!("container {name} cannot be connected to networks: {why}"))
        .with_hint("make it anew with --network NAME")
        .into()
}
