//! `network rm` and `network prune`.

use anyhow::Result;

use super::view::{NetworkFilter, is_builtin_name};
use crate::container::{ContainerId, handle};
use crate::engine::Engine;
use crate::error::Failure;
use crate::net::Network;
use crate::net::records::Locked;

impl Engine {
    /// Removes networks; the name of each, or why not.
    pub fn network_remove(&self, references: &[String]) -> Vec<Result<String>> {
        references.iter().map(|reference| self.remove_network(reference)).collect()
    }

    fn remove_network(&self, reference: &str) -> Result<String> {
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
            return Err(Failure::conflict(format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                users.join(", ")
            ))
            .with_hint("stop these containers, or disconnect them: mydocker network disconnect NETWORK CONTAINER")
            .into());
        }
        self.take_network_away(&lock, &network)?;
        drop(lock);
        self.note_network(&network, "destroy");
        Ok(network.name)
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
