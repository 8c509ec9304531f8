//! Moving bytes between a container and whoever is attached to it, without ever blocking the
//! process that moves them.
//!
//! Used by the shim, whose clients come and go, and by exec, whose one client is its own caller.
//! The data path has one hop: clients hand over their descriptors and this process reads and writes
//! them itself. Memory is bounded: a source is read only while nobody who wants its bytes is behind,
//! so a slow reader slows the container down, as a pipe would, and a vanished one is forgotten.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;

use super::detach::DetachKeys;
use super::logs::{LogWriter, Stream};
use crate::container::ProcessRef;
use crate::error::Failure;
use crate::sys::tty::RawMode;
use crate::sys::{fd, process};

/// Bytes moved at once: the capacity of a pipe (pipe(7)).
const CHUNK: usize = 64 * 1024;

/// A descriptor of somebody else that is written without blocking.
#[derive(Debug)]
pub struct Sink {
    file: OwnedFd,
    pending: Vec<u8>,
    /// Nobody reads it any more.
    failed: Option<Errno>,
}

impl Sink {
    /// Takes a caller's standard stream, from [`borrow_standard`].
    pub fn new(file: OwnedFd) -> Sink {
        Sink { file, pending: Vec::new(), failed: None }
    }

    /// Bytes wait to be written.
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty() && self.failed.is_none()
    }

    fn write(&mut self, bytes: &[u8]) {
        let written = if self.pending.is_empty() { self.write_now(bytes) } else { 0 };
        if self.failed.is_none() && written < bytes.len() {
            self.pending.extend_from_slice(&bytes[written..]);
        }
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let written = self.write_now(&pending);
        if self.failed.is_none() && written < pending.len() {
            self.pending = pending;
            self.pending.drain(..written);
        }
    }

    /// Writes what fits; nothing once the reader is gone.
    fn write_now(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() && self.failed.is_none() {
            match write_without_waiting(self.file.as_fd(), &bytes[written..]) {
                Ok(count) => written += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => self.failed = Some(errno),
            }
        }
        written
    }
}

/// A socket would block; MSG_DONTWAIT applies to this call only.
fn write_without_waiting(file: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    use rustix::net::SendFlags;
    match rustix::net::send(file, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::NOTSOCK) => rustix::io::write(file, bytes),
        result => result,
    }
}

/// A standard stream of this process, to be read (`RDONLY`) or written (`WRONLY`) by whoever moves
/// the bytes. Setting O_NONBLOCK on it would change it for everybody who shares it (the user's
/// shell), so pipes and terminals are opened anew, here rather than in the shim because `/dev/tty`
/// means something to this process only. Sockets, files and other devices are taken as they are.
pub fn borrow_standard(number: RawFd, access: OFlags) -> std::io::Result<OwnedFd> {
    Ok(reopen(fd::standard(number).try_clone_to_owned()?, access))
}

/// What a caller is told whose own output broke.
pub fn output_failed(errno: i32) -> anyhow::Error {
    let reason = nix::errno::Errno::from_raw(errno).desc().to_lowercase();
    Failure::engine(format!("write the output: {reason}")).into()
}

/// The same pipe or terminal with an open file description of our own, non-blocking.
fn reopen(file: OwnedFd, access: OFlags) -> OwnedFd {
    let Ok(found) = rustix::fs::fstat(&file) else { return file };
    // The other end of a pipe is not the caller's to use.
    let allowed = rustix::fs::fcntl_getfl(&file).is_ok_and(|flags| {
        let mode = flags & OFlags::ACCMODE;
        mode == OFlags::RDWR || mode == access
    });
    if !allowed {
        return file;
    }
    let terminal = rustix::termios::isatty(&file);
    if FileType::from_raw_mode(found.st_mode) != FileType::Fifo && !terminal {
        return file;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap_or(file)
}

/// A client's standard input.
#[derive(Debug)]
struct Input {
    file: OwnedFd,
    keys: DetachKeys,
    /// The process whose turn on its terminal it must be, or the user is talking to somebody else.
    owner: Option<ProcessRef>,
    /// It was not: looked at again after a while.
    resting: bool,
}

/// What a client lends.
#[derive(Debug, Default)]
pub struct Lent {
    /// Its standard input.
    pub stdin: Option<OwnedFd>,
    /// Its standard output.
    pub stdout: Option<OwnedFd>,
    /// Its standard error.
    pub stderr: Option<OwnedFd>,
    /// Bytes that detach; empty for never.
    pub detach_keys: Vec<u8>,
    /// The client, when its standard input is its controlling terminal.
    pub owner: Option<ProcessRef>,
    /// Its terminal's mode, to be put back if the client is killed.
    pub terminal: Option<RawMode>,
}

/// Somebody attached.
#[derive(Debug)]
pub struct Client {
    /// Told apart from the others by this.
    pub token: u64,
    input: Option<Input>,
    stdout: Option<Sink>,
    stderr: Option<Sink>,
    /// Puts the client's terminal back if it is killed.
    pub terminal: Option<RawMode>,
}

impl Client {
    /// Takes what a client lends.
    pub fn new(token: u64, lent: Lent) -> Client {
        let input = lent.stdin.map(|file| Input {
            file,
            keys: DetachKeys::new(lent.detach_keys),
            owner: lent.owner,
            resting: false,
        });
        let (stdout, stderr) = (lent.stdout.map(Sink::new), lent.stderr.map(Sink::new));
        Client { token, input, stdout, stderr, terminal: lent.terminal }
    }

    /// Output waits to be written to this client.
    pub fn is_behind(&self) -> bool {
        self.sinks().any(Sink::is_behind)
    }

    /// Appends what must have room before it gets what waits for it.
    pub fn watch<'a>(&'a self, set: &mut Vec<(Watch, BorrowedFd<'a>, PollFlags)>) {
        for (stream, sink) in [(Stream::Stdout, &self.stdout), (Stream::Stderr, &self.stderr)] {
            if let Some(sink) = sink.as_ref().filter(|sink| sink.is_behind()) {
                set.push((Watch::Room(self.token, stream), sink.file.as_fd(), PollFlags::OUT));
            }
        }
    }

    /// Writes what waits for room on `stream`.
    pub fn flush(&mut self, stream: Stream) {
        if let Some(sink) = self.sink(stream) {
            sink.flush();
        }
    }

    /// Why its output cannot be written any more: the reader of a pipe has gone, a terminal hung up.
    fn failed(&self) -> Option<Errno> {
        self.sinks().find_map(|sink| sink.failed)
    }

    fn sinks(&self) -> impl Iterator<Item = &Sink> {
        [&self.stdout, &self.stderr].into_iter().flatten()
    }

    fn sink(&mut self, stream: Stream) -> Option<&mut Sink> {
        match stream {
            Stream::Stdout => self.stdout.as_mut(),
            Stream::Stderr => self.stderr.as_mut(),
        }
    }
}

/// The container's side of its standard streams.
#[derive(Debug)]
pub struct Streams {
    tty: bool,
    /// Keeps a terminal from hanging up while nobody inside has it open: a program may close it and
    /// open it again.
    inner: Option<OwnedFd>,
    stdin_once: bool,
    stdin: Option<OwnedFd>,
    to_container: Vec<u8>,
    stdin_ending: bool,
    sources: Vec<(Stream, OwnedFd)>,
    /// Who is attached.
    pub clients: Vec<Client>,
    log: Option<LogWriter>,
}

/// What a descriptor in the poll set belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// A source of output.
    Source(Stream),
    /// The container's standard input has room.
    Stdin,
    /// A client's standard input has bytes.
    Input(u64),
    /// A client's stream has room again.
    Room(u64, Stream),
}

/// The container's ends as the parent keeps them.
#[derive(Debug)]
pub enum Ends {
    /// A terminal's controlling side.
    Terminal(OwnedFd),
    /// Pipes: writing end of standard input, reading ends of output and error.
    Pipes(Option<OwnedFd>, OwnedFd, OwnedFd),
}

impl Streams {
    /// Takes the container's ends. `stdin_once`: the container's standard input ends with the
    /// first client's.
    pub fn new(ends: Ends, open_stdin: bool, stdin_once: bool, log: Option<LogWriter>) -> std::io::Result<Streams> {
        let (tty, inner, stdin, sources) = match ends {
            Ends::Terminal(console) => {
                rustix::io::ioctl_fionbio(&console, true)?;
                let stdin = if open_stdin { Some(console.try_clone()?) } else { None };
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                let inner = rustix::pty::ioctl_tiocgptpeer(&console, flags).ok();
                (true, inner, stdin, vec![(Stream::Stdout, console)])
            }
            Ends::Pipes(stdin, stdout, stderr) => {
                for end in [&stdin].into_iter().flatten().chain([&stdout, &stderr]) {
                    rustix::io::ioctl_fionbio(end, true)?;
                }
                (false, None, stdin, vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)])
            }
        };
        Ok(Streams {
            tty,
            inner,
            stdin_once,
            stdin,
            to_container: Vec::new(),
            stdin_ending: false,
            sources,
            clients: Vec::new(),
            log,
        })
    }

    /// The terminal's controlling side, for window sizes.
    pub fn console(&self) -> Option<BorrowedFd<'_>> {
        self.sources.first().filter(|_| self.tty).map(|(_, console)| console.as_fd())
    }

    /// Every descriptor of the container's ends.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sources = self.sources.iter().map(|(_, source)| source.as_fd());
        sources.chain([&self.stdin, &self.inner].into_iter().flatten().map(AsFd::as_fd))
    }

    /// Appends the descriptors to wait for.
    pub fn watch<'a>(&'a self, set: &mut Vec<(Watch, BorrowedFd<'a>, PollFlags)>) {
        for (stream, source) in &self.sources {
            let behind = self.clients.iter().any(|client| {
                let sink = if *stream == Stream::Stdout { &client.stdout } else { &client.stderr };
                sink.as_ref().is_some_and(Sink::is_behind)
            });
            if !behind {
                set.push((Watch::Source(*stream), source.as_fd(), PollFlags::IN));
            }
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.to_container.is_empty()) {
            set.push((Watch::Stdin, stdin.as_fd(), PollFlags::OUT));
        }
        for client in &self.clients {
            // What nobody inside will read is left to the caller; only detach keys are worth reading.
            let wanted = |input: &&Input| !input.resting && (self.stdin.is_some() || input.keys.any());
            if let Some(input) = client.input.as_ref().filter(wanted).filter(|_| self.to_container.is_empty()) {
                set.push((Watch::Input(client.token), input.file.as_fd(), PollFlags::IN));
            }
            client.watch(set);
        }
    }

    /// A client's input is not read because it is not its turn.
    pub fn is_resting(&self) -> bool {
        self.clients.iter().filter_map(|client| client.input.as_ref()).any(|input| input.resting)
    }

    /// Looks again at inputs whose turn it was not.
    pub fn wake(&mut self) {
        for input in self.clients.iter_mut().filter_map(|client| client.input.as_mut()) {
            input.resting = false;
        }
    }

    /// Does what a ready descriptor calls for. `Some(token)`: that client typed its detach keys.
    pub fn handle(&mut self, watch: Watch) -> Option<u64> {
        match watch {
            Watch::Source(stream) => drop(self.read_source(stream)),
            Watch::Stdin => self.write_stdin(),
            Watch::Input(token) => return self.read_input(token),
            Watch::Room(token, stream) => {
                if let Some(client) = self.clients.iter_mut().find(|client| client.token == token) {
                    client.flush(stream);
                }
            }
        }
        None
    }

    /// A client whose output cannot be written any more, and why.
    pub fn failed_client(&self) -> Option<(u64, Errno)> {
        self.clients.iter().find_map(|client| Some((client.token, client.failed()?)))
    }

    /// Lets go of a client's streams. Its input ends with it, as with Docker.
    pub fn remove(&mut self, token: u64) -> Option<Client> {
        let index = self.clients.iter().position(|client| client.token == token)?;
        let client = self.clients.remove(index);
        if client.input.is_some() {
            self.input_ended();
        }
        Some(client)
    }

    /// Reads once from a source and passes it on; the number of bytes, 0 at its end.
    fn read_source(&mut self, stream: Stream) -> usize {
        let Some(index) = self.sources.iter().position(|(s, _)| *s == stream) else { return 0 };
        let source = &self.sources[index].1;
        let mut buffer = Vec::with_capacity(CHUNK);
        let ended = match rustix::io::read(source, rustix::buffer::spare_capacity(&mut buffer)) {
            Ok(0) => true,
            Ok(_) => false,
            Err(Errno::AGAIN | Errno::INTR) => return 0,
            // A terminal whose other side is closed says EIO.
            Err(_) => true,
        };
        if ended {
            self.sources.remove(index);
            if let Some(log) = &mut self.log {
                log.end(stream);
            }
            return 0;
        }
        if let Some(log) = &mut self.log {
            log.append(stream, &buffer);
        }
        for client in &mut self.clients {
            if let Some(sink) = client.sink(stream) {
                sink.write(&buffer);
            }
        }
        buffer.len()
    }

    fn write_stdin(&mut self) {
        let Some(stdin) = &self.stdin else { return self.to_container.clear() };
        match rustix::io::write(stdin, &self.to_container) {
            Ok(count) => drop(self.to_container.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The container closed its standard input: nobody will ever read the rest.
            Err(_) => {
                self.to_container.clear();
                self.stdin = None;
            }
        }
        self.end_stdin_when_due();
    }

    fn read_input(&mut self, token: u64) -> Option<u64> {
        let client = self.clients.iter_mut().find(|client| client.token == token)?;
        let input = client.input.as_mut()?;
        // The kernel stops a process that reads its terminal out of turn (SIGTTIN), but not one that
        // reads a terminal of others.
        input.resting = input.owner.is_some_and(|owner| !process::has_terminal(owner.pid, owner.start_time));
        if input.resting {
            return None;
        }
        let mut buffer = Vec::with_capacity(CHUNK);
        let read = rustix::net::recv(
            &input.file,
            rustix::buffer::spare_capacity(&mut buffer),
            rustix::net::RecvFlags::DONTWAIT,
        );
        let read = match read {
            Err(Errno::NOTSOCK) => rustix::io::read(&input.file, rustix::buffer::spare_capacity(&mut buffer)),
            other => other.map(|(count, _)| count),
        };
        match read {
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Ok(0) | Err(_) => {
                self.to_container.extend_from_slice(input.keys.held_back());
                client.input = None;
                self.write_stdin();
                self.input_ended();
                return None;
            }
            Ok(_) => {}
        }
        let detached = input.keys.filter(&buffer, &mut self.to_container);
        if detached {
            client.input = None;
        }
        if !self.to_container.is_empty() {
            self.write_stdin();
        }
        detached.then_some(token)
    }

    fn input_ended(&mut self) {
        if self.stdin_once && !self.tty {
            self.stdin_ending = true;
            self.end_stdin_when_due();
        }
    }

    /// Closes the container's standard input once everything before the end has been passed on.
    fn end_stdin_when_due(&mut self) {
        if self.stdin_ending && self.to_container.is_empty() {
            self.stdin = None;
        }
    }

    fn has_bytes(&self, stream: Stream) -> bool {
        let Some((_, source)) = self.sources.iter().find(|(other, _)| *other == stream) else { return false };
        let mut set = [rustix::event::PollFd::new(source, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut set, Some(&ZERO))).is_ok_and(|ready| ready > 0)
    }

    /// The container has ended: reads what its pipes still hold (their capacity at most, because an
    /// escaped process may go on writing), also for clients that are behind, so that the log is
    /// complete before the end is recorded.
    pub fn drain(&mut self) {
        self.stdin = None;
        self.to_container.clear();
        for client in &mut self.clients {
            client.input = None;
        }
        while let Some((stream, source)) = self.sources.last() {
            let stream = *stream;
            let mut left = rustix::pipe::fcntl_getpipe_size(source).unwrap_or(CHUNK);
            while left > 0 && self.has_bytes(stream) {
                let count = self.read_source(stream);
                left = if count == 0 { 0 } else { left.saturating_sub(count) };
            }
            self.sources.retain(|(other, _)| *other != stream);
        }
        if let Some(mut log) = self.log.take() {
            log.finish();
        }
    }
}

/// For poll(2): do not wait.
const ZERO: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
