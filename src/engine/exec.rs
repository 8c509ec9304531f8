//! `exec`: another process inside a running container.

use anyhow::Result;

use super::Engine;
use super::request::ExecRequest;

impl Engine {
    /// Runs a command inside; its exit code, or 0 once it runs when detached.
    pub fn exec(&self, _reference: &str, _request: &ExecRequest) -> Result<i32> {
        anyhow::bail!("stub")
    }
}
