//! Pause and unpause: the container's cgroup stands still.
//!
//! The record says *paused* from before the freezer is asked until after it has let go: interrupted anywhere,
//! whatever may be frozen is shown as paused and can be unpaused.

use anyhow::{Context, Result};

use super::events::Action;
use super::{Engine, resources};
use crate::cgroup::Cgroups;
use crate::container::handle::{self, Locked, Record};
use crate::container::status::Status;
use crate::error::Failure;

impl Engine {
    /// Suspends all processes of a running container.
    pub fn pause(&self, reference: &str) -> Result<()> {
        let mut container = self.lock_running(reference)?;
        if container.record().status() == Status::Paused {
            return Err(Failure::conflict(format!("Container {} is already paused", container.id())).into());
        }
        let group = resources::group(&Cgroups::detect()?, &container.config)?;
        // It may still be recorded as starting: the shim records *running* after it has told its caller.
        container.state.status = Status::Running;
        container.transition(Status::Paused)?;
        if let Err(error) = group.freeze() {
            // What does not stand still goes on.
            container.transition(Status::Running)?;
            return Err(error).with_context(|| format!("pause {reference}"));
        }
        self.note(&container.config, Action::Pause);
        Ok(())
    }

    /// Lets a paused container go on.
    pub fn unpause(&self, reference: &str) -> Result<()> {
        let mut container = self.lock_running(reference)?;
        if container.record().status() != Status::Paused {
            return Err(Failure::conflict(format!("Container {} is not paused", container.id())).into());
        }
        resources::group(&Cgroups::detect()?, &container.config)?.thaw();
        container.transition(Status::Running)?;
        self.note(&container.config, Action::Unpause);
        Ok(())
    }

    /// Lets a container that was paused when `record` was read go on, so that it can take the signal that it was
    /// sent: a frozen process of cgroups v1 does not even die.
    pub(super) fn resume(&self, record: &Record) {
        if record.status() != Status::Paused {
            return;
        }
        let thawed = (|| -> Result<()> {
            let mut container = Locked::acquire(self.layout(), &record.config.id)?;
            resources::group(&Cgroups::detect()?, &container.config)?.thaw();
            if container.state.status == Status::Paused { container.transition(Status::Running) } else { Ok(()) }
        })();
        if let Err(error) = thawed {
            tracing::debug!("let {} go on: {error:#}", record.config.name);
        }
    }

    /// A running container's record, true and locked.
    pub(super) fn lock_running(&self, reference: &str) -> Result<Locked> {
        let id = handle::find(self.layout(), reference)?;
        match self.lock_settled(&id)? {
            Some(container) if container.record().status() == Status::Restarting => {
                Err(Failure::conflict(format!("Container {id} is restarting, wait until the container is running"))
                    .into())
            }
            Some(container) if container.record().status().is_live() => Ok(container),
            _ => Err(Failure::conflict(format!("Container {id} is not running"))
                .with_hint(format!("start it first: mydocker start {reference}"))
                .into()),
        }
    }
}
