//! Stop, kill, restart, wait, remove, rename: transitions of a container that exists.
//!
//! Functions that take several references do the waiting in parallel; each element of the result
//! belongs to the reference at its index.

use anyhow::Result;

use super::Engine;
use super::request::{RemoveRequest, StopRequest};

impl Engine {
    /// Sends the stop signal, waits, kills. Stopping a stopped container is no error.
    pub fn stop(&self, _references: &[String], _request: &StopRequest) -> Vec<Result<()>> {
        vec![]
    }

    /// Sends `signal` (name or number) to the first process of a running container.
    pub fn kill(&self, _reference: &str, _signal: &str) -> Result<()> {
        anyhow::bail!("stub")
    }

    /// Stops (when running) and starts.
    pub fn restart(&self, _reference: &str, _request: &StopRequest) -> Result<()> {
        anyhow::bail!("stub")
    }

    /// Waits until the container is not running; its exit code.
    pub fn wait(&self, _reference: &str) -> Result<i32> {
        anyhow::bail!("stub")
    }

    /// Removes containers with all that belongs to them.
    pub fn remove(&self, _references: &[String], _request: RemoveRequest) -> Vec<Result<()>> {
        vec![]
    }

    /// Gives a container another name.
    pub fn rename(&self, _reference: &str, _name: &str) -> Result<()> {
        anyhow::bail!("stub")
    }
}
