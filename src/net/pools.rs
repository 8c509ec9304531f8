//! Which subnets are free, and what a network's subnets look like: pure arithmetic.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use super::Subnet;
use crate::error::Failure;

/// Subnets to choose from: all of prefix length `size` within `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The whole.
    pub base: IpNetwork,
    /// Prefix length of its parts.
    pub size: u8,
}

/// A range that is spoken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The range.
    pub network: IpNetwork,
    /// By whom, for messages: `network n1`, `route of eth0`, `address of eth0`.
    pub by: String,
}

/// What a user asked of a network's addresses: host bits may be set, everything but `subnets`
/// belongs to the subnet it lies in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// `--subnet`, or what [`free_subnet`] found.
    pub subnets: &'a [IpNetwork],
    /// `--gateway`.
    pub gateways: &'a [IpAddr],
    /// `--ip-range`.
    pub ranges: &'a [IpNetwork],
    /// `--aux-address`.
    pub auxiliary: &'a [(String, IpAddr)],
}

/// Docker's pools for networks of one host: 172.17.0.0/16 to 172.31.0.0/16, then sixteen /20 of
/// 192.168.0.0/16.
pub fn default_pools() -> Vec<Pool> {
    let pool = |base: [u8; 4], size| Pool { base: network(number(IpAddr::from(base)), 16, false), size };
    (17..=31).map(|second| pool([172, second, 0, 0], 16)).chain([pool([192, 168, 0, 0], 20)]).collect()
}

/// The unique local /48 of a machine (RFC 4193 section 3.1: `fd` and 40 bits), cut into /64. The
/// same seed gives the same pool, so that the networks of a machine keep together.
pub fn ula_pool(seed: u64) -> Pool {
    let digest = Sha256::digest(seed.to_be_bytes());
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&digest[..5]);
    Pool { base: network(number(IpAddr::from(octets)), 48, true), size: 64 }
}

/// The first subnet of the pools, in their order, that nobody has.
///
/// A candidate that meets a taken range is followed by the first one behind that range, so the
/// work grows with what is taken, not with the pool.
pub fn free_subnet(pools: &[Pool], taken: &[Taken]) -> Option<IpNetwork> {
    pools.iter().find_map(|pool| {
        let ipv6 = pool.base.is_ipv6();
        if pool.size < pool.base.prefix() || pool.size > width(ipv6) {
            return None;
        }
        let last = last_number(&pool.base);
        let mut start = number(pool.base.network());
        loop {
            let candidate = network(start, pool.size, ipv6);
            let end = last_number(&candidate);
            let next = match overlap(candidate, taken) {
                None => return Some(candidate),
                Some(other) => last_number(&other.network).max(end).checked_add(1)?,
            };
            // Up to the next beginning of a candidate.
            let step = end - start;
            start = next.checked_add(step)? & !step;
            if start > last {
                return None;
            }
        }
    })
}

/// Who of `taken` shares an address with `wanted`; the widest one, as that is what stands in the way.
pub fn overlap(wanted: IpNetwork, taken: &[Taken]) -> Option<&Taken> {
    taken.iter().filter(|other| overlaps(&wanted, &other.network)).min_by_key(|other| other.network.prefix())
}

/// Makes a network's subnets of what was asked for, IPv4 first, or says in Docker's words what does
/// not fit together.
///
/// Without `--gateway` the gateway is the first address of the `--ip-range`, or without one the
/// first host of the subnet: Docker chooses it "from inside a preferred pool", which is the range
/// (docker network create, *Specify advanced options*). As there, a range's own first and last
/// addresses are hosts like any other unless they are the subnet's. An internal network has a
/// gateway too: it is the bridge's address.
pub fn lay_out(wishes: &Wishes<'_>) -> Result<Vec<Subnet>> {
    let mut subnets: Vec<Subnet> = Vec::new();
    for wanted in wishes.subnets {
        let subnet = canonical(wanted);
        check_size(&subnet)?;
        if subnets.iter().any(|other| overlaps(&subnet, &other.subnet)) {
            return Err(usage("multiple overlapping subnet configuration is not supported".into()));
        }
        subnets.push(Subnet { subnet, gateway: None, range: None, auxiliary: BTreeMap::new() });
    }
    for range in wishes.ranges.iter().map(canonical) {
        let inside =
            |subnet: &&mut Subnet| subnet.subnet.contains(range.ip()) && range.prefix() >= subnet.subnet.prefix();
        let subnet =
            subnets.iter_mut().find(inside).ok_or_else(|| usage(format!("no matching subnet for range {range}")))?;
        if let Some(other) = subnet.range.replace(range) {
            return Err(usage(format!(
                "cannot configure multiple ranges ({other}, {range}) on the same subnet ({})",
                subnet.subnet
            )));
        }
    }
    for (name, address) in wishes.auxiliary {
        let subnet = containing(&mut subnets, *address)
            .ok_or_else(|| usage(format!("no matching subnet for aux-address {address}")))?;
        if let Some(other) = subnet.auxiliary.insert(name.clone(), *address)
            && other != *address
        {
            return Err(usage(format!("aux-address {name} is given twice: {other} and {address}")));
        }
    }
    for gateway in wishes.gateways {
        let subnet = containing(&mut subnets, *gateway)
            .ok_or_else(|| usage(format!("no matching subnet for gateway {gateway}")))?;
        if !is_host(&subnet.subnet, *gateway) {
            return Err(usage(format!("gateway {gateway} is the network or broadcast address of {}", subnet.subnet)));
        }
        if let Some((name, _)) = subnet.auxiliary.iter().find(|(_, address)| *address == gateway) {
            return Err(usage(format!("gateway {gateway} is also the aux-address {name}")));
        }
        if let Some(other) = subnet.gateway.replace(*gateway) {
            return Err(usage(format!(
                "cannot configure multiple gateways ({other}, {gateway}) for the same subnet ({})",
                subnet.subnet
            )));
        }
    }
    for subnet in &mut subnets {
        if subnet.gateway.is_none() {
            subnet.gateway = Some(first_host(subnet)?);
        }
    }
    subnets.sort_by_key(|subnet| subnet.subnet.is_ipv6());
    Ok(subnets)
}

/// A device needs an address, and the bridge another: /8 to /30 for IPv4. The two point-to-point
/// forms (/31, RFC 3021; /127, RFC 6164) leave a network of one container and its gateway no room
/// for anybody to come, and are refused as /32 and /128 are.
fn check_size(subnet: &IpNetwork) -> Result<()> {
    let (least, most) = if subnet.is_ipv6() { (16, 126) } else { (8, 30) };
    let size = subnet.prefix();
    if !(least..=most).contains(&size) {
        return Err(Failure::usage(format!("invalid subnet {subnet}: its size must be /{least} to /{most}"))
            .with_hint("for example --subnet 172.30.0.0/24")
            .into());
    }
    let address = subnet.network();
    if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(usage(format!("invalid subnet {subnet}: its addresses are not for hosts")));
    }
    Ok(())
}

/// The first address of the range, or of the subnet, that is a host's and nobody else's.
fn first_host(subnet: &Subnet) -> Result<IpAddr> {
    let within = subnet.range.unwrap_or(subnet.subnet);
    let first = number(within.network());
    // One of so many in a row is free, as each auxiliary address takes one and the network's own too.
    (0..=subnet.auxiliary.len() as u128 + 1)
        .filter_map(|offset| first.checked_add(offset))
        .take_while(|candidate| *candidate <= last_number(&within))
        .map(|candidate| address(candidate, within.is_ipv6()))
        .find(|address| is_host(&subnet.subnet, *address) && !subnet.auxiliary.values().any(|other| other == address))
        .ok_or_else(|| {
            Failure::usage(format!("no address of {within} is free for the gateway"))
                .with_hint("give one with --gateway")
                .into()
        })
}

fn containing(subnets: &mut [Subnet], address: IpAddr) -> Option<&mut Subnet> {
    subnets.iter_mut().find(|subnet| subnet.subnet.contains(address))
}

fn usage(message: String) -> anyhow::Error {
    Failure::usage(message).into()
}

/// Whether `address`, which lies in `subnet`, may belong to a host: not the subnet's own and not its
/// broadcast address (RFC 919), nor IPv6's subnet-router anycast address (RFC 4291 section 2.6.1).
/// Where there are but one or two addresses, all are hosts' (RFC 3021, RFC 6164).
pub(super) fn is_host(subnet: &IpNetwork, address: IpAddr) -> bool {
    if subnet.prefix() + 1 >= width(subnet.is_ipv6()) {
        return true;
    }
    address != subnet.network() && (subnet.is_ipv6() || address != subnet.broadcast())
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// A number as an address; of an IPv4 one the low 32 bits count.
pub(super) fn address(number: u128, ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}

/// The last address of a range as a number.
pub(super) fn last_number(network: &IpNetwork) -> u128 {
    let host_bits = width(network.is_ipv6()) - network.prefix();
    let hosts = 1_u128.checked_shl(u32::from(host_bits)).map_or(u128::MAX, |count| count - 1);
    number(network.network()) | hosts
}

fn width(ipv6: bool) -> u8 {
    if ipv6 { 128 } else { 32 }
}

/// The same range without host bits.
fn canonical(wanted: &IpNetwork) -> IpNetwork {
    network(number(wanted.network()), wanted.prefix(), wanted.is_ipv6())
}

fn network(start: u128, prefix: u8, ipv6: bool) -> IpNetwork {
    let ip = address(start, ipv6);
    // The callers' prefixes come from networks of the same family or were compared with its width.
    IpNetwork::new(ip, prefix).unwrap_or_else(|_| ip.into())
}

fn overlaps(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.is_ipv6() == b.is_ipv6() && (a.contains(b.network()) || b.contains(a.network()))
}

#[cfg(test)]
#[path = "pools_tests.rs"]
mod tests;
