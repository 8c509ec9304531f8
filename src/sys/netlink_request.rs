//! Netlink as far as the firewall and the search for a port's holder need it: one request, its
//! answers (netlink(7)). Links and routes have a crate of their own.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A message being written.
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message of this type with its fixed part.
    pub(super) fn new(kind: u16, body: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(body);
        Request { bytes }
    }

    /// An attribute with its value.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// An attribute that holds others.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Request)) {
        let start = self.bytes.len();
        self.attribute(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn finish(mut self, flags: u16) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes
    }
}

/// A netlink socket in the calling thread's network namespace.
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn open(protocol: Protocol) -> io::Result<Socket> {
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        Ok(Socket(socket))
    }

    /// Sends a request and waits for the kernel's word on it.
    pub(super) fn acknowledged(&self, request: Request) -> io::Result<()> {
        self.send(&request.finish(NLM_F_ACK))?;
        self.answers(|_| ())
    }

    /// Sends a request for a list and hands each item's payload to `each`.
    pub(super) fn dump(&self, request: Request, each: impl FnMut(&[u8])) -> io::Result<()> {
        self.send(&request.finish(NLM_F_DUMP))?;
        self.answers(each)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::sendto(&self.0, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    /// The kernel answers while we send or while we receive, so nothing is ever waited for in vain.
    fn answers(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0_u8; 32 << 10];
        loop {
            let (count, _) =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()))?;
            let mut rest = &buffer[..count];
            while let Some((kind, payload, next)) = split(rest) {
                match kind {
                    NLMSG_ERROR => return verdict(payload),
                    NLMSG_DONE => return Ok(()),
                    _ => each(payload),
                }
                rest = next;
            }
        }
    }
}

/// Type and payload of the first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER..length)?;
    Some((kind, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// `struct nlmsgerr` begins with a negative errno, or 0.
fn verdict(payload: &[u8]) -> io::Result<()> {
    let code = payload.get(0..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// The attributes in a run of them: type without flags, and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
