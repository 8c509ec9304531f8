//! What the kernel says of processes that it killed for want of memory: counters, peak and limit, and a wake-up.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFlags, eventfd};

use super::{Group, Mode};

/// Becomes ready when the group may have run out of memory.
#[derive(Debug)]
pub struct OomWatch {
    file: OwnedFd,
    flags: PollFlags,
}

impl OomWatch {
    /// What to ask poll(2) for.
    pub fn flags(&self) -> PollFlags {
        self.flags
    }

    /// Reads what made it ready, so that it can become ready again.
    pub fn rearm(&self) {
        let mut buffer = [0; 512];
        // v1: the eventfd's count. v2: poll(2) tells of changes since the last read from the start.
        if self.flags == PollFlags::PRI {
            let _ = rustix::io::pread(&self.file, &mut buffer, 0);
        } else {
            let _ = rustix::io::read(&self.file, &mut buffer[..8]);
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Group {
    /// Asks to be woken when memory runs out. `None` where the host cannot tell.
    pub fn watch_oom(&self) -> Option<OomWatch> {
        let directory = self.directory("memory")?;
        if self.mode == Mode::V2 {
            let mut events = File::open(directory.join("memory.events")).ok()?;
            let mut text = String::new();
            events.read_to_string(&mut text).ok()?;
            return Some(OomWatch { file: events.into(), flags: PollFlags::PRI });
        }
        // Documentation/admin-guide/cgroup-v1/memory.rst, section 10: "<event_fd> <fd of memory.oom_control>".
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let control = File::open(directory.join("memory.oom_control")).ok()?;
        let request = format!("{} {}", wake.as_raw_fd(), control.as_raw_fd());
        fs::write(directory.join("cgroup.event_control"), request).ok()?;
        Some(OomWatch { file: wake, flags: PollFlags::IN })
    }

    /// Processes that the kernel has killed in this group for want of memory; 0 where it does not count.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.mode == Mode::V2 { "memory.events" } else { "memory.oom_control" };
        let Some(directory) = self.directory("memory") else { return 0 };
        let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// The memory limit in bytes; `None` when there is none.
    pub fn memory_limit(&self) -> Option<u64> {
        let limit = self.memory_number("memory.limit_in_bytes", "memory.max")?;
        // v1 writes "unlimited" as the largest number of whole pages.
        (limit < i64::MAX as u64 - 0xffff).then_some(limit)
    }

    /// The most memory in bytes that the group ever used; `None` before Linux 5.19 on v2.
    pub fn memory_peak(&self) -> Option<u64> {
        self.memory_number("memory.max_usage_in_bytes", "memory.peak")
    }

    fn memory_number(&self, v1: &str, v2: &str) -> Option<u64> {
        let file = if self.mode == Mode::V2 { v2 } else { v1 };
        fs::read_to_string(self.directory("memory")?.join(file)).ok()?.trim().parse().ok()
    }
}
