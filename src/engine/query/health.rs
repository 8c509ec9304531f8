//! The health of a container as it is known now.

use crate::container::handle::Record;
use crate::container::status::Status;
use crate::container::{HealthReport, HealthResult, HealthStatus};
use crate::layout::Layout;
use crate::sys::process;

/// What can be said of a container's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) status: HealthStatus,
    pub(super) failing_streak: u32,
    /// The last results, oldest first.
    pub(super) log: Vec<HealthResult>,
}

/// Asks record, results and kernel; `None` of a container that has no health check, or has never run.
pub(super) fn of(layout: &Layout, record: &Record) -> Option<Health> {
    let config = &record.config;
    config.health.as_ref()?.command(&config.process.shell)?;
    record.state.started?;
    let status = record.status();
    let runs = status.is_live() && status != Status::Restarting;
    let report = HealthReport::load(layout, &config.id).filter(|report| !runs || record.state.init == Some(report.run));
    let supervised = record.state.shim.is_some_and(|shim| process::start_time(shim.pid) == Some(shim.start_time));
    let status = match &report {
        // As with Docker: nothing that runs is not healthy.
        _ if !runs => HealthStatus::Unhealthy,
        // What it was when somebody still looked may have been wrong for long.
        _ if !supervised => HealthStatus::Unknown,
        Some(report) => report.status,
        None => HealthStatus::Starting,
    };
    let (failing_streak, log) = report.map(|report| (report.failing_streak, report.log)).unwrap_or_default();
    Some(Health { status, failing_streak, log })
}
