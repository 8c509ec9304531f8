//! A run's network on the side of its supervisor: the sockets that hold its published ports, and the
//! resolver that it finds on 127.0.0.11.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use anyhow::Result;
use rustix::event::PollFlags;

use super::Steps;
use crate::container::handle::Locked;
use crate::container::{Config, Endpoint, Link};
use crate::engine::network::claim::Claim;
use crate::engine::{Engine, files};
use crate::net::dns::{self, Resolver, Servers, Settings, Upstream};
use crate::net::names;

/// What a run holds of its networks.
pub(super) struct RunNetwork {
    /// Nobody reads from them: they keep others off the ports.
    _held: Vec<OwnedFd>,
    resolver: Resolver,
    neighbours: Neighbours,
}

/// The containers that a container sees by name: those on its networks.
struct Neighbours {
    zones: Vec<names::Zone>,
    links: Vec<Link>,
}

impl dns::Zone for Neighbours {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let linked = self.links.iter().find(|link| link.alias.eq_ignore_ascii_case(name));
        let name = linked.map_or(name, |link| &link.container);
        let mut found: Option<Vec<IpAddr>> = None;
        for addresses in self.zones.iter().filter_map(|zone| zone.lookup(name)) {
            found.get_or_insert_default().extend(addresses);
        }
        found
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.zones.iter().find_map(|zone| zone.reverse(address))
    }
}

/// Connects a container that is being started, and lets it be seen: claimed, recorded, made.
pub(super) fn connect(
    engine: &Engine,
    container: &mut Locked,
    namespace: OwnedFd,
    steps: &mut Steps,
) -> Result<RunNetwork> {
    let config = container.config.clone();
    let claim = steps.time("claim addresses", || engine.claim(&config))?;
    // On record before it is made: whoever finds the container dead gives it back.
    container.state.endpoints = claim.endpoints.clone();
    steps.time("record addresses", || container.save_state())?;
    let sockets = steps.time("connect to networks", || -> Result<_> {
        let sockets = engine.plug(&config, &claim, namespace.as_fd())?;
        files::refresh(engine.layout(), &config, &claim.endpoints)?;
        Ok(sockets)
    })?;
    let internal = claim.is_internal();
    let Claim { endpoints, held, warnings, .. } = claim;
    steps.warnings.extend(warnings);
    Ok(RunNetwork {
        _held: held,
        resolver: Resolver::new(sockets, settings(&config, !internal)),
        neighbours: Neighbours::new(engine, &config, &endpoints),
    })
}

fn settings(config: &Config, forwarding: bool) -> Settings {
    let dns = &config.networking.dns;
    let upstream = match dns.servers.as_slice() {
        [] => Upstream::HostFile(dns::HOST_FILE.into()),
        servers => Upstream::Servers(Servers::new(servers.iter().copied(), &dns.options)),
    };
    Settings { upstream, forwarding }
}

impl Neighbours {
    fn new(engine: &Engine, config: &Config, endpoints: &[Endpoint]) -> Neighbours {
        let records = engine.networks();
        let zone = |endpoint: &Endpoint| {
            let network = records.by_name(&endpoint.network).ok().flatten()?;
            (network.id == endpoint.network_id).then(|| records.zone(&network))
        };
        Neighbours { zones: endpoints.iter().filter_map(zone).collect(), links: config.networking.links.clone() }
    }
}

impl RunNetwork {
    /// What is to be watched.
    pub(super) fn watch<'a>(&'a self, into: &mut Vec<(dns::Token, BorrowedFd<'a>, PollFlags)>) {
        self.resolver.watch(into);
    }

    /// Serves what is ready.
    pub(super) fn handle(&mut self, token: dns::Token) {
        self.resolver.handle(token, &self.neighbours);
    }

    /// When [`RunNetwork::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.resolver.next_deadline()
    }

    /// Gives up on questions whose time is over.
    pub(super) fn expire(&mut self) {
        self.resolver.expire(Instant::now(), &self.neighbours);
    }

    /// Takes notice of other networks than before.
    pub(super) fn changed(&mut self, engine: &Engine, config: &Config, endpoints: &[Endpoint]) {
        self.neighbours = Neighbours::new(engine, config, endpoints);
        let records = engine.networks();
        let outward = |endpoint: &Endpoint| {
            records.by_name(&endpoint.network).ok().flatten().is_some_and(|network| !network.internal)
        };
        self.resolver.set_forwarding(endpoints.iter().any(outward));
    }
}
