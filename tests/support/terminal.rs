//! A command on a pseudo-terminal, as a person has it.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use super::invocation::{Invocation, pid_of};
use super::{patience, position};

/// What `step` waits for, besides the command's end.
#[derive(Clone, Copy)]
enum Until {
    Output,
    Writable,
}

/// A terminal and the command on it.
pub struct Terminal {
    label: String,
    child: Child,
    master: OwnedFd,
    // Held open so that the terminal outlives the command and its settings can be read.
    slave: OwnedFd,
    before: Termios,
    output: Vec<u8>,
    seen: usize,
    status: Option<ExitStatus>,
}

impl Terminal {
    /// Starts `invocation` as the leader of a session whose terminal has `rows` and `columns`.
    #[track_caller]
    pub fn start(invocation: Invocation, rows: u16, columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        tcsetwinsize(&master, size(rows, columns)).unwrap();
        let before = tcgetattr(&slave).unwrap();

        // setsid(1) makes the terminal the controlling one, env(1) undoes signals that whoever runs
        // the tests ignores (SIGINT, for jobs in the background); both exec in place, so the
        // child's pid is the command's and no code of ours runs between fork and exec.
        let inner = invocation.command;
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "env", "--default-signal"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env("TERM", "xterm");
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        if let Some(directory) = inner.get_current_dir() {
            command.current_dir(directory);
        }
        let stream = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let label = format!("{inner:?}");
        let child = command.spawn().unwrap();
        // Reads never block: poll decides.
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        Terminal { label, child, master, slave, before, output: Vec::new(), seen: 0, status: None }
    }

    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Types `keys`.
    #[track_caller]
    pub fn send(&mut self, keys: impl AsRef<[u8]>) {
        let mut keys = keys.as_ref();
        while !keys.is_empty() {
            match rustix::io::write(&self.master, keys) {
                Ok(count) => keys = &keys[count..],
                Err(rustix::io::Errno::AGAIN) => self.step(Until::Writable),
                Err(error) => panic!("{}: type: {error}", self.label),
            }
        }
    }

    /// Changes the window's size; the kernel sends SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, size(rows, columns)).unwrap();
    }

    /// Reads until `needle` appears after what was expected before; what came up to its end.
    #[track_caller]
    pub fn expect(&mut self, needle: &str) -> String {
        loop {
            if let Some(at) = position(&self.output[self.seen..], needle.as_bytes()) {
                let end = self.seen + at + needle.len();
                let text = String::from_utf8_lossy(&self.output[self.seen..end]).into_owned();
                self.seen = end;
                return text;
            }
            assert!(self.status.is_none(), "{} ended without {needle:?} on\n{}", self.label, self.screen());
            self.step(Until::Output);
        }
    }

    /// Waits for the command's end: its exit code (128+n by signal) and all it wrote.
    #[track_caller]
    pub fn finish(&mut self) -> (i32, String) {
        while self.status.is_none() {
            self.step(Until::Output);
        }
        self.take();
        let status = self.status.unwrap();
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), self.screen())
    }

    /// All that has been written.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// Whether the terminal is in raw mode (no line editing, no signals by keys).
    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Asserts that the terminal's settings are those of before the command.
    #[track_caller]
    pub fn assert_restored(&self) {
        let now = tcgetattr(&self.slave).unwrap();
        let modes = |t: &Termios| (t.input_modes, t.output_modes, t.control_modes, t.local_modes);
        assert_eq!(modes(&now), modes(&self.before), "the terminal was left changed by {}", self.label);
    }

    #[track_caller]
    fn step(&mut self, until: Until) {
        // The pidfd is opened anew each time: the driver is not on anyone's fast path.
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let wanted = match until {
            Until::Output => PollFlags::IN,
            Until::Writable => PollFlags::IN | PollFlags::OUT,
        };
        let mut events = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&self.master, wanted)];
        let timeout = Timespec { tv_sec: patience().as_secs().cast_signed(), tv_nsec: 0 };
        let ready = poll(&mut events, Some(&timeout)).unwrap();
        assert!(ready > 0, "{} is silent for {:?} after\n{}", self.label, patience(), self.screen());
        self.status = self.child.try_wait().unwrap();
        self.take();
    }

    fn take(&mut self) {
        let mut buffer = [0; 65536];
        loop {
            match rustix::io::read(&self.master, &mut buffer[..]) {
                Ok(count) if count > 0 => self.output.extend_from_slice(&buffer[..count]),
                Ok(_) => return,
                Err(error) if std::io::Error::from(error).kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{}: read the terminal: {error}", self.label),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
