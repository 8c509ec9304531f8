//! Container networks: bridges and their kin, addresses, names, rules, published ports.
//!
//! ```text
//! records    what networks there are (JSON, one file each), found by name or id
//! pools      which subnets are free: pure
//! ipam       which addresses are taken, by whom: a table of owners, and a bitmap as its index
//! names      which names lead where: a table a network
//! link       devices, addresses, routes: rtnetlink's messages over a blocking socket
//! firewall   rules as text, handed to iptables-restore
//! ports      host ports, held by bound sockets, and who else holds one
//! dns        the resolver that a container finds on 127.0.0.11
//! ```
//!
//! The module knows no containers: whoever uses an address is an *owner*, a string. What a
//! connection made is an [`Endpoint`], which is exactly what taking it away needs; the engine keeps
//! it in the container's state.
//!
//! "The host" is the network namespace of the calling process, so that the engine works inside a
//! namespace as it does on a machine.

pub mod attach;
pub mod bridge;
pub mod dns;
pub mod firewall;
pub mod ipam;
pub mod link;
pub mod names;
pub mod pools;
pub mod ports;
pub mod records;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Version written into network records.
pub const FORMAT_VERSION: u32 = 1;
/// Name of the network that containers are connected to unless they say otherwise.
pub const DEFAULT_NETWORK: &str = "bridge";
/// Device of the default network, where that name is free.
pub const DEFAULT_DEVICE: &str = "mydocker0";

/// What kind of network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A switch of its own on the host, with address translation to the outside.
    Bridge,
    /// Devices with addresses of their own on a device of the host (802.1Q-style, by MAC).
    Macvlan,
    /// The same with one MAC for all.
    Ipvlan,
}

/// A network, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// 64 lower-case hexadecimal digits.
    pub id: String,
    /// Unique among the networks of a data root; also the record's file name.
    pub name: String,
    /// Its kind.
    pub driver: Driver,
    /// When it was made.
    pub created: Timestamp,
    /// Its subnets, one of each family at least where it has that family; IPv4 first.
    pub subnets: Vec<Subnet>,
    /// No way out and none in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// `--ipv6` was given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
    /// `--attachable`: kept for `inspect`; every network here is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attachable: bool,
    /// The user's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Driver options as given (`--opt`), in Docker's long spelling.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The bridge, or the parent device of a macvlan or ipvlan network.
    pub device: String,
}

/// A range of addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// In canonical form: no host bits.
    pub subnet: IpNetwork,
    /// The address of the bridge, or of the router on a macvlan; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Containers get addresses from here only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IpNetwork>,
    /// Addresses of others, by name; never given to containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl Network {
    /// The value of a driver option, by Docker's long name.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    /// A boolean driver option; one that cannot be read has been refused at creation.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.option(key).map_or(default, |text| matches!(text, "true" | "1" | "t" | "T" | "TRUE" | "True"))
    }

    /// The subnets of one family.
    pub fn subnets_of(&self, ipv6: bool) -> impl Iterator<Item = &Subnet> {
        self.subnets.iter().filter(move |subnet| subnet.subnet.is_ipv6() == ipv6)
    }

    /// It has IPv6 addresses.
    pub fn has_ipv6(&self) -> bool {
        self.subnets_of(true).next().is_some()
    }
}

/// A connection of one owner to one network: what was made, and what must be taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name of the network.
    pub network: String,
    /// Its id: the record is gone when another network has that name.
    pub network_id: String,
    /// The connection's own id, 64 hexadecimal digits.
    pub id: String,
    /// The device inside: `eth0`, `eth1`, ….
    pub interface: String,
    /// Its other end on the host; `None` for macvlan and ipvlan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_interface: Option<String>,
    /// Hardware address inside.
    pub mac: MacAddress,
    /// Addresses with the length of their subnet's prefix; IPv4 first.
    pub addresses: Vec<IpNetwork>,
    /// Routers of the network, at most one of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Names by which others on the network find the owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Host ports that lead here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

impl Endpoint {
    /// Its address of one family.
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().map(IpNetwork::ip).find(|address| address.is_ipv6() == ipv6)
    }
}

/// A host port that leads to an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Published {
    /// Address and port on the host; the unspecified address stands for all of its family.
    pub host: SocketAddr,
    /// Address and port of the owner, of the same family.
    pub target: SocketAddr,
    /// Transport.
    pub protocol: Protocol,
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol.
    #[default]
    Tcp,
    /// User Datagram Protocol.
    Udp,
    /// Stream Control Transmission Protocol.
    Sctp,
}

impl Protocol {
    /// As in `80/tcp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            other => Err(format!("invalid protocol {other:?}: it is tcp, udp or sctp")),
        }
    }
}

/// An Ethernet hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Derived from an address, so that an address that is used again keeps its place in the
    /// neighbour tables of others: `02:42` and IPv4's four bytes as with Docker, the last four of IPv6.
    pub fn of(address: IpAddr) -> MacAddress {
        let [a, b, c, d] = match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => {
                let octets = address.octets();
                [octets[12], octets[13], octets[14], octets[15]]
            }
        };
        MacAddress([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text} is not a valid mac address");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        // A device cannot have the address of a group (IEEE 802: the first byte's lowest bit).
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(format!("{text} is not the mac address of one device"));
        }
        Ok(MacAddress(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> String {
        address.to_string()
    }
}

/// Driver options in Docker's long spelling, and the short ones that `--opt` accepts.
pub mod option {
    /// Device name.
    pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
    /// Containers may reach each other (default true).
    pub const ICC: &str = "com.docker.network.bridge.enable_icc";
    /// Addresses are translated on the way out (default true).
    pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    /// Host address of published ports that name none.
    pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
    /// Largest packet, bytes.
    pub const MTU: &str = "com.docker.network.driver.mtu";
    /// Device of the host below a macvlan or ipvlan.
    pub const PARENT: &str = "parent";
    /// `bridge`, `private`, `vepa`, `passthru`.
    pub const MACVLAN_MODE: &str = "macvlan_mode";
    /// `l2`, `l3`, `l3s`.
    pub const IPVLAN_MODE: &str = "ipvlan_mode";

    /// The long spelling of what `--opt` calls `key`.
    pub fn long(key: &str) -> &str {
        match key {
            "mtu" => MTU,
            "icc" | "enable_icc" => ICC,
            "masquerade" | "enable_ip_masquerade" => MASQUERADE,
            "host-binding" | "host_binding_ipv4" => HOST_BINDING,
            "name" | "bridge" => BRIDGE_NAME,
            other => other,
        }
    }
}
