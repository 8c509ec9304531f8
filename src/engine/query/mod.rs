//! Questions: list, inspect, stats, top, info, version. Reads records and the kernel, writes nothing.
//!
//! Answers are typed views, for front ends to render. Each record is read once, without a lock;
//! what the kernel says of its processes overrules what was recorded.

mod filter;
mod health;
mod host;
mod inspect;
mod inspect_view;
mod list;
mod networking;
mod size;
mod stats;
mod summary;
mod top;
mod why;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Engine;
use crate::container::ContainerId;
use crate::container::handle::{self, Record};
use crate::container::status::Status;

pub use filter::Filter;
pub use host::{InfoView, PluginsView, ProgramView, VersionView};
pub use inspect_view::*;
pub use list::{ListRequest, Listing};
pub use networking::PortSummary;
pub use size::Size;
pub use stats::{ContainerStats, FIRST_WINDOW, INTERVAL, Monitor, Reading, Round, StatsRequest};
pub use summary::{Condition, ContainerSummary, MountSummary};
pub use top::ProcessTable;
pub use why::{Cause, End, SentSignal, Why};

/// Exit code shown for a run whose end nobody could write down (as Docker's after its daemon died).
const UNKNOWN_EXIT: i32 = 255;

impl Engine {
    /// Reads a record that is settled: when the first process has just ended and its shim is about
    /// to write what follows (an exit code, or that it is restarted), waits for that rather than
    /// telling something old. A shim that somebody has stopped is not waited for longer than half a second.
    fn settled(&self, id: &ContainerId) -> Result<Record> {
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut pause = Duration::from_millis(1);
        loop {
            let record = handle::load(&self.layout, id)?;
            let ending = record.state.status.is_live() && record.status() == Status::Exited;
            if !ending || !record.liveness().shim || Instant::now() > deadline {
                return Ok(record);
            }
            // A record announces nothing, and connecting to the shim would cost it more than this.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// The exit code that is true now.
fn exit_code(record: &Record) -> i32 {
    match (record.status(), record.state.status) {
        // Between two runs the earlier one's is known, also when the shim was killed there.
        (Status::Restarting, _) | (Status::Exited, Status::Restarting) => record.state.exit_code,
        (Status::Exited, recorded) if recorded.is_live() => UNKNOWN_EXIT,
        (Status::Exited | Status::Created, _) => record.state.exit_code,
        _ => 0,
    }
}
