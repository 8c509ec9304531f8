//! A resolver at work: two private network namespaces, the host's with servers on loopback addresses, and the
//! container's with the resolver's sockets and its clients.

mod forwarding;
mod messages;
mod names;
mod sockets;
mod storms;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::*;

/// The client's patience: much longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Records as a table.
#[derive(Default, Clone)]
struct Table(HashMap<String, Vec<IpAddr>>);

impl Table {
    fn with(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.insert(name.to_owned(), addresses);
        self
    }
}

impl Zone for Table {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.0.get(name).cloned()
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.0.iter().find(|(_, addresses)| addresses.contains(&address)).map(|(name, _)| format!("{name}.n1"))
    }
}

/// A web server and two replicas, as most tests know them.
fn table() -> Table {
    Table::default()
        .with("web", &["172.20.0.2", "fd00:20::2"])
        .with("four", &["172.20.0.3"])
        .with("replicas", &["172.20.0.10", "172.20.0.11", "172.20.0.12"])
        .with("nothing", &[])
}

/// Makes a network namespace with loopback up; the thread stays where it was.
fn new_namespace() -> OwnedFd {
    thread::spawn(|| {
        enter_new_namespace();
        current_namespace()
    })
    .join()
    .unwrap()
}

/// Moves the calling thread into a new network namespace, with loopback down.
#[allow(deprecated)] // Its successor is unsafe for the sake of flags that are not used here.
fn leave_namespace() {
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
}

fn enter_new_namespace() {
    leave_namespace();
    crate::sys::network::loopback_up().unwrap();
}

fn current_namespace() -> OwnedFd {
    rustix::fs::openat(CWD, "/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn enter(namespace: BorrowedFd<'_>) {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).unwrap();
}

/// Which sockets a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Steered,
    Direct,
}

const BOTH: [Kind; 2] = [Kind::Steered, Kind::Direct];

impl Kind {
    fn open(self) -> Sockets {
        match self {
            Kind::Steered => Sockets::open_steered().unwrap(),
            Kind::Direct => Sockets::open_direct("a test".into()).unwrap(),
        }
    }
}

type Order = Box<dyn FnOnce(&mut Resolver) + Send>;

/// A resolver in its loop, and its two namespaces. The test's own thread is in the container's.
struct Bed {
    host: Arc<OwnedFd>,
    orders: Option<Sender<Order>>,
    bell: UnixStream,
    shim: Option<JoinHandle<()>>,
}

impl Bed {
    fn new(zone: impl Zone + Send + 'static) -> Bed {
        Bed::with(Kind::Steered, zone)
    }

    /// Without servers, until [`Bed::ask`] names some.
    fn with(kind: Kind, zone: impl Zone + Send + 'static) -> Bed {
        let host = Arc::new(new_namespace());
        enter_new_namespace();
        let sockets = kind.open();
        let (orders, queue) = channel::<Order>();
        let (bell, ring) = UnixStream::pair().unwrap();
        ring.set_nonblocking(true).unwrap();
        let namespace = Arc::clone(&host);
        let shim = thread::spawn(move || {
            enter(namespace.as_fd());
            let settings = Settings { upstream: Upstream::Servers(Servers::default()), forwarding: false };
            run(Resolver::new(sockets, settings), &zone, &queue, &ring);
        });
        Bed { host, orders: Some(orders), bell, shim: Some(shim) }
    }

    /// Does something to the resolver between two turns of its loop.
    fn order<T: Send + 'static>(&self, order: impl FnOnce(&mut Resolver) -> T + Send + 'static) -> T {
        let (done, wait) = channel();
        let order = Box::new(move |resolver: &mut Resolver| drop(done.send(order(resolver))));
        self.orders.as_ref().unwrap().send(order).unwrap();
        (&self.bell).write_all(&[1]).unwrap();
        wait.recv_timeout(PATIENCE).unwrap()
    }

    /// These servers are to be asked, with this patience.
    fn ask(&self, addresses: &[SocketAddr], timeout: Duration) {
        let servers = Servers { addresses: addresses.to_vec(), timeout, ..Servers::default() };
        self.upstream(Upstream::Servers(servers));
    }

    fn upstream(&self, upstream: Upstream) {
        self.order(|resolver| {
            resolver.source = Source::new(upstream);
            resolver.set_forwarding(true);
        });
    }

    /// Waits until the resolver is in this state, looking after each turn of its loop.
    fn until(&self, what: fn(&Resolver) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.order(move |resolver| what(resolver)) {
            assert!(Instant::now() < deadline, "the resolver did not come to the state that was waited for");
            thread::yield_now();
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.orders = None;
        let _ = (&self.bell).write_all(&[0]);
        let result = self.shim.take().unwrap().join();
        assert!(thread::panicking() || result.is_ok(), "the resolver panicked");
    }
}

/// As the shim does it.
fn run(mut resolver: Resolver, zone: &dyn Zone, queue: &Receiver<Order>, ring: &UnixStream) {
    loop {
        let mut watched = Vec::new();
        resolver.watch(&mut watched);
        let mut set: Vec<PollFd<'_>> = vec![PollFd::new(ring, PollFlags::IN)];
        set.extend(watched.iter().map(|(_, descriptor, flags)| PollFd::from_borrowed_fd(*descriptor, *flags)));
        let left = resolver.next_deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left).unwrap());
        rustix::event::poll(&mut set, left.as_ref()).unwrap();
        let rung = !set[0].revents().is_empty();
        let ready: Vec<Token> = watched
            .iter()
            .zip(&set[1..])
            .filter(|(_, entry)| !entry.revents().is_empty())
            .map(|((token, ..), _)| *token)
            .collect();
        for token in ready {
            resolver.handle(token, zone);
        }
        resolver.expire(Instant::now(), zone);
        if rung {
            let mut ring = ring;
            let _ = ring.read(&mut [0; 64]);
            loop {
                match queue.try_recv() {
                    Ok(order) => order(&mut resolver),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
        }
    }
}

/// A question that a server was asked.
struct Asked {
    message: Vec<u8>,
    over_tcp: bool,
}

/// A server on the host, on threads that end with the test's process at the latest.
struct Server {
    address: SocketAddr,
    asked: Receiver<Asked>,
}

impl Server {
    /// Begins to serve on a port of this loopback address of the bed's host.
    fn start(bed: &Bed, address: &str, mut manner: impl FnMut(&Asked) -> Vec<Vec<u8>> + Send + 'static) -> Server {
        let host = Arc::clone(&bed.host);
        let address: IpAddr = address.parse().unwrap();
        let (log, asked) = channel();
        let (bound, ready) = channel();
        thread::spawn(move || {
            enter(host.as_fd());
            let tcp = TcpListener::bind((address, 0)).unwrap();
            let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
            bound.send(tcp.local_addr().unwrap()).unwrap();
            let mut silent = Vec::new();
            let mut set = [PollFd::new(&udp, PollFlags::IN), PollFd::new(&tcp, PollFlags::IN)];
            loop {
                rustix::event::poll(&mut set, None).unwrap();
                if !set[0].revents().is_empty() {
                    let mut bytes = vec![0; 65535];
                    let Ok((length, from)) = udp.recv_from(&mut bytes) else { continue };
                    let asked = Asked { message: bytes[..length].to_vec(), over_tcp: false };
                    let answers = manner(&asked);
                    // First, so that whoever has the answer finds the question here.
                    if log.send(asked).is_err() {
                        return;
                    }
                    for answer in answers {
                        let _ = udp.send_to(&answer, from);
                    }
                }
                if !set[1].revents().is_empty() {
                    let (mut stream, _) = tcp.accept().unwrap();
                    let Some(message) = read_framed(&mut stream) else { continue };
                    let asked = Asked { message, over_tcp: true };
                    let answers = manner(&asked);
                    if log.send(asked).is_err() {
                        return;
                    }
                    for answer in &answers {
                        write_framed(&mut stream, answer);
                    }
                    if answers.is_empty() {
                        // Silence is not a closed connection.
                        silent.push(stream);
                    }
                }
            }
        });
        Server { address: ready.recv_timeout(PATIENCE).unwrap(), asked }
    }

    /// Waits for the next question.
    fn next(&self) -> Asked {
        self.asked.recv_timeout(PATIENCE).unwrap()
    }

    fn count(&self) -> usize {
        self.asked.try_iter().count()
    }
}

fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

fn write_framed(stream: &mut TcpStream, message: &[u8]) {
    let _ = stream.write_all(&[&(message.len() as u16).to_be_bytes()[..], message].concat());
}

/// A query as clients send it, with the recursion-desired bit.
fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The same with an OPT record.
fn query_with_edns(id: u16, name: &str, kind: u16, payload: u16) -> Vec<u8> {
    let mut bytes = query(id, name, kind);
    bytes[11] = 1;
    bytes.extend([0, 0, 41]);
    bytes.extend(payload.to_be_bytes());
    bytes.extend([0; 6]);
    bytes
}

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_TXT: u16 = 16;
const TYPE_AAAA: u16 = 28;

/// An answer to `query` with this response code and one address.
fn answer(query: &[u8], code: u8, address: [u8; 4]) -> Vec<u8> {
    let mut end = 12;
    while query[end] != 0 {
        end += 1 + usize::from(query[end]);
    }
    let mut bytes = query[..end + 5].to_vec();
    bytes[2] |= 0x80;
    bytes[3] = 0x80 | code;
    bytes[6..12].copy_from_slice(&[0; 6]);
    if code == 0 {
        bytes[7] = 1;
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend(address);
    }
    bytes
}

/// Says the same address to everybody who asks.
fn says(address: [u8; 4]) -> impl FnMut(&Asked) -> Vec<Vec<u8>> + Send + 'static {
    move |asked| vec![answer(&asked.message, 0, address)]
}

/// Says this code.
fn fails(code: u8) -> impl FnMut(&Asked) -> Vec<Vec<u8>> + Send + 'static {
    move |asked| vec![answer(&asked.message, code, [0; 4])]
}

/// A client's socket, connected as that of most programs.
fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect((ADDRESS, PORT)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn tcp_client() -> TcpStream {
    let stream = TcpStream::connect((ADDRESS, PORT)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 65535];
    let length = socket.recv(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

/// Asks, and waits for the answer.
fn asks(query: &[u8]) -> Vec<u8> {
    let socket = client();
    socket.send(query).unwrap();
    receive(&socket)
}

fn asks_by_tcp(query: &[u8]) -> Vec<u8> {
    let mut stream = tcp_client();
    write_framed(&mut stream, query);
    read_framed(&mut stream).unwrap()
}

fn code(answer: &[u8]) -> u8 {
    answer[3] & 0xf
}

/// Addresses and names in an answer, read by hickory.
fn records(answer: &[u8]) -> Vec<String> {
    let message = hickory_proto::op::Message::from_vec(answer).unwrap();
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// Runs a program in the test's namespace; what it printed.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    text
}

fn dig(arguments: &[&str]) -> String {
    let server = format!("@{ADDRESS}");
    let arguments: Vec<&str> = [&[server.as_str(), "+time=10", "+tries=1"], arguments].concat();
    output("dig", &arguments)
}
