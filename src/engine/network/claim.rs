//! What a container has of its networks while it starts.

use std::os::fd::OwnedFd;

use crate::net::{Endpoint, Network};

/// What a container has claimed and holds.
#[derive(Debug, Default)]
pub struct Claim {
    /// Its connections, to be recorded.
    pub endpoints: Vec<Endpoint>,
    /// Sockets that keep host ports from others.
    pub held: Vec<OwnedFd>,
    /// Things the user should know; not errors.
    pub warnings: Vec<String>,
    /// The network of each endpoint, and its bridge.
    pub(super) networks: Vec<(Network, Option<u32>)>,
}

impl Claim {
    /// Every network is internal: names of the outside are not looked up either (CVE-2024-29018).
    pub fn is_internal(&self) -> bool {
        self.networks.iter().all(|(network, _)| network.internal)
    }
}
