//! What a follower waits for: a line, a rotation, a point in time.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::Failure;

/// How often to look when the kernel has no inotify instance left for us.
const BLIND: Duration = Duration::from_millis(250);
/// Longest sleep when waiting for a point in time: the clock may be set meanwhile.
const LONG: Duration = Duration::from_secs(3600);

/// Watches the data root, where nothing but the log changes.
pub(super) struct Watch {
    inotify: Option<OwnedFd>,
}

impl Watch {
    /// Begins to watch; what changes from now on will wake [`Watch::wait`].
    pub(super) fn new(root: &Path) -> Watch {
        let watch = || -> rustix::io::Result<OwnedFd> {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let events = WatchFlags::MODIFY
                | WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::DELETE
                | WatchFlags::DELETE_SELF
                | WatchFlags::ONLYDIR;
            inotify::add_watch(&inotify, root, events)?;
            Ok(inotify)
        };
        Watch { inotify: watch().ok() }
    }

    /// Sleeps until something may have changed, or until just after `until`.
    ///
    /// # Errors
    /// The data root is gone: nothing more will come.
    pub(super) fn wait(&self, until: Option<Timestamp>) -> Result<()> {
        let mut patience = until.map(|until| {
            let rest = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
            rest.min(LONG) + Duration::from_millis(1)
        });
        if self.inotify.is_none() {
            patience = Some(patience.map_or(BLIND, |patience| patience.min(BLIND)));
        }
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut polled: Vec<PollFd<'_>> =
            self.inotify.iter().map(|inotify| PollFd::new(inotify, PollFlags::IN)).collect();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        match &self.inotify {
            Some(inotify) => take_news(inotify),
            None => Ok(()),
        }
    }
}

/// Empties the queue.
fn take_news(inotify: &OwnedFd) -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) if event.events().intersects(ReadFlags::DELETE_SELF | ReadFlags::IGNORED) => {
                return Err(Failure::engine("the data root was removed").into());
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Ok(()),
        }
    }
}
