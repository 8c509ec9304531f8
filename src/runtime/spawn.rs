//! The parent side of a start: clone init, let the caller record it, hand over the plan, listen.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::thread::LinkNameSpaceType;

use super::plan::InitPlan;
use super::{Report, StartFailure, StepTime, init, monotonic_micros};
use crate::sys::channel::{Channel, Received};
use crate::sys::process::{self, Child, Spawn};

/// What the parent must know to make init.
#[derive(Debug)]
pub struct Birth<'a> {
    /// Shown by `ps`: `mydocker: init NAME` until the command takes over.
    pub name: &'a str,
    /// The program, from [`crate::sys::program::own_program`].
    pub program: BorrowedFd<'a>,
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// PID namespace to be born into, by path.
    pub pid_namespace: Option<&'a Path>,
    /// cgroup v2 directory to be born into.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Standard input, output and error.
    pub streams: [BorrowedFd<'a>; 3],
    /// Handle on the process whose namespaces are entered (exec).
    pub target: Option<BorrowedFd<'a>>,
    /// It waits for its network (not together with `target`).
    pub gated: bool,
}

/// An init that exists and waits for its plan.
#[derive(Debug)]
pub struct Prepared {
    /// The process.
    pub child: Child,
    plan: OwnedFd,
    gate: Option<OwnedFd>,
    report: Channel,
}

/// An init that has its plan.
#[derive(Debug)]
pub struct Released {
    /// The process.
    pub child: Child,
    gate: Option<OwnedFd>,
    report: Channel,
}

/// A start that succeeded: the command runs.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub child: Child,
    /// Controlling side of its terminal.
    pub console: Option<OwnedFd>,
}

/// Clones init. It does nothing before [`Prepared::release`]; if this process dies first, so does it.
pub fn prepare(birth: &Birth<'_>) -> Result<Prepared> {
    let (plan_read, plan_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe for the plan")?;
    let (report, report_child) = Channel::pair().context("make a channel for reports")?;
    if let Some(path) = birth.pid_namespace {
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("open PID namespace {}", path.display()))?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .with_context(|| format!("join PID namespace {}", path.display()))?;
    }
    let name: String = birth.name.chars().filter(|c| *c != '\0').collect();
    let arguments = ["mydocker:", "init", &name].map(|a| CString::new(a).unwrap_or_default());
    let [input, output, error] = birth.streams;
    let mut files = vec![input, output, error, plan_read.as_fd(), report_child.as_fd()];
    files.extend(birth.target);
    let gate = if birth.gated {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe for the gate")?;
        Some((read, write))
    } else {
        None
    };
    files.extend(gate.as_ref().map(|(read, _)| read.as_fd()));
    let child = process::spawn(&Spawn {
        program: birth.program,
        arguments: &arguments,
        namespaces: birth.namespaces,
        cgroup: birth.cgroup,
        files: &files,
    })
    .context("clone init")?;
    Ok(Prepared { child, plan: plan_write, gate: gate.map(|(_, write)| write), report })
}

impl Prepared {
    /// Hands over the plan: from here on init acts.
    pub fn release(self, plan: &InitPlan) -> Result<Released> {
        let text = serde_json::to_vec(plan).context("encode the plan")?;
        // An init that died meanwhile makes this fail with EPIPE; its end is told by the report.
        let _ = File::from(self.plan).write_all(&text);
        Ok(Released { child: self.child, gate: self.gate, report: self.report })
    }
}

impl Released {
    /// Tells init that its network is ready. Dropping this value instead ends it.
    pub fn open_gate(&mut self) {
        // An init that has failed meanwhile says so itself.
        let _ = self.gate.take().map(|gate| File::from(gate).write_all(&[1]));
    }

    /// Keeps the gate shut: init ends there without a word. If it has failed before, this is how.
    pub fn give_up(mut self) -> Option<StartFailure> {
        self.gate = None;
        let mut failed = None;
        while let Ok(Received::Message(report, _)) = self.report.receive::<Report>() {
            if let Report::Failed(failure) = report {
                failed = Some(failure);
            }
        }
        wait_for_end(&self.child);
        failed
    }

    /// Waits until the command has been executed, or for the reason why not; then init is reaped.
    /// Timed steps are appended to `steps`.
    pub fn wait(mut self, steps: &mut Vec<StepTime>) -> Result<Started, StartFailure> {
        let mut console = None;
        let mut ready = None;
        let mut failed = None;
        loop {
            match self.report.receive::<Report>() {
                Ok(Received::Message(Report::Step(step), _)) => steps.push(step),
                Ok(Received::Message(Report::Console, files)) => console = files.into_iter().next(),
                Ok(Received::Message(Report::Moved { pid }, files)) => {
                    if let Some(pidfd) = files.into_iter().next() {
                        wait_for_end(&std::mem::replace(&mut self.child, Child { pid, pidfd }));
                    }
                }
                Ok(Received::Message(Report::Ready, _)) => ready = Some(monotonic_micros()),
                // Nothing of the same process follows, but its predecessor may still have to tell of it.
                Ok(Received::Message(Report::Failed(failure), _)) => failed = Some(failure),
                Ok(Received::Closed) if failed.is_some() => {
                    wait_for_end(&self.child);
                    return failed.map_or_else(|| Err(init::silent_end(255)), Err);
                }
                Ok(Received::Closed) if let Some(began) = ready => {
                    steps.push(StepTime { step: "exec".into(), began, ended: monotonic_micros() });
                    return Ok(Started { child: self.child, console });
                }
                Ok(Received::Closed | Received::Nothing) | Err(_) => {
                    return Err(init::silent_end(wait_for_end(&self.child)));
                }
            }
        }
    }
}

/// Waits for a child that is about to end; its exit code.
pub fn wait_for_end(child: &Child) -> i32 {
    loop {
        match process::reap(child.pidfd.as_fd()) {
            Ok(Some(code)) => return code,
            Ok(None) => {
                let mut poll = [rustix::event::PollFd::new(&child.pidfd, rustix::event::PollFlags::IN)];
                let _ = rustix::event::poll(&mut poll, None);
            }
            Err(_) => return 255,
        }
    }
}
