//! The resolver that a container finds on 127.0.0.11: names of containers from the networks' own records ([`Zone`]),
//! everything else from the host's servers.
//!
//! ```text
//! sockets    the sockets inside the container's network namespace
//! steering   the eBPF program that leads port 53 to them
//! message    queries read, answers built
//! clients    connections of clients that ask over TCP
//! forward    queries on their way to a server and back
//! upstream   which servers those are
//! ```
//!
//! It has no thread and no loop of its own: whoever holds a [`Resolver`] waits for its descriptors with poll(2) and
//! lets it do what is to be done. It never blocks. While nobody asks it holds no buffers and wakes nobody up.
//!
//! What it is asked comes from programs that nobody trusts, and so does what servers answer: everything is bounded
//! (messages, connections, queries on their way, time), and what cannot be read is answered with FORMERR or not at all.

mod clients;
mod forward;
mod message;
mod sockets;
mod steering;
mod upstream;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustix::event::PollFlags;
use rustix::io::Errno;

use clients::Clients;
use forward::{Client, Flight, Progress, server_bit};
use message::{Arrival, MAX_QUERY, Question};
pub use sockets::Sockets;
use upstream::Source;
pub use upstream::{HOST_FILE, Servers, Upstream};

/// Where containers find their resolver; Docker's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The port of DNS.
pub const PORT: u16 = 53;

/// Queries on their way at once; the oldest fails for another one.
const MAX_FLIGHTS: usize = 256;
/// Datagrams, or connections, that are taken in a turn before others have theirs.
const BATCH: usize = 32;
/// How long connections wait when descriptors are short.
const REST: Duration = Duration::from_millis(200);
/// Places that remember which address came first.
const ROTATIONS: usize = 16;

/// The networks' own records.
pub trait Zone {
    /// The addresses of a name (lower case, no final dot) of both families, in any order that stays the same. `None`
    /// when the name is none of ours; an empty list when it is, and has no address.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The name that goes with an address, `None` when it is none of ours.
    fn name_of(&self, address: IpAddr) -> Option<String>;
}

/// How a resolver does its work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom to ask for names that are not ours.
    pub upstream: Upstream,
    /// Ask anybody at all. A container on internal networks only may not reach the outside by way of our queries
    /// (CVE-2024-29018): its questions for other names fail, as with Docker (SERVFAIL).
    pub forwarding: bool,
}

/// What a descriptor of a resolver is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Datagrams of clients.
    Datagrams,
    /// New connections of clients.
    Connections,
    /// A connection of a client.
    Stream(u64),
    /// A conversation with a server.
    Flight(u64),
}

/// A resolver at work.
#[derive(Debug)]
pub struct Resolver {
    sockets: Sockets,
    source: Source,
    forwarding: bool,
    clients: Clients,
    /// The oldest first.
    flights: Vec<Flight>,
    next_token: u64,
    /// Counts answers with several addresses, by name; names that share a place are in each other's way a little.
    rotations: [u8; ROTATIONS],
    /// Descriptors were short: no new connections until then.
    rests_until: Option<Instant>,
}

impl Resolver {
    /// A resolver on these sockets. The calling process's own network namespace is where servers are asked from.
    pub fn new(sockets: Sockets, settings: Settings) -> Self {
        Resolver {
            sockets,
            source: Source::new(settings.upstream),
            forwarding: settings.forwarding,
            clients: Clients::default(),
            flights: Vec::new(),
            next_token: 0,
            rotations: [0; ROTATIONS],
            rests_until: None,
        }
    }

    /// Its sockets.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// As [`Settings::forwarding`], after the container was connected to a network or disconnected from one. Queries
    /// on their way are given up.
    pub fn set_forwarding(&mut self, forwarding: bool) {
        self.forwarding = forwarding;
        if !forwarding {
            self.flights.iter_mut().for_each(Flight::give_up);
        }
    }

    /// What to wait for with poll(2). Errors and hang-ups are to be reported to [`Resolver::handle`], too.
    pub fn watch<'a>(&'a self, into: &mut Vec<(Token, BorrowedFd<'a>, PollFlags)>) {
        into.push((Token::Datagrams, self.sockets.udp(), PollFlags::IN));
        if self.rests_until.is_none() {
            into.push((Token::Connections, self.sockets.tcp(), PollFlags::IN));
        }
        self.clients.watch(into);
        for flight in &self.flights {
            if let Some((descriptor, flags)) = flight.awaited() {
                into.push((Token::Flight(flight.token), descriptor, flags));
            }
        }
    }

    /// Does what a ready descriptor calls for. A token that has gone in the meantime is ignored.
    pub fn handle(&mut self, token: Token, zone: &dyn Zone) {
        match token {
            Token::Datagrams => self.take_datagrams(zone),
            Token::Connections => self.take_connections(),
            Token::Stream(token) => {
                self.clients.serve(token);
                self.serve_stream(token, zone);
            }
            Token::Flight(token) => self.hear_server(token, zone),
        }
    }

    /// When [`Resolver::expire`] has something to do; `None` while nobody asks anything.
    pub fn next_deadline(&self) -> Option<Instant> {
        let flights = self.flights.iter().map(|flight| flight.deadline);
        flights.chain(self.clients.next_deadline()).chain(self.rests_until).min()
    }

    /// Goes on where a server has not answered in time, and lets silent clients go.
    pub fn expire(&mut self, now: Instant, zone: &dyn Zone) {
        self.rests_until = self.rests_until.filter(|until| *until > now);
        self.clients.expire(now);
        self.forget_streams();
        let late: Vec<u64> =
            self.flights.iter().filter(|flight| flight.deadline <= now).map(|flight| flight.token).collect();
        for token in late {
            self.go_on(token, zone, Flight::ask_next);
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn take_datagrams(&mut self, zone: &dyn Zone) {
        // One byte more than is taken, to see what is too long.
        let mut bytes = Vec::with_capacity(MAX_QUERY + 1);
        for _ in 0..BATCH {
            match self.sockets.receive(&mut bytes) {
                Ok(from) => self.receive(Client::Datagram(from), &bytes, zone),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // An error that was left by an answer (udp(7)): it says nothing of the next query.
                Err(_) => {}
            }
        }
    }

    fn take_connections(&mut self) {
        for _ in 0..BATCH {
            let token = self.token();
            match self.clients.accept(self.sockets.tcp(), token) {
                Ok(true) => {}
                Ok(false) => break,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.rests_until = Some(Instant::now() + REST);
                    break;
                }
                // One of the errors of the network that accept(2) passes on.
                Err(_) => {}
            }
        }
        self.forget_streams();
    }

    /// Answers what a client has asked over its connection, as far as its turn goes.
    fn serve_stream(&mut self, token: u64, zone: &dyn Zone) {
        while let Some(message) = self.clients.next_message(token) {
            self.receive(Client::Stream(token), &message, zone);
        }
        self.forget_streams();
    }

    /// Queries of clients that have gone go, too.
    fn forget_streams(&mut self) {
        let clients = &self.clients;
        self.flights.retain(|flight| match flight.client {
            Client::Datagram(_) => true,
            Client::Stream(token) => clients.contains(token),
        });
        self.give_back();
    }

    /// An idle resolver holds no memory.
    fn give_back(&mut self) {
        if self.flights.is_empty() {
            self.flights = Vec::new();
        }
    }

    /// Answers a message of a client, or passes it on.
    fn receive(&mut self, client: Client, bytes: &[u8], zone: &dyn Zone) {
        let question = match message::read(bytes) {
            Arrival::Noise => return self.deliver(client, None),
            Arrival::Refused(answer) => return self.deliver(client, Some(&answer)),
            Arrival::Asked(question) => question,
        };
        match self.own_answer(client, &question, zone) {
            Some(answer) => self.deliver(client, Some(&answer)),
            None => self.forward(client, bytes, question),
        }
    }

    /// The answer from the networks' records, if the question is about them.
    fn own_answer(&mut self, client: Client, question: &Question, zone: &dyn Zone) -> Option<Vec<u8>> {
        if !question.is_internet() {
            return None;
        }
        let limit = question.limit(client.transport());
        if let Some(address) = question.address() {
            return question.pointer(&zone.name_of(address)?, limit);
        }
        let name = question.name()?;
        let mut addresses = zone.addresses(&name)?;
        let families = question.families();
        addresses.retain(|address| if address.is_ipv4() { families.ipv4 } else { families.ipv6 });
        if addresses.len() > 1 {
            let first = self.rotate(&(&name, families.ipv4, families.ipv6)) % addresses.len();
            addresses.rotate_left(first);
        }
        Some(question.addresses(&addresses, limit))
    }

    /// How often the same was asked before, modulo 256.
    fn rotate(&mut self, what: &impl Hash) -> usize {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let count = &mut self.rotations[hasher.finish() as usize % ROTATIONS];
        *count = count.wrapping_add(1);
        usize::from(*count)
    }

    /// Passes a query on.
    fn forward(&mut self, client: Client, bytes: &[u8], question: Question) {
        if !self.forwarding {
            return self.deliver(client, Some(&question.failure(ResponseCode::ServFail)));
        }
        if self.flights.iter().any(|flight| flight.is_repeated_by(client, bytes)) {
            // It is on its way already, and gets its answer once.
            return self.deliver(client, None);
        }
        let servers = self.source.servers();
        let own = servers.addresses.iter().enumerate().filter(|(_, server)| self.sockets.is_own(**server));
        let own = own.fold((0, 0), |(count, bits), (index, _)| (count + 1, bits | server_bit(index)));
        if own.0 == servers.addresses.len() {
            // It would come back to us.
            return self.deliver(client, Some(&question.failure(ResponseCode::Refused)));
        }
        let token = self.token();
        let mut flight = Flight::new(token, client, bytes, question, servers, own.1, token as usize);
        match flight.ask_next() {
            Progress::Waiting => {
                if self.flights.len() >= MAX_FLIGHTS {
                    let oldest = self.flights.remove(0);
                    self.fail(&oldest);
                }
                self.flights.push(flight);
            }
            Progress::Answer(_) | Progress::Failed => self.fail(&flight),
        }
    }

    fn hear_server(&mut self, token: u64, zone: &dyn Zone) {
        self.go_on(token, zone, Flight::hear);
    }

    /// Takes a query a step further.
    fn go_on(&mut self, token: u64, zone: &dyn Zone, step: impl FnOnce(&mut Flight) -> Progress) {
        let Some(place) = self.flights.iter().position(|flight| flight.token == token) else { return };
        let progress = step(&mut self.flights[place]);
        if matches!(progress, Progress::Waiting) {
            return;
        }
        let flight = self.flights.remove(place);
        self.give_back();
        match progress {
            Progress::Answer(answer) if answer.len() <= flight.question.limit(flight.client.transport()) => {
                self.deliver(flight.client, Some(&answer));
            }
            // More than the client said it takes.
            Progress::Answer(_) => self.deliver(flight.client, Some(&flight.question.truncated())),
            Progress::Failed | Progress::Waiting => self.fail(&flight),
        }
        if let Client::Stream(token) = flight.client {
            self.serve_stream(token, zone);
        }
    }

    fn fail(&mut self, flight: &Flight) {
        self.deliver(flight.client, Some(&flight.question.failure(ResponseCode::ServFail)));
    }

    /// Sends an answer, or notes that there is none.
    fn deliver(&mut self, client: Client, answer: Option<&[u8]>) {
        let answer = answer.filter(|answer| !answer.is_empty());
        match (client, answer) {
            (Client::Datagram(to), Some(answer)) => self.sockets.send(to, answer),
            (Client::Datagram(_), None) => {}
            (Client::Stream(token), answer) => self.clients.settle(token, answer),
        }
    }
}

#[cfg(test)]
mod tests;
