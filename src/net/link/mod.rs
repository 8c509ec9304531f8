//! Devices, addresses and routes: rtnetlink(7) by a plain blocking socket.
//!
//! The messages are those of the rtnetlink crate. Its connection is asynchronous, which would put a
//! runtime into every start; a start sends two datagrams a network and waits for each, so a socket does
//! (`docs/decisions/0009-netlink-without-a-runtime.md`). Several requests go out in one datagram, and
//! the kernel answers each with an acknowledgement: one round per step, whatever the step needs.
//!
//! A [`Links`] works in the network namespace in which it was opened, wherever its thread is later.

mod messages;

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub use messages::{
    Request, VethPair, above, address, alias, bridge, cable, default_route, delete, port, port_flags, up, veth,
};

/// Bytes of one answer: the kernel fills at most this much of a dump at a time (netlink(7)).
const BUFFER: usize = 32 * 1024;

/// Devices of one network namespace.
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
    sequence: u32,
}

/// A device as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Its number within the namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, …; empty for hardware.
    pub kind: String,
    /// What [`alias`] has given it.
    pub alias: String,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// The bridge it is a port of.
    pub controller: Option<u32>,
}

/// A destination that the host knows the way to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNetwork,
    /// Through which device.
    pub device: u32,
}

impl Links {
    /// Opens the devices of the calling thread's network namespace.
    pub fn open() -> Result<Links> {
        let socket =
            // Protocol 0 is NETLINK_ROUTE (netlink(7)).
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .context("open a netlink socket")?;
        Ok(Links { socket, sequence: 0 })
    }

    /// Has the kernel carry out `requests` in order, in one round. When one fails the others are
    /// tried all the same; the first failure is returned.
    pub fn carry_out(&mut self, requests: Vec<Request>) -> Result<()> {
        let first = self.sequence + 1;
        let mut datagram = Vec::with_capacity(512);
        let mut names = Vec::with_capacity(requests.len());
        for Request { what, message, flags } in requests {
            self.sequence += 1;
            append(&mut datagram, message, NLM_F_REQUEST | NLM_F_ACK | flags, self.sequence);
            names.push(what);
        }
        self.send(&datagram)?;
        let mut outcome = Ok(());
        let mut open = names.len();
        while open > 0 {
            for message in self.receive()? {
                let NetlinkPayload::Error(error) = message.payload else { continue };
                // Of an earlier call that gave up half-way, or of nobody.
                let Some(what) = message.header.sequence_number.checked_sub(first).and_then(|n| names.get(n as usize))
                else {
                    continue;
                };
                open -= 1;
                if let Some(code) = error.code
                    && outcome.is_ok()
                {
                    outcome = Err(io::Error::from_raw_os_error(-code.get())).with_context(|| what.clone());
                }
            }
        }
        outcome
    }

    /// The number of the device with this name, by ioctl (netdevice(7)): no message to take apart.
    pub fn index_of(name: &str) -> Result<Option<u32>> {
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .context("open a socket")?;
        match rustix::net::netdevice::name_to_index(&socket, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("look for device {name}")),
        }
    }

    /// All devices.
    pub fn devices(&mut self) -> Result<Vec<Device>> {
        let dump = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).context("list network devices")?;
        Ok(dump.into_iter().filter_map(device).collect())
    }

    /// One device by its name.
    pub fn device(&mut self, name: &str) -> Result<Option<Device>> {
        Ok(self.devices()?.into_iter().find(|device| device.name == name))
    }

    /// All addresses, each with its device.
    pub fn addresses(&mut self) -> Result<Vec<(IpNetwork, u32)>> {
        let dump =
            self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).context("list network addresses")?;
        Ok(dump.into_iter().filter_map(address_of).collect())
    }

    /// The destinations of the main table, the default routes left out.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let dump = self.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default())).context("list routes")?;
        Ok(dump.into_iter().filter_map(route_of).collect())
    }

    fn send(&self, datagram: &[u8]) -> Result<()> {
        rustix::net::send(&self.socket, datagram, SendFlags::empty()).map(drop).context("ask the kernel by netlink")
    }

    /// The messages of the next datagram.
    fn receive(&self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let spare: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
        let ((received, _), _) = loop {
            match rustix::net::recv(&self.socket, &mut *spare, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result.context("hear from the kernel by netlink")?,
            }
        };
        let mut rest: &[u8] = received;
        let mut messages = Vec::new();
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if length < 16 || length > rest.len() {
                break;
            }
            // A message of a newer kernel that this crate cannot read is no reason to read no other.
            messages.extend(NetlinkMessage::deserialize(&rest[..length]).ok());
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }

    fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut datagram = Vec::new();
        append(&mut datagram, message, NLM_F_REQUEST | NLM_F_DUMP, self.sequence);
        self.send(&datagram)?;
        let mut answers = Vec::new();
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                    _ => {}
                }
            }
        }
    }
}

fn append(datagram: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = datagram.len();
    datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut datagram[start..]);
}

fn device(message: RouteNetlinkMessage) -> Option<Device> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut device = Device { index: message.header.index, ..Device::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::IfAlias(alias) => device.alias = alias,
            LinkAttribute::Mtu(mtu) => device.mtu = mtu,
            LinkAttribute::Controller(index) => device.controller = Some(index),
            LinkAttribute::LinkInfo(list) => {
                for info in list {
                    if let LinkInfo::Kind(kind) = info {
                        device.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    Some(device)
}

fn address_of(message: RouteNetlinkMessage) -> Option<(IpNetwork, u32)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // Of a point-to-point device that of the other end; then the local one stands beside it.
            AddressAttribute::Address(address) if found.is_none() => found = Some(*address),
            AddressAttribute::Local(address) => found = Some(*address),
            _ => {}
        }
    }
    let network = IpNetwork::new(found?, message.header.prefix_len).ok()?;
    Some((network, message.header.index))
}

fn route_of(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination = None;
    let mut device = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = Some(IpAddr::V6(*address)),
            RouteAttribute::Oif(index) => device = *index,
            _ => {}
        }
    }
    let length = message.header.destination_prefix_length;
    let destination = IpNetwork::new(destination?, length).ok().filter(|_| length > 0)?;
    Some(Route { destination, device })
}

#[cfg(test)]
mod tests;
