//! Connections of clients that ask over TCP (RFC 7766): several questions may be on their way at once, answers come in
//! any order. A client that does not read, or asks too much, is not read from; one that is silent is let go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

use super::Token;
use super::forward::{PREFIX, frame};
use super::message::{MAX_MESSAGE, MAX_QUERY};

/// Connections at once; the oldest goes for another one.
const MAX_CLIENTS: usize = 32;
/// Questions of one connection on their way.
const MAX_PENDING: usize = 16;
/// Bytes of answers that a client has not taken yet and is still asked for more questions.
const MAX_UNREAD: usize = 64 * 1024;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes that are read in a turn.
const READ: usize = 4096;

/// All connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Clients(Vec<Connection>);

#[derive(Debug)]
struct Connection {
    token: u64,
    socket: OwnedFd,
    /// What was read and not yet served.
    input: Vec<u8>,
    /// What was not yet written.
    output: Vec<u8>,
    /// Questions that have no answer yet.
    pending: usize,
    /// It has said that it asks no more.
    finished: bool,
    /// When it has been silent for too long.
    deadline: Instant,
}

impl Clients {
    /// Takes a connection from `listener`; false when there is none.
    ///
    /// # Errors
    /// It cannot be taken: descriptors or memory are short.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, token: u64) -> rustix::io::Result<bool> {
        let socket = match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => return Ok(false),
            // It has gone already (accept(2)).
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => return Ok(true),
            Err(error) => return Err(error),
        };
        if self.0.len() >= MAX_CLIENTS {
            self.0.remove(0);
        }
        self.0.push(Connection {
            token,
            socket,
            input: Vec::new(),
            output: Vec::new(),
            pending: 0,
            finished: false,
            deadline: Instant::now() + IDLE,
        });
        Ok(true)
    }

    /// What to wait for.
    pub(super) fn watch<'a>(&'a self, into: &mut Vec<(Token, BorrowedFd<'a>, PollFlags)>) {
        for connection in &self.0 {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, connection.wants_more());
            flags.set(PollFlags::OUT, !connection.output.is_empty());
            into.push((Token::Stream(connection.token), connection.socket.as_fd(), flags));
        }
    }

    /// When the next one has been silent for too long.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().filter(|connection| connection.may_idle_out()).map(|connection| connection.deadline).min()
    }

    /// Lets the silent ones go.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|connection| !(connection.may_idle_out() && connection.deadline <= now));
        self.give_back();
    }

    /// Reads and writes what is possible, after poll(2) has reported the connection.
    pub(super) fn serve(&mut self, token: u64) {
        let Some(connection) = self.find(token) else { return };
        let alive = if connection.wants_more() || !connection.output.is_empty() {
            connection.write() && connection.read()
        } else {
            // Nothing was waited for, so that it is an error.
            false
        };
        if !alive {
            self.0.retain(|connection| connection.token != token);
        }
        self.sweep();
    }

    /// The next message of a connection, to be [settled](Clients::settle).
    pub(super) fn next_message(&mut self, token: u64) -> Option<Vec<u8>> {
        let connection = self.find(token)?;
        if connection.is_full() {
            return None;
        }
        let message = frame(&connection.input)?.to_vec();
        connection.input.drain(..PREFIX + message.len());
        connection.pending += 1;
        connection.deadline = Instant::now() + IDLE;
        Some(message)
    }

    /// Sends the answer to one of its messages, or nothing if there is none.
    pub(super) fn settle(&mut self, token: u64, answer: Option<&[u8]>) {
        let Some(connection) = self.find(token) else { return };
        connection.pending = connection.pending.saturating_sub(1);
        if let Some(answer) = answer.filter(|answer| answer.len() <= MAX_MESSAGE) {
            connection.output.extend_from_slice(&(answer.len() as u16).to_be_bytes());
            connection.output.extend_from_slice(answer);
            connection.deadline = Instant::now() + IDLE;
            if !connection.write() {
                self.0.retain(|connection| connection.token != token);
            }
        }
        self.sweep();
    }

    /// It is there.
    pub(super) fn contains(&self, token: u64) -> bool {
        self.0.iter().any(|connection| connection.token == token)
    }

    fn find(&mut self, token: u64) -> Option<&mut Connection> {
        self.0.iter_mut().find(|connection| connection.token == token)
    }

    /// Lets those go that have all that they came for.
    fn sweep(&mut self) {
        self.0.retain(|connection| {
            let waits = connection.pending > 0 || !connection.output.is_empty();
            waits || !connection.finished || frame(&connection.input).is_some()
        });
        self.give_back();
    }

    /// An idle resolver holds no memory.
    fn give_back(&mut self) {
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }
}

impl Connection {
    /// As much of it is under way as may be.
    fn is_full(&self) -> bool {
        self.pending >= MAX_PENDING || self.output.len() >= MAX_UNREAD
    }

    fn wants_more(&self) -> bool {
        !self.finished && !self.is_full() && self.input.len() <= PREFIX + MAX_QUERY
    }

    /// While questions are on their way it waits for us.
    fn may_idle_out(&self) -> bool {
        self.pending == 0 || !self.output.is_empty()
    }

    /// False when the connection is of no use any more.
    fn read(&mut self) -> bool {
        if !self.wants_more() {
            return true;
        }
        self.input.reserve(READ);
        match recv(&self.socket, spare_capacity(&mut self.input), RecvFlags::empty()) {
            Ok((_, 0)) => self.finished = true,
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return false,
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        // Nobody asks in so many words.
        self.input.first_chunk::<PREFIX>().is_none_or(|&length| usize::from(u16::from_be_bytes(length)) <= MAX_QUERY)
    }

    /// False when the connection is of no use any more.
    fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match send(&self.socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.output.drain(..count);
                    self.deadline = Instant::now() + IDLE;
                }
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
        self.output = Vec::new();
        true
    }
}
