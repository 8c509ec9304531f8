//! What the kernel answers, taken apart as far as it is asked for: rtnetlink(7), netlink(7).
//!
//! The message crate can read every attribute of every kind of device, which is half a megabyte of
//! program, and refuses a whole message for one attribute of a newer kernel. Here five attributes of a
//! device, two of an address and two of a route are looked for, and nothing else is looked at.

use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Device, Route};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLMSG_ERROR`: an error, or with number 0 an acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;

/// One message of the kernel's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    kind: u16,
    /// Of the request that is answered.
    pub(super) sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// Takes a datagram apart. What is cut short at its end is left out.
    pub(super) fn each(mut datagram: &[u8], hear: &mut dyn FnMut(&Answer<'_>)) {
        while let (Some(length), Some(kind), Some(sequence)) =
            (u32_at(datagram, 0), u16_at(datagram, 4), u32_at(datagram, 8))
            && let Some(body) = datagram.get(HEADER..length as usize)
        {
            hear(&Answer { kind, sequence, body });
            datagram = datagram.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
        }
    }

    /// How the request ended, when this message says so.
    pub(super) fn result(&self) -> Option<io::Result<()>> {
        let code = u32_at(self.body, 0).filter(|_| self.kind == ERROR)?.cast_signed();
        Some(if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.wrapping_neg())) })
    }

    /// Nothing follows.
    pub(super) fn is_last(&self) -> bool {
        self.kind == DONE
    }
}

/// A device (`RTM_NEWLINK`, `struct ifinfomsg`).
pub(super) fn device(answer: &Answer<'_>) -> Option<Device> {
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_IFALIAS: u16 = 20;
    let mut device = Device { index: u32_at(answer.body, 4)?, ..Device::default() };
    for (kind, value) in attributes(answer.body.get(16..)?) {
        match kind {
            IFLA_IFNAME => device.name = text(value),
            IFLA_IFALIAS => device.alias = text(value),
            IFLA_MTU => device.mtu = u32_at(value, 0)?,
            IFLA_MASTER => device.controller = u32_at(value, 0),
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                device.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(device)
}

/// An address and its device (`RTM_NEWADDR`, `struct ifaddrmsg`).
pub(super) fn address(answer: &Answer<'_>) -> Option<(IpNetwork, u32)> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let (length, device) = (*answer.body.get(1)?, u32_at(answer.body, 4)?);
    let mut found = None;
    for (kind, value) in attributes(answer.body.get(8..)?) {
        // Of a point-to-point device `IFA_ADDRESS` is the other end; then the local one stands beside it.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && found.is_none()) {
            found = ip(value);
        }
    }
    Some((IpNetwork::new(found?, length).ok()?, device))
}

/// A route of the main table that is not a default route (`RTM_NEWROUTE`, `struct rtmsg`).
pub(super) fn route(answer: &Answer<'_>) -> Option<Route> {
    const RT_TABLE_MAIN: u8 = 254;
    const RTN_UNICAST: u8 = 1;
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    let (length, table, kind) = (*answer.body.get(1)?, *answer.body.get(4)?, *answer.body.get(7)?);
    if (table, kind) != (RT_TABLE_MAIN, RTN_UNICAST) || length == 0 {
        return None;
    }
    let (mut destination, mut device) = (None, 0);
    for (kind, value) in attributes(answer.body.get(12..)?) {
        match kind {
            RTA_DST => destination = ip(value),
            RTA_OIF => device = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(Route { destination: IpNetwork::new(destination?, length).ok()?, device })
}

/// The attributes in `bytes`, kind and value (`struct rtattr`).
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !FLAGS, value))
    })
}

fn u16_at(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(place..place + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(place..place + 4)?.try_into().ok()?))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_its_end(bytes: Vec<u8>) {
            Answer::each(&bytes, &mut |answer| {
                let _ = (answer.result(), answer.is_last(), device(answer), address(answer), route(answer));
            });
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
