//! Requests to the kernel, as data: pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoPortData, InfoPortKind, InfoVeth,
    IpVlanMode, LinkAttribute, LinkFlags, LinkMessage, MacVlanMode,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use crate::net::{Driver, MacAddress};

/// One thing to be done, and how to call it when it fails.
#[derive(Debug)]
pub struct Request {
    pub(super) what: String,
    pub(super) body: Body,
    pub(super) flags: u16,
}

impl Request {
    fn new(what: impl Into<String>, body: Body, flags: u16) -> Request {
        Request { what: what.into(), body, flags }
    }
}

/// A message to the kernel.
#[derive(Debug)]
pub(super) enum Body {
    NewLink(LinkMessage),
    SetLink(LinkMessage),
    DeleteLink(LinkMessage),
    GetLinks(LinkMessage),
    NewAddress(AddressMessage),
    GetAddresses(AddressMessage),
    NewRoute(RouteMessage),
    GetRoutes(RouteMessage),
}

impl Body {
    /// Asks for all devices.
    pub(super) fn devices() -> Body {
        Body::GetLinks(LinkMessage::default())
    }

    /// Asks for all addresses.
    pub(super) fn addresses() -> Body {
        Body::GetAddresses(AddressMessage::default())
    }

    /// Asks for all routes.
    pub(super) fn routes() -> Body {
        Body::GetRoutes(RouteMessage::default())
    }

    /// Writes the message with its header (`struct nlmsghdr`) behind what is in `datagram`.
    pub(super) fn append(&self, datagram: &mut Vec<u8>, flags: u16, sequence: u32) {
        let (kind, body): (u16, &dyn Emitable) = match self {
            Body::NewLink(message) => (libc::RTM_NEWLINK, message),
            Body::SetLink(message) => (libc::RTM_SETLINK, message),
            Body::DeleteLink(message) => (libc::RTM_DELLINK, message),
            Body::GetLinks(message) => (libc::RTM_GETLINK, message),
            Body::NewAddress(message) => (libc::RTM_NEWADDR, message),
            Body::GetAddresses(message) => (libc::RTM_GETADDR, message),
            Body::NewRoute(message) => (libc::RTM_NEWROUTE, message),
            Body::GetRoutes(message) => (libc::RTM_GETROUTE, message),
        };
        let length = 16 + body.buffer_len();
        let start = datagram.len();
        datagram.extend((length as u32).to_ne_bytes());
        datagram.extend(kind.to_ne_bytes());
        datagram.extend(flags.to_ne_bytes());
        datagram.extend(sequence.to_ne_bytes());
        // From whom: the kernel knows.
        datagram.extend([0; 4]);
        datagram.resize(start + length.next_multiple_of(4), 0);
        body.emit(&mut datagram[start + 16..start + length]);
    }
}

/// A pair of devices: what goes into the one comes out of the other (veth(4)).
#[derive(Debug)]
pub struct VethPair<'a> {
    /// Name of the end that stays.
    pub name: &'a str,
    /// Name of the end inside.
    pub peer: &'a str,
    /// Network namespace of the end inside.
    pub namespace: BorrowedFd<'a>,
    /// Hardware address of the end inside.
    pub mac: MacAddress,
    /// Largest packet, bytes; `None` for the kernel's choice.
    pub mtu: Option<u32>,
}

/// Makes a pair of devices, both down: neither can be up before it has its other end. The end inside comes into being in its namespace, so
/// that no crash can leave it on the host.
pub fn veth(pair: &VethPair<'_>) -> Request {
    let mut inside = LinkMessageBuilder::<LinkUnspec>::new()
        .name(pair.peer)
        .address(pair.mac.0.to_vec())
        .setns_by_fd(pair.namespace.as_raw_fd());
    let mut outside = LinkVeth::new(pair.name, pair.peer);
    if let Some(mtu) = pair.mtu {
        inside = inside.mtu(mtu);
        outside = outside.mtu(mtu);
    }
    let outside = outside.set_info_data(InfoData::Veth(InfoVeth::Peer(inside.build())));
    create(format!("make device {}", pair.name), outside.build())
}

/// Makes a pair of devices on the host. What is sent to `name` ends at `other`.
pub fn cable(name: &str, other: &str, mac: MacAddress) -> Request {
    create(format!("make device {name}"), LinkVeth::new(name, other).address(mac.0.to_vec()).build())
}

/// Makes a device a port of a bridge, and sets it up. It needs no IPv6 address of its own: a port only
/// passes frames on.
pub fn port(name: &str, bridge: u32) -> Request {
    let link = LinkUnspec::new_with_name(name).append_extra_attribute(no_link_local()).controller(bridge).up();
    Request::new(format!("make {name} a port of the bridge"), Body::SetLink(link.build()), 0)
}

/// How a port of a bridge passes frames on. With `hairpin` back to where they came from, too: where
/// br_netfilter is loaded that is the way from a container to its own published port. An `isolated` port
/// reaches the bridge itself and no other isolated port. It must be a port already.
pub fn port_flags(name: &str, isolated: bool, hairpin: bool) -> Request {
    let flags = vec![InfoBridgePort::HairpinMode(hairpin), InfoBridgePort::Isolated(isolated)];
    let link = LinkUnspec::new_with_name(name)
        .set_port_kind(InfoPortKind::Bridge)
        .set_port_data(InfoPortData::BridgePort(flags));
    Request::new(format!("set the flags of port {name}"), Body::NewLink(link.build()), 0)
}

fn no_link_local() -> LinkAttribute {
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)])])
}

/// Makes a bridge. With an address of its own it does not take on that of one of its ports, which
/// would change with them.
pub fn bridge(name: &str, mac: MacAddress, mtu: Option<u32>) -> Request {
    let mut link = LinkBridge::new(name).address(mac.0.to_vec());
    if let Some(mtu) = mtu {
        link = link.mtu(mtu);
    }
    create(format!("make bridge {name}"), link.build())
}

/// Makes a device with an address of its own above a device of the host, inside a namespace and up.
pub fn above(
    driver: Driver,
    mode: &str,
    parent: u32,
    name: &str,
    namespace: BorrowedFd<'_>,
    mac: Option<MacAddress>,
    mtu: Option<u32>,
) -> Request {
    let mut message = match driver {
        Driver::Ipvlan => {
            let mode = match mode {
                "l3" => IpVlanMode::L3,
                "l3s" => IpVlanMode::L3S,
                _ => IpVlanMode::L2,
            };
            LinkIpVlan::new(name, parent, mode).setns_by_fd(namespace.as_raw_fd()).up().build()
        }
        Driver::Macvlan | Driver::Bridge => {
            let mode = match mode {
                "private" => MacVlanMode::Private,
                "vepa" => MacVlanMode::Vepa,
                "passthru" => MacVlanMode::Passthrough,
                _ => MacVlanMode::Bridge,
            };
            LinkMacVlan::new(name, parent, mode).setns_by_fd(namespace.as_raw_fd()).up().build()
        }
    };
    // An ipvlan has its parent's.
    if let Some(mac) = mac.filter(|_| driver != Driver::Ipvlan) {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    create(format!("make device {name} inside"), message)
}

fn create(what: String, message: LinkMessage) -> Request {
    Request::new(what, Body::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Sets a device up.
pub fn up(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request::new("set the device up", Body::SetLink(message), 0)
}

/// Writes a remark on a device, to know it again (`ip link` shows it).
pub fn alias(name: &str, text: &str) -> Request {
    let message = LinkUnspec::new_with_name(name).alias(text).build();
    Request::new(format!("mark device {name}"), Body::SetLink(message), 0)
}

/// Deletes a device.
pub fn delete(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request::new("delete the device", Body::DeleteLink(message), 0)
}

/// Gives a device an address, usable at once: whether another has it was decided when it was chosen,
/// so there is no duplicate address detection (RFC 4862, section 5.4) to wait for.
pub fn address(index: u32, address: IpNetwork) -> Request {
    let message = match address {
        IpNetwork::V4(net) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(net.ip(), net.prefix()).build()
        }
        IpNetwork::V6(net) => {
            let mut message =
                AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(net.ip(), net.prefix()).build();
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            message
        }
    };
    Request::new(format!("give the device address {address}"), Body::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Sends what has no other way through a router, or, without one, out of a device.
pub fn default_route(index: u32, gateway: Option<IpAddr>, ipv6: bool) -> Request {
    let message = match gateway {
        Some(IpAddr::V4(gateway)) => {
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build()
        }
        Some(IpAddr::V6(gateway)) => {
            RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build()
        }
        None if ipv6 => RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).build(),
        None => RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).build(),
    };
    let what = gateway.map_or_else(|| "set the default route".into(), |gateway| format!("route through {gateway}"));
    Request::new(what, Body::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}
