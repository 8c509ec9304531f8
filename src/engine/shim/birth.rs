//! The start: from a locked container to a command that runs, in the order that the crash table of
//! `docs/state.md` relies on.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::{Orders, Steps};
use crate::cgroup::{Cgroups, Group};
use crate::container::handle::Locked;
use crate::container::status::Status;
use crate::container::{Config, ProcessRef};
use crate::engine::Engine;
use crate::engine::logs::LogWriter;
use crate::engine::lower::{self, Lowered};
use crate::engine::pipes::Pipes;
use crate::error::Failure;
use crate::runtime::StartFailure;
use crate::runtime::plan::{self, Plan};
use crate::runtime::spawn::{self, Birth, Prepared, Started};
use crate::sys::{channel, process};

/// A container that runs, and what its supervision needs.
pub(super) struct Running {
    pub(super) started: Started,
    pub(super) ends: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
    pub(super) listener: OwnedFd,
    pub(super) log: LogWriter,
    pub(super) group: Group,
}

pub(super) fn start(engine: &Engine, orders: &mut Orders, steps: &mut Steps) -> Result<Running, StartFailure> {
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
    let pipes = if config.process.tty { Pipes::none() } else { Pipes::new(config.process.open_stdin) }
        .map_err(at("make standard streams"))?;
    let program = process::own_program().context("open our own program").map_err(at("open our own program"))?;
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
    let log =
        steps.time("open log", || LogWriter::open(&layout.log(&config.id), &config.log)).map_err(at("open log"))?;
    let listener = steps
        .time("listen", || channel::listen(&layout.socket(&config.id)))
        .context("listen on the shim's socket")
        .map_err(at("listen"))?;

    // The pid is on disk before init is let go: whatever happens next, the record names it.
    let pid = prepared.pid();
    steps.time("record starting", || record_starting(&mut orders.container, pid)).map_err(at("record starting"))?;
    let mut init_steps = Vec::new();
    let released = prepared.release(&plan).map_err(at("hand over the plan"))?;
    let started = released.wait(&mut init_steps);
    steps.list.extend(init_steps.into_iter().map(|step| ("init".to_owned(), step)));
    let started = started?;
    drop(held);
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
    state.hint = None;
    state.oom_killed = false;
    state.oom = None;
    state.started = Some(Timestamp::now());
    state.finished = None;
    container.transition(Status::Starting)
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
