//! One run after another: from a container that runs to the record of its end, and, where the
//! restart policy says so, the wait and the next start.
//!
//! ```text
//!           ┌────────────────────────────────────────────┐
//!           ▼                                            │
//! start ──▶ live ──▶ record the end ──▶ rest ──▶ start again ──▶ leave   stopped or removed meanwhile
//!                        │      ▲                   │
//!                        ▼      └─── it failed ─────┘
//!                      leave                                             no restart
//! ```
//!
//! Whether there is another run is decided under the container's lock, from the record: at the end
//! of a run, and once more when the wait is over. Whoever stops or removes the container writes there.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::birth::{self, Running, Start};
use super::health::Health;
use super::memory::Memory;
use super::restart::{self, End};
use super::watch::{Run, Shim};
use super::{Orders, Steps, undo};
use crate::container::handle::{self, Locked};
use crate::container::status::Status;
use crate::container::{NamespaceMode, State};
use crate::engine::Engine;
use crate::engine::events::Action;
use crate::engine::recover;
use crate::engine::streams::{Client, Ends, Lent, Streams};
use crate::runtime::spawn::{self, Started};
use crate::sys::process;

/// What follows the end of a run.
enum Next {
    /// Another run, when this time has passed.
    Start { after: Duration },
    /// The end of the shim.
    Leave,
    /// The same, with something in the trash.
    LeaveAndSweep,
}

/// Supervises a container that runs, through all its runs.
pub(super) fn supervise(engine: &Engine, orders: Orders, listener: Option<OwnedFd>, running: Running) {
    let (mut shim, container, lent) = Shim::new(engine, orders, listener);
    let mut next = shim.live(container, running, lent);
    while let Next::Start { after } = next {
        shim.rest(after);
        next = shim.start_again();
    }
    shim.leave();
    if let Next::LeaveAndSweep = next {
        engine.sweep_trash();
    }
}

impl Shim<'_> {
    /// Serves a run to its end, and records that.
    ///
    /// What a user waits for comes first and is quick: the record, the name. Deleting directories
    /// comes last, when nobody waits any more.
    fn live(&mut self, container: Locked, running: Running, lent: Option<Lent>) -> Next {
        let Running { started: Started { child, console }, ends, log, group, network } = running;
        let began = Instant::now();
        let config = container.config.clone();
        let process = container.state.init;
        // Others may change the record from now on; the end takes the lock again.
        drop(container);
        let ends = match (console, ends) {
            (Some(console), _) => Some(Ends::Terminal(console)),
            (None, Some((stdin, stdout, stderr))) => Some(Ends::Pipes(stdin, stdout, stderr)),
            (None, None) => None,
        };
        let log = (config.log.driver != "none").then_some(log);
        let streams =
            ends.and_then(|ends| Streams::new(ends, config.process.open_stdin, config.process.stdin_once, log).ok());
        let code = match streams {
            Some(mut streams) => {
                streams.clients.extend(lent.map(|lent| Client::new(0, lent)));
                self.run = Some(Run {
                    process,
                    pidfd: child.pidfd,
                    streams,
                    memory: Memory::watch(group.clone()),
                    network,
                    health: Health::watch(&config, process),
                });
                process::trim_memory();
                self.until_end()
            }
            None => {
                // Out of descriptors: better no container than one that nobody supervises.
                let _ = process::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
                spawn::wait_for_end(&child)
            }
        };
        let lasted = began.elapsed();

        // Before the group is emptied: nobody may enter it any more.
        self.run.iter_mut().for_each(|run| run.health = None);
        // The id of a passing container is never used again, so its cgroup can go when nobody waits.
        // That of another must be gone before a next start makes it anew.
        if config.namespaces.pid != NamespaceMode::Private {
            // Processes that shared somebody else's PID namespace may have outlived the first one.
            let _ = group.kill_all();
        }
        let (clients, oom) = self.run.take().map_or((Vec::new(), None), |mut run| {
            run.streams.drain();
            // With its sockets goes the last that keeps the network namespace, and its devices, alive.
            drop(run.network);
            (run.streams.clients, run.memory.report(&self.id))
        });
        if !config.auto_remove {
            let _ = recover::discard_group(&group);
        }
        self.ended = process.map(|process| (process, code));
        let mut rules_left = false;
        let next = match Locked::acquire(self.engine.layout(), &self.id) {
            Ok(mut container) if is_ours(&container.state) => {
                if oom.is_some() && !container.state.oom_killed {
                    self.engine.note(&container.config, Action::Oom);
                }
                container.state.oom_killed |= oom.is_some();
                container.state.oom = oom.or(container.state.oom.take());
                let endpoints = container.state.endpoints.clone();
                self.engine.give_back_quickly(&mut container);
                self.engine.note_connections(&self.id, &endpoints, "disconnect");
                rules_left = !container.state.endpoints.is_empty();
                self.record_end(&mut container, code, lasted)
            }
            // Gone already: somebody removed it by force.
            _ => Next::Leave,
        };
        self.tell_end(code, clients);
        if let (Next::Leave, true) = (&next, rules_left) {
            self.take_rules_away();
        }
        next
    }

    /// Takes away what led to published ports, now that nobody waits for it, unless somebody has done so
    /// or has started the container again: a start does it first.
    fn take_rules_away(&self) {
        if let Ok(mut container) = Locked::acquire(self.engine.layout(), &self.id)
            && container.state.status == Status::Exited
            && !container.state.endpoints.is_empty()
        {
            self.engine.give_back(&mut container);
            // What cannot be written is done once more by the next start, or `rm`.
            let _ = container.save_state();
        }
    }

    /// Waits until it is time for the next run, or until there seems to be none any more.
    fn rest(&mut self, after: Duration) {
        let deadline = Instant::now() + after;
        while Instant::now() < deadline {
            self.turn(Some(deadline));
            if std::mem::take(&mut self.look_again) {
                let record = handle::load(self.engine.layout(), &self.id);
                if !record.is_ok_and(|record| is_awaiting_start(&record.state)) {
                    return;
                }
            }
        }
    }

    /// The next run, from its start to its end, unless somebody has stopped or removed the container.
    fn start_again(&mut self) -> Next {
        let Ok(mut container) = Locked::acquire(self.engine.layout(), &self.id) else { return Next::Leave };
        if !is_awaiting_start(&container.state) {
            if container.state.shim.is_none() {
                // Under the lock: the next shim has its socket at the same path.
                let _ = std::fs::remove_file(self.engine.layout().socket(&self.id));
            }
            return Next::Leave;
        }
        let start = Start { container: &mut container, size: self.size, listener: &mut self.listener };
        match birth::start(self.engine, start, &mut Steps::default()) {
            Ok(running) => {
                let _ = container.transition(Status::Running);
                self.engine.note(&container.config, Action::Start);
                self.engine.note_connections(&self.id, &container.state.endpoints, "connect");
                self.live(container, running, None)
            }
            Err(failure) => {
                // A run like any other, only that nothing ran.
                let code = undo(self.engine, &mut container, &failure);
                let next = self.record_end(&mut container, code, Duration::ZERO);
                drop(container);
                self.tell_end(code, Vec::new());
                next
            }
        }
    }

    /// Writes down the end of a run, under the lock, and what follows it; removes the container when
    /// it was to go.
    fn record_end(&mut self, container: &mut Locked, code: i32, lasted: Duration) -> Next {
        let auto_remove = container.config.auto_remove;
        let state = &mut container.state;
        let end = End {
            policy: container.config.restart,
            code,
            stopped_by_user: state.stopped_by_user,
            restarts: state.restart_count,
            lasted,
            waited: self.waited,
        };
        state.exit_code = code;
        state.finished = Some(Timestamp::now());
        state.init = None;
        if let Some(after) = restart::after(&end).filter(|_| !auto_remove) {
            state.restart_count = state.restart_count.saturating_add(1);
            // What cannot be recorded is not done: nobody could stop it.
            if container.transition(Status::Restarting).is_ok() {
                self.engine.note(&container.config, Action::died(&container.state));
                self.waited = Some(after);
                return Next::Start { after };
            }
        }
        container.state.shim = None;
        // Under the lock: the next shim has its socket at the same path.
        let _ = std::fs::remove_file(self.engine.layout().socket(&self.id));
        if auto_remove {
            let trash = self.engine.discard_ended(container).unwrap_or(false);
            return if trash { Next::LeaveAndSweep } else { Next::Leave };
        }
        // A full disk cannot be told to anybody here; the next reader sees that the process is gone.
        let _ = container.transition(Status::Exited);
        // Under the lock: nobody can start it again, or remove it, and tell that before.
        self.engine.note(&container.config, Action::died(&container.state));
        Next::Leave
    }
}

/// The record is still about the run that this shim started.
fn is_ours(state: &State) -> bool {
    state.shim.is_some_and(|shim| shim.pid == std::process::id() as i32)
}

/// Nobody has stopped or removed the container, or started it in our place.
fn is_awaiting_start(state: &State) -> bool {
    is_ours(state) && state.status == Status::Restarting
}
