//! Networks as users see them: made, listed, removed, joined and left. What a network is stands in
//! [`crate::net`]; who uses it, and when it is made real, is decided here.

mod create;
mod view;

pub use view::{
    ConfigFromView, ConnectionView, Connections, ContainerOnNetwork, IpamView, NetworkFilter, NetworkListing,
    NetworkSummary, NetworkView, SubnetView, builtin_id,
};

pub(super) use view::id_of;

use anyhow::Result;

use super::Engine;
use super::request::ConnectRequest;
use crate::error::Failure;

/// A network that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCreated {
    /// Its id.
    pub id: String,
    /// Things the user should know; not errors.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Removes networks; the name of each, or why not.
    pub fn network_remove(&self, references: &[String]) -> Vec<Result<String>> {
        references.iter().map(|_| Err(Failure::engine("not yet").into())).collect()
    }

    /// Removes all networks that no container uses; their names.
    pub fn network_prune(&self, _filters: &[NetworkFilter]) -> Result<Vec<String>> {
        Err(Failure::engine("not yet").into())
    }

    /// Connects a container, running or not, to a network.
    pub fn network_connect(&self, _request: &ConnectRequest) -> Result<()> {
        Err(Failure::engine("not yet").into())
    }

    /// Disconnects a container from a network. With `force` a container that cannot be found is no
    /// obstacle: what it has on the network is taken away.
    pub fn network_disconnect(&self, _network: &str, _container: &str, _force: bool) -> Result<()> {
        Err(Failure::engine("not yet").into())
    }
}
