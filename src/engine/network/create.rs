//! `network create`.

use anyhow::Result;

use super::NetworkCreated;
use crate::engine::Engine;
use crate::engine::request::NetworkRequest;
use crate::error::Failure;

impl Engine {
    /// Makes a network.
    pub fn network_create(&self, _request: &NetworkRequest) -> Result<NetworkCreated> {
        Err(Failure::engine("not yet").into())
    }
}
