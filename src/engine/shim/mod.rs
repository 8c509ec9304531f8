//! The shim: one process per container, from its start to its clean-up.
//!
//! One thread, one poll loop, no runtime. It clones init, keeps the log, serves whoever attaches,
//! records the end and removes what must go. It belongs to no terminal: it is forked by the
//! caller's process, takes a session of its own, and lets go of everything but the container's lock
//! and, in the foreground, the caller's streams. When it is killed the container runs on without a
//! log, and the next command does its clean-up (`recover`).

mod birth;
mod health;
mod memory;
mod network;
mod probe;
mod restart;
mod runs;
mod watch;

use std::os::fd::{AsFd, AsRawFd};

use jiff::Timestamp;
use rustix::fs::Mode;

use birth::Start;
pub use birth::plan_as_data;

use super::events::Action;
use super::streams::Lent;
use super::wire::Notice;
use super::{Engine, resources};
use crate::cgroup::Cgroups;
use crate::container::handle::Locked;
use crate::container::status::Status;
use crate::error::Class;
use crate::runtime::{StartFailure, StepTime, monotonic_micros};
use crate::sys::channel::Channel;
use crate::sys::tty::Size;
use crate::sys::{fd, process};

/// What the caller's process passes on to its shim.
#[derive(Debug)]
pub struct Orders {
    /// The container, locked; the lock is shared with the caller until the caller drops it.
    pub container: Locked,
    /// The caller's end of this pair waits for [`Notice`]s.
    pub caller: Channel,
    /// The caller's streams, when it stays.
    pub lent: Option<Lent>,
    /// The caller's window.
    pub size: Option<Size>,
    /// What the container was before.
    pub before: Status,
    /// Collect timed steps.
    pub timed: bool,
}

/// Runs the shim in a freshly forked process; never returns.
pub fn run(engine: &Engine, mut orders: Orders) -> ! {
    detach(&orders);
    process::set_title(&format!("mydocker: shim {}", orders.container.config.name));
    let mut steps = Steps { timed: orders.timed, ..Steps::default() };
    let mut listener = None;
    let start = Start { container: &mut orders.container, size: orders.size, listener: &mut listener };
    match birth::start(engine, start, &mut steps) {
        Ok(running) => {
            steps.tell(&orders.caller);
            engine.note(&orders.container.config, Action::Start);
            let _ = orders.caller.send(&Notice::Started { pid: running.started.child.pid }, &[]);
            // After the word to the caller, who waits for it: a live process that is recorded as
            // starting is a running one (`status::effective`). If the disk is full it stays so.
            let _ = orders.container.transition(Status::Running);
            engine.note_connections(&orders.container.config.id, &orders.container.state.endpoints, "connect");
            runs::supervise(engine, orders, listener, running);
        }
        Err(failure) => {
            steps.tell(&orders.caller);
            refuse(engine, orders, failure);
        }
    }
    process::exit_now(0)
}

/// Leaves the caller's session, terminal, working directory and files behind.
fn detach(orders: &Orders) {
    // The caller watches for signals by descriptor and has them blocked.
    process::reset_signals();
    // A shutdown or a careless `pkill` must not end the one process that will record how the
    // container ended; SIGPIPE and SIGXFSZ (the caller's limits are ours) are error values of the write.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGPIPE, libc::SIGXFSZ] {
        process::ignore_signal(signal);
    }
    let _ = rustix::process::setsid();
    let mut keep = vec![orders.caller.as_fd().as_raw_fd(), orders.container.lock().file().as_raw_fd()];
    if let Some(lent) = &orders.lent {
        keep.extend([&lent.stdin, &lent.stdout, &lent.stderr].into_iter().flatten().map(AsRawFd::as_raw_fd));
        keep.extend(lent.terminal.as_ref().map(|terminal| terminal.as_fd().as_raw_fd()));
    }
    fd::close_all_but(&keep);
    fd::ensure_standard_streams();
    let _ = rustix::process::chdir("/");
    rustix::process::umask(Mode::from_raw_mode(0o022));
}

/// What a start has to tell besides its outcome.
#[derive(Default)]
struct Steps {
    timed: bool,
    /// The timed steps, the shim's and init's.
    list: Vec<(String, StepTime)>,
    /// Things the user should know; not errors.
    warnings: Vec<String>,
}

impl Steps {
    /// Runs `action` and notes its time.
    fn time<T>(&mut self, step: &str, action: impl FnOnce() -> T) -> T {
        if !self.timed {
            return action();
        }
        let began = monotonic_micros();
        let value = action();
        self.list.push(("shim".into(), StepTime { step: step.into(), began, ended: monotonic_micros() }));
        value
    }

    fn tell(&mut self, caller: &Channel) {
        for warning in self.warnings.drain(..) {
            let _ = caller.send(&Notice::Warning(warning), &[]);
        }
        if self.timed {
            // One a frame: paths can be long, and frames are bounded.
            for step in std::mem::take(&mut self.list) {
                let _ = caller.send(&Notice::Steps(vec![step]), &[]);
            }
        }
    }
}

/// Takes away what a failed start has made, and notes why it failed. The code that stands for it.
fn undo(engine: &Engine, container: &mut Locked, failure: &StartFailure) -> i32 {
    if let (Ok(cgroups), Ok(place)) = (Cgroups::detect(), resources::place(&container.config)) {
        let group = cgroups.group(&place);
        // The command may run already: the last step of a start is the record.
        let _ = group.kill_all().and_then(|()| group.remove());
    }
    engine.give_back(container);
    container.state.error = failure.failure.to_string();
    container.state.hint.clone_from(&failure.failure.hint);
    match failure.failure.class {
        Class::CommandNotFound => 127,
        Class::NotExecutable => 126,
        _ => 128,
    }
}

/// A start that failed: record or remove, then tell the caller.
fn refuse(engine: &Engine, mut orders: Orders, failure: StartFailure) {
    let layout = engine.layout();
    let id = orders.container.id().clone();
    let _ = std::fs::remove_file(layout.socket(&id));
    let container = &mut orders.container;
    container.state.exit_code = undo(engine, container, &failure);
    container.state.finished = Some(Timestamp::now());
    // A container that has never run stays *created*, as with Docker.
    container.state.status = orders.before;
    if orders.before == Status::Created {
        container.state.started = None;
        container.state.finished = None;
    }
    container.state.init = None;
    container.state.shim = None;
    let result = if container.config.auto_remove {
        engine.discard_ended(container).map(drop)
    } else {
        let saved = container.save_state();
        engine.note(&container.config, Action::died(&container.state));
        saved
    };
    let mut failure = failure;
    if let Err(error) = result {
        failure.failure.causes.push(format!("and then: {error:#}"));
    }
    let _ = orders.caller.send(&Notice::Failed(failure), &[]);
    drop(orders);
    engine.sweep_trash();
}
