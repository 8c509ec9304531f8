//! `create`: from a request to a container on disk.

use anyhow::Result;

use super::Engine;
use super::request::CreateRequest;
use crate::container::ContainerId;

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Things the user should know; not errors.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container without starting it.
    pub fn create(&self, _request: &CreateRequest) -> Result<Created> {
        anyhow::bail!("stub")
    }

    /// What creating and starting this container would do, as data; nothing of it stays.
    pub fn plan_of(&self, _request: &CreateRequest) -> Result<serde_json::Value> {
        anyhow::bail!("stub")
    }
}
