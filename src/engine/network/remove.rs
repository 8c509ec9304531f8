//! `network rm` and `network prune`.

use anyhow::Result;

use super::view::{NetworkFilter, builtin_id, is_builtin_name};
use crate::container::{ContainerId, handle};
use crate::engine::Engine;
use crate::engine::events::Kind;
use crate::error::Failure;
use crate::net::link::Links;
use crate::net::records::Locked;
use crate::net::{DEFAULT_NETWORK, Network, bridge};

impl Engine {
    /// Removes networks; the name of each, or why not.
    pub fn network_remove(&self, references: &[String]) -> Vec<Result<String>> {
        references.iter().map(|reference| self.remove_network(reference)).collect()
    }

    fn remove_network(&self, reference: &str) -> Result<String> {
        if let Err(error) = self.networks().by_name(reference) {
            return self.remove_damaged_network(reference, error);
        }
        if is_builtin_name(reference) {
            return Err(Failure::conflict(format!("{reference} is a pre-defined network and cannot be removed")).into());
        }
        let records = self.networks();
        let found = records.find(reference)?;
        if is_builtin_name(&found.name) {
            return Err(
                Failure::conflict(format!("{} is a pre-defined network and cannot be removed", found.name)).into()
            );
        }
        let lock = records.lock()?;
        // Once more under the lock: somebody else may have removed it, or made another of that name.
        let network = records.find(&found.id)?;
        let users = self.users(&lock, &network)?;
        if !users.is_empty() {
            return Err(in_use(&network.name, &users));
        }
        self.take_network_away(&lock, &network)?;
        drop(lock);
        self.note_network(&network, "destroy");
        Ok(network.name)
    }

    /// Removes a network whose record cannot be read, the default one as well: it is made anew when it is
    /// needed. What it was is told by its containers, the marks of devices and rules, and what is left
    /// without a record.
    fn remove_damaged_network(&self, name: &str, error: anyhow::Error) -> Result<String> {
        let records = self.networks();
        let lock = records.lock()?;
        if records.by_name(name).is_ok() {
            return Err(error);
        }
        let mut ids = Vec::new();
        let mut users = Vec::new();
        for record in handle::ids(self.layout())?.iter().filter_map(|id| handle::load(self.layout(), id).ok()) {
            let live = record.status().is_live();
            for endpoint in record.state.endpoints.iter().filter(|endpoint| endpoint.network == name) {
                ids.push(endpoint.network_id.clone());
                users.extend(live.then(|| record.config.name.clone()));
            }
        }
        if !users.is_empty() {
            return Err(in_use(name, &users));
        }
        ids.extend(records.salvage_id(name));
        if name == DEFAULT_NETWORK {
            ids.push(builtin_id(name));
        }
        let mut links = Links::open()?;
        // Of several damaged ones nobody could tell which has left what.
        if ids.is_empty() && records.list()?.problems.len() == 1 {
            ids = records.orphans()?;
            let known = records.list()?.networks;
            let marked = bridge::marked(&mut links, &self.firewall())?.into_iter().map(|(_, _, id)| id);
            ids.extend(marked.filter(|id| !known.iter().any(|network| network.id == *id)));
        }
        ids.sort();
        ids.dedup();
        for id in &ids {
            bridge::forget(&mut links, id, &self.firewall())?;
            lock.forget(id)?;
        }
        lock.discard(name)?;
        drop(lock);
        if let Some(id) = ids.first() {
            self.note_object(Kind::Network, id, "destroy", &[("name", name.to_owned())]);
        }
        Ok(name.to_owned())
    }

    /// Containers that have something on a network, by name. What those that are down have left is
    /// freed first.
    fn users(&self, lock: &Locked, network: &Network) -> Result<Vec<String>> {
        self.sweep(lock, network)?;
        let mut users: Vec<String> = Vec::new();
        for (_, owner) in lock.ipam(network).leases()? {
            let record = ContainerId::parse(&owner).and_then(|id| handle::load(self.layout(), &id).ok());
            let name = record.map_or(owner, |record| record.config.name);
            if !users.contains(&name) {
                users.push(name);
            }
        }
        Ok(users)
    }

    /// Removes all networks that no container uses; their names.
    pub fn network_prune(&self, filters: &[NetworkFilter]) -> Result<Vec<String>> {
        let records = self.networks();
        let mut pruned = Vec::new();
        for summary in self.network_list(filters)?.networks {
            let Some(network) = records.by_name(&summary.name)?.filter(|_| !summary.is_builtin()) else { continue };
            let lock = records.lock()?;
            if self.users(&lock, &network)?.is_empty() && !self.is_wanted(&network.name)? {
                self.take_network_away(&lock, &network)?;
                drop(lock);
                self.note_network(&network, "destroy");
                pruned.push(network.name);
            }
        }
        Ok(pruned)
    }

    /// A container that does not run is to be connected to this network when it does.
    fn is_wanted(&self, network: &str) -> Result<bool> {
        let wants = |id: ContainerId| {
            let record = handle::load(self.layout(), &id).ok();
            record.is_some_and(|record| {
                record.config.networking.attachments.iter().any(|attachment| attachment.network == network)
            })
        };
        Ok(handle::ids(self.layout())?.into_iter().any(wants))
    }
}

fn in_use(network: &str, users: &[String]) -> anyhow::Error {
    Failure::conflict(format!(
        "error while removing network: network {network} has active endpoints ({})",
        users.join(", ")
    ))
    .with_hint("stop these containers, or disconnect them: mydocker network disconnect NETWORK CONTAINER")
    .into()
}
