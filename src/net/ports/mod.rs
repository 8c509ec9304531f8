//! Host ports: really held, by bound sockets, so that a second user gets an error at once.
//!
//! A held TCP port is bound and does not listen: packets are translated before they reach it, and
//! when the rules are missing (flushed) a client is refused instead of left hanging.

mod holder;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::Protocol;
use crate::error::Failure;
pub use holder::{Holder, holder};

/// Times another number is tried when the kernel's choice for one address is taken on the other.
const ATTEMPTS: usize = 64;
/// Numbers looked at for the hint.
const NEIGHBOURHOOD: u16 = 100;

/// A port that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Transport.
    pub protocol: Protocol,
    /// Address on the host; `None` for all.
    pub host_ip: Option<IpAddr>,
    /// First and last port to choose from; `None` for any that is free.
    pub ports: Option<(u16, u16)>,
    /// The owner has an IPv4 address.
    pub ipv4: bool,
    /// The owner has an IPv6 address.
    pub ipv6: bool,
}

/// A port that is held as long as this lives, or a copy of its sockets in another process.
#[derive(Debug)]
pub struct Held {
    /// Bound sockets; fewer than addresses where the kernel lacks the protocol (SCTP).
    pub sockets: Vec<OwnedFd>,
    /// What is held, the same number everywhere; IPv4 first.
    pub addresses: Vec<SocketAddr>,
}

/// Who has a port of ours: the name of the container, or whatever the error should say.
pub type Ours<'a> = &'a dyn Fn(Protocol, SocketAddr) -> Option<String>;

/// Holds a host port.
///
/// For no particular host address it is held on `0.0.0.0` and on `[::]`, as far as the owner and the
/// host have the families. `ours` tells which container has a port, because a holder's process
/// would only be one of the engine's own.
///
/// # Errors
/// [`crate::error::Class::Conflict`] when the port, or every port of the range, is taken; it names
/// the holder.
pub fn hold(wanted: &Wanted, ours: Ours<'_>) -> Result<Held> {
    let addresses = addresses(wanted)?;
    match wanted.ports {
        Some((first, last)) if first == last => {
            one(wanted, &addresses, first, ours)?.map_err(|taken| conflict(wanted, &addresses, taken, ours))
        }
        Some((first, last)) => {
            for port in first..=last {
                if let Ok(held) = one(wanted, &addresses, port, ours)? {
                    return Ok(held);
                }
            }
            let text = format!("all ports of {first}-{last}/{} are taken", wanted.protocol);
            let failure =
                Failure::conflict(format!("Bind for {}:{first}-{last} failed: {text}", bracketed(addresses[0])));
            Err(failure.with_hint("choose a larger range, or let the kernel choose: -p CONTAINER_PORT").into())
        }
        None => any(wanted, &addresses, ours),
    }
}

/// The host addresses to hold, of families that the host has.
fn addresses(wanted: &Wanted) -> Result<Vec<IpAddr>> {
    let all = match wanted.host_ip {
        Some(address) => vec![address],
        None => {
            let mut all = Vec::new();
            if wanted.ipv4 {
                all.push(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            }
            if wanted.ipv6 {
                all.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            }
            all
        }
    };
    match all.first() {
        Some(_) => Ok(all),
        None => Err(Failure::usage("hold a host port: there is no address to lead it to").into()),
    }
}

/// Binds one number on all addresses. The inner error is the address that is taken.
fn one(wanted: &Wanted, addresses: &[IpAddr], port: u16, ours: Ours<'_>) -> Result<Result<Held, SocketAddr>> {
    let mut held = Held { sockets: Vec::new(), addresses: Vec::new() };
    for ip in addresses {
        let address = SocketAddr::new(*ip, port);
        match bound(wanted.protocol, address) {
            Ok(socket) => held.sockets.push(socket),
            Err(Errno::ADDRINUSE) => return Ok(Err(address)),
            // No socket of anybody can have it, so only our own containers are in each other's way.
            Err(Errno::PROTONOSUPPORT) if wanted.protocol == Protocol::Sctp => {
                if ours(wanted.protocol, address).is_some() {
                    return Ok(Err(address));
                }
            }
            // A host without IPv6 has no [::] to hold.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if addresses.len() > 1 && ip.is_ipv6() => continue,
            Err(error) => return Err(cannot(address, error)),
        }
        held.addresses.push(address);
    }
    Ok(Ok(held))
}

/// Lets the kernel choose a number on the first address and takes the same on the others.
fn any(wanted: &Wanted, addresses: &[IpAddr], ours: Ours<'_>) -> Result<Held> {
    for attempt in 0..ATTEMPTS {
        // A reservation that falls away when this has failed: released before the real attempt.
        let port = match bound(wanted.protocol, SocketAddr::new(addresses[0], 0)) {
            Ok(socket) => number(&socket).context("read the port that the kernel chose")?,
            Err(Errno::PROTONOSUPPORT) if wanted.protocol == Protocol::Sctp => 49152 + attempt as u16,
            Err(error) => return Err(cannot(SocketAddr::new(addresses[0], 0), error)),
        };
        if let Ok(held) = one(wanted, addresses, port, ours)? {
            return Ok(held);
        }
    }
    let failure = Failure::conflict(format!("find a free {} port: all that were tried are taken", wanted.protocol));
    Err(failure.with_hint("see net.ipv4.ip_local_port_range, or name a port").into())
}

/// A socket bound to the address, and to nothing else.
fn bound(protocol: Protocol, address: SocketAddr) -> Result<OwnedFd, Errno> {
    match bind(protocol, address, false) {
        // Connections of a program that has ended keep its port for a minute (TIME_WAIT), which
        // SO_REUSEADDR overlooks. It must not stay set: two sockets that have it may share a port
        // while neither listens, and nothing would be held.
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp && address.port() != 0 => bind(protocol, address, true),
        other => other,
    }
}

fn bind(protocol: Protocol, address: SocketAddr, reuse: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, rustix::net::ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, rustix::net::ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, rustix::net::ipproto::SCTP),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Udp {
        // Nobody reads it: what arrives while rules are missing must not pile up.
        sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    }
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, false)?;
    }
    Ok(socket)
}

fn number(socket: &OwnedFd) -> io::Result<u16> {
    let name = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(name).map(|address| address.port()).map_err(io::Error::from)
}

/// The port is taken: by whom, and which is free instead.
fn conflict(wanted: &Wanted, addresses: &[IpAddr], taken: SocketAddr, ours: Ours<'_>) -> anyhow::Error {
    let whose = match (ours(wanted.protocol, taken), holder(wanted.protocol, taken)) {
        (Some(name), _) => format!(": container {name} has it"),
        (None, Some(holder)) => format!(": process {} ({}) has it", holder.pid, holder.command),
        (None, None) => String::new(),
    };
    let text = format!("Bind for {}:{} failed: port is already allocated{whose}", bracketed(taken.ip()), taken.port());
    let after = taken.port().checked_add(1).into_iter().flat_map(|next| next..=next.saturating_add(NEIGHBOURHOOD));
    let free = after.into_iter().find(|port| matches!(one(wanted, addresses, *port, ours), Ok(Ok(_))));
    let failure = Failure::conflict(text);
    match free {
        Some(port) => failure.with_hint(format!("port {port} is free")).into(),
        None => failure.into(),
    }
}

fn cannot(address: SocketAddr, error: Errno) -> anyhow::Error {
    let place = format!("Bind for {}:{} failed", bracketed(address.ip()), address.port());
    let failure = match error {
        Errno::ADDRNOTAVAIL => Failure::engine(format!("{place}: this host has no address {}", address.ip()))
            .with_hint("see which it has with: ip address"),
        Errno::ACCESS => Failure::engine(format!("{place}: not permitted"))
            .with_hint("ports below net.ipv4.ip_unprivileged_port_start are for root"),
        Errno::AFNOSUPPORT => Failure::engine(format!("{place}: this host has no IPv6")),
        other => Failure::engine(format!("{place}: {}", io::Error::from(other))),
    };
    failure.into()
}

/// As in a URL.
fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests;
