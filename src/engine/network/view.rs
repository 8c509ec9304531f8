//! What listings and `inspect` show of networks.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::engine::Engine;
use crate::error::Failure;
use crate::net::{Endpoint, Network};

/// What a network must be like to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkFilter {}

/// A network as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSummary {
    /// The record; of `host` and `none` one that stands nowhere.
    pub network: Network,
}

/// A container's connection as `network inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerOnNetwork {
    /// The container's name.
    pub name: String,
    /// Its connection.
    pub endpoint: Endpoint,
}

/// A network as `network inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// The record.
    pub network: Network,
    /// Containers connected now, by id.
    pub containers: BTreeMap<String, ContainerOnNetwork>,
}

impl Engine {
    /// Lists networks by name.
    pub fn network_list(&self, _filters: &[NetworkFilter]) -> Result<Vec<NetworkSummary>> {
        Err(Failure::engine("not yet").into())
    }

    /// One network and who is on it.
    pub fn network_inspect(&self, _reference: &str) -> Result<NetworkView> {
        Err(Failure::engine("not yet").into())
    }
}
