//! Devices, addresses and routes: rtnetlink(7) by a plain blocking socket.
//!
//! The messages are those of the rtnetlink crate. Its connection is asynchronous, which would put a
//! runtime into every start; a start sends two datagrams a network and waits for each, so a socket does
//! (`docs/decisions/0009-netlink-without-a-runtime.md`). Several requests go out in one datagram, and
//! the kernel answers each with an acknowledgement: one round per step, whatever the step needs.
//!
//! A [`Links`] works in the network namespace in which it was opened, wherever its thread is later.

mod answers;
mod messages;

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use answers::Answer;
use messages::Body;
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
        for Request { what, body, flags } in requests {
            self.sequence += 1;
            body.append(&mut datagram, NLM_F_REQUEST | NLM_F_ACK | flags, self.sequence);
            names.push(what);
        }
        self.send(&datagram)?;
        let mut outcome = Ok(());
        let mut open = names.len();
        while open > 0 {
            self.receive(|answer| {
                let Some(result) = answer.result() else { return };
                // Of an earlier call that gave up half-way, or of nobody.
                let number = answer.sequence.checked_sub(first);
                let Some(what) = number.and_then(|number| names.get(number as usize)) else { return };
                open -= 1;
                if outcome.is_ok() {
                    outcome = result.with_context(|| what.clone());
                }
            })?;
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
        self.dump(Body::devices(), answers::device).context("list network devices")
    }

    /// One device by its name.
    pub fn device(&mut self, name: &str) -> Result<Option<Device>> {
        Ok(self.devices()?.into_iter().find(|device| device.name == name))
    }

    /// All addresses, each with its device.
    pub fn addresses(&mut self) -> Result<Vec<(IpNetwork, u32)>> {
        self.dump(Body::addresses(), answers::address).context("list network addresses")
    }

    /// The destinations of the main table, the default routes left out.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        self.dump(Body::routes(), answers::route).context("list routes")
    }

    fn send(&self, datagram: &[u8]) -> Result<()> {
        rustix::net::send(&self.socket, datagram, SendFlags::empty()).map(drop).context("ask the kernel by netlink")
    }

    /// Hears the messages of the next datagram.
    fn receive(&self, mut hear: impl FnMut(&Answer<'_>)) -> Result<()> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let spare: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
        let ((received, _), _) = loop {
            match rustix::net::recv(&self.socket, &mut *spare, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result.context("hear from the kernel by netlink")?,
            }
        };
        Answer::each(received, &mut hear);
        Ok(())
    }

    /// Asks for everything of a kind; `read` makes of each answer what is wanted of it.
    fn dump<T>(&mut self, body: Body, read: fn(&Answer<'_>) -> Option<T>) -> Result<Vec<T>> {
        self.sequence += 1;
        let mut datagram = Vec::new();
        body.append(&mut datagram, NLM_F_REQUEST | NLM_F_DUMP, self.sequence);
        self.send(&datagram)?;
        let mut list = Vec::new();
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(|answer| {
                if answer.sequence != self.sequence {
                    return;
                }
                match answer.result() {
                    Some(result) => outcome = Some(result),
                    None if answer.is_last() => outcome = Some(Ok(())),
                    None => list.extend(read(answer)),
                }
            })?;
        }
        outcome.unwrap_or(Ok(()))?;
        Ok(list)
    }
}

#[cfg(test)]
mod tests;
