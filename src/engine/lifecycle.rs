//! Stop, kill, restart, wait, remove, rename: transitions of a container that exists.
//!
//! Functions that take several references signal all before they wait for any; each element of the
//! result belongs to the reference at its index.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::events::Action;
use super::request::{RemoveRequest, StartRequest, StopRequest};
use super::supervise::await_process;
use super::wire::Request;
use super::{Engine, recover};
use crate::container::handle::{self, Locked, Record};
use crate::container::status::Status;
use crate::container::{Config, ContainerId, ProcessRef, names};
use crate::error::Failure;
use crate::sys::channel::Channel;
use crate::sys::{process, signal};

/// A running container that was told to stop.
struct Stopping {
    id: ContainerId,
    config: Config,
    run: ProcessRef,
    pidfd: OwnedFd,
    /// Seconds it is given; negative for ever.
    grace: i64,
}

/// A container that `rm -f` has killed.
struct Killed {
    run: ProcessRef,
    /// Who does the rest, if there is a rest that must be done when `rm` returns.
    sweeper: Option<ProcessRef>,
}

/// What the user's wish to end a container has met.
enum Target {
    /// Its first process, to be signalled.
    Runs(ProcessRef, OwnedFd),
    /// No process: it waits for its next run, or did until now, or would have from now on.
    BetweenRuns,
    /// It does not run.
    Down,
}

impl Engine {
    /// Sends the stop signal, waits, kills. Stopping a stopped container is no error.
    pub fn stop(&self, references: &[String], request: &StopRequest) -> Vec<Result<()>> {
        let told: Vec<Result<Option<Stopping>>> =
            references.iter().map(|reference| self.tell_to_stop(reference, request)).collect();
        told.into_iter().map(|told| told?.map_or(Ok(()), |stopping| self.finish_stop(&stopping))).collect()
    }

    fn tell_to_stop(&self, reference: &str, request: &StopRequest) -> Result<Option<Stopping>> {
        let id = handle::find(self.layout(), reference)?;
        let record = handle::load(self.layout(), &id)?;
        let number = signal_number(request.signal.as_ref().unwrap_or(&record.config.stop_signal))?;
        let Target::Runs(run, pidfd) = self.claim_end(&id, &record)? else { return Ok(None) };
        let grace = request.timeout.unwrap_or(record.config.stop_timeout);
        self.note(&record.config, Action::Kill { signal: number });
        send(&pidfd, number).with_context(|| format!("stop {reference}"))?;
        self.resume(&record);
        Ok(Some(Stopping { id, config: record.config, run, pidfd, grace }))
    }

    fn finish_stop(&self, stopping: &Stopping) -> Result<()> {
        if !ends_within(&stopping.pidfd, stopping.grace) {
            self.note(&stopping.config, Action::Kill { signal: libc::SIGKILL });
            send(&stopping.pidfd, libc::SIGKILL)?;
        }
        self.settle(&stopping.id, stopping.run)?;
        self.note(&stopping.config, Action::Stop);
        Ok(())
    }

    /// Waits until the end is recorded, by the shim or by ourselves.
    fn settle(&self, id: &ContainerId, run: ProcessRef) -> Result<()> {
        self.await_end(id, run)?;
        match self.lock_settled(id) {
            // Removed by its own `--rm`: that is an end, too.
            Err(error) if is_not_found(&error) => Ok(()),
            // The signal was sent when it had no restart policy yet.
            Ok(Some(container)) if container.record().status() == Status::Restarting => self.call_off(container),
            result => result.map(drop),
        }
    }

    /// Opens the first process of a container as it is.
    fn target(&self, id: &ContainerId, record: &Record) -> Result<Target> {
        if let Some((run, pidfd)) = open_init(record) {
            return Ok(Target::Runs(run, pidfd));
        }
        let restarting = |container: Locked| container.record().status() == Status::Restarting;
        Ok(if self.lock_settled(id)?.is_some_and(restarting) { Target::BetweenRuns } else { Target::Down })
    }

    /// Opens the first process of a container that the user wants to end. If its restart policy could
    /// start it again, the wish is on record before this returns: whatever the first process does
    /// from now on, there is no next run. One that waits for its next run is told that there is none.
    fn claim_end(&self, id: &ContainerId, record: &Record) -> Result<Target> {
        if record.config.restart.is_no() {
            return self.target(id, record);
        }
        let Some(mut container) = self.lock_settled(id)? else { return Ok(Target::Down) };
        // The record, settled a moment ago: asked again, the kernel might say that it has just ended,
        // and its shim, which waits for the lock, would start it again.
        match container.state.status {
            Status::Restarting => {
                self.call_off(container)?;
                return Ok(Target::BetweenRuns);
            }
            status if !status.is_live() => return Ok(Target::Down),
            _ => {}
        }
        container.state.stopped_by_user = true;
        container.save_state()?;
        match open_init(&container.record()) {
            Some((run, pidfd)) => Ok(Target::Runs(run, pidfd)),
            // It has ended this very moment, and its shim waits for the lock to record that.
            None => {
                drop(container);
                self.lock_settled(id)?;
                Ok(Target::BetweenRuns)
            }
        }
    }

    /// Ends the wait for the next run: records that there is none, then tells the shim, which would
    /// find it in the record itself when its time has come.
    fn call_off(&self, mut container: Locked) -> Result<()> {
        let socket = self.layout().socket(container.id());
        container.state.stopped_by_user = true;
        container.state.shim = None;
        container.transition(Status::Exited)?;
        // Not under the lock: the shim may be waiting for it, and then it hears nobody. If another
        // shim has the socket by now, it finds nothing new.
        drop(container);
        if let Ok(shim) = Channel::connect(&socket) {
            let _ = shim.send(&Request::LookAgain, &[]);
        }
        Ok(())
    }

    /// A client passes a signal on to the container it is attached to: one that is meant to end it is
    /// the user's word against the restart policy, too.
    pub(super) fn note_signal(&self, id: &ContainerId, number: i32) {
        if let Ok(record) = handle::load(self.layout(), id)
            && !record.config.restart.is_no()
            && is_meant_to_end(&record, number)
        {
            // What cannot be recorded is no reason to keep the signal back.
            let _ = self.claim_end(id, &record);
        }
    }

    /// Sends `signal` (name or number) to the first process of a running container.
    pub fn kill(&self, reference: &str, signal: &str) -> Result<()> {
        let number = signal_number(signal)?;
        let id = handle::find(self.layout(), reference)?;
        let record = handle::load(self.layout(), &id)?;
        let ends = is_meant_to_end(&record, number);
        let target = if ends { self.claim_end(&id, &record) } else { self.target(&id, &record) };
        let (run, pidfd) = match target? {
            Target::Runs(run, pidfd) => (run, pidfd),
            // No error, as with Docker; without a next run if the signal was meant to end it.
            Target::BetweenRuns => return Ok(()),
            Target::Down => {
                return Err(Failure::conflict(format!(
                    "Cannot kill container: {reference}: container {id} is not running"
                ))
                .into());
            }
        };
        self.note(&record.config, Action::Kill { signal: number });
        send(&pidfd, number).with_context(|| format!("kill {reference}"))?;
        if number == libc::SIGKILL || Ok(number) == signal_number(&record.config.stop_signal).map_err(drop) {
            self.resume(&record);
        }
        // Docker returns from a SIGKILL when the container is down.
        if number == libc::SIGKILL { self.settle(&id, run) } else { Ok(()) }
    }

    /// Stops (when running) and starts.
    pub fn restart(&self, reference: &str, request: &StopRequest) -> Result<()> {
        let id = handle::find(self.layout(), reference)?;
        if let Some(stopping) = self.tell_to_stop(reference, request)? {
            self.finish_stop(&stopping)?;
        }
        self.start(id.as_str(), &StartRequest::default(), &mut |_| {})?;
        self.note_by_id(&id, Action::Restart);
        Ok(())
    }

    /// Waits until the container is not running; its exit code. As with Docker that is the end of the
    /// present run, whatever the restart policy does then, and between two runs that of the next.
    pub fn wait(&self, reference: &str) -> Result<i32> {
        let id = handle::find(self.layout(), reference)?;
        let record = handle::load(self.layout(), &id)?;
        let told = match record.state.init.filter(|_| record.state.status.is_live()) {
            Some(run) => self.await_end(&id, run)?,
            None if record.status() == Status::Restarting => self.await_next_end(&id)?,
            None => None,
        };
        if let Some(code) = told {
            return Ok(code);
        }
        let container = self.lock_settled(&id)?;
        Ok(container.map_or(recover::UNKNOWN_EXIT, |container| container.state.exit_code))
    }

    /// Removes containers with all that belongs to them. With `force` all are killed before any is
    /// waited for.
    pub fn remove(&self, references: &[String], request: RemoveRequest) -> Vec<Result<()>> {
        let found: Vec<Result<ContainerId>> =
            references.iter().map(|reference| handle::find(self.layout(), reference)).collect();
        let killed: Vec<Option<Killed>> = found
            .iter()
            .map(|id| {
                let id = id.as_ref().ok().filter(|_| request.force)?;
                let record = handle::load(self.layout(), id).ok()?;
                let Target::Runs(run, pidfd) = self.claim_end(id, &record).ok()? else { return None };
                self.note(&record.config, Action::Kill { signal: libc::SIGKILL });
                send(&pidfd, libc::SIGKILL).ok()?;
                self.resume(&record);
                // Of a container that removes itself the shim takes the rules away when all is told.
                let publishes = record.state.endpoints.iter().any(|endpoint| !endpoint.published.is_empty());
                let sweeper = record.state.shim.filter(|_| record.config.auto_remove && publishes);
                Some(Killed { run, sweeper })
            })
            .collect();
        let results = found
            .into_iter()
            .zip(killed)
            .zip(references)
            .map(|((id, killed), reference)| {
                let id = id?;
                let sweeper = killed.as_ref().and_then(|killed| killed.sweeper);
                if let Some(killed) = killed {
                    self.settle(&id, killed.run)?;
                }
                let removed = self.remove_one(&id, reference, request);
                sweeper.into_iter().for_each(await_process);
                removed
            })
            .collect();
        self.sweep_trash();
        results
    }

    fn remove_one(&self, id: &ContainerId, reference: &str, request: RemoveRequest) -> Result<()> {
        let mut container = match self.lock_settled(id) {
            Ok(Some(container)) => container,
            Ok(None) => return Ok(()),
            // Gone meanwhile, by its own `--rm` or another `rm`: what was asked for is true.
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return self.remove_damaged(id, request, error),
        };
        // The record, settled a moment ago: if it has ended since, its shim still has its work to do.
        let status = container.state.status;
        if status.is_live() {
            return Err(Failure::conflict(format!(
                "You cannot remove a {status} container {id}. Stop the container before attempting removal or force remove"
            ))
            .with_hint(format!("mydocker stop {reference}, or mydocker rm -f {reference}"))
            .into());
        }
        let volumes = if request.volumes { recover::anonymous_volumes(&container) } else { Vec::new() };
        self.discard(&mut container)?;
        self.remove_volumes(&volumes);
        Ok(())
    }

    /// Removes a container whose record cannot be read: by force only, because nobody can tell what
    /// it was.
    fn remove_damaged(&self, id: &ContainerId, request: RemoveRequest, error: anyhow::Error) -> Result<()> {
        if !request.force {
            return Err(error);
        }
        let _lock = handle::lock(self.layout(), id)?;
        self.discard_cgroup(id)?;
        self.forget_owner(id.as_str())?;
        if self.firewall().is_available() {
            self.firewall().unpublish_owner(id.as_str())?;
        }
        names::release_all(self.layout(), id)?;
        self.discard_directories(id)?;
        self.note_by_id(id, Action::Destroy);
        Ok(())
    }

    /// Gives a container another name.
    pub fn rename(&self, reference: &str, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name);
        names::validate(name)?;
        let id = handle::find(self.layout(), reference)?;
        let mut container = self
            .lock_settled(&id)?
            .ok_or_else(|| anyhow::Error::from(Failure::not_found(format!("No such container: {reference}"))))?;
        if container.config.name == name {
            return Err(Failure::conflict("Renaming a container with the same name as its current name").into());
        }
        self.heal_name_holder(name)?;
        // The new claim first: interrupted here, the container has two names and loses neither.
        names::claim(self.layout(), name, &id)?;
        let old = std::mem::replace(&mut container.config.name, name.to_owned());
        if let Err(error) = container.save_config() {
            names::release(self.layout(), name, &id)?;
            return Err(error);
        }
        names::release(self.layout(), &old, &id)?;
        self.renew_names(&mut container)?;
        self.note(&container.config, Action::Rename { old: &old });
        Ok(())
    }
}

/// The number of a signal in any of its spellings.
pub fn signal_number(text: &str) -> Result<i32> {
    signal::parse(text).ok_or_else(|| {
        Failure::usage(format!("invalid signal: {text}"))
            .with_hint("give a name such as TERM or SIGTERM, or a number from 1 to 64")
            .into()
    })
}

/// Whether a signal says that the user wants the container to end, so that its restart policy does
/// not apply: the container's own stop signal, SIGKILL, and what ctrl-c sends.
fn is_meant_to_end(record: &Record, number: i32) -> bool {
    matches!(number, libc::SIGKILL | libc::SIGINT) || signal::parse(&record.config.stop_signal) == Some(number)
}

/// A handle on the container's first process, when it runs.
fn open_init(record: &Record) -> Option<(ProcessRef, OwnedFd)> {
    let init = record.live_init()?;
    Some((init, process::open_verified(init.pid, init.start_time)?))
}

/// Sends a signal; a process that has just ended is as good as signalled.
fn send(pidfd: &OwnedFd, number: i32) -> Result<()> {
    match process::send_signal(pidfd.as_fd(), number) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.with_context(|| format!("send {}", signal::name(number))),
    }
}

/// Waits for a process to end, `seconds` at most; negative waits for ever.
fn ends_within(pidfd: &OwnedFd, seconds: i64) -> bool {
    // Further off than the clock can tell is for ever, too.
    let deadline = u64::try_from(seconds)
        .ok()
        .and_then(|seconds| std::time::Instant::now().checked_add(std::time::Duration::from_secs(seconds)));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        let limit =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        match rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], limit.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            // Interrupted by a signal: the rest of the time.
            Err(_) => {}
        }
    }
}

/// The error says that the container does not exist.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    Failure::from_error(error).class == crate::error::Class::NotFound
}
