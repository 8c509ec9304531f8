//! Update: other limits, and another restart policy, for a container, running or not.

use anyhow::{Context, Result};

use super::events::Action;
use super::request::UpdateRequest;
use super::{Engine, lower_resources, resources};
use crate::cgroup::{Cgroups, limits, systemd};
use crate::container::handle::{self, Locked};
use crate::container::{Config, Resources};
use crate::error::Failure;

impl Engine {
    /// Changes limits. They are in force at once when the container runs, and recorded for its next starts. What
    /// cannot be put in force is an error, and the former limits stay. Returns what the user should know.
    pub fn update(&self, reference: &str, request: &UpdateRequest) -> Result<Vec<String>> {
        let id = handle::find(self.layout(), reference)?;
        let mut container = self
            .lock_settled(&id)?
            .ok_or_else(|| anyhow::Error::from(Failure::not_found(format!("No such container: {reference}"))))?;
        let mut wanted = container.config.resources.updated(&request.resources);
        check_swap(&container.config.resources, &request.resources)?;
        resources::validate(&wanted)?;
        let place = resources::place(&container.config)?;
        let warnings = resources::fit(&mut wanted, &place)?;
        if let Some(policy) = request.restart {
            if container.config.auto_remove && !policy.is_no() {
                return Err(Failure::usage(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                )
                .into());
            }
            // The shim reads it from the record when the container ends.
            container.config.restart = policy;
        }
        let former = std::mem::replace(&mut container.config.resources, wanted);
        let running = container.record().live_init().is_some();
        let done = if running && !request.resources.is_empty() { enforce(&container.config) } else { Ok(()) };
        if let Err(error) = done.and_then(|()| container.save_config()) {
            if running {
                restore(&mut container, former);
            }
            return Err(error).with_context(|| format!("update {reference}"));
        }
        self.note(&container.config, Action::Update);
        Ok(warnings)
    }
}

/// The first error is the one that counts; what was changed before it goes back as far as it can.
fn restore(container: &mut Locked, former: Resources) {
    let lifted = former.lifting(&container.config.resources);
    container.config.resources = lifted;
    if let Err(error) = enforce(&container.config) {
        tracing::debug!("put the former limits back: {error:#}");
    }
    container.config.resources = former;
}

/// Puts the recorded limits in force on the running container.
fn enforce(config: &Config) -> Result<()> {
    let cgroups = Cgroups::detect()?;
    let lowered = lower_resources::resources(&config.resources)?;
    let place = resources::place(config)?;
    let group = cgroups.extend(&place, &limits::extra_controllers(&lowered))?;
    if let Some(unit) = place.unit() {
        systemd::set_limits(unit, &lowered, cgroups.mode)?;
    }
    group.apply(&limits::settings(&lowered, cgroups.mode))
}

/// Docker's rule: raising memory alone above what memory and swap together may be is refused.
fn check_swap(former: &Resources, change: &Resources) -> Result<()> {
    let (Some(memory), Some(swap)) = (change.memory, former.memory_swap) else { return Ok(()) };
    if swap > 0 && memory > swap && change.memory_swap.unwrap_or(0) == 0 {
        return Err(Failure::usage(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        )
        .into());
    }
    Ok(())
}
