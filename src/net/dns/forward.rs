//! Queries that are passed on: one socket of its own for each, so that the kernel picks a port that nobody can guess
//! and drops what comes from elsewhere (RFC 5452).
//!
//! ```text
//! begin ──▶ ask the next server ──▶ answer              ──▶ to the client
//!                 ▲                 SERVFAIL, REFUSED   ──▶ not asked again ─┐
//!                 │                 refused, unreachable                     │
//!                 │                 no answer in time                        │
//!                 └──────────────────────────────────────────────────────────┘
//!                                   nobody left         ──▶ SERVFAIL to the client
//! ```
//!
//! The sockets are the calling process's: the host's own resolver on 127.0.0.53 is reachable.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with};

use super::message::{self, MAX_MESSAGE, Question, Transport, Verdict};
use super::upstream::Servers;
use crate::sys::random;

/// Bytes of the length in front of a message over TCP (RFC 1035, 4.2.2).
pub(super) const PREFIX: usize = 2;
/// Bytes of a connection that are read in a turn, at least.
const READ_AHEAD: usize = 4096;
/// Datagrams that are looked at in a turn while the right one has not come.
const BATCH: usize = 16;

/// Who has asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// By a datagram from here.
    Datagram(SocketAddrV4),
    /// Over the connection with this token.
    Stream(u64),
}

impl Client {
    pub(super) fn transport(self) -> Transport {
        match self {
            Client::Datagram(_) => Transport::Datagram,
            Client::Stream(_) => Transport::Stream,
        }
    }
}

/// A query on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) token: u64,
    pub(super) client: Client,
    pub(super) question: Question,
    /// When the server that is asked has had its time.
    pub(super) deadline: Instant,
    /// The client's id; the message has one of ours.
    id: [u8; 2],
    message: Vec<u8>,
    servers: Arc<Servers>,
    /// Index of the server to begin with.
    first: usize,
    /// Servers that were asked so far, again and again.
    turn: usize,
    /// Servers that are not asked any more, one bit each.
    dismissed: u64,
    exchange: Option<Exchange>,
}

/// A conversation with one server.
#[derive(Debug)]
struct Exchange {
    socket: OwnedFd,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// A datagram was sent.
    Datagram,
    /// So many bytes were written to a connection, which may not be there yet.
    Writing(usize),
    /// This was read.
    Reading(Vec<u8>),
}

/// What has become of a flight.
pub(super) enum Progress {
    /// It goes on.
    Waiting,
    /// The message for the client.
    Answer(Vec<u8>),
    /// All servers were asked.
    Failed,
}

impl Flight {
    /// A flight that has not begun: [`Flight::ask_next`] begins it. `dismissed` are servers not to be asked, one bit
    /// each; `first` says where to begin when they take turns.
    pub(super) fn new(
        token: u64,
        client: Client,
        message: &[u8],
        question: Question,
        servers: Arc<Servers>,
        dismissed: u64,
        first: usize,
    ) -> Self {
        let first = if servers.rotate { first } else { 0 };
        Flight {
            token,
            client,
            question,
            deadline: Instant::now(),
            id: [message[0], message[1]],
            message: message.to_vec(),
            servers,
            first,
            turn: 0,
            dismissed,
            exchange: None,
        }
    }

    /// The same client repeats itself: it has lost its patience before us.
    pub(super) fn is_repeated_by(&self, client: Client, message: &[u8]) -> bool {
        self.client == client && self.id == message[..2] && self.message[2..] == message[2..]
    }

    /// Asks the next server.
    pub(super) fn ask_next(&mut self) -> Progress {
        let count = self.servers.addresses.len();
        self.exchange = None;
        while self.turn < count.saturating_mul(self.servers.attempts as usize) {
            let index = self.first.wrapping_add(self.turn) % count;
            self.turn += 1;
            if self.dismissed & server_bit(index) != 0 {
                continue;
            }
            // An answer to the last one, come late, is none to this one.
            let mut id = [0; 2];
            if random::fill(&mut id).is_err() {
                return Progress::Failed;
            }
            self.message[..2].copy_from_slice(&id);
            let opened = Exchange::open(self.servers.addresses[index], self.client.transport(), &self.message);
            if let Ok(exchange) = opened {
                self.exchange = Some(exchange);
                self.deadline = Instant::now() + self.servers.timeout;
                return Progress::Waiting;
            }
        }
        Progress::Failed
    }

    /// Asks nobody any more: its time is over.
    pub(super) fn give_up(&mut self) {
        self.exchange = None;
        self.turn = usize::MAX;
        self.deadline = Instant::now();
    }

    /// What to wait for.
    pub(super) fn awaited(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let exchange = self.exchange.as_ref()?;
        let flags = match exchange.stage {
            Stage::Datagram | Stage::Reading(_) => PollFlags::IN,
            Stage::Writing(_) => PollFlags::OUT,
        };
        Some((exchange.socket.as_fd(), flags))
    }

    /// Goes on where the server has something to say, or room.
    pub(super) fn hear(&mut self) -> Progress {
        let Some(exchange) = &mut self.exchange else { return Progress::Waiting };
        let end = self.question.end;
        match exchange.hear(&self.message, end) {
            Ok(None) => Progress::Waiting,
            Ok(Some(mut answer)) if message::judge(&self.message, end, &answer) == Verdict::Answer => {
                message::readdress(&mut answer, &self.message, end, self.id);
                Progress::Answer(answer)
            }
            Ok(Some(_)) => {
                let count = self.servers.addresses.len();
                self.dismissed |= server_bit(self.first.wrapping_add(self.turn - 1) % count);
                self.ask_next()
            }
            Err(_) => self.ask_next(),
        }
    }
}

/// A server's place in a set.
pub(super) fn server_bit(index: usize) -> u64 {
    1u64.checked_shl(index as u32).unwrap_or(0)
}

impl Exchange {
    fn open(server: SocketAddr, transport: Transport, message: &[u8]) -> io::Result<Exchange> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (kind, stage) = match transport {
            Transport::Datagram => (SocketType::DGRAM, Stage::Datagram),
            Transport::Stream => (SocketType::STREAM, Stage::Writing(0)),
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        match connect(&socket, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        if transport == Transport::Datagram {
            send(&socket, message, SendFlags::NOSIGNAL)?;
        }
        Ok(Exchange { socket, stage })
    }

    /// A message of the server that has to do with the query.
    fn hear(&mut self, query: &[u8], end: usize) -> io::Result<Option<Vec<u8>>> {
        match &mut self.stage {
            Stage::Datagram => {
                // Only the pages that are written to become memory.
                let mut answer = Vec::with_capacity(MAX_MESSAGE);
                for _ in 0..BATCH {
                    answer.clear();
                    match recv(&self.socket, spare_capacity(&mut answer), RecvFlags::empty()) {
                        Ok(_) if message::judge(query, end, &answer) != Verdict::Foreign => {
                            answer.shrink_to_fit();
                            return Ok(Some(answer));
                        }
                        Ok(_) => {}
                        Err(Errno::AGAIN | Errno::INTR) => break,
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(None)
            }
            Stage::Writing(written) => {
                let length = (query.len() as u16).to_be_bytes();
                let framed = [&length[..], query].concat();
                match send(&self.socket, &framed[*written..], SendFlags::NOSIGNAL) {
                    Ok(count) => *written += count,
                    Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
                if *written == framed.len() {
                    self.stage = Stage::Reading(Vec::new());
                }
                Ok(None)
            }
            Stage::Reading(read) => {
                read.reserve(READ_AHEAD);
                match recv(&self.socket, spare_capacity(read), RecvFlags::empty()) {
                    Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {}
                    Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
                let Some(frame) = frame(read) else { return Ok(None) };
                match message::judge(query, end, frame) {
                    Verdict::Foreign => Err(io::ErrorKind::InvalidData.into()),
                    _ => Ok(Some(frame.to_vec())),
                }
            }
        }
    }
}

/// The first message of what was read from a connection, once it is whole.
pub(super) fn frame(read: &[u8]) -> Option<&[u8]> {
    let (length, rest) = read.split_first_chunk::<PREFIX>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}
