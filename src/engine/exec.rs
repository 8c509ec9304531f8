//! `exec`: another process inside a running container.
//!
//! Its own path, with no hand in the container's life: the caller is the new process's parent and
//! moves its bytes itself. The handle on the container's first process is opened first and checked
//! afterwards, so that the namespaces entered are the container's, whatever happens meanwhile.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxCapabilitiesBuilder, ProcessBuilder, UserBuilder};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;

use super::events::{Action, Exec};
use super::pipes::Pipes;
use super::request::ExecRequest;
use super::streams::{self, Client, Ends, Lent, Streams, Watch};
use super::{Engine, lower, resources};
use crate::cgroup::{Cgroups, Group};
use crate::container::handle::{self, Record};
use crate::container::status::Status;
use crate::container::{ContainerId, NamespaceMode};
use crate::error::Failure;
use crate::runtime::plan::{InitPlan, Step, process_steps};
use crate::runtime::spawn::{self, Birth, Prepared, Started};
use crate::runtime::{Launch, StartFailure};
use crate::sys::process::Fork;
use crate::sys::tty::{self, RawMode};
use crate::sys::{fd, process, program};

impl Engine {
    /// Runs a command inside; its exit code, or 0 when it runs on without the caller (`-d`, or the
    /// detach keys were typed).
    pub fn exec(&self, reference: &str, request: &ExecRequest) -> Result<i32> {
        let id = handle::find(self.layout(), reference)?;
        let mut record = handle::load(self.layout(), &id)?;
        if record.state.status == Status::Starting {
            // Not to be entered halfway: it may still have the host's root. Whoever starts it holds the
            // lock until it runs.
            let container = self.lock_settled(&id)?;
            record = container.map(|container| container.record()).ok_or_else(|| not_running(&record))?;
        }
        let entry = Entry::new(&record, reference, request)?;
        let exec_id = ContainerId::random().context("make an id for the command")?;
        let exec = Exec { id: exec_id.as_str(), command: &request.command };
        self.note(&record.config, Action::ExecCreate(exec));
        let pipes = if request.tty || request.detach { Pipes::none()? } else { Pipes::new(request.interactive)? };
        let prepared = entry.prepare(&record, pipes.child.each_ref().map(AsFd::as_fd))?;
        drop(pipes.child);
        // Before the command can run: its first words and the user's first keys must meet raw mode.
        let foreground = if request.detach { None } else { Some(Foreground::new(request)?) };
        let started =
            prepared.release(&entry.plan)?.wait(&mut Vec::new()).map_err(|StartFailure { failure, .. }| failure)?;
        self.note(&record.config, Action::ExecStart(exec));
        let Some(foreground) = foreground else {
            if let Some(console) = started.console {
                let mut streams = Streams::new(Ends::Terminal(console), false, false, None)?;
                hold(&mut streams, &started.child.pidfd, &record.config.name)?;
            }
            return Ok(0);
        };
        let ends = match (&started.console, pipes.ours) {
            (Some(console), _) => Ends::Terminal(console.try_clone()?),
            (None, Some((stdin, stdout, stderr))) => Ends::Pipes(stdin, stdout, stderr),
            (None, None) => return Err(Failure::engine("the command has no streams").into()),
        };
        match relay(started, ends, request, foreground, &record.config.name)? {
            Some(exit_code) => {
                self.note(&record.config, Action::ExecDie { exec, exit_code });
                Ok(exit_code)
            }
            // It runs on, and nobody will be there to see it end.
            None => Ok(0),
        }
    }
}

/// The way into a container that runs: for `exec`, and for its health check.
pub(super) struct Entry {
    /// The container's first process, checked to be that of the record.
    pub(super) target: OwnedFd,
    /// What the newcomer does.
    pub(super) plan: InitPlan,
    group: Group,
}

impl Entry {
    /// Opens it. `reference` is what the user called the container.
    pub(super) fn new(record: &Record, reference: &str, request: &ExecRequest) -> Result<Entry> {
        let target = open_target(record, reference)?;
        let group = resources::group(&Cgroups::detect()?, &record.config)?;
        let plan = exec_plan(record, &group, request)?;
        Ok(Entry { target, plan, group })
    }

    /// Clones the newcomer, which waits for its plan.
    pub(super) fn prepare(&self, record: &Record, streams: [BorrowedFd<'_>; 3]) -> Result<Prepared> {
        let program = program::own_program().context("open our own program")?;
        let prepare = |directory: Option<OwnedFd>| {
            spawn::prepare(&Birth {
                name: &record.config.name,
                program: program.as_fd(),
                namespaces: 0,
                pid_namespace: None,
                cgroup: directory.as_ref().map(AsFd::as_fd),
                streams,
                target: Some(self.target.as_fd()),
                gated: false,
            })
        };
        prepare(self.group.v2_dir_fd()?).or_else(|error| match record.live_init() {
            // A container that manages cgroups itself has given its controllers to groups below its own, which may
            // have no processes then: its first process shows where they are.
            Some(init) if is_busy(&error) => prepare(self.group.v2_dir_fd_of(init.pid)?),
            _ => Err(error),
        })
    }
}

/// The plan of a process that joins: cgroup, namespaces, then the same last steps as a
/// container's first process, so that it is confined in the same way.
fn exec_plan(record: &Record, group: &Group, request: &ExecRequest) -> Result<InitPlan> {
    let config = &record.config;
    let mut steps = Vec::new();
    let tasks = group.join_files();
    if !tasks.is_empty() {
        steps.push(Step::JoinCgroup { tasks });
    }
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP
        | if config.namespaces.pid == NamespaceMode::Host { 0 } else { libc::CLONE_NEWPID };
    steps.push(Step::EnterContainer { namespaces });
    steps.push(Step::NewSession);
    if request.tty {
        steps.push(Step::OpenTerminal { size: window(), console: false });
    }
    let privileged = config.security.privileged || request.privileged;
    let set = lower::spec_capabilities(config, privileged)?;
    let mut environment = config.process.env.clone();
    if request.tty && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push("TERM=xterm".into());
    }
    for entry in &request.env {
        let name = entry.split('=').next().unwrap_or_default();
        environment.retain(|other| other.split('=').next() != Some(name));
        if entry.contains('=') {
            environment.push(entry.clone());
        }
    }
    let capabilities =
        LinuxCapabilitiesBuilder::default().bounding(set.clone()).permitted(set.clone()).effective(set).build()?;
    let workdir = request.workdir.clone().unwrap_or_else(|| config.process.workdir.clone());
    let process = ProcessBuilder::default()
        .terminal(request.tty)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?)
        .args(request.command.clone())
        .env(environment)
        .cwd(workdir)
        .capabilities(capabilities)
        .rlimits(lower::rlimits(config)?)
        .no_new_privileges(config.security.no_new_privileges)
        .build()?;
    let launch = Launch {
        user: request.user.clone().unwrap_or_else(|| config.process.user.clone()),
        groups: if request.user.is_none() { config.process.group_add.clone() } else { Vec::new() },
        ..Launch::default()
    };
    steps.extend(process_steps(&process, &launch)?);
    Ok(InitPlan { steps, timed: false })
}

fn is_busy(error: &anyhow::Error) -> bool {
    error.root_cause().downcast_ref::<std::io::Error>().is_some_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

fn open_target(record: &Record, reference: &str) -> Result<OwnedFd> {
    match record.status() {
        Status::Paused => {
            return Err(Failure::conflict(format!(
                "Container {reference} is paused, unpause the container before exec"
            ))
            .into());
        }
        Status::Starting | Status::Running => {}
        Status::Restarting => {
            return Err(Failure::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                record.config.id
            ))
            .into());
        }
        _ => return Err(not_running(record)),
    }
    let init = record.live_init().ok_or_else(|| not_running(record))?;
    process::open_verified(init.pid, init.start_time).ok_or_else(|| not_running(record))
}

pub(super) fn not_running(record: &Record) -> anyhow::Error {
    Failure::conflict(format!("container {} is not running", record.config.id))
        .with_hint(format!("start it first: mydocker start {}", record.config.name))
        .into()
}

/// The size of the caller's terminal, if he has one.
pub fn window() -> Option<tty::Size> {
    [1, 0, 2].into_iter().find_map(|number| tty::size(fd::standard(number)))
}

/// The caller's side of a foreground exec.
struct Foreground {
    raw: Option<RawMode>,
    signals: OwnedFd,
}

impl Foreground {
    fn new(request: &ExecRequest) -> Result<Foreground> {
        let signals = process::signal_descriptor(&[libc::SIGWINCH]).context("watch for signals")?;
        let terminal = request.tty && request.interactive;
        let raw = if terminal { RawMode::enter(fd::standard(0)).ok().flatten() } else { None };
        Ok(Foreground { raw, signals })
    }
}

/// The caller has left: somebody must hold the terminal, or the command would be hung up. A process
/// of its own does, throwing the output away, until the command has ended.
fn hold(streams: &mut Streams, pidfd: &OwnedFd, name: &str) -> Result<()> {
    // We may lead the session, and our end hangs up whoever has not left it yet.
    process::ignore_signal(libc::SIGHUP);
    if let Fork::Parent = process::fork().context("fork a keeper for the command")? {
        return Ok(());
    }
    streams.clients.clear();
    let keep: Vec<_> = streams.descriptors().chain([pidfd.as_fd()]).map(|file| file.as_raw_fd()).collect();
    let _ = rustix::process::setsid();
    fd::close_all_but(&keep);
    fd::ensure_standard_streams();
    let _ = rustix::process::chdir("/");
    process::set_title(&format!("mydocker: exec {name}"));
    process::trim_memory();
    loop {
        let mut watched = Vec::new();
        streams.watch(&mut watched);
        let mut set = vec![PollFd::new(pidfd, PollFlags::IN)];
        set.extend(watched.iter().map(|(_, file, flags)| PollFd::from_borrowed_fd(*file, *flags)));
        if rustix::event::poll(&mut set, None).is_err() {
            continue;
        }
        if !set[0].revents().is_empty() {
            process::exit_now(0);
        }
        let ready: Vec<Watch> = watched.iter().map(|(watch, ..)| *watch).collect();
        let hit: Vec<bool> = set[1..].iter().map(|entry| !entry.revents().is_empty()).collect();
        for (watch, hit) in ready.into_iter().zip(hit) {
            if hit {
                streams.handle(watch);
            }
        }
    }
}

/// Moves the bytes of a foreground exec until the command has ended; its code. `None`: the caller
/// typed the detach keys.
fn relay(
    started: Started,
    ends: Ends,
    request: &ExecRequest,
    foreground: Foreground,
    name: &str,
) -> Result<Option<i32>> {
    const CLIENT: u64 = 0;
    let copy = |number, access| streams::borrow_standard(number, access).context("copy a standard stream");
    let mut streams = Streams::new(ends, request.interactive, true, None).context("prepare the streams")?;
    let keys = request.detach_keys.clone().unwrap_or_else(|| if request.tty { vec![0x10, 0x11] } else { Vec::new() });
    let lent = Lent {
        stdin: if request.interactive { Some(copy(0, OFlags::RDONLY)?) } else { None },
        stdout: Some(copy(1, OFlags::WRONLY)?),
        stderr: if request.tty { None } else { Some(copy(2, OFlags::WRONLY)?) },
        detach_keys: keys,
        // This process reads the terminal itself: the kernel sees to whose turn it is.
        owner: None,
        // This process puts the terminal back itself.
        terminal: None,
    };
    streams.clients.push(Client::new(CLIENT, lent));
    let Foreground { raw, signals } = foreground;
    let mut code = None;
    loop {
        if let Some(code) = code {
            streams.drain();
            if !streams.clients.iter().any(Client::is_behind) {
                return Ok(Some(code));
            }
        }
        let ready = wait(&streams, &started.child.pidfd, signals.as_fd(), code.is_none());
        if ready.resized
            && process::read_signal(signals.as_fd()).is_some()
            && let (Some(console), Some(size)) = (streams.console(), window())
        {
            let _ = tty::set_size(console, size);
        }
        for watch in ready.streams {
            if streams.handle(watch).is_some() {
                drop(raw);
                hold(&mut streams, &started.child.pidfd, name)?;
                return Ok(None);
            }
        }
        if let Some((_, errno)) = streams.failed_client() {
            return Err(streams::output_failed(errno.raw_os_error()));
        }
        if ready.ended && code.is_none() {
            code = process::reap(started.child.pidfd.as_fd()).context("reap the command")?;
        }
    }
}

struct Ready {
    ended: bool,
    resized: bool,
    streams: Vec<Watch>,
}

fn wait(streams: &Streams, pidfd: &OwnedFd, signals: BorrowedFd<'_>, alive: bool) -> Ready {
    let mut watched: Vec<(Watch, BorrowedFd<'_>, PollFlags)> = Vec::new();
    streams.watch(&mut watched);
    let mut set = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
    set.extend(watched.iter().map(|(_, descriptor, flags)| PollFd::from_borrowed_fd(*descriptor, *flags)));
    if alive {
        set.push(PollFd::new(pidfd, PollFlags::IN));
    }
    if rustix::event::poll(&mut set, None).is_err() {
        return Ready { ended: false, resized: false, streams: Vec::new() };
    }
    let ready: Vec<bool> = set.iter().map(|entry| !entry.revents().is_empty()).collect();
    let hits = watched.iter().zip(&ready[1..]).filter(|&(_, &hit)| hit).map(|((watch, ..), _)| *watch).collect();
    Ready { ended: alive && ready[ready.len() - 1], resized: ready[0], streams: hits }
}
