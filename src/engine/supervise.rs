//! Starting a container and joining its streams, seen from the caller.

use anyhow::Result;

use super::request::{AttachRequest, StartRequest};
use super::{Engine, Outcome};

/// One timed step of a start (`--explain`).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TimedStep {
    /// Which process did it: `mydocker`, `shim`, `init`.
    pub process: String,
    /// What was done.
    pub step: String,
    /// When it began, microseconds after the command began.
    pub at: u64,
    /// How long it took, microseconds.
    pub took: u64,
}

impl Engine {
    /// Starts a container. With `request.attach` the caller's terminal or streams are joined to it
    /// until it ends or the user detaches. `timeline` receives the steps when they are asked for,
    /// also when the start fails.
    pub fn start(&self, _reference: &str, _request: &StartRequest, _timeline: &mut Vec<TimedStep>) -> Result<Outcome> {
        anyhow::bail!("stub")
    }

    /// Joins the caller's terminal or streams to a running container.
    pub fn attach(&self, _reference: &str, _request: &AttachRequest) -> Result<Outcome> {
        anyhow::bail!("stub")
    }

    /// What a start of this container would do, as data: mounts, namespaces, cgroup writes, steps.
    pub fn plan(&self, _reference: &str) -> Result<serde_json::Value> {
        anyhow::bail!("stub")
    }
}
