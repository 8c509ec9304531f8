//! Who reaches whom: servers and clients on threads that have entered a network namespace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::host::Namespace;
use super::patience;

/// How long a packet that must not arrive is waited for. All of a table wait at the same time.
const SILENCE: Duration = Duration::from_millis(600);

/// A transport that clients and servers here speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// The two of them.
pub const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// A server that tells each client its name and the address that it sees the client under, until it is dropped.
pub struct Server {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// On a TCP and a UDP port of the same number, of all addresses of both families.
    #[track_caller]
    pub fn on(namespace: &Namespace, name: &str, port: u16) -> Server {
        let any = |ipv6: bool| -> IpAddr { if ipv6 { [0u16; 8].into() } else { [0u8; 4].into() } };
        // A namespace may have IPv6 turned off; [::] takes IPv4 as well where it is on.
        let address = if namespace.run(|| TcpListener::bind((any(true), 0)).is_ok()) { any(true) } else { any(false) };
        Server::at(namespace, name, SocketAddr::new(address, port))
    }

    /// On one address.
    #[track_caller]
    pub fn at(namespace: &Namespace, name: &str, address: SocketAddr) -> Server {
        let (reader, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (ready, is_ready) = mpsc::channel();
        let (namespace, name) = (namespace.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            namespace.enter();
            let tcp = TcpListener::bind(address).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
            let address = tcp.local_addr().unwrap();
            let udp = UdpSocket::bind(address).unwrap_or_else(|error| panic!("listen on {address}/udp: {error}"));
            ready.send(()).unwrap();
            serve(&name, &tcp, &udp, &reader);
        });
        is_ready.recv().expect("the server listens");
        Server { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(name: &str, tcp: &TcpListener, udp: &UdpSocket, stop: &OwnedFd) {
    let answer = |peer: SocketAddr| format!("{name} {}", peer.ip().to_canonical());
    loop {
        let mut events =
            [PollFd::new(tcp, PollFlags::IN), PollFd::new(udp, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        poll(&mut events, None).unwrap();
        let ready = events.each_ref().map(|event| !event.revents().is_empty());
        if ready[2] {
            return;
        }
        if ready[0]
            && let Ok((mut stream, peer)) = tcp.accept()
        {
            let _ = stream.write_all(answer(peer).as_bytes());
        }
        if ready[1]
            && let Ok((_, peer)) = udp.recv_from(&mut [0; 64])
        {
            let _ = udp.send_to(answer(peer).as_bytes(), peer);
        }
    }
}

/// What the [`Server`] at `to` answers to a client in `namespace`; `None` when nothing comes within `limit`.
pub fn ask(namespace: &Namespace, transport: Transport, to: SocketAddr, limit: Duration) -> Option<String> {
    namespace.run(|| match transport {
        Transport::Tcp => {
            let mut stream = TcpStream::connect_timeout(&to, limit).ok()?;
            stream.set_read_timeout(Some(limit)).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            (!answer.is_empty()).then_some(answer)
        }
        Transport::Udp => {
            let any: IpAddr = if to.is_ipv6() { [0u16; 8].into() } else { [0u8; 4].into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            // Not connected: an answer that comes from another address is none.
            let deadline = Instant::now() + limit;
            let mut buffer = [0; 128];
            while let left = deadline.saturating_duration_since(Instant::now())
                && !left.is_zero()
            {
                // Datagrams may be lost; asking again is a client's business.
                socket.send_to(b"who?", to).ok()?;
                socket.set_read_timeout(Some(left.min(Duration::from_millis(250)))).unwrap();
                if let Ok((count, from)) = socket.recv_from(&mut buffer) {
                    assert_eq!(from, to, "an answer from somebody else");
                    return Some(String::from_utf8_lossy(&buffer[..count]).into_owned());
                }
            }
            None
        }
    })
}

/// Whether `ping` has an answer.
fn ping(namespace: &Namespace, to: IpAddr, limit: Duration) -> bool {
    let seconds = limit.as_secs().max(1).to_string();
    let applet = if to.is_ipv6() { "ping6" } else { "ping" };
    namespace.command(&["/bin/busybox", applet, "-c", "1", "-W", &seconds, &to.to_string()]).code == 0
}

enum Expected {
    /// The answer, as `name address`.
    Answer(String),
    Silence,
    Pong,
    NoPong,
}

/// A table of who must reach whom, and who must not; all of it is tried at the same time.
#[derive(Default)]
pub struct Matrix {
    rows: BTreeMap<String, (Namespace, Vec<Transport>, SocketAddr, Expected)>,
}

impl Matrix {
    /// By TCP and UDP, `from` reaches the server `name`, which sees the client as `seen`.
    pub fn reaches(&mut self, what: &str, from: &Namespace, to: (IpAddr, u16), name: &str, seen: IpAddr) {
        self.add(what, from, &BOTH, to, Expected::Answer(format!("{name} {seen}")));
    }

    /// The same by one transport.
    pub fn reaches_by(
        &mut self,
        transport: Transport,
        what: &str,
        from: &Namespace,
        to: (IpAddr, u16),
        (name, seen): (&str, IpAddr),
    ) {
        self.add(what, from, &[transport], to, Expected::Answer(format!("{name} {seen}")));
    }

    /// Neither by TCP nor by UDP does `from` reach anything there.
    pub fn blocked(&mut self, what: &str, from: &Namespace, to: (IpAddr, u16)) {
        self.add(what, from, &BOTH, to, Expected::Silence);
    }

    /// Pings are answered.
    pub fn pings(&mut self, what: &str, from: &Namespace, to: IpAddr) {
        self.add(&format!("{what}, ping"), from, &[], (to, 0), Expected::Pong);
    }

    /// Pings are not answered.
    pub fn pings_not(&mut self, what: &str, from: &Namespace, to: IpAddr) {
        self.add(&format!("{what}, ping"), from, &[], (to, 0), Expected::NoPong);
    }

    fn add(&mut self, what: &str, from: &Namespace, how: &[Transport], to: (IpAddr, u16), expected: Expected) {
        let row = (from.clone(), how.to_vec(), SocketAddr::from(to), expected);
        assert!(self.rows.insert(what.to_owned(), row).is_none(), "{what} is there twice");
    }

    /// Tries everything; says what is not as it must be.
    #[track_caller]
    pub fn check(self) {
        let wrong: Vec<String> = std::thread::scope(|scope| {
            let tries: Vec<_> = self.rows.iter().map(|(what, row)| scope.spawn(move || attempt(what, row))).collect();
            tries.into_iter().flat_map(|attempt| attempt.join().unwrap()).collect()
        });
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}

fn attempt(
    what: &str,
    (from, transports, to, expected): &(Namespace, Vec<Transport>, SocketAddr, Expected),
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut note = |how: &str, found: &str| {
        let mut text = String::new();
        write!(text, "{what} ({how} to {to}): {found}").unwrap();
        wrong.push(text);
    };
    match expected {
        Expected::Pong if !ping(from, to.ip(), patience()) => note("icmp", "no answer"),
        Expected::NoPong if ping(from, to.ip(), Duration::from_secs(1)) => note("icmp", "answered"),
        Expected::Pong | Expected::NoPong => {}
        Expected::Answer(answer) => {
            for transport in transports {
                let found = ask(from, *transport, *to, patience());
                if found.as_ref() != Some(answer) {
                    note(&format!("{transport:?}"), &format!("{found:?} instead of {answer:?}"));
                }
            }
        }
        Expected::Silence => {
            for transport in transports {
                if let Some(answer) = ask(from, *transport, *to, SILENCE) {
                    note(&format!("{transport:?}"), &format!("answered {answer:?}"));
                }
            }
        }
    }
    wrong
}
