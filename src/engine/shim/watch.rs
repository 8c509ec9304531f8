//! One poll loop: it serves clients, moves bytes, and waits for the end of the container's first
//! process, or between two runs for the time of the next.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFlags, Timespec};

use super::Orders;
use super::health::Health;
use super::memory::Memory;
use super::network::RunNetwork;
use crate::container::handle::{self, Locked};
use crate::container::{ContainerId, ProcessRef};
use crate::engine::Engine;
use crate::engine::events::Action;
use crate::engine::recover::UNKNOWN_EXIT;
use crate::engine::streams::{Client, Lent, Streams, Watch};
use crate::engine::wire::{Notice, Request};
use crate::net::dns;
use crate::sys::channel::{self, Channel, Received};
use crate::sys::tty::{RawMode, Size};
use crate::sys::{process, tty};

/// A connection to the shim.
struct Peer {
    token: u64,
    channel: Channel,
    /// What it lends, until it is ready.
    joining: Option<(Client, Option<Size>)>,
}

/// A shim that has started its container.
pub(super) struct Shim<'a> {
    pub(super) engine: &'a Engine,
    pub(super) id: ContainerId,
    /// The window that was last heard of, for the terminal of the next run.
    pub(super) size: Option<Size>,
    pub(super) listener: Option<OwnedFd>,
    /// A connection could not be accepted: the listener is left alone for a while.
    short_of_descriptors: bool,
    peers: Vec<Peer>,
    next_token: u64,
    /// The present run; none between two.
    pub(super) run: Option<Run>,
    /// Clients of earlier runs that are behind: they only get what is theirs, and hold nobody up.
    parting: Vec<Parting>,
    /// The run that ended last, and its code.
    pub(super) ended: Option<(ProcessRef, i32)>,
    /// The code of the last end, that of a start that failed included.
    code: i32,
    /// The wait before the present run, when the restart policy started it.
    pub(super) waited: Option<Duration>,
    /// Somebody has changed the record.
    pub(super) look_again: bool,
}

/// One run of the container.
pub(super) struct Run {
    /// Its first process, as recorded.
    pub(super) process: Option<ProcessRef>,
    pub(super) pidfd: OwnedFd,
    pub(super) streams: Streams,
    pub(super) memory: Memory,
    pub(super) network: Option<RunNetwork>,
    /// `None` when nothing is to be checked.
    pub(super) health: Option<Health>,
}

/// A client whose run has ended with this code.
struct Parting {
    client: Client,
    code: i32,
}

/// What a ready descriptor of the shim belongs to.
enum Event {
    Ended,
    Memory,
    Health,
    HealthDue,
    Name(dns::Token),
    Connection,
    Peer(u64),
    Stream(Watch),
}

impl<'a> Shim<'a> {
    /// Takes over from the caller, who may stay as the first client.
    pub(super) fn new(
        engine: &'a Engine,
        orders: Orders,
        listener: Option<OwnedFd>,
    ) -> (Shim<'a>, Locked, Option<Lent>) {
        let Orders { container, caller, lent, size, .. } = orders;
        let _ = caller.set_nonblocking();
        let first = lent.is_some().then_some(Peer { token: 0, channel: caller, joining: None });
        let shim = Shim {
            engine,
            id: container.id().clone(),
            size,
            listener,
            short_of_descriptors: false,
            peers: first.into_iter().collect(),
            next_token: 1,
            run: None,
            parting: Vec::new(),
            ended: None,
            code: 0,
            waited: None,
            look_again: false,
        };
        (shim, container, lent)
    }

    /// Tells an end to everybody who is connected. `clients` are those of the run; who is behind is
    /// told when it has all of the output, and neither the record nor anybody else waits for it.
    pub(super) fn tell_end(&mut self, code: i32, clients: Vec<Client>) {
        self.code = code;
        for client in clients {
            if client.is_behind() {
                self.parting.push(Parting { client, code });
            } else if let Some(terminal) = client.terminal {
                terminal.disarm();
            }
        }
        let parting = &self.parting;
        self.peers.retain(|peer| {
            let stays = parting.iter().any(|parting| parting.client.token == peer.token);
            if !stays {
                let _ = peer.channel.send(&Notice::Exited { code }, &[]);
            }
            stays
        });
    }

    /// Serves until the container's first process has ended and been reaped; its code.
    pub(super) fn until_end(&mut self) -> i32 {
        loop {
            if self.turn(None)
                && let Some(run) = &self.run
            {
                match process::reap(run.pidfd.as_fd()) {
                    Ok(Some(code)) => return code,
                    Ok(None) => {}
                    // Somebody else's child by now: it has ended, and nobody knows how.
                    Err(_) => return UNKNOWN_EXIT,
                }
            }
        }
    }

    /// Waits for something to happen, or for `deadline`, and does what it calls for. True when the
    /// container's first process has ended.
    pub(super) fn turn(&mut self, deadline: Option<Instant>) -> bool {
        let mut ended = false;
        for event in self.wait(deadline) {
            match event {
                Event::Ended => ended = true,
                Event::Memory => self.memory_ran_out(),
                Event::Health => self.health(Health::hear),
                Event::HealthDue => self.health(Health::expire),
                Event::Name(token) => {
                    let network = self.run.as_mut().and_then(|run| run.network.as_mut());
                    network.into_iter().for_each(|network| network.handle(token));
                }
                Event::Connection => self.welcome(),
                Event::Peer(token) => self.hear(token),
                Event::Stream(watch) => self.move_bytes(watch),
            }
        }
        self.let_go();
        ended
    }

    /// The end of the shim: the last clients get what is theirs, and whoever comes late is told, too.
    pub(super) fn leave(mut self) {
        let code = self.code;
        self.tell_end(code, Vec::new());
        while !self.parting.is_empty() {
            self.turn(None);
            self.tell_end(code, Vec::new());
        }
        while let Some(listener) = &self.listener
            && let Ok(Some(channel)) = channel::accept(listener.as_fd())
        {
            let _ = channel.send(&Notice::Exited { code }, &[]);
        }
    }

    /// Waits for something to happen, or for `deadline`.
    fn wait(&mut self, deadline: Option<Instant>) -> Vec<Event> {
        let rest = std::mem::take(&mut self.short_of_descriptors);
        let mut watched: Vec<(Watch, BorrowedFd<'_>, PollFlags)> = Vec::new();
        let mut events: Vec<Event> = Vec::new();
        let mut questions = Vec::new();
        let mut set = Vec::new();
        if let Some(run) = &self.run {
            run.streams.watch(&mut watched);
            events.push(Event::Ended);
            set.push(rustix::event::PollFd::new(&run.pidfd, PollFlags::IN));
            if let Some((descriptor, flags)) = run.memory.awaited() {
                events.push(Event::Memory);
                set.push(rustix::event::PollFd::from_borrowed_fd(descriptor, flags));
            }
            if let Some(probe) = run.health.as_ref().and_then(Health::awaited) {
                events.push(Event::Health);
                set.push(rustix::event::PollFd::from_borrowed_fd(probe, PollFlags::IN));
            }
            run.network.iter().for_each(|network| network.watch(&mut questions));
        }
        for parting in &self.parting {
            parting.client.watch(&mut watched);
        }
        if let Some(listener) = self.listener.as_ref().filter(|_| !rest) {
            events.push(Event::Connection);
            set.push(rustix::event::PollFd::new(listener, PollFlags::IN));
        }
        for peer in &self.peers {
            events.push(Event::Peer(peer.token));
            set.push(rustix::event::PollFd::new(&peer.channel, PollFlags::IN));
        }
        // After those who tell that the networks have changed.
        for (token, descriptor, flags) in questions {
            events.push(Event::Name(token));
            set.push(rustix::event::PollFd::from_borrowed_fd(descriptor, flags));
        }
        for (watch, descriptor, flags) in watched {
            events.push(Event::Stream(watch));
            set.push(rustix::event::PollFd::from_borrowed_fd(descriptor, flags));
        }
        let rest = (rest || self.run.as_ref().is_some_and(|run| run.streams.is_resting())).then_some(REST);
        let look = self.run.as_ref().and_then(|run| run.memory.next_look());
        let network = self.run.as_ref().and_then(|run| run.network.as_ref());
        let answer = network.and_then(RunNetwork::next_deadline);
        let check = self.run.as_ref().and_then(|run| run.health.as_ref()).map(Health::deadline);
        let left = deadline.into_iter().chain(look).chain(answer).chain(check).min();
        let left = left.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = rest.into_iter().chain(left).min().and_then(|limit| Timespec::try_from(limit).ok());
        if rustix::event::poll(&mut set, limit.as_ref()).is_err() {
            return Vec::new();
        }
        let ready: Vec<bool> = set.iter().map(|entry| !entry.revents().is_empty()).collect();
        if let Some(run) = &mut self.run {
            run.streams.wake();
            if answer.is_some_and(|answer| answer <= Instant::now()) {
                run.network.iter_mut().for_each(RunNetwork::expire);
            }
        }
        let mut events: Vec<Event> =
            events.into_iter().zip(ready).filter_map(|(event, ready)| ready.then_some(event)).collect();
        if look.is_some_and(|look| look <= Instant::now()) {
            events.push(Event::Memory);
        }
        if check.is_some_and(|check| check <= Instant::now()) {
            events.push(Event::HealthDue);
        }
        events
    }

    fn health(&mut self, act: impl FnOnce(&mut Health, &Engine, &ContainerId)) {
        if let Some(health) = self.run.as_mut().and_then(|run| run.health.as_mut()) {
            act(health, self.engine, &self.id);
        }
    }

    /// Records that the kernel has killed a process of the container, which may go on without it.
    fn memory_ran_out(&mut self) {
        let Some(run) = self.run.as_mut() else { return };
        if !run.memory.look() {
            return;
        }
        let Ok(mut container) = Locked::acquire(self.engine.layout(), &self.id) else { return };
        if container.state.init == run.process {
            self.engine.note(&container.config, Action::Oom);
            container.state.oom_killed = true;
            container.state.oom = run.memory.report(&self.id);
            // What cannot be written now is written at the end.
            let _ = container.save_state();
        }
    }

    fn welcome(&mut self) {
        match self.listener.as_ref().map(|listener| channel::accept(listener.as_fd())) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(channel))) => {
                let token = self.next_token;
                self.peers.push(Peer { token, channel, joining: None });
                self.next_token += 1;
                // Most have spoken already. Names are asked for as soon as a command that changed the
                // networks has returned; what it said goes before that.
                self.hear(token);
            }
            Some(Err(_)) => self.short_of_descriptors = true,
        }
    }

    fn move_bytes(&mut self, watch: Watch) {
        if let Watch::Room(token, stream) = watch
            && let Some(parting) = self.parting.iter_mut().find(|parting| parting.client.token == token)
        {
            return parting.client.flush(stream);
        }
        if let Some(token) = self.run.as_mut().and_then(|run| run.streams.handle(watch)) {
            self.dismiss(token, &Notice::Detached);
        }
    }

    /// Hears a client out.
    fn hear(&mut self, token: u64) {
        let Some(index) = self.peers.iter().position(|peer| peer.token == token) else { return };
        // What a client of an earlier run still says is not meant for this one.
        let parting = self.parting.iter().any(|parting| parting.client.token == token);
        let run = self.run.as_mut().filter(|_| !parting);
        let peer = &self.peers[index];
        match peer.channel.receive::<Request>() {
            Ok(Received::Nothing) => {}
            Ok(Received::Message(Request::Wait { run: waited_for }, _)) => match self.ended {
                // Everybody who is connected is told the end of the present run.
                _ if run.is_some_and(|run| run.process == Some(waited_for)) => {}
                Some((process, code)) if process == waited_for => self.dismiss(token, &Notice::Exited { code }),
                // Somebody waits for an earlier run, which has ended.
                _ => drop(self.peers.remove(index)),
            },
            Ok(Received::Message(Request::WaitNext, _)) => {}
            Ok(Received::Message(Request::LookAgain, _)) => self.look_again = true,
            Ok(Received::Message(Request::NetworksChanged, _)) => {
                if let Some(network) = run.and_then(|run| run.network.as_mut())
                    && let Ok(record) = handle::load(self.engine.layout(), &self.id)
                {
                    network.changed(self.engine, &record.config, &record.state.endpoints);
                }
            }
            Ok(Received::Message(Request::Signal(signal), _)) => {
                if let Some(run) = run {
                    self.engine.note_by_id(&self.id, Action::Kill { signal });
                    let _ = process::send_signal(run.pidfd.as_fd(), signal);
                }
            }
            Ok(Received::Message(Request::Resize(size), _)) => {
                if !parting {
                    self.resize(size);
                }
            }
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
                let peer = &mut self.peers[index];
                peer.joining = Some((Client::new(token, lent), size));
                let _ = peer.channel.send(&Notice::Attached, &[]);
            }
            Ok(Received::Message(Request::Ready, _)) => {
                let Some((client, size)) = self.peers[index].joining.take() else { return };
                let Some(run) = run else {
                    // It came too late for the last run, and too early for the next.
                    if let Some(terminal) = client.terminal {
                        terminal.disarm();
                    }
                    let code = self.code;
                    return self.dismiss(token, &Notice::Exited { code });
                };
                run.streams.clients.push(client);
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
                drop(self.remove_client(token));
            }
        }
    }

    fn resize(&mut self, size: Size) {
        self.size = Some(size);
        if let Some(console) = self.run.as_ref().and_then(|run| run.streams.console()) {
            let _ = tty::set_size(console, size);
        }
    }

    /// Lets go of clients of earlier runs that have all of their output by now, and of those whose
    /// output cannot be written any more.
    fn let_go(&mut self) {
        while let Some(parting) = self.parting.iter().find(|parting| !parting.client.is_behind()) {
            self.dismiss(parting.client.token, &Notice::Exited { code: parting.code });
        }
        while let Some((token, errno)) = self.run.as_ref().and_then(|run| run.streams.failed_client()) {
            self.dismiss(token, &Notice::OutputFailed { errno: errno.raw_os_error() });
        }
    }

    /// Lets a client go, with the reason. An orderly one puts its terminal back itself.
    fn dismiss(&mut self, token: u64, last: &Notice) {
        if let Some(terminal) = self.remove_client(token).and_then(|client| client.terminal) {
            terminal.disarm();
        }
        if let Some(index) = self.peers.iter().position(|peer| peer.token == token) {
            let peer = self.peers.remove(index);
            let _ = peer.channel.send(last, &[]);
        }
    }

    fn remove_client(&mut self, token: u64) -> Option<Client> {
        if let Some(index) = self.parting.iter().position(|parting| parting.client.token == token) {
            return Some(self.parting.remove(index).client);
        }
        self.run.as_mut().and_then(|run| run.streams.remove(token))
    }
}

/// How long new connections wait when descriptors are short, and inputs whose turn it is not.
const REST: Duration = Duration::from_millis(200);
