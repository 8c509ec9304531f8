//! Starting a container and joining its streams, seen from the caller: fork the shim, forward
//! signals and window sizes, leave with the container's exit code.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tracing::debug_span;

use super::events::Action;
use super::request::{AttachRequest, Explain, StartRequest};
use super::shim::{self, Orders};
use super::streams::{self, Lent};
use super::wire::{Notice, Request};
use super::{Engine, Outcome};
use crate::container::handle::Locked;
use crate::container::status::Status;
use crate::container::{ContainerId, ProcessRef, Streams, handle};
use crate::error::Failure;
use crate::image::Store;
pub use crate::runtime::monotonic_micros;
use crate::runtime::{StartFailure, StepTime};
use crate::store::{self, Durability};
use crate::sys::channel::{Channel, Received};
use crate::sys::fd;
use crate::sys::process::{self, Fork};
use crate::sys::tty::{self, RawMode, Size};

/// One timed step of a start (`--explain`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedStep {
    /// Which process did it: `mydocker`, `shim`, `init`.
    pub process: String,
    /// What was done.
    pub step: String,
    /// When it began, microseconds on the monotonic clock.
    pub at: u64,
    /// How long it took, microseconds.
    pub took: u64,
    /// The system call and error number that ended the start here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<(String, i32)>,
}

impl TimedStep {
    fn new(process: &str, time: StepTime) -> TimedStep {
        let took = time.ended.saturating_sub(time.began);
        TimedStep { process: process.into(), step: time.step, at: time.began, took, failed: None }
    }
}

/// What a start tells besides its outcome.
#[derive(Debug, Default)]
pub struct Told {
    /// Its steps, when they were asked for.
    pub steps: Vec<TimedStep>,
    /// Things the user should know; not errors.
    pub warnings: Vec<String>,
}

/// ctrl-p ctrl-q, as with Docker.
const DEFAULT_DETACH_KEYS: [u8; 2] = [0x10, 0x11];

/// Signals passed on to the container. Not SIGTSTP: ctrl-z stops the client and nothing else.
const PROXIED: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
];

impl Engine {
    /// Starts a container. With `request.attach` the caller's terminal or streams are joined to it
    /// until it ends or the user detaches. `tell` is called once the command runs, or could not be
    /// started.
    pub fn start(&self, reference: &str, request: &StartRequest, tell: &mut dyn FnMut(Told)) -> Result<Outcome> {
        let id = handle::find(self.layout(), reference)?;
        let mut container =
            debug_span!("lock container").in_scope(|| self.lock_settled(&id))?.ok_or_else(|| no_such(reference))?;
        // The record, settled a moment ago: if it has ended since, its shim still has its work to do.
        if container.state.status.is_live() {
            drop(container);
            // As with Docker: starting what runs is no error.
            return match &request.attach {
                Some(attach) => self.attach(reference, attach),
                None => Ok(Outcome::Started),
            };
        }
        let process = container.config.process.clone();
        let attach = request.attach.clone().map(|mut attach| {
            // Without -i the container has no input to give to.
            attach.streams.stdin &= process.open_stdin;
            attach
        });
        let ready = (|| -> Result<_> {
            // The machine may have gone down since the container was made.
            Store::open(self.layout()).trust(&container.config.image.layers)?;
            let (caller, shim_end) = Channel::pair().context("make a channel to the shim")?;
            let lent = attach.as_ref().map(|attach| lend(attach, process.tty)).transpose()?;
            // Signals and raw mode before the command can run: its first words and the user's first
            // keys must meet them.
            let joined = attach.as_ref().map(|attach| Joined::new(attach, process.tty)).transpose()?;
            Ok((caller, shim_end, lent, joined))
        })();
        let (caller, shim_end, lent, joined) = match ready {
            Ok(ready) => ready,
            Err(error) => return Err(self.never_started(container, error)),
        };
        if attach.is_some() {
            self.note(&container.config, Action::Attach);
        }
        let before = container.state.status;
        // The user wants it to run: its restart policy begins anew.
        container.state.restart_count = 0;
        container.state.stopped_by_user = false;
        let mut orders = Orders {
            container,
            caller: shim_end,
            lent,
            size: terminal_size(),
            before,
            timed: request.explain == Explain::Steps,
        };
        match debug_span!("fork shim").in_scope(process::fork).context("fork the shim") {
            Err(error) => return Err(self.never_started(orders.container, error)),
            Ok(Fork::Child) => shim::run(self, orders),
            // Dropping our copies leaves the lock and the streams to the shim.
            Ok(Fork::Parent) => {
                if let Some(terminal) = orders.lent.as_mut().and_then(|lent| lent.terminal.take()) {
                    terminal.disarm();
                }
                drop(orders);
            }
        }
        let mut told = Told::default();
        let started = await_started(&caller, &mut told);
        tell(told);
        let pid = started?;
        if let Some(path) = &request.pidfile {
            store::write_mode(path, format!("{pid}\n").as_bytes(), 0o644, Durability::ProcessCrash)?;
        }
        match joined {
            None => Ok(Outcome::Started),
            Some(joined) => self.stay(&id, &caller, joined),
        }
    }

    /// A start that failed before there was a shim to clean up after it.
    fn never_started(&self, mut container: Locked, error: anyhow::Error) -> anyhow::Error {
        if container.config.auto_remove && self.discard(&mut container).is_ok() {
            drop(container);
            self.sweep_trash();
        }
        error
    }

    /// Joins the caller's terminal or streams to a running container.
    pub fn attach(&self, reference: &str, request: &AttachRequest) -> Result<Outcome> {
        let id = handle::find(self.layout(), reference)?;
        let record = handle::load(self.layout(), &id)?;
        match record.status() {
            Status::Starting | Status::Running => {}
            Status::Paused => {
                return Err(Failure::conflict("You cannot attach to a paused container, unpause it first").into());
            }
            Status::Restarting => {
                return Err(
                    Failure::conflict("You cannot attach to a restarting container, wait until it is running").into()
                );
            }
            _ => return Err(Failure::conflict("You cannot attach to a stopped container, start it first").into()),
        }
        let channel = Channel::connect(&self.layout().socket(&id)).map_err(|_| {
            Failure::engine(format!("attach to {}: its supervisor was killed", record.config.name))
                .with_hint(format!("it runs on without one; restart it: mydocker restart {}", record.config.name))
        })?;
        let tty = record.config.process.tty;
        let mut streams = request.streams;
        // Without -i the container has no input to give to.
        streams.stdin &= record.config.process.open_stdin;
        // A terminal has one output.
        streams.stderr &= !tty;
        let lent = lend(&AttachRequest { streams, ..request.clone() }, tty)?;
        let files: Vec<BorrowedFd<'_>> =
            [&lent.stdin, &lent.stdout, &lent.stderr].into_iter().flatten().map(AsFd::as_fd).collect();
        let size = terminal_size().filter(|_| tty);
        self.note(&record.config, Action::Attach);
        // A shim that is about to end may have hung up already: what it said comes below.
        let message = Request::Attach { streams, detach_keys: lent.detach_keys.clone(), size, owner: lent.owner };
        let _ = channel.send(&message, &files);
        drop(files);
        if let Some(terminal) = lent.terminal {
            terminal.disarm();
        }
        // The shim remembers the terminal's mode before we change it.
        match channel.receive::<Notice>().context("hear from the container's supervisor")? {
            Received::Message(Notice::Exited { code }, _) => return Ok(Outcome::Exited(code)),
            Received::Message(..) | Received::Nothing => {}
            Received::Closed => return self.outlived_shim(&id),
        }
        let joined = Joined::new(&AttachRequest { streams, ..request.clone() }, tty)?;
        let _ = channel.send(&Request::Ready, &[]);
        self.stay(&id, &channel, joined)
    }

    /// Stays with a container that runs: forwards, and ends with it.
    fn stay(&self, id: &ContainerId, channel: &Channel, joined: Joined) -> Result<Outcome> {
        let Joined { raw, signals } = joined;
        loop {
            let mut set = [PollFd::new(channel, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
            if rustix::event::poll(&mut set, None).is_err() {
                continue;
            }
            let (spoke, signalled) = (!set[0].revents().is_empty(), !set[1].revents().is_empty());
            if signalled && let Some(signal) = process::read_signal(signals.as_fd()) {
                let message = match signal {
                    libc::SIGWINCH => terminal_size().map(Request::Resize),
                    signal => {
                        self.note_signal(id, signal);
                        Some(Request::Signal(signal))
                    }
                };
                // A shim that is gone shows as the end of the channel.
                let _ = message.map(|message| channel.send(&message, &[]));
            }
            if !spoke {
                continue;
            }
            match channel.receive::<Notice>().context("hear from the container's supervisor")? {
                Received::Message(Notice::Exited { code }, _) => return Ok(Outcome::Exited(code)),
                Received::Message(Notice::Detached, _) => {
                    self.note_by_id(id, Action::Detach);
                    return Ok(Outcome::Detached);
                }
                Received::Message(Notice::OutputFailed { errno }, _) => return Err(streams::output_failed(errno)),
                Received::Message(..) | Received::Nothing => {}
                Received::Closed => {
                    drop(raw);
                    return self.outlived_shim(id);
                }
            }
        }
    }

    /// The shim is gone without a word: killed. The container may run on.
    fn outlived_shim(&self, id: &ContainerId) -> Result<Outcome> {
        let record = handle::load(self.layout(), id).ok();
        if let Some(record) = record.filter(|record| record.live_init().is_some()) {
            return Err(Failure::engine(format!("the supervisor of {} was killed", record.config.name))
                .with_hint(format!("the container runs on without a log; stop it: mydocker stop {}", id.short()))
                .into());
        }
        match self.lock_settled(id)? {
            Some(container) => Ok(Outcome::Exited(container.state.exit_code)),
            None => Err(Failure::engine("the container's supervisor was killed").into()),
        }
    }

    /// Waits until a run of a container has ended and its end is recorded. Returns its code when its
    /// shim told it, `None` when there was none to ask.
    pub fn await_end(&self, id: &ContainerId, run: ProcessRef) -> Result<Option<i32>> {
        if let Some(code) = self.ask_end(id, &Request::Wait { run })? {
            return Ok(Some(code));
        }
        await_process(run);
        // The process has ended. A shim that is not heard any more and has not recorded it is about to end.
        if let Ok(record) = handle::load(self.layout(), id)
            && record.state.init == Some(run)
            && let Some(shim) = record.state.shim
        {
            await_process(shim);
        }
        Ok(None)
    }

    /// Waits until the next run of a container that waits to be started again has ended, or will not
    /// be; the last code. `None` when there is no shim to ask.
    pub fn await_next_end(&self, id: &ContainerId) -> Result<Option<i32>> {
        self.ask_end(id, &Request::WaitNext)
    }

    /// Has the shim tell when a run ends. `None` when it was killed or knows nothing of that run.
    fn ask_end(&self, id: &ContainerId, request: &Request) -> Result<Option<i32>> {
        let Ok(channel) = Channel::connect(&self.layout().socket(id)) else { return Ok(None) };
        if channel.send(request, &[]).is_err() {
            return Ok(None);
        }
        loop {
            match channel.receive::<Notice>().context("wait for the container's supervisor")? {
                Received::Message(Notice::Exited { code }, _) => return Ok(Some(code)),
                Received::Message(..) => {}
                Received::Closed | Received::Nothing => return Ok(None),
            }
        }
    }
}

/// Waits for a process to end.
pub(super) fn await_process(process: ProcessRef) {
    if let Some(handle) = process::open_verified(process.pid, process.start_time) {
        let _ = rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], None);
    }
}

/// A caller that is about to be joined to a container: its terminal is raw, its signals are watched.
struct Joined {
    raw: Option<RawMode>,
    signals: OwnedFd,
}

impl Joined {
    fn new(request: &AttachRequest, tty: bool) -> Result<Joined> {
        let mut watched = vec![libc::SIGWINCH];
        if request.sig_proxy {
            // What the caller had ignored (nohup) stays ignored.
            watched.extend(PROXIED.iter().filter(|&&signal| !process::is_ignored(signal)));
        }
        let signals = process::signal_descriptor(&watched).context("watch for signals")?;
        let raw = if tty && request.streams.stdin { RawMode::enter(fd::standard(0)).ok().flatten() } else { None };
        Ok(Joined { raw, signals })
    }
}

fn no_such(reference: &str) -> Failure {
    Failure::not_found(format!("No such container: {reference}"))
}

/// The caller's streams for the shim.
fn lend(request: &AttachRequest, tty: bool) -> Result<Lent> {
    let copy = |wanted: bool, number, access| {
        wanted.then(|| streams::borrow_standard(number, access)).transpose().context("copy a standard stream")
    };
    Ok(Lent {
        stdin: copy(request.streams.stdin, 0, OFlags::RDONLY)?,
        stdout: copy(request.streams.stdout, 1, OFlags::WRONLY)?,
        stderr: copy(request.streams.stderr && !tty, 2, OFlags::WRONLY)?,
        detach_keys: detach_keys(request, tty),
        owner: if request.streams.stdin { terminal_owner() } else { None },
        terminal: if tty && request.streams.stdin { RawMode::remember(fd::standard(0)).ok().flatten() } else { None },
    })
}

/// This process, when its standard input is its controlling terminal, which it may have to share with
/// a shell.
fn terminal_owner() -> Option<ProcessRef> {
    rustix::termios::tcgetpgrp(fd::standard(0)).ok()?;
    let pid = std::process::id() as i32;
    Some(ProcessRef { pid, start_time: process::start_time(pid)? })
}

fn detach_keys(request: &AttachRequest, tty: bool) -> Vec<u8> {
    match &request.detach_keys {
        Some(keys) => keys.clone(),
        None if tty => DEFAULT_DETACH_KEYS.to_vec(),
        // Binary input must pass untouched.
        None => Vec::new(),
    }
}

fn terminal_size() -> Option<Size> {
    [1, 0, 2].into_iter().find_map(|number| tty::size(fd::standard(number)))
}

/// Waits for the shim's word on the start; the pid of the container's first process.
fn await_started(channel: &Channel, told: &mut Told) -> Result<i32> {
    loop {
        match channel.receive::<Notice>().context("hear from the shim")? {
            Received::Message(Notice::Steps(steps), _) => {
                told.steps.extend(steps.into_iter().map(|(process, time)| TimedStep::new(&process, time)));
            }
            Received::Message(Notice::Warning(warning), _) => told.warnings.push(warning),
            Received::Message(Notice::Started { pid }, _) => return Ok(pid),
            Received::Message(Notice::Failed(StartFailure { step, call, failure }), _) => {
                let now = crate::runtime::monotonic_micros();
                let mut last = TimedStep::new("init", StepTime { step, began: now, ended: now });
                last.failed = Some(call.unwrap_or_default());
                told.steps.push(last);
                return Err(failure.into());
            }
            Received::Message(..) | Received::Nothing => {}
            Received::Closed => return Err(Failure::engine("the shim was killed while starting the container").into()),
        }
    }
}

/// Both output streams and, if wanted, input.
pub fn all_streams(stdin: bool) -> Streams {
    Streams { stdin, stdout: true, stderr: true }
}
