//! Processes that the kernel kills for want of memory, noticed while the container runs and once more at its end.
//! Told by the kernel's counters; who was killed is told by its log (kmsg, `Documentation/ABI/testing/dev-kmsg`).

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};

use crate::cgroup::{Group, OomWatch};
use crate::container::{ContainerId, OomReport, OomVictim};
use crate::runtime::monotonic_micros;

/// Victims that are named; a container in a loop may lose thousands.
const NAMED: usize = 8;

/// Between a word of the kernel's and the second look.
const PAUSE: Duration = Duration::from_millis(100);

/// The memory of one run.
pub(super) struct Memory {
    group: Group,
    watch: Option<OomWatch>,
    limit: Option<u64>,
    kills: u64,
    began: u64,
    /// When to look again, and not before: on v2 a group at its limit wakes us at every reclaim, and v1 wakes us
    /// before it has killed anybody.
    next_look: Option<Instant>,
}

impl Memory {
    /// Begins to watch. The kernel wakes us only where there is a limit to reach.
    pub(super) fn watch(group: Group) -> Memory {
        let limit = group.memory_limit();
        let watch = limit.and_then(|_| group.watch_oom());
        // Once now: the command runs already, and may have reached its limit before it was watched.
        let next_look = watch.as_ref().map(|_| Instant::now());
        Memory { group, watch, limit, kills: 0, began: monotonic_micros(), next_look }
    }

    /// What to poll for now.
    pub(super) fn awaited(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.watch.as_ref().filter(|_| self.next_look.is_none()).map(|watch| (watch.as_fd(), watch.flags()))
    }

    /// When to look though nothing was heard.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// True when processes were killed since the last look.
    pub(super) fn look(&mut self) -> bool {
        self.next_look = match self.next_look {
            None => Some(Instant::now() + PAUSE),
            Some(_) => None,
        };
        if let Some(watch) = &self.watch {
            watch.rearm();
        }
        let kills = self.group.oom_kills();
        let more = kills > self.kills;
        self.kills = kills.max(self.kills);
        more
    }

    /// What is known of the kills of this run; `None` when there were none. To be asked before the group is removed.
    pub(super) fn report(&self, id: &ContainerId) -> Option<OomReport> {
        let kills = self.group.oom_kills().max(self.kills);
        // systemd may have been quicker: its scopes' groups go, with their counters, as soon as they are empty.
        let vanished = self.limit.is_some() && self.group.has_vanished();
        if kills == 0 && !vanished {
            return None;
        }
        let victims = victims(&kernel_log(), id, self.began);
        let kills = kills.max(victims.len() as u64);
        (kills > 0).then(|| OomReport {
            limit: self.group.memory_limit().or(self.limit).unwrap_or(0),
            peak: self.group.memory_peak().unwrap_or(0),
            kills,
            victims,
        })
    }
}

/// The kernel's log as it is now, a record a line; empty where it may not be read.
fn kernel_log() -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open("/dev/kmsg", flags, Mode::empty()) else { return String::new() };
    let mut file = std::fs::File::from(file);
    let mut log = Vec::new();
    let mut record = [0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => log.extend_from_slice(&record[..length]),
            // Overwritten while we read: the next one is there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&log).into_owned()
}

/// The processes of container `id` that were killed since `began` (microseconds, monotonic). The line of interest:
/// `6,1234,5678,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,task_memcg=/mydocker/<id>,task=sh,pid=42,uid=0`.
fn victims(log: &str, id: &ContainerId, began: u64) -> Vec<OomVictim> {
    let mut victims = Vec::new();
    for line in log.lines() {
        let Some((prefix, text)) = line.split_once(';') else { continue };
        let Some(fields) = text.strip_prefix("oom-kill:") else { continue };
        let time = prefix.split(',').nth(2).and_then(|time| time.parse::<u64>().ok());
        // The log's clock may be some milliseconds behind ours.
        if time.is_none_or(|time| time + 100_000 < began) || !fields.contains(id.as_str()) {
            continue;
        }
        // A name may hold commas: what follows it is known.
        let Some((_, named)) = fields.split_once(",task=") else { continue };
        let Some((name, rest)) = named.rsplit_once(",pid=") else { continue };
        let pid = rest.split(',').next().and_then(|pid| pid.parse().ok());
        victims.extend(pid.map(|pid| OomVictim { pid, name: name.to_owned() }));
        if victims.len() == NAMED {
            break;
        }
    }
    victims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn victims_are_this_containers_and_this_runs() {
        let id = ContainerId::parse(&"c0ffee".repeat(11)[..64]).unwrap();
        let line = |time: u64, id: &str, name: &str, pid: i32| {
            format!(
                "6,1,{time},-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
                 oom_memcg=/mydocker/{id},task_memcg=/mydocker/{id},task={name},pid={pid},uid=0\n"
            )
        };
        let other = "ab".repeat(32);
        let log = [
            line(1_000, id.as_str(), "earlier", 1),
            line(5_000_000, &other, "other", 2),
            "4,2,5000000,-;something else\n SUBSYSTEM=memory\n".to_owned(),
            line(5_000_000, id.as_str(), "a,pid=7,b", 3),
            "garbage;oom-kill:,task=".to_owned(),
        ];
        let found = victims(&log.concat(), &id, 4_000_000);
        assert_eq!(found, [OomVictim { pid: 3, name: "a,pid=7,b".into() }]);
    }
}
