//! One command: its streams as bytes, apart from each other, within a time limit.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use super::{patience, position};

/// A command that is about to run.
pub struct Invocation {
    pub(super) command: Command,
    input: Option<Vec<u8>>,
    limit: Duration,
}

impl Invocation {
    pub fn new(command: Command) -> Self {
        Invocation { command, input: None, limit: patience() }
    }

    /// Bytes for its standard input, then EOF. Without this it reads `/dev/null`.
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(mut self) -> Output {
        let input = self.input.take();
        let mut running = self.spawn(input.is_some());
        if let Some(input) = input {
            running.send_lossy(&input);
            running.close_stdin();
        }
        running.finish()
    }

    /// Starts it, to be talked to.
    #[track_caller]
    pub fn start(self) -> Running {
        self.spawn(true)
    }

    #[track_caller]
    fn spawn(mut self, stdin: bool) -> Running {
        let label = format!("{:?}", self.command);
        self.command.stdin(if stdin { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: a command that hangs is killed together with its children.
        self.command.process_group(0);
        let started = Instant::now();
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{label}: {error}"));
        let pidfd = pidfd_open(pid_of(&child), PidfdFlags::empty()).unwrap();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(stdin) = &stdin {
            nonblocking(stdin);
        }
        nonblocking(stdout.as_ref().unwrap());
        nonblocking(stderr.as_ref().unwrap());
        Running {
            label,
            child,
            pidfd,
            stdin,
            stdout,
            stderr,
            out: Vec::new(),
            err: Vec::new(),
            seen_out: 0,
            status: None,
            started,
            deadline: started + self.limit,
        }
    }
}

fn nonblocking(fd: impl AsFd) {
    let flags = fcntl_getfl(&fd).unwrap();
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK).unwrap();
}

pub(super) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

/// A command that runs.
pub struct Running {
    label: String,
    child: Child,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    out: Vec<u8>,
    err: Vec<u8>,
    seen_out: usize,
    status: Option<ExitStatus>,
    started: Instant,
    deadline: Instant,
}

impl Running {
    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap_or_else(|error| panic!("{}: {error}", self.label));
    }

    /// Writes to its standard input, reading its output meanwhile.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = self.send_lossy(bytes);
        assert_eq!(sent, bytes.len(), "{self}: it closed its standard input");
    }

    /// The same for a command that may leave without reading everything; how much it took.
    #[track_caller]
    fn send_lossy(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            let Some(stdin) = &mut self.stdin else { return sent };
            match stdin.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.step(true),
                Err(_) => return sent,
            }
        }
        sent
    }

    /// EOF on its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes our end of its standard output, as `head` does when it has seen enough.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Reads until `needle` comes on standard output, after what was expected before.
    #[track_caller]
    pub fn expect(&mut self, needle: &str) {
        loop {
            if let Some(at) = position(&self.out[self.seen_out..], needle.as_bytes()) {
                self.seen_out += at + needle.len();
                return;
            }
            assert!(!self.ended(), "{self}\nended without {needle:?}");
            self.step(false);
        }
    }

    /// Waits until it has exited and nobody holds its output any more.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        while !self.ended() {
            self.step(false);
        }
        let status = self.status.unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Output {
            label: self.label.clone(),
            code,
            stdout: std::mem::take(&mut self.out),
            stderr: std::mem::take(&mut self.err),
            took: self.started.elapsed(),
        }
    }

    fn ended(&self) -> bool {
        self.status.is_some() && self.stdout.is_none() && self.stderr.is_none()
    }

    /// Waits for one event of the process and takes what there is.
    #[track_caller]
    fn step(&mut self, writable: bool) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let held = if self.status.is_some() { "has exited, yet its output is held open" } else { "is hung" };
            let _ = kill_process_group(self.pid(), Signal::KILL);
            panic!("{self}\n{held} after {:?}", self.started.elapsed());
        }
        let mut events = Vec::new();
        if self.status.is_none() {
            events.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        events.extend(self.stdout.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        events.extend(self.stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        if let Some(stdin) = self.stdin.as_ref().filter(|_| writable) {
            events.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        poll(&mut events, Some(&timeout)).unwrap();
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        take(&mut self.stdout, &mut self.out);
        take(&mut self.stderr, &mut self.err);
    }
}

/// Reads what a pipe has; forgets the pipe at EOF.
fn take<R: Read>(pipe: &mut Option<R>, into: &mut Vec<u8>) {
    let mut buffer = [0; 65536];
    while let Some(reader) = pipe {
        match reader.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("read a pipe: {error}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, &self.label, &self.out, &self.err)
    }
}

/// What came of a command.
pub struct Output {
    label: String,
    /// Its exit code; 128+n when signal n ended it.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// From its start until it had gone and its output was closed.
    pub took: Duration,
}

impl Output {
    /// Standard output as text, without the last line break.
    pub fn out(&self) -> String {
        text(&self.stdout)
    }

    /// Standard error as text, without the last line break.
    pub fn err(&self) -> String {
        text(&self.stderr)
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of {self}");
        self
    }

    /// Asserts that standard error holds `needle`, in any case.
    #[track_caller]
    pub fn says(self, needle: &str) -> Self {
        let err = self.err().to_lowercase();
        assert!(err.contains(&needle.to_lowercase()), "{needle:?} is not in standard error of {self}");
        self
    }

    /// The same of either stream: Docker prints some errors of exec on standard output.
    #[track_caller]
    pub fn says_anywhere(self, needle: &str) -> Self {
        assert!(self.out().contains(needle) || self.err().contains(needle), "{needle:?} is nowhere in {self}");
        self
    }

    /// Asserts that standard error holds no sign of a crash: an error is a message.
    #[track_caller]
    pub fn cleanly(self) -> Self {
        for sign in ["panicked at", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!self.err().contains(sign), "a crash: {self}");
        }
        self
    }
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, &self.label, &self.stdout, &self.stderr)?;
        write!(f, "\n--- exit code {} after {:?}", self.code, self.took)
    }
}

fn describe(f: &mut fmt::Formatter<'_>, label: &str, out: &[u8], err: &[u8]) -> fmt::Result {
    let shown = |bytes: &[u8]| -> String {
        let cut = &bytes[..bytes.len().min(4096)];
        let more = if cut.len() < bytes.len() { format!("… {} bytes", bytes.len()) } else { String::new() };
        format!("{}{more}", String::from_utf8_lossy(cut))
    };
    write!(f, "{label}\n--- stdout\n{}\n--- stderr\n{}", shown(out), shown(err))
}
