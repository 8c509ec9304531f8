//! What a follower waits for: a write to the log, a rotation, the end of the container.
//!
//! ```text
//! inotify on the container's directory   log written or replaced, state.json replaced, directory removed
//! pidfd of the shim, pidfd of init       the end that nobody is left to record (kill -9)
//! ```

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::container::status::is_orphaned;
use crate::container::{ContainerId, ProcessRef, handle};
use crate::layout::Layout;

/// How often to look when the kernel has no inotify instance or pidfd left for us.
const BLIND: Duration = Duration::from_millis(250);
/// Longest sleep when waiting for a point in time.
const LONG: Duration = Duration::from_secs(3600);

/// Watches one container.
pub(super) struct Watch {
    layout: Layout,
    id: ContainerId,
    inotify: Option<OwnedFd>,
    /// Of the processes that were alive when last looked at.
    processes: Vec<OwnedFd>,
    /// Something is not watched and must be looked at from time to time.
    blind: bool,
    /// The record may have changed since `ended` was found.
    stale: bool,
    ended: bool,
}

impl Watch {
    /// Begins to watch; what changes from now on will wake [`Watch::wait`].
    pub(super) fn new(layout: &Layout, id: &ContainerId) -> Watch {
        let watch = || -> rustix::io::Result<OwnedFd> {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let events = WatchFlags::MODIFY
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVE_SELF
                | WatchFlags::DELETE_SELF
                | WatchFlags::ONLYDIR;
            inotify::add_watch(&inotify, layout.container(id), events)?;
            Ok(inotify)
        };
        let (layout, id) = (layout.clone(), id.clone());
        Watch { inotify: watch().ok(), layout, id, processes: Vec::new(), blind: false, stale: true, ended: false }
    }

    /// Nobody will write to the log any more: the end is on record (the shim records it after its
    /// last write), or neither shim nor container exists, or the container was removed. A container
    /// whose first process is gone while its shim lives still has output on its way.
    pub(super) fn ended(&mut self) -> bool {
        if !std::mem::take(&mut self.stale) {
            return self.ended;
        }
        self.processes.clear();
        self.ended = match handle::load(&self.layout, &self.id) {
            Err(_) => true,
            Ok(record) => {
                // Opened first, then asked who they are: a process that ends in between is seen as
                // dead or wakes the poll, and a number that was reused is not taken for ours.
                let opened = [record.state.init, record.state.shim].map(open);
                let alive = record.liveness();
                let watched = opened.into_iter().zip([alive.init, alive.shim]).filter(|(_, alive)| *alive);
                self.blind = self.inotify.is_none();
                for (descriptor, _) in watched {
                    self.blind |= descriptor.is_none();
                    self.processes.extend(descriptor);
                }
                !record.state.status.is_live() || is_orphaned(&record.state, alive)
            }
        };
        self.ended
    }

    /// Sleeps until something may have changed, or until just after `until`.
    pub(super) fn wait(&mut self, until: Option<Timestamp>) -> Result<()> {
        let mut patience = until.map(|until| {
            let rest = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
            rest.min(LONG) + Duration::from_millis(1)
        });
        if self.blind {
            patience = Some(patience.map_or(BLIND, |patience| patience.min(BLIND)));
            self.stale = true;
        }
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut polled: Vec<PollFd<'_>> = self
            .processes
            .iter()
            .chain(&self.inotify)
            .map(|descriptor| PollFd::new(descriptor, PollFlags::IN))
            .collect();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the log"),
        }
        self.stale |= polled[..self.processes.len()].iter().any(|process| !process.revents().is_empty());
        self.stale |= self.take_events();
        Ok(())
    }

    /// Empties the queue; whether there was news of the record or of the directory itself.
    fn take_events(&self) -> bool {
        let Some(inotify) = &self.inotify else { return true };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let directory = ReadFlags::MOVE_SELF
            | ReadFlags::DELETE_SELF
            | ReadFlags::IGNORED
            | ReadFlags::UNMOUNT
            | ReadFlags::QUEUE_OVERFLOW;
        let mut news = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    news |= event.events().intersects(directory);
                    news |= event.file_name().is_some_and(|name| name == c"state.json");
                }
                Err(Errno::INTR) => {}
                Err(_) => return news,
            }
        }
    }
}

fn open(reference: Option<ProcessRef>) -> Option<OwnedFd> {
    let pid = reference?.pid;
    // A damaged record must not reach the library's assertion.
    if pid <= 0 {
        return None;
    }
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}
