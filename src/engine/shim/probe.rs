//! One health check: a process of its own, forked by the shim, which runs the command inside the container as
//! `exec` does, keeps the beginning of what it writes, and ends it when it takes too long.
//!
//! ```text
//! shim ──fork──▶ probe ──clone3, execveat──▶ init ──▶ the check's command
//!      ◀── Output(piece) …                              its output, one pipe
//!      ◀── Ended{code, time}, or Nothing                told as soon as it is known
//!      ◀── end of file                                  the command's process has gone, too
//! ```
//!
//! All that takes time, memory or code of its own is done here, so the shim stays small and serves everybody
//! else meanwhile. End of file from the shim: it was killed, and with it goes the check.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::container::handle::{self, Record};
use crate::container::health::MAX_OUTPUT;
use crate::container::status::Status;
use crate::container::{ContainerId, ProcessRef};
use crate::engine::Engine;
use crate::engine::exec::Entry;
use crate::engine::request::ExecRequest;
use crate::engine::wording;
use crate::error::{Class, Failure};
use crate::runtime::StartFailure;
use crate::runtime::spawn::{self, Started};
use crate::sys::channel::Channel;
use crate::sys::process::Child;
use crate::sys::{fd, process};

/// Bytes of output in one message: six times that, as JSON may need, fit a frame.
const PIECE: usize = 2048;
/// What is still read of the output when the command has ended; others may go on writing.
const REST: usize = 64 * 1024;
/// How long a command that was killed is taken for a sign that the container ends.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// From the probe to the shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// More of the output.
    Output(String),
    /// The check has a result.
    Ended {
        /// As in [`crate::container::HealthResult`].
        exit_code: i32,
        /// When it ended.
        time: Timestamp,
    },
    /// It has none, because the container stands still or ends.
    Nothing,
}

/// A check that goes on.
pub(super) struct Probe {
    pub(super) channel: Channel,
    child: Child,
}

impl Probe {
    /// Begins a check of the run that has this first process.
    pub(super) fn begin(engine: &Engine, id: &ContainerId, run: ProcessRef) -> io::Result<Probe> {
        let (channel, theirs) = Channel::pair()?;
        channel.set_nonblocking()?;
        match process::fork_child()? {
            Some(child) => Ok(Probe { channel, child }),
            None => check(engine, id, run, &theirs),
        }
    }

    /// Kills the probe, which takes the command with it as far as it has got.
    pub(super) fn kill(&self) {
        let _ = process::send_signal(self.child.pidfd.as_fd(), libc::SIGKILL);
    }
}

impl Drop for Probe {
    /// It has ended, or it is to; it ends at once unless the kernel holds it, and then nobody waits.
    fn drop(&mut self) {
        self.kill();
        if ends_within(self.child.pidfd.as_fd(), LAST_MOMENT) {
            let _ = process::reap(self.child.pidfd.as_fd());
        }
    }
}

/// What is known in the end, and the command's process when it has not gone yet.
struct Verdict {
    word: Word,
    output: String,
    left: Option<Child>,
}

impl Verdict {
    fn nothing() -> Verdict {
        Verdict { word: Word::Nothing, output: String::new(), left: None }
    }

    fn ended(exit_code: i32, output: String) -> Verdict {
        Verdict { word: Word::Ended { exit_code, time: Timestamp::now() }, output, left: None }
    }
}

/// The life of the probe's process.
fn check(engine: &Engine, id: &ContainerId, run: ProcessRef, shim: &Channel) -> ! {
    // The caller's streams and the container's sockets are the shim's: held here, they would outlive it.
    fd::close_all_but(&[shim.as_fd().as_raw_fd()]);
    fd::ensure_standard_streams();
    let Verdict { word, output, left } = perform(engine, id, run, shim);
    let mut rest = output.as_str();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.floor_char_boundary(PIECE));
        let _ = shim.send(&Word::Output(piece.to_owned()), &[]);
        rest = behind;
    }
    let _ = shim.send(&word, &[]);
    if let Some(child) = left {
        spawn::wait_for_end(&child);
    }
    process::exit_now(0)
}

fn perform(engine: &Engine, id: &ContainerId, run: ProcessRef, shim: &Channel) -> Verdict {
    let Ok(record) = handle::load(engine.layout(), id) else { return Verdict::nothing() };
    process::set_title(&format!("mydocker: health {}", record.config.name));
    let Some(first) = process::open_verified(run.pid, run.start_time) else { return Verdict::nothing() };
    let config = &record.config;
    let Some((check, command)) =
        config.health.as_ref().and_then(|check| Some((check, check.command(&config.process.shell)?)))
    else {
        return Verdict::nothing();
    };
    if !is_to_be_checked(&record, run) {
        return Verdict::nothing();
    }
    let (started, output) = match start(&record, command) {
        Ok(begun) => begun,
        Err(error) => {
            let failure = Failure::from_error(&error);
            let own_fault = matches!(failure.class, Class::CommandNotFound | Class::NotExecutable);
            // Nobody gets into a container that is about to end, and that says nothing of its health.
            return if !own_fault && ends_within(first.as_fd(), LAST_MOMENT) {
                Verdict::nothing()
            } else {
                Verdict::ended(-1, failure.to_string())
            };
        }
    };
    let timeout = check.timeout();
    let mut kept = Kept::default();
    match watch(&started.child, &output, shim, timeout, &mut kept) {
        End::Left => {
            let code = process::reap(started.child.pidfd.as_fd()).ok().flatten().unwrap_or(255);
            kept.rest(&output);
            // The kernel ends whoever is in a PID namespace before the end of its first process is seen.
            if code == 128 + libc::SIGKILL && ends_within(first.as_fd(), LAST_MOMENT) {
                return Verdict::nothing();
            }
            Verdict::ended(code, kept.text())
        }
        End::TooLate => {
            kill_group(&started.child);
            kept.rest(&output);
            let stands_still = !handle::load(engine.layout(), id).is_ok_and(|record| is_to_be_checked(&record, run));
            let mut text = format!("Health check exceeded timeout ({})", wording::exact_duration(timeout));
            if !kept.bytes.is_empty() {
                text = format!("{text}: {}", kept.text());
            }
            let verdict = if stands_still { Verdict::nothing() } else { Verdict::ended(-1, text) };
            Verdict { left: Some(started.child), ..verdict }
        }
        End::Abandoned => {
            kill_group(&started.child);
            Verdict { left: Some(started.child), ..Verdict::nothing() }
        }
    }
}

/// It is the run that was meant, and it neither stands still nor ends.
fn is_to_be_checked(record: &Record, run: ProcessRef) -> bool {
    record.state.init == Some(run) && matches!(record.status(), Status::Starting | Status::Running)
}

/// Starts the command, both of whose outputs go into one pipe so that their order stays.
fn start(record: &Record, command: Vec<String>) -> Result<(Started, OwnedFd)> {
    let request = ExecRequest { command, ..ExecRequest::default() };
    let entry = Entry::new(record, &record.config.name, &request)?;
    let input =
        rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null")?;
    let (output, theirs) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    rustix::io::ioctl_fionbio(&output, true).context("make a pipe")?;
    let prepared = entry.prepare(record, [input.as_fd(), theirs.as_fd(), theirs.as_fd()])?;
    drop(theirs);
    let started = prepared.release(&entry.plan)?.wait(&mut Vec::new());
    Ok((started.map_err(|StartFailure { failure, .. }| failure)?, output))
}

/// How the wait for a command ended.
enum End {
    /// It has ended.
    Left,
    /// Its time is up.
    TooLate,
    /// The shim was killed.
    Abandoned,
}

/// Waits for the end of the command and takes what it writes. Not for the end of its output, which those may
/// hold that it leaves behind.
fn watch(child: &Child, output: &OwnedFd, shim: &Channel, timeout: Duration, kept: &mut Kept) -> End {
    let deadline = Instant::now() + timeout;
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return End::TooLate;
        }
        let mut set = vec![PollFd::new(&child.pidfd, PollFlags::IN), PollFd::new(shim, PollFlags::RDHUP)];
        set.extend(open.then(|| PollFd::new(output, PollFlags::IN)));
        if rustix::event::poll(&mut set, Timespec::try_from(left).ok().as_ref()).is_err() {
            continue;
        }
        let [ended, abandoned, readable] =
            [0, 1, 2].map(|index| set.get(index).is_some_and(|entry| !entry.revents().is_empty()));
        if readable {
            open = kept.take(output) != Taken::End;
        }
        if ended {
            return End::Left;
        }
        if abandoned {
            return End::Abandoned;
        }
    }
}

/// Kills the command with all that it has started, but for those that took sessions or groups of their own. It
/// leads a group (`Step::NewSession`) whose number stays its own until it is reaped.
fn kill_group(child: &Child) {
    if let Some(group) = Pid::from_raw(child.pid) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Whether a process has ended, or does so soon.
fn ends_within(pidfd: BorrowedFd<'_>, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], left.as_ref()) {
            Ok(count) => return count > 0,
            Err(_) => continue,
        }
    }
}

/// The beginning of an output.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    more: bool,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Bytes(usize),
    NothingNow,
    End,
}

impl Kept {
    /// Reads once, and keeps what there is room for.
    fn take(&mut self, output: &OwnedFd) -> Taken {
        let mut buffer = [0; 8192];
        let count = match rustix::io::retry_on_intr(|| rustix::io::read(output, &mut buffer)) {
            Ok(0) => return Taken::End,
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN) => return Taken::NothingNow,
            Err(_) => return Taken::End,
        };
        let room = MAX_OUTPUT - self.bytes.len();
        self.bytes.extend_from_slice(&buffer[..count.min(room)]);
        self.more |= count > room;
        Taken::Bytes(count)
    }

    /// Reads what is there now.
    fn rest(&mut self, output: &OwnedFd) {
        let mut total = 0;
        while total < REST
            && let Taken::Bytes(count) = self.take(output)
        {
            total += count;
        }
    }

    /// As text; bytes that are none are replaced, as in all of Docker's JSON.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.more { format!("{text}...") } else { text.into_owned() }
    }
}
