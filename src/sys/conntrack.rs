//! The kernel's table of connections: forgetting entries (ctnetlink,
//! `linux/netfilter/nfnetlink_conntrack.h`).
//!
//! An entry keeps the translation it was made with as long as packets come, whatever the rules say
//! by then. Everything here is best effort: without ctnetlink, entries end by themselves (30 s
//! after the last datagram that had no answer).

use std::net::{IpAddr, SocketAddr};

use rustix::net::netlink;

use super::netlink_request::{Request, Socket, attributes};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`, `…_DELETE`.
const CT_GET: u16 = 0x0101;
const CT_DELETE: u16 = 0x0102;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Which parts of a tuple a filter looks at (`CTA_FILTER_FLAG` in nf_internals.h).
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_IP_DST: u32 = 1 << 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_DST_PORT: u32 = 1 << 5;

/// Which entries: by the packets as they were sent, or by the answers.
struct Filter {
    /// `CTA_TUPLE_ORIG` or `CTA_TUPLE_REPLY`.
    tuple: u16,
    /// `CTA_IP_*` and an address; `None` for any of the family.
    address: Option<(u16, IpAddr)>,
    /// Transport protocol and destination port.
    port: Option<(u8, u16)>,
    ipv6: bool,
}

/// Forgets the connections that lead to `owner` (its answers come from there), translated or not,
/// because the address will be another's.
pub fn forget_connections_to(owner: IpAddr) {
    let kind = if owner.is_ipv6() { CTA_IP_V6_SRC } else { CTA_IP_V4_SRC };
    let address = Some((kind, owner));
    // An error is no reason to stop: see above.
    let _ = forget(&Filter { tuple: CTA_TUPLE_REPLY, address, port: None, ipv6: owner.is_ipv6() });
}

/// Forgets what was sent by UDP to this address and port; the unspecified address stands for all of
/// its family.
pub fn forget_datagrams_to(host: SocketAddr) {
    let kind = if host.is_ipv6() { CTA_IP_V6_SRC + 1 } else { CTA_IP_V4_SRC + 1 };
    let address = (!host.ip().is_unspecified()).then_some((kind, host.ip()));
    let port = Some((libc::IPPROTO_UDP as u8, host.port()));
    let _ = forget(&Filter { tuple: CTA_TUPLE_ORIG, address, port, ipv6: host.is_ipv6() });
}

/// One message where the kernel takes a filter for deletions (6.7). Before that it looks for one
/// entry with exactly this tuple, finds the tuple incomplete and refuses: then they are listed (by a
/// filter since 5.8, else all of them) and deleted one by one.
fn forget(filter: &Filter) -> std::io::Result<()> {
    let socket = Socket::open(netlink::NETFILTER)?;
    if socket.acknowledged(filter.request(CT_DELETE)).is_ok() {
        return Ok(());
    }
    forget_one_by_one(&socket, filter)
}

fn forget_one_by_one(socket: &Socket, filter: &Filter) -> std::io::Result<()> {
    let mut found = Vec::new();
    socket.dump(filter.request(CT_GET), |item| {
        // Behind `struct nfgenmsg`.
        let entry = item.get(4..).unwrap_or_default();
        if filter.fits(entry) {
            found.extend(value(entry, CTA_TUPLE_ORIG).map(<[u8]>::to_vec));
        }
    })?;
    for original in found {
        let mut request = filter.message(CT_DELETE);
        request.attribute(CTA_TUPLE_ORIG | 0x8000, &original);
        // It may have ended meanwhile.
        let _ = socket.acknowledged(request);
    }
    Ok(())
}

impl Filter {
    /// A message with `struct nfgenmsg`: family, version, resource.
    fn message(&self, kind: u16) -> Request {
        let family = if self.ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        Request::new(kind, &[family as u8, 0, 0, 0])
    }

    fn request(&self, kind: u16) -> Request {
        let mut request = self.message(kind);
        let mut flags = 0;
        request.nested(self.tuple, |tuple| {
            if let Some((kind, address)) = self.address {
                flags |= if matches!(kind, CTA_IP_V4_SRC | CTA_IP_V6_SRC) { FILTER_IP_SRC } else { FILTER_IP_DST };
                tuple.nested(CTA_TUPLE_IP, |ip| ip.attribute(kind, &octets(address)));
            }
            if let Some((protocol, port)) = self.port {
                flags |= FILTER_PROTO_NUM | FILTER_DST_PORT;
                tuple.nested(CTA_TUPLE_PROTO, |proto| {
                    proto.attribute(CTA_PROTO_NUM, &[protocol]);
                    proto.attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                });
            }
        });
        let which = if self.tuple == CTA_TUPLE_ORIG { CTA_FILTER_ORIG_FLAGS } else { CTA_FILTER_REPLY_FLAGS };
        request.nested(CTA_FILTER, |filter| filter.attribute(which, &flags.to_ne_bytes()));
        request
    }

    /// What the kernel's filter does, for a kernel that has none.
    fn fits(&self, entry: &[u8]) -> bool {
        let tuple = value(entry, self.tuple).unwrap_or_default();
        let part = |part: u16, kind: u16| value(value(tuple, part)?, kind);
        self.address.is_none_or(|(kind, address)| part(CTA_TUPLE_IP, kind) == Some(&octets(address)))
            && self.port.is_none_or(|(protocol, port)| {
                part(CTA_TUPLE_PROTO, CTA_PROTO_NUM) == Some(&[protocol])
                    && part(CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) == Some(&port.to_be_bytes())
            })
    }
}

fn value(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;

    use super::*;

    const ALL: Filter = Filter { tuple: CTA_TUPLE_ORIG, address: None, port: None, ipv6: false };

    fn to(address: &str, port: u16) -> Filter {
        let address = Some((CTA_IP_V4_SRC + 1, address.parse().unwrap()));
        Filter { address, port: Some((libc::IPPROTO_UDP as u8, port)), ..ALL }
    }

    fn count(filter: &Filter) -> usize {
        let mut count = 0;
        let message = filter.message(CT_GET);
        let each = |item: &[u8]| count += usize::from(filter.fits(&item[4..]));
        Socket::open(netlink::NETFILTER).unwrap().dump(message, each).unwrap();
        count
    }

    /// A namespace in which connections are tracked, and a datagram to each of three destinations.
    fn tracked() {
        #[allow(deprecated)] // Safe for what is unshared here: no descriptor table.
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        super::super::network::loopback_up().unwrap();
        let rule = ["-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"];
        assert!(Command::new("iptables").args(rule).status().unwrap().success());
        let socket = UdpSocket::bind("127.0.0.1:4000").unwrap();
        for port in ["127.0.0.1:7", "127.0.0.1:9", "127.0.0.2:9"] {
            // The second send reports the first one's port as unreachable.
            while socket.send_to(b"x", port).is_err() {}
        }
        assert_eq!(count(&ALL), 3);
    }

    #[test]
    fn datagrams_to_a_port_are_forgotten_and_no_others() {
        tracked();
        forget_datagrams_to("127.0.0.1:9".parse().unwrap());
        assert_eq!((count(&to("127.0.0.1", 9)), count(&ALL)), (0, 2));
        forget_datagrams_to("0.0.0.0:9".parse().unwrap());
        assert_eq!((count(&to("127.0.0.1", 7)), count(&ALL)), (1, 1));
        forget_datagrams_to("[::]:7".parse().unwrap());
        assert_eq!(count(&ALL), 1);
    }

    #[test]
    fn connections_to_an_owner_are_forgotten_and_no_others() {
        tracked();
        forget_connections_to("127.0.0.2".parse().unwrap());
        assert_eq!((count(&to("127.0.0.2", 9)), count(&ALL)), (0, 2));
    }

    #[test]
    fn a_kernel_without_filters_does_the_same() {
        tracked();
        let socket = Socket::open(netlink::NETFILTER).unwrap();
        forget_one_by_one(&socket, &to("127.0.0.1", 9)).unwrap();
        assert_eq!((count(&to("127.0.0.1", 9)), count(&ALL)), (0, 2));
        // An incomplete tuple without a filter, as such a kernel understands the short way: refused,
        // and above all not taken for "everything".
        let mut request = ALL.message(CT_DELETE);
        request.nested(CTA_TUPLE_ORIG, |tuple| {
            tuple.nested(CTA_TUPLE_IP, |ip| ip.attribute(CTA_IP_V4_SRC + 1, &[127, 0, 0, 1]));
        });
        assert!(socket.acknowledged(request).is_err());
        assert_eq!(count(&ALL), 2);
    }
}
