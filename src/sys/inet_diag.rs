//! Which sockets have a port: sock_diag(7), `linux/inet_diag.h`. Unlike `/proc/net/tcp` it also
//! knows sockets that are bound and neither listen nor are connected.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::netlink;

use super::netlink_request::{Request, Socket};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// All states of a connection, and `TCP_BOUND_INACTIVE` (since Linux 6.8; older kernels ignore the bit).
const STATES: u32 = 0xfff | 1 << 13;
/// `struct inet_diag_sockid`: offset of the local address, and the parts of `struct inet_diag_msg`.
const MSG_SOURCE_PORT: usize = 4;
const MSG_SOURCE: usize = 8;
const MSG_INODE: usize = 68;

/// A socket, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Its local address; the unspecified one for all.
    pub address: IpAddr,
    /// Inode number, as in `socket:[…]`; 0 when it belongs to no process any more.
    pub inode: u64,
}

/// The sockets of a transport protocol (`IPPROTO_TCP`, …) and address family with this local port in
/// the calling thread's network namespace.
pub fn sockets(ipv6: bool, protocol: u8, port: u16) -> io::Result<Vec<Bound>> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states, sockid (source port first).
    let mut body = vec![family as u8, protocol, 0, 0];
    body.extend_from_slice(&STATES.to_ne_bytes());
    body.extend_from_slice(&port.to_be_bytes());
    body.resize(8 + 40, 0);
    // No cookie.
    body.extend_from_slice(&[0xff; 8]);
    let mut found = Vec::new();
    Socket::open(netlink::SOCK_DIAG)?
        .dump(Request::new(BY_FAMILY, &body), |item| found.extend(parse(ipv6, port, item)))?;
    Ok(found)
}

fn parse(ipv6: bool, port: u16, item: &[u8]) -> Option<Bound> {
    if item.get(MSG_SOURCE_PORT..MSG_SOURCE_PORT + 2)? != port.to_be_bytes() {
        return None;
    }
    let octets: [u8; 16] = item.get(MSG_SOURCE..MSG_SOURCE + 16)?.try_into().ok()?;
    let [a, b, c, d, ..] = octets;
    let address = if ipv6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() };
    let inode = u32::from_ne_bytes(item.get(MSG_INODE..MSG_INODE + 4)?.try_into().ok()?);
    Some(Bound { address, inode: inode.into() })
}
