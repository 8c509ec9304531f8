//! The life: one poll loop that serves clients until the container's first process has ended, and
//! then does what comes after.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rustix::event::PollFlags;

use super::Orders;
use super::birth::Running;
use crate::cgroup::Group;
use crate::container::handle::Locked;
use crate::container::status::Status;
use crate::container::{Config, ContainerId, NamespaceMode, ProcessRef};
use crate::engine::Engine;
use crate::engine::events::Action;
use crate::engine::recover::{self, UNKNOWN_EXIT};
use crate::engine::streams::{Client, Ends, Lent, Streams, Watch};
use crate::engine::wire::{Notice, Request};
use crate::runtime::spawn::{self, Started};
use crate::sys::channel::{self, Channel, Received};
use crate::sys::tty::{RawMode, Size};
use crate::sys::{process, tty};

/// A connection to the shim.
struct Peer {
    token: u64,
    channel: Channel,
}

pub(super) fn supervise(engine: &Engine, orders: Orders, running: Running) {
    let Orders { container, caller, lent, .. } = orders;
    let Running { started, ends, listener, log, group } = running;
    let Started { child, console } = started;
    let config = container.config.clone();
    let run = container.state.init;
    // Others may change the record from now on; the end takes the lock again.
    drop(container);
    let ends = match (console, ends) {
        (Some(console), _) => Ends::Terminal(console),
        (None, Some((stdin, stdout, stderr))) => Ends::Pipes(stdin, stdout, stderr),
        (None, None) => return,
    };
    let log = (config.log.driver != "none").then_some(log);
    let Ok(mut streams) = Streams::new(ends, config.process.open_stdin, config.process.stdin_once, log) else {
        // Out of descriptors: better no container than one that nobody supervises.
        let _ = process::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
        let code = spawn::wait_for_end(&child);
        let _ = group.kill_all().and_then(|()| group.remove());
        record_end(engine, &config, code);
        return;
    };
    let _ = caller.set_nonblocking();
    let mut peers = Vec::new();
    if let Some(lent) = lent {
        streams.clients.push(Client::new(0, lent));
        peers.push(Peer { token: 0, channel: caller });
    } else {
        drop(caller);
    }
    process::trim_memory();

    let mut shim = Shim {
        engine,
        id: &config.id,
        streams,
        peers,
        listener,
        short_of_descriptors: false,
        next_token: 1,
        pidfd: child.pidfd,
        run,
    };
    let code = shim.until_end();
    shim.end(engine, &config, &group, code);
}

struct Shim<'a> {
    engine: &'a Engine,
    id: &'a ContainerId,
    streams: Streams,
    peers: Vec<Peer>,
    listener: OwnedFd,
    /// A connection could not be accepted: the listener is left alone for a while.
    short_of_descriptors: bool,
    next_token: u64,
    pidfd: OwnedFd,
    /// The first process of this run.
    run: Option<ProcessRef>,
}

/// What a ready descriptor of the shim belongs to.
enum Event {
    Ended,
    Connection,
    Peer(u64),
    Stream(Watch),
}

impl Shim<'_> {
    /// Serves until the container's first process has ended and been reaped; its code.
    fn until_end(&mut self) -> i32 {
        loop {
            for event in self.wait(true) {
                match event {
                    Event::Ended => match process::reap(self.pidfd.as_fd()) {
                        Ok(Some(code)) => return code,
                        Ok(None) => {}
                        // Somebody else's child by now: it has ended, and nobody knows how.
                        Err(_) => return UNKNOWN_EXIT,
                    },
                    other => self.serve(other),
                }
            }
            while let Some((token, errno)) = self.streams.failed_client() {
                self.dismiss(token, &Notice::OutputFailed { errno: errno.raw_os_error() });
            }
        }
    }

    /// Waits for something to happen.
    fn wait(&mut self, alive: bool) -> Vec<Event> {
        let rest = std::mem::take(&mut self.short_of_descriptors);
        let mut watched: Vec<(Watch, BorrowedFd<'_>, PollFlags)> = Vec::new();
        self.streams.watch(&mut watched);
        let mut events: Vec<Event> = Vec::new();
        let mut set = Vec::new();
        if alive {
            events.push(Event::Ended);
            set.push(rustix::event::PollFd::new(&self.pidfd, PollFlags::IN));
        }
        if !rest {
            events.push(Event::Connection);
            set.push(rustix::event::PollFd::new(&self.listener, PollFlags::IN));
        }
        for peer in &self.peers {
            events.push(Event::Peer(peer.token));
            set.push(rustix::event::PollFd::new(&peer.channel, PollFlags::IN));
        }
        for (watch, descriptor, flags) in watched {
            events.push(Event::Stream(watch));
            set.push(rustix::event::PollFd::from_borrowed_fd(descriptor, flags));
        }
        let limit = (rest || self.streams.is_resting()).then_some(&REST);
        if rustix::event::poll(&mut set, limit).is_err() {
            return Vec::new();
        }
        let ready: Vec<bool> = set.iter().map(|entry| !entry.revents().is_empty()).collect();
        self.streams.wake();
        events.into_iter().zip(ready).filter_map(|(event, ready)| ready.then_some(event)).collect()
    }

    fn serve(&mut self, event: Event) {
        match event {
            Event::Ended => {}
            Event::Connection => match channel::accept(self.listener.as_fd()) {
                Ok(None) => {}
                Ok(Some(channel)) => {
                    self.peers.push(Peer { token: self.next_token, channel });
                    self.next_token += 1;
                }
                Err(_) => self.short_of_descriptors = true,
            },
            Event::Peer(token) => self.hear(token),
            Event::Stream(watch) => {
                if let Some(token) = self.streams.handle(watch) {
                    self.dismiss(token, &Notice::Detached);
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
            // Everybody who is connected is told the end of this run.
            Ok(Received::Message(Request::Wait { run }, _)) if Some(run) == self.run => {}
            // Somebody waits for an earlier run, which has ended.
            Ok(Received::Message(Request::Wait { .. }, _)) => drop(self.peers.remove(index)),
            Ok(Received::Message(Request::Signal(signal), _)) => {
                self.engine.note_by_id(self.id, Action::Kill { signal });
                let _ = process::send_signal(self.pidfd.as_fd(), signal);
            }
            Ok(Received::Message(Request::Resize(size), _)) => self.resize(size),
            Ok(Received::Message(Request::Attach { streams, detach_keys, size, owner }, files)) => {
                let mut files = files.into_iter();
                let mut lent = Lent {
                    stdin: if streams.stdin { files.next() } else { None },
                    stdout: if streams.stdout { files.next() } else { None },
                    stderr: if streams.stderr { files.next() } else { None },
                    detach_keys,
                    owner,
                    terminal: None,
                };
                // Before the client knows that it is attached, and changes it.
                lent.terminal = lent.stdin.as_ref().and_then(|file| RawMode::remember(file.as_fd()).ok().flatten());
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
                drop(self.streams.remove(token));
            }
        }
    }

    fn resize(&self, size: Size) {
        if let Some(console) = self.streams.console() {
            let _ = tty::set_size(console, size);
        }
    }

    /// Lets a client go, with the reason. An orderly one puts its terminal back itself.
    fn dismiss(&mut self, token: u64, last: &Notice) {
        if let Some(terminal) = self.streams.remove(token).and_then(|client| client.terminal) {
            terminal.disarm();
        }
        if let Some(index) = self.peers.iter().position(|peer| peer.token == token) {
            let peer = self.peers.remove(index);
            let _ = peer.channel.send(last, &[]);
        }
    }

    /// Tells the end to everybody who has all of the output.
    fn tell_end(&mut self, code: i32) {
        let behind = |token| self.streams.clients.iter().any(|client| client.token == token && client.is_behind());
        let done: Vec<u64> = self.peers.iter().map(|peer| peer.token).filter(|&token| !behind(token)).collect();
        for token in done {
            self.dismiss(token, &Notice::Exited { code });
        }
    }

    /// The container has ended: deliver what it wrote, record the end, clean up, tell everybody.
    ///
    /// What a user waits for comes first and is quick: the record, the name. Deleting directories
    /// comes last, when nobody waits any more.
    fn end(mut self, engine: &Engine, config: &Config, group: &Group, code: i32) {
        // The id of a passing container is never used again, so its cgroup can go when nobody waits.
        // That of another must be gone before a next start makes it anew.
        let own_processes = config.namespaces.pid == NamespaceMode::Private;
        if !own_processes {
            // Processes that shared somebody else's PID namespace may have outlived the first one.
            let _ = group.kill_all();
        }
        self.streams.drain();
        if !config.auto_remove {
            let _ = recover::discard_group(group);
        }
        let removed = record_end(engine, config, code);
        // Clients that are slow still get what is theirs; neither the record nor anybody else waits
        // for them.
        self.tell_end(code);
        while self.streams.clients.iter().any(Client::is_behind) {
            for event in self.wait(false) {
                self.serve(event);
            }
            self.tell_end(code);
        }
        while let Ok(Some(channel)) = channel::accept(self.listener.as_fd()) {
            let _ = channel.send(&Notice::Exited { code }, &[]);
        }
        drop(self);
        if removed {
            engine.sweep_trash();
        }
    }
}

/// How long new connections wait when descriptors are short, and inputs whose turn it is not.
const REST: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

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
    // Under the lock: the next run has its socket at the same path.
    let _ = std::fs::remove_file(engine.layout().socket(&config.id));
    if container.config.auto_remove {
        return engine.discard_ended(&mut container).unwrap_or(false);
    }
    // A full disk cannot be told to anybody here; the next reader sees that the process is gone.
    let _ = container.transition(Status::Exited);
    // Under the lock: nobody can start it again, or remove it, and tell that before.
    engine.note(&container.config, Action::died(&container.state));
    false
}
