//! The resolver's sockets on 127.0.0.11, made inside the container's network namespace.
//!
//! Programs in containers may listen on 0.0.0.0:53 themselves (dnsmasq, pihole, bind, coredns), and a socket of ours on
//! port 53 would forbid it. So the sockets are bound to ports that the kernel picks, and a small program ([`steering`])
//! leads packets for 127.0.0.11:53 to them. TCP connections then have port 53 on this side all by themselves; UDP
//! answers would leave from the port that was picked, so they leave by a raw socket with a header made here.
//!
//! ```text
//!              UDP query to 127.0.0.11:53 ──┐   ┌── steering ──▶ udp 127.0.0.11:41234 ──▶ resolver
//! client  ◀──── answer from 127.0.0.11:53 ──┼───┼────────────────── raw socket ◀──────────────┘
//!              TCP SYN   to 127.0.0.11:53 ──┘   └── steering ──▶ tcp 127.0.0.11:35821 (listens)
//! ```
//!
//! Where the kernel refuses the program, the sockets take port 53.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, bind, ipproto, listen, recvfrom,
    sendmsg_addr, sendto, socket_with, sockopt,
};

use super::{ADDRESS, PORT, steering};

/// Connections that the kernel accepts ahead of us.
const BACKLOG: i32 = 32;
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
/// IPv4 without options (RFC 791) and UDP (RFC 768), bytes.
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Hops that an answer may take; there are none.
const TIME_TO_LIVE: u8 = 64;
/// The longest UDP message of IPv4, bytes.
pub(super) const MAX_DATAGRAM: usize = 65535 - IP_HEADER - UDP_HEADER;

/// The sockets of one resolver. All of them are non-blocking, close-on-exec, and in one network namespace, which they
/// keep alive.
#[derive(Debug)]
pub struct Sockets {
    udp: OwnedFd,
    tcp: OwnedFd,
    path: Path,
    namespace: Namespace,
}

/// How packets for port 53 come to the sockets.
#[derive(Debug)]
enum Path {
    /// By a program that lives as long as `_link`; `raw` sends UDP answers.
    Steered { raw: OwnedFd, _link: OwnedFd },
    /// The sockets hold port 53; why it is so.
    Direct(Box<str>),
}

/// A network namespace (namespaces(7)): device and inode of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Namespace(u64, u64);

impl Sockets {
    /// Opens the sockets in the network namespace that the calling thread is in. Loopback need not be up yet.
    ///
    /// # Errors
    /// A socket cannot be made, or somebody in the namespace holds port 53 where it is needed.
    pub fn open() -> Result<Sockets> {
        match Sockets::open_steered() {
            Ok(sockets) => Ok(sockets),
            Err(reason) => Sockets::open_direct(format!("{reason:#}").into()),
        }
    }

    /// With the steering program.
    pub(super) fn open_steered() -> Result<Sockets> {
        let namespace = open_namespace().context("open the network namespace")?;
        let (udp, tcp) = open_pair(0)?;
        let raw = socket_with(AddressFamily::INET, SocketType::RAW, FLAGS, Some(ipproto::RAW))
            .context("open a raw socket")?;
        let link = steering::steer(namespace.as_fd(), tcp.as_fd(), udp.as_fd()).map_err(|error| {
            let log = if error.log.is_empty() { String::new() } else { format!(": {}", error.log) };
            anyhow::Error::new(error).context(format!("load the program that finds the resolver's sockets{log}"))
        })?;
        let identity = Namespace::of(namespace.as_fd())?;
        Ok(Sockets { udp, tcp, path: Path::Steered { raw, _link: link }, namespace: identity })
    }

    /// On port 53; `reason` says why not steered.
    pub(super) fn open_direct(reason: Box<str>) -> Result<Sockets> {
        let (udp, tcp) = open_pair(PORT)?;
        let identity = Namespace::of(open_namespace().context("open the network namespace")?.as_fd())?;
        Ok(Sockets { udp, tcp, path: Path::Direct(reason), namespace: identity })
    }

    /// Port 53 stays free for programs in the container.
    pub fn is_steered(&self) -> bool {
        matches!(self.path, Path::Steered { .. })
    }

    /// Why the sockets hold port 53; `None` when they do not.
    pub fn why_direct(&self) -> Option<&str> {
        match &self.path {
            Path::Steered { .. } => None,
            Path::Direct(reason) => Some(reason),
        }
    }

    /// A query to `server`, sent by this thread, would come back here.
    pub(super) fn is_own(&self, server: SocketAddr) -> bool {
        server.ip().to_canonical() == IpAddr::V4(ADDRESS)
            && server.port() == PORT
            && open_namespace().and_then(|namespace| Namespace::of(namespace.as_fd())).ok() == Some(self.namespace)
    }

    pub(super) fn udp(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }

    pub(super) fn tcp(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }

    /// Takes the next datagram, as far as `into` has room for it; its sender.
    pub(super) fn receive(&self, into: &mut Vec<u8>) -> io::Result<SocketAddrV4> {
        into.clear();
        let (_, _, from) = recvfrom(&self.udp, spare_capacity(into), RecvFlags::empty())?;
        let from = from.and_then(|from| SocketAddrV4::try_from(from).ok());
        Ok(from.ok_or(io::ErrorKind::InvalidData)?)
    }

    /// Sends a datagram from 127.0.0.11:53. One that cannot be sent is lost, as datagrams may be.
    pub(super) fn send(&self, to: SocketAddrV4, bytes: &[u8]) {
        let _ = match &self.path {
            Path::Direct(_) => sendto(&self.udp, bytes, SendFlags::empty(), &to),
            Path::Steered { raw, .. } => sendmsg_addr(
                raw,
                &to,
                &[IoSlice::new(&headers(to, bytes.len())), IoSlice::new(bytes)],
                &mut SendAncillaryBuffer::default(),
                SendFlags::empty(),
            ),
        };
    }
}

/// A UDP and a listening TCP socket on [`ADDRESS`].
fn open_pair(port: u16) -> Result<(OwnedFd, OwnedFd)> {
    let open = |kind, name: &str| {
        let socket = socket_with(AddressFamily::INET, kind, FLAGS, None)?;
        // Before loopback is up the address is nobody's (ip(7)).
        sockopt::set_ip_freebind(&socket, true)?;
        if kind == SocketType::STREAM {
            // Connections of ours that are open or have just ended let others listen on port 53 (tcp(7), RFC 793's
            // TIME-WAIT); they inherit this.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &SocketAddrV4::new(ADDRESS, port))
            .map(|()| socket)
            .with_context(|| format!("bind the resolver to {ADDRESS}:{port}/{name}"))
    };
    let udp = open(SocketType::DGRAM, "udp")?;
    let tcp = open(SocketType::STREAM, "tcp")?;
    listen(&tcp, BACKLOG).context("listen for DNS over TCP")?;
    Ok((udp, tcp))
}

/// The calling thread's network namespace.
fn open_namespace() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, c"/proc/thread-self/ns/net", flags, Mode::empty())?)
}

impl Namespace {
    fn of(descriptor: BorrowedFd<'_>) -> io::Result<Namespace> {
        let stat = rustix::fs::fstat(descriptor)?;
        Ok(Namespace(stat.st_dev, stat.st_ino))
    }
}

/// The headers of a datagram of `length` bytes from [`ADDRESS`]:[`PORT`]. The kernel writes the length, the checksum and
/// the identification of the IPv4 header (raw(7)); UDP needs no checksum on IPv4, and nothing can go wrong on loopback.
fn headers(to: SocketAddrV4, length: usize) -> [u8; IP_HEADER + UDP_HEADER] {
    let mut headers = [0; IP_HEADER + UDP_HEADER];
    headers[0] = 4 << 4 | (IP_HEADER / 4) as u8;
    headers[8] = TIME_TO_LIVE;
    headers[9] = libc::IPPROTO_UDP as u8;
    headers[12..16].copy_from_slice(&ADDRESS.octets());
    headers[16..20].copy_from_slice(&to.ip().octets());
    headers[20..22].copy_from_slice(&PORT.to_be_bytes());
    headers[22..24].copy_from_slice(&to.port().to_be_bytes());
    // No message is longer than MAX_DATAGRAM; a longer one would be refused by sendmsg(2).
    headers[24..26].copy_from_slice(&((UDP_HEADER + length).min(0xffff) as u16).to_be_bytes());
    headers
}
