//! The shim: one process per container, from its start to its clean-up.
//!
//! One thread, one poll loop, no runtime. It clones init, keeps the log, serves whoever attaches,
//! records the end and removes what must go. It belongs to no terminal: it is forked by the
//! caller's process, takes a session of its own, and lets go of everything but the container's lock
//! and, in the foreground, the caller's streams. When it is killed the container runs on without a
//! log, and the next command does its clean-up (`recover`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::Engine;
use super::logs::LogWriter;
use super::lower::{self, Lowered};
use super::streams::{Client, Ends, Lent, Streams, Watch};
use super::wire::{Notice, Request};
use crate::cgroup::{Cgroups, Group};
use crate::container::handle::Locked;
use crate::container::status::Status;
use crate::container::{Config, ProcessRef};
use crate::error::{Class, Failure};
use crate::runtime::plan::{self, Plan};
use crate::runtime::spawn::{self, Birth, Prepared, Started};
use crate::runtime::{StartFailure, StepTime, monotonic_micros};
use crate::sys::channel::{self, Channel, Received};
use crate::sys::tty::Size;
use crate::sys::{fd, process, tty};

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
    /// Collect timed steps.
    pub timed: bool,
}

/// Runs the shim in a freshly forked process; never returns.
pub fn run(engine: &Engine, mut orders: Orders) -> ! {
    detach(&orders);
    process::set_title(&format!("mydocker: shim {}", orders.container.config.name));
    let mut steps = Steps { timed: orders.timed, list: Vec::new() };
    match start(engine, &mut orders, &mut steps) {
        Ok(running) => {
            steps.tell(&orders.caller);
            let _ = orders.caller.send(&Notice::Started { pid: running.started.child.pid }, &[]);
            supervise(engine, orders, running);
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
    let _ = rustix::process::setsid();
    let mut keep = vec![orders.caller.as_fd().as_raw_fd(), orders.container.lock().file().as_raw_fd()];
    let lent = orders.lent.iter().flat_map(|lent| [&lent.stdin, &lent.stdout, &lent.stderr]).flatten();
    keep.extend(lent.map(AsRawFd::as_raw_fd));
    fd::close_all_but(&keep);
    fd::ensure_standard_streams();
    let _ = rustix::process::chdir("/");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // A shutdown or a careless `pkill` must not end the one process that will record how the
    // container ended; SIGPIPE is an error value of the write.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGPIPE] {
        process::ignore_signal(signal);
    }
}

/// The timed steps of a start, the shim's and init's.
struct Steps {
    timed: bool,
    list: Vec<(String, StepTime)>,
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
        if self.timed {
            let _ = caller.send(&Notice::Steps(std::mem::take(&mut self.list)), &[]);
        }
    }
}

/// A container that runs, and what its supervision needs.
struct Running {
    started: Started,
    ends: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
    listener: OwnedFd,
    log: LogWriter,
    group: Group,
}

/// The container's ends of its standard streams, and ours.
struct Pipes {
    child: [OwnedFd; 3],
    ours: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
}

fn start(engine: &Engine, orders: &mut Orders, steps: &mut Steps) -> Result<Running, StartFailure> {
    let at = |step: &str| {
        let step = step.to_owned();
        move |error: anyhow::Error| StartFailure { step, call: None, failure: Failure::from_error(&error) }
    };
    let layout = engine.layout();
    let config = orders.container.config.clone();
    let cgroups = steps.time("detect cgroups", Cgroups::detect).map_err(at("detect cgroups"))?;
    let Lowered { spec, mut launch, held } =
        steps.time("lower to a spec", || lower::lower(layout, &config, &cgroups)).map_err(at("lower to a spec"))?;
    launch.terminal_size = orders.size;
    launch.timed = steps.timed;

    // init's own start (0.5 ms) runs on another processor while this one makes the cgroup and the
    // rest; on v2 the child is born into the cgroup, which must therefore exist first.
    let born_inside = cgroups.mode == crate::cgroup::Mode::V2;
    let early = if born_inside { Some(make_group(&cgroups, &config, steps)?) } else { None };
    let namespaces = plan::lower(&spec, &launch).map_err(at("plan"))?;
    let pipes = standard_streams(&config).map_err(at("make standard streams"))?;
    let program = process::own_program().context("open our own program").map_err(at("open our own program"))?;
    let birth_group =
        early.as_ref().map(Group::v2_dir_fd).transpose().map_err(at("open the cgroup"))?.flatten();
    let prepared = steps
        .time("clone init", || {
            spawn::prepare(&Birth {
                name: &config.name,
                program: program.as_fd(),
                namespaces: namespaces.namespaces,
                pid_namespace: namespaces.pid_namespace.as_deref(),
                cgroup: birth_group.as_ref().map(AsFd::as_fd),
                streams: pipes.child.each_ref().map(AsFd::as_fd),
                target: None,
            })
        })
        .map_err(at("clone init"))?;
    drop(pipes.child);
    let prepared = Unreleased { prepared: Some(prepared) };
    let group = match early {
        Some(group) => group,
        None => make_group(&cgroups, &config, steps)?,
    };
    launch.cgroup_tasks = group.join_files();
    let Plan { init: plan, .. } = plan::lower(&spec, &launch).map_err(at("plan"))?;
    let log = steps.time("open log", || LogWriter::open(&layout.log(&config.id), &config.log)).map_err(at("open log"))?;
    let listener = steps
        .time("listen", || channel::listen(&layout.socket(&config.id)))
        .context("listen on the shim's socket")
        .map_err(at("listen"))?;

    // The pid is on disk before init is let go: whatever happens next, the record names it.
    let pid = prepared.pid();
    steps
        .time("record starting", || record_starting(&mut orders.container, pid))
        .map_err(at("record starting"))?;
    let mut init_steps = Vec::new();
    let released = prepared.release(&plan).map_err(at("hand over the plan"))?;
    let started = released.wait(&mut init_steps);
    steps.list.extend(init_steps.into_iter().map(|step| ("init".to_owned(), step)));
    let started = started?;
    drop(held);
    steps
        .time("record running", || orders.container.transition(Status::Running))
        .map_err(at("record running"))?;
    Ok(Running { started, ends: pipes.ours, listener, log, group })
}

/// An init that has not been released is killed when the start fails before that: closing the plan
/// ends it, and it must be reaped.
struct Unreleased {
    prepared: Option<Prepared>,
}

impl Unreleased {
    fn pid(&self) -> i32 {
        self.prepared.as_ref().map_or(0, |prepared| prepared.child.pid)
    }

    fn release(mut self, plan: &plan::InitPlan) -> Result<spawn::Released> {
        let prepared = self.prepared.take().context("init was released twice")?;
        prepared.release(plan)
    }
}

impl Drop for Unreleased {
    fn drop(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            let _ = process::send_signal(prepared.child.pidfd.as_fd(), libc::SIGKILL);
            spawn::wait_for_end(&prepared.child);
        }
    }
}

fn make_group(cgroups: &Cgroups, config: &Config, steps: &mut Steps) -> Result<Group, StartFailure> {
    steps.time("make cgroup", || cgroups.create(config.id.as_str())).map_err(|error| StartFailure {
        step: "make cgroup".into(),
        call: None,
        failure: Failure::from_error(&error.context("make the container's cgroup")),
    })
}

fn record_starting(container: &mut Locked, pid: i32) -> Result<()> {
    let own = std::process::id() as i32;
    let reference = |pid: i32| process::start_time(pid).map(|start_time| ProcessRef { pid, start_time });
    let state = &mut container.state;
    state.boot_id = process::boot_id().to_owned();
    state.shim = reference(own);
    state.init = Some(reference(pid).context("init ended before it began")?);
    state.exit_code = 0;
    state.error.clear();
    state.oom_killed = false;
    state.started = Some(Timestamp::now());
    state.finished = None;
    container.transition(Status::Starting)
}

/// Pipes for the container, never the caller's files: those could be opened again from inside. A
/// terminal replaces them later; until then, and without `-i`, the streams are the null device.
fn standard_streams(config: &Config) -> Result<Pipes> {
    let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null");
    if config.process.tty {
        return Ok(Pipes { child: [null()?, null()?, null()?], ours: None });
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe");
    let (stdin_child, stdin) = if config.process.open_stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (null()?, None)
    };
    let ((stdout, stdout_child), (stderr, stderr_child)) = (pipe()?, pipe()?);
    Ok(Pipes { child: [stdin_child, stdout_child, stderr_child], ours: Some((stdin, stdout, stderr)) })
}

/// A start that failed: record or remove, then tell the caller.
fn refuse(engine: &Engine, mut orders: Orders, failure: StartFailure) {
    let layout = engine.layout();
    let id = orders.container.id().clone();
    let _ = std::fs::remove_file(layout.socket(&id));
    if let Ok(cgroups) = Cgroups::detect() {
        let _ = cgroups.group(id.as_str()).and_then(|group| group.remove());
    }
    let code = match failure.failure.class {
        Class::CommandNotFound => 127,
        Class::NotExecutable => 126,
        _ => 128,
    };
    let container = &mut orders.container;
    container.state.error = failure.failure.to_string();
    container.state.exit_code = code;
    container.state.finished = Some(Timestamp::now());
    if container.state.status == Status::Starting {
        container.state.status = Status::Exited;
    }
    // A container that has never run stays *created*, as with Docker.
    if container.state.status == Status::Exited && container.state.started.is_some() {
        container.state.init = None;
        container.state.shim = None;
    }
    let result = if container.config.auto_remove {
        engine.discard(container).map(drop)
    } else {
        container.save_state()
    };
    let mut failure = failure;
    if let Err(error) = result {
        failure.failure.causes.push(format!("and then: {error:#}"));
    }
    let _ = orders.caller.send(&Notice::Failed(failure), &[]);
    drop(orders);
    engine.sweep_trash();
}

/// A connection to the shim.
struct Peer {
    token: u64,
    channel: Channel,
    /// Wants to know the end.
    waiting: bool,
}

fn supervise(engine: &Engine, orders: Orders, running: Running) {
    let Orders { container, caller, lent, .. } = orders;
    let Running { started, ends, listener, log, group } = running;
    let Started { child, console } = started;
    let config = container.config.clone();
    // Others may change the record from now on; the end takes the lock again.
    drop(container);
    let ends = match (console, ends) {
        (Some(console), _) => Ends::Terminal(console),
        (None, Some((stdin, stdout, stderr))) => Ends::Pipes(stdin, stdout, stderr),
        (None, None) => return,
    };
    let log = (config.log.driver != "none").then_some(log);
    let Ok(mut streams) = Streams::new(ends, config.process.open_stdin, config.process.stdin_once, log) else { return };
    let _ = caller.set_nonblocking();
    let mut peers = Vec::new();
    if let Some(lent) = lent {
        streams.clients.push(Client::new(0, lent));
        peers.push(Peer { token: 0, channel: caller, waiting: true });
    } else {
        drop(caller);
    }
    process::trim_memory();

    let mut shim = Shim { streams, peers, listener, next_token: 1, pidfd: child.pidfd };
    let code = shim.until_end();
    shim.end(engine, &config, &group, code);
}

struct Shim {
    streams: Streams,
    peers: Vec<Peer>,
    listener: OwnedFd,
    next_token: u64,
    pidfd: OwnedFd,
}

/// What a ready descriptor of the shim belongs to.
enum Event {
    Ended,
    Connection,
    Peer(u64),
    Stream(Watch),
}

impl Shim {
    /// Serves until the container's first process has ended and been reaped; its code.
    fn until_end(&mut self) -> i32 {
        loop {
            for event in self.wait(true) {
                match event {
                    Event::Ended => {
                        if let Ok(Some(code)) = process::reap(self.pidfd.as_fd()) {
                            return code;
                        }
                    }
                    other => self.serve(other),
                }
            }
        }
    }

    /// Waits for something to happen.
    fn wait(&self, alive: bool) -> Vec<Event> {
        let mut watched: Vec<(Watch, BorrowedFd<'_>, PollFlags)> = Vec::new();
        self.streams.watch(&mut watched);
        let mut events: Vec<Event> = Vec::new();
        let mut set = Vec::new();
        if alive {
            events.push(Event::Ended);
            set.push(rustix::event::PollFd::new(&self.pidfd, PollFlags::IN));
        }
        events.push(Event::Connection);
        set.push(rustix::event::PollFd::new(&self.listener, PollFlags::IN));
        for peer in &self.peers {
            events.push(Event::Peer(peer.token));
            set.push(rustix::event::PollFd::new(&peer.channel, PollFlags::IN));
        }
        for (watch, descriptor, flags) in watched {
            events.push(Event::Stream(watch));
            set.push(rustix::event::PollFd::from_borrowed_fd(descriptor, flags));
        }
        if rustix::event::poll(&mut set, None).is_err() {
            return Vec::new();
        }
        let ready: Vec<bool> = set.iter().map(|entry| !entry.revents().is_empty()).collect();
        events.into_iter().zip(ready).filter_map(|(event, ready)| ready.then_some(event)).collect()
    }

    fn serve(&mut self, event: Event) {
        match event {
            Event::Ended => {}
            Event::Connection => {
                if let Some(channel) = channel::accept(self.listener.as_fd()) {
                    self.peers.push(Peer { token: self.next_token, channel, waiting: false });
                    self.next_token += 1;
                }
            }
            Event::Peer(token) => self.hear(token),
            Event::Stream(watch) => {
                if let Some(token) = self.streams.handle(watch) {
                    self.dismiss(token);
                }
            }
        }
    }

    /// Hears a client out.
    fn hear(&mut self, token: u64) {
        let Some(index) = self.peers.iter().position(|peer| peer.token == token) else { return };
        let peer = &mut self.peers[index];
        match peer.channel.receive::<Request>() {
            Ok(Received::Nothing) => {}
            Ok(Received::Message(Request::Wait, _)) => peer.waiting = true,
            Ok(Received::Message(Request::Signal(signal), _)) => {
                let _ = process::send_signal(self.pidfd.as_fd(), signal);
            }
            Ok(Received::Message(Request::Resize(size), _)) => self.resize(size),
            Ok(Received::Message(Request::Attach { streams, detach_keys, size }, files)) => {
                let mut files = files.into_iter();
                let lent = Lent {
                    stdin: if streams.stdin { files.next() } else { None },
                    stdout: if streams.stdout { files.next() } else { None },
                    stderr: if streams.stderr { files.next() } else { None },
                    detach_keys,
                };
                peer.waiting = true;
                let _ = peer.channel.send(&Notice::Attached, &[]);
                self.streams.clients.push(Client::new(token, lent));
                if let Some(size) = size {
                    // A terminal that already has this size would not tell the program inside to
                    // draw itself again for the newcomer.
                    self.resize(Size { rows: size.rows + 1, columns: size.columns });
                    self.resize(size);
                }
            }
            // Gone, or talks nonsense: its terminal is put back by the client's guard.
            Ok(Received::Closed) | Err(_) => {
                self.peers.remove(index);
                self.streams.clients.retain(|client| client.token != token);
            }
        }
    }

    fn resize(&self, size: Size) {
        if let Some(console) = self.streams.console() {
            let _ = tty::set_size(console, size);
        }
    }

    /// Lets a client go that typed its detach keys.
    fn dismiss(&mut self, token: u64) {
        self.release_client(token);
        if let Some(index) = self.peers.iter().position(|peer| peer.token == token) {
            let peer = self.peers.remove(index);
            let _ = peer.channel.send(&Notice::Detached, &[]);
        }
    }

    /// Drops a client's streams; an orderly one puts its terminal back itself.
    fn release_client(&mut self, token: u64) {
        if let Some(index) = self.streams.clients.iter().position(|client| client.token == token) {
            let client = self.streams.clients.remove(index);
            if let Some(terminal) = client.terminal {
                terminal.disarm();
            }
        }
    }

    /// The container has ended: deliver what it wrote, record the end, clean up, tell everybody.
    ///
    /// What a user waits for comes first and is quick: the record, the name. Deleting directories
    /// comes last, when nobody waits any more.
    fn end(mut self, engine: &Engine, config: &Config, group: &Group, code: i32) {
        self.streams.drain_available();
        // Processes that shared somebody else's PID namespace may have outlived the first one.
        let _ = group.kill_all();
        let _ = group.remove();
        // Clients that are slow keep what is theirs; the record does not wait for them.
        if self.streams.is_drained() {
            self.streams.finish_log();
        }
        let removed = record_end(engine, config, code);
        let _ = std::fs::remove_file(engine.layout().socket(&config.id));
        while !self.streams.is_drained() || self.streams.clients.iter().any(Client::is_behind) {
            for event in self.wait(false) {
                self.serve(event);
            }
            self.streams.drain_available();
        }
        self.streams.finish_log();
        while let Some(channel) = channel::accept(self.listener.as_fd()) {
            self.peers.push(Peer { token: self.next_token, channel, waiting: true });
        }
        for peer in std::mem::take(&mut self.peers) {
            self.release_client(peer.token);
            if peer.waiting || peer.token != 0 {
                let _ = peer.channel.send(&Notice::Exited { code }, &[]);
            }
        }
        drop(self);
        if removed {
            engine.sweep_trash();
        }
    }
}

/// Writes down the end under the lock, or removes the container when it was to go. True when there
/// is something in the trash.
fn record_end(engine: &Engine, config: &Config, code: i32) -> bool {
    // Gone already: somebody removed it by force.
    let Ok(mut container) = Locked::acquire(engine.layout(), &config.id) else { return false };
    let own = std::process::id() as i32;
    if container.state.shim.is_none_or(|shim| shim.pid != own) {
        return false;
    }
    container.state.exit_code = code;
    container.state.finished = Some(Timestamp::now());
    container.state.init = None;
    container.state.shim = None;
    let recorded = container.transition(Status::Exited);
    if container.config.auto_remove {
        return engine.discard(&mut container).unwrap_or(false);
    }
    // A full disk cannot be told to anybody here; the next reader sees that the process is gone.
    drop(recorded);
    false
}

/// Makes the directories of a container's overlay.
pub fn make_overlay(engine: &Engine, config: &Config) -> Result<()> {
    let directory = engine.layout().container_overlay(&config.id);
    let make = |path: &std::path::Path, mode| {
        std::fs::DirBuilder::new().mode(mode).create(path).with_context(|| format!("create {}", path.display()))
    };
    make(&directory, 0o710)?;
    // The upper directory's mode becomes that of `/` inside.
    make(&directory.join("upper"), 0o755)?;
    make(&directory.join("work"), 0o700)?;
    make(&directory.join("merged"), 0o700)
}

/// The plan of a start of this container, as data; makes nothing.
pub fn plan_as_data(engine: &Engine, config: &Config) -> Result<serde_json::Value> {
    let cgroups = Cgroups::detect()?;
    let Lowered { spec, mut launch, .. } = lower::lower(engine.layout(), config, &cgroups)?;
    let group = cgroups.group(config.id.as_str())?;
    launch.cgroup_tasks = group.join_files();
    let plan = plan::lower(&spec, &launch)?;
    Ok(serde_json::json!({
        "namespaces": plan::namespace_names(plan.namespaces),
        "cgroup": group.members.iter().map(|member| &member.path).collect::<Vec<_>>(),
        "steps": plan.init.steps,
    }))
}
