//! Pausing: the freezer of v1 (`Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst`) and `cgroup.freeze` of v2.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Group, Mode};
use crate::error::Failure;

/// How long a group may take to stand still: processes in uninterruptible sleep freeze when they wake.
const FREEZE_TIME: Duration = Duration::from_secs(10);

impl Group {
    /// Stops every process of the group where it is; returns when all stand still.
    ///
    /// # Errors
    /// The host has no freezer, or some process does not stop in ten seconds; the group goes on then.
    pub fn freeze(&self) -> Result<()> {
        let directory = self.directory("freezer").ok_or_else(|| {
            Failure::engine("this host has no cgroup freezer").with_hint("mount the freezer controller, or cgroups v2")
        })?;
        let result = if self.mode == Mode::V2 { freeze_v2(directory) } else { freeze_v1(directory) };
        if result.is_err() {
            self.thaw();
        }
        result.with_context(|| format!("freeze {}", directory.display()))
    }

    /// Lets the processes go on; harmless when they do.
    pub fn thaw(&self) {
        if let Some(directory) = self.directory("freezer") {
            let (file, value) =
                if self.mode == Mode::V2 { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
            let _ = fs::write(directory.join(file), value);
        }
    }

    /// Whether the group is told to stand still.
    pub fn is_frozen(&self) -> bool {
        let Some(directory) = self.directory("freezer") else { return false };
        let file = if self.mode == Mode::V2 { "cgroup.freeze" } else { "freezer.self_freezing" };
        fs::read_to_string(directory.join(file)).is_ok_and(|text| text.trim() == "1")
    }
}

/// v1 announces nothing: the state is read until it is `FROZEN`. Writing it again helps a freeze along that a fork
/// has raced with (freezer-subsystem.rst: "FREEZING … may be written again").
fn freeze_v1(directory: &Path) -> Result<()> {
    let file = directory.join("freezer.state");
    let deadline = Instant::now() + FREEZE_TIME;
    let mut pause = Duration::from_micros(50);
    loop {
        fs::write(&file, "FROZEN")?;
        if fs::read_to_string(&file)?.trim() == "FROZEN" {
            return Ok(());
        }
        too_late(deadline)?;
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// v2 wakes whoever polls `cgroup.events` when `frozen` changes.
fn freeze_v2(directory: &Path) -> Result<()> {
    let mut events = File::open(directory.join("cgroup.events"))?;
    fs::write(directory.join("cgroup.freeze"), "1")?;
    let deadline = Instant::now() + FREEZE_TIME;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        too_late(deadline)?;
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&second));
    }
}

fn too_late(deadline: Instant) -> Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(Failure::engine("some of its processes do not stop: they hang in the kernel").into())
}
