//! `network create`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use clap::ArgMatches;
use ipnetwork::IpNetwork;

use super::separated;
use crate::cli::spec::{self, Arity, Spec, invalid};
use crate::cli::{Session, environment, output};
use crate::engine::request::NetworkRequest;
use crate::error::Failure;

pub(in crate::cli) static CREATE: Spec = Spec {
    name: "create",
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: true,
    unsupported: &["--config-from", "--config-only", "--ingress", "--ipam-opt"],
    flags: |command| {
        command
            .arg(spec::switch("attachable", None, "Enable manual container attachment (every network has it)"))
            .arg(spec::list("aux-address", None, "map", "Addresses of others on the network (NAME=ADDRESS)"))
            .arg(spec::value(
                "driver",
                Some('d'),
                "string",
                "Driver to manage the network: bridge, macvlan or ipvlan (default \"bridge\")",
            ))
            .arg(spec::list("gateway", None, "strings", "IPv4 or IPv6 gateway for the subnet"))
            .arg(spec::switch("internal", None, "Restrict external access to the network"))
            .arg(spec::list("ip-range", None, "strings", "Allocate container ip from a sub-range"))
            .arg(spec::value("ipam-driver", None, "string", "IP address management driver (only \"default\")"))
            .arg(spec::switch("ipv4", None, "Enable or disable IPv4 address assignment (default true)"))
            .arg(spec::switch("ipv6", None, "Enable or disable IPv6 address assignment"))
            .arg(spec::list("label", None, "list", "Set metadata on a network"))
            .arg(spec::list("opt", Some('o'), "map", "Set driver specific options"))
            .arg(spec::value("scope", None, "string", "The network's scope (only \"local\")"))
            .arg(spec::list("subnet", None, "strings", "Subnet in CIDR format that represents a network segment"))
    },
    run: |session, matches| create(session, matches),
};

fn create(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let request = lower(matches)?;
    let created = session.engine()?.network_create(&request)?;
    created.warnings.iter().for_each(|warning| output::warn(warning));
    output::print_line(&created.id)?;
    Ok(0)
}

/// What the flags ask.
pub(in crate::cli) fn lower(matches: &ArgMatches) -> Result<NetworkRequest> {
    only(matches, "scope", "local")?;
    only(matches, "ipam-driver", "default")?;
    if !spec::is_set_or(matches, "ipv4", true) {
        return Err(invalid("ipv4", "false", "a network without IPv4 is not supported yet"));
    }
    Ok(NetworkRequest {
        name: spec::operands(matches).into_iter().next().unwrap_or_default(),
        driver: spec::text(matches, "driver").filter(|driver| !driver.is_empty()).unwrap_or_else(|| "bridge".into()),
        subnets: networks(matches, "subnet")?,
        gateways: separated(spec::texts(matches, "gateway")).iter().map(|text| address(text)).collect::<Result<_>>()?,
        ranges: networks(matches, "ip-range")?,
        auxiliary: auxiliary(matches)?,
        internal: spec::is_set(matches, "internal"),
        ipv6: spec::is_set(matches, "ipv6"),
        attachable: spec::is_set(matches, "attachable"),
        labels: environment::label_flags(matches)?,
        options: options(matches)?,
    })
}

fn only(matches: &ArgMatches, flag: &str, supported: &str) -> Result<()> {
    match spec::text(matches, flag).as_deref() {
        None | Some("") => Ok(()),
        Some(text) if text == supported => Ok(()),
        Some(other) => Err(invalid(flag, other, format!("only {supported} is supported"))),
    }
}

fn networks(matches: &ArgMatches, flag: &str) -> Result<Vec<IpNetwork>> {
    let parse = |text: &String| {
        // Without a length it would be a single address, which Go's parser does not take.
        let network = if text.contains('/') { text.parse().ok() } else { None };
        network.ok_or_else(|| Failure::usage(format!("invalid CIDR address: {text}")).into())
    };
    separated(spec::texts(matches, flag)).iter().map(parse).collect()
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Failure::usage(format!("invalid IP address: {text}")).into())
}

fn auxiliary(matches: &ArgMatches) -> Result<Vec<(String, IpAddr)>> {
    let read = |text: &String| {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, at) = pair.ok_or_else(|| invalid("aux-address", text, "write NAME=ADDRESS"))?;
        Ok((name.to_owned(), address(at)?))
    };
    spec::texts(matches, "aux-address").iter().map(read).collect()
}

fn options(matches: &ArgMatches) -> Result<BTreeMap<String, String>> {
    let read = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let key = key.trim();
        if key.is_empty() {
            Err(invalid("opt", text, "the option has no name"))
        } else {
            Ok((key.into(), value.into()))
        }
    };
    spec::texts(matches, "opt").iter().map(read).collect()
}
