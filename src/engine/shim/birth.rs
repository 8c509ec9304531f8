//! The start: from a locked container to a command that runs, in the order that the crash table of
//! `docs/state.md` relies on.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::Steps;
use super::network::{self, RunNetwork};
use crate::cgroup::systemd::{self, Scope};
use crate::cgroup::{Cgroups, Group, limits};
use crate::container::handle::Locked;
use crate::container::status::Status;
use crate::container::{Config, ProcessRef};
use crate::engine::Engine;
use crate::engine::logs::LogWriter;
use crate::engine::lower::{self, Lowered};
use crate::engine::network::plug;
use crate::engine::{pipes::Pipes, resources};
use crate::error::Failure;
use crate::runtime::StartFailure;
use crate::runtime::plan::{self, Plan};
use crate::runtime::spawn::{self, Birth, Prepared, Started};
use crate::sys::tty::Size;
use crate::sys::{channel, process, program};

/// What a start is given: the first one, and those of the restart policy.
pub(super) struct Start<'a> {
    /// The container, locked until the start is recorded.
    pub(super) container: &'a mut Locked,
    /// Of its terminal.
    pub(super) size: Option<Size>,
    /// The shim's socket. The first start makes it, those that follow keep it.
    pub(super) listener: &'a mut Option<OwnedFd>,
}

/// A container that runs, and what its supervision needs.
pub(super) struct Running {
    pub(super) started: Started,
    pub(super) ends: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
    pub(super) log: LogWriter,
    pub(super) group: Group,
    /// What it holds of its networks; `None` without any.
    pub(super) network: Option<RunNetwork>,
}

pub(super) fn start(engine: &Engine, start: Start<'_>, steps: &mut Steps) -> Result<Running, StartFailure> {
    let Start { container, size, listener } = start;
    let at = |step: &str| {
        let step = step.to_owned();
        move |error: anyhow::Error| StartFailure { step, call: None, failure: Failure::from_error(&error) }
    };
    let layout = engine.layout();
    let config = container.config.clone();
    let cgroups = steps.time("detect cgroups", Cgroups::detect).map_err(at("detect cgroups"))?;
    let Lowered { spec, mut launch, held } =
        steps.time("lower to a spec", || lower::lower(layout, &config, &cgroups)).map_err(at("lower to a spec"))?;
    launch.terminal_size = size;
    launch.timed = steps.timed;
    launch.await_network = config.is_networked();

    let limits = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let place = resources::place(&config).map_err(at("make cgroup"))?;
    // init's own start (0.5 ms) runs on another processor while this one makes the cgroup and the
    // rest; on v2 the child is born into the cgroup, which must therefore exist first. A scope of
    // systemd's on the other hand begins with a process that exists.
    let born_inside = cgroups.mode == crate::cgroup::Mode::V2 && place.unit().is_none();
    let make_group = |steps: &mut Steps| {
        let made =
            || cgroups.create(&place, &limits::extra_controllers(&limits)).context("make the container's cgroup");
        steps.time("make cgroup", made).map_err(at("make cgroup"))
    };
    let early = if born_inside { Some(make_group(steps)?) } else { None };
    let namespaces = plan::lower(&spec, &launch).map_err(at("plan"))?;
    let pipes = if config.process.tty { Pipes::none() } else { Pipes::new(config.process.open_stdin) }
        .map_err(at("make standard streams"))?;
    let program = program::own_program().context("open our own program").map_err(at("open our own program"))?;
    let birth_group = early.as_ref().map(Group::v2_dir_fd).transpose().map_err(at("open the cgroup"))?.flatten();
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
                gated: launch.await_network,
            })
        })
        .map_err(at("clone init"))?;
    drop(pipes.child);
    let prepared = Unreleased { prepared: Some(prepared) };
    if let Some(unit) = place.unit() {
        let scope = Scope {
            unit,
            description: format!("mydocker container {}", config.name),
            pid: prepared.pid(),
            limits: &limits,
            mode: cgroups.mode,
        };
        steps.time("make scope", || systemd::start_scope(&scope)).map_err(at("make scope"))?;
    }
    let group = match early {
        Some(group) => group,
        // Of a scope the hierarchies that systemd leaves alone; init joins those itself.
        None => make_group(steps)?,
    };
    // In force before init is let go, and while it is still being executed on the other processor.
    let settings = limits::settings(&limits, cgroups.mode);
    steps.time("set limits", || group.apply(&settings)).map_err(at("set limits"))?;
    // Nobody in the group has opened a device yet.
    let rules = limits.devices().as_deref().unwrap_or_default();
    steps.time("restrict devices", || group.restrict_devices(rules)).map_err(at("restrict devices"))?;
    launch.cgroup_tasks = group.join_files();
    let Plan { init: plan, .. } = plan::lower(&spec, &launch).map_err(at("plan"))?;
    let log =
        steps.time("open log", || LogWriter::open(&layout.log(&config.id), &config.log)).map_err(at("open log"))?;
    if listener.is_none() {
        let made = steps.time("listen", || channel::listen(&layout.socket(&config.id)));
        *listener = Some(made.context("listen on the shim's socket").map_err(at("listen"))?);
    }

    if !container.state.endpoints.is_empty() {
        // Rules of the last run, which nobody has had the time to take away.
        steps.time("take old rules away", || engine.give_back(container));
    }
    // The pid is on disk before init is let go: whatever happens next, the record names it.
    let pid = prepared.pid();
    steps.time("record starting", || record_starting(container, pid)).map_err(at("record starting"))?;
    // Opened while init is sure to be there.
    let namespace = launch.await_network.then(|| plug::namespace_of(pid)).transpose();
    let namespace = namespace.map_err(at("open the network namespace"))?;
    let mut released = prepared.release(&plan).map_err(at("hand over the plan"))?;
    // While init mounts the container's root. It waits at the gate before it goes on to the command.
    let network = match namespace.map(|namespace| network::connect(engine, container, namespace, steps)).transpose() {
        Ok(network) => network,
        Err(error) => return Err(released.give_up().unwrap_or_else(|| at("connect to networks")(error))),
    };
    released.open_gate();
    let mut init_steps = Vec::new();
    let started = released.wait(&mut init_steps);
    steps.list.extend(init_steps.into_iter().map(|step| ("init".to_owned(), step)));
    let started = started?;
    drop(held);
    Ok(Running { started, ends: pipes.ours, log, group, network })
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

fn record_starting(container: &mut Locked, pid: i32) -> Result<()> {
    let own = std::process::id() as i32;
    let reference = |pid: i32| process::start_time(pid).map(|start_time| ProcessRef { pid, start_time });
    let state = &mut container.state;
    state.boot_id = process::boot_id().to_owned();
    state.shim = reference(own);
    state.init = Some(reference(pid).context("init ended before it began")?);
    state.exit_code = 0;
    state.error.clear();
    state.hint = None;
    state.oom_killed = false;
    state.oom = None;
    state.endpoints.clear();
    state.started = Some(Timestamp::now());
    state.finished = None;
    container.transition(Status::Starting)
}

/// The plan of a start of this container, as data; makes nothing.
pub fn plan_as_data(engine: &Engine, config: &Config) -> Result<serde_json::Value> {
    let cgroups = Cgroups::detect()?;
    let Lowered { spec, mut launch, .. } = lower::lower(engine.layout(), config, &cgroups)?;
    launch.await_network = config.is_networked();
    let limits = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let group = cgroups.group_with(&resources::place(config)?, &limits::extra_controllers(&limits));
    launch.cgroup_tasks = group.join_files();
    let plan = plan::lower(&spec, &launch)?;
    let settings =
        limits::settings(&limits, cgroups.mode).into_iter().filter_map(|setting| setting.ways.into_iter().next());
    Ok(serde_json::json!({
        "namespaces": plan::namespace_names(plan.namespaces),
        "cgroup": group.members.iter().map(|member| &member.path).collect::<Vec<_>>(),
        "limits": settings.map(|(file, value)| format!("{file} = {value}")).collect::<Vec<_>>(),
        "devices": group.device_plan(limits.devices().as_deref().unwrap_or_default())?,
        "steps": plan.init.steps,
    }))
}
