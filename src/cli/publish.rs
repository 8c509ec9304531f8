//! Ports on the command line: `-p`, `-P` and `--expose` read, and the `PORTS` of `ps` written. The
//! forms, the order and the words of refusals are those of Docker's front end.

use std::net::IpAddr;

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::spec;
use crate::container::{ExposedPort, PortMapping, Protocol};
use crate::engine::query::PortSummary;
use crate::error::Failure;

/// Ports that one container may publish or expose: as many as there are of one protocol.
const MAX_PORTS: usize = 65_536;

/// The flags of this file.
pub(super) fn flags(command: Command) -> Command {
    command
        .arg(spec::list("expose", None, "list", "Expose a port or a range of ports"))
        .arg(spec::list("publish", Some('p'), "list", "Publish a container's port(s) to the host"))
        .arg(spec::switch("publish-all", Some('P'), "Publish all exposed ports to random ports"))
}

/// What `-p` asks for.
pub(super) fn published(matches: &ArgMatches) -> Result<Vec<PortMapping>> {
    let mut mappings = Vec::new();
    for text in spec::texts(matches, "publish") {
        mappings.extend(parse_publish(&text).map_err(Failure::usage)?);
        check_count(mappings.len(), "published")?;
    }
    Ok(mappings)
}

/// What `--expose` asks for.
pub(super) fn exposed(matches: &ArgMatches) -> Result<Vec<ExposedPort>> {
    let mut ports = Vec::new();
    for text in spec::texts(matches, "expose") {
        ports.extend(parse_expose(&text).map_err(Failure::usage)?);
        check_count(ports.len(), "exposed")?;
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

fn check_count(count: usize, what: &str) -> Result<()> {
    if count <= MAX_PORTS {
        return Ok(());
    }
    Err(Failure::usage(format!("more than {MAX_PORTS} ports are to be {what}")).into())
}

/// `[[ADDRESS:][HOST]:]PORT[/PROTOCOL]`, with ranges, or `target=PORT,published=HOST,…`.
fn parse_publish(text: &str) -> Result<Vec<PortMapping>, String> {
    if text.contains('=') {
        return parse_long(text);
    }
    let (ports, protocol) = split_protocol(text);
    let mut parts = ports.rsplitn(3, ':');
    let target = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    if target.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    mappings(address, host, target, protocol)
}

/// Docker's long form; `mode` means something in a swarm only.
fn parse_long(text: &str) -> Result<Vec<PortMapping>, String> {
    let (mut target, mut published, mut address, mut protocol) = ("", "", "", "tcp");
    for field in text.split(',') {
        let refuse = || format!("invalid publish opts format (should be name=value but got '{field}')");
        let (key, value) = field.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(refuse)?;
        match key {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            "host_ip" => address = value,
            "mode" if matches!(value, "host" | "ingress") => {}
            "mode" => return Err(format!("invalid publish mode: {value}")),
            "name" | "app_protocol" => {}
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if target.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    mappings(address, published, target, protocol)
}

fn split_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((ports, protocol)) if !protocol.is_empty() => (ports, protocol),
        Some((ports, _)) => (ports, "tcp"),
        None => (text, "tcp"),
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    text.parse().map_err(|_| format!("invalid proto: {text}"))
}

/// Takes ranges apart: one mapping for each port of the container.
fn mappings(address: &str, host: &str, target: &str, protocol: &str) -> Result<Vec<PortMapping>, String> {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let host_ip: Option<IpAddr> = match bare {
        "" if address.is_empty() => None,
        bare => Some(bare.parse().map_err(|_| format!("invalid IP address: {address}"))?),
    };
    let (first, last) = range(target).ok_or_else(|| format!("invalid containerPort: {target}"))?;
    // Docker takes 0 for "any that is free".
    let host_range = match host {
        "" | "0" => None,
        host => Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
    };
    let protocol = parse_protocol(protocol)?;
    let host_ports = match host_range {
        Some((low, high)) if first != last && high - low != last - first => {
            return Err(format!("invalid ranges specified for container and host Ports: {target} and {host}"));
        }
        other => other,
    };
    let mapping = |port: u16| {
        let host_ports = match host_ports {
            Some((low, _)) if first != last => Some((low + (port - first), low + (port - first))),
            other => other,
        };
        PortMapping { host_ip, host_ports, port, protocol }
    };
    Ok((first..=last).map(mapping).collect())
}

/// `80` or `80-90`; no port is 0.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && first > 0).then_some((first, last))
}

/// Digits only: Rust's own parser takes a sign, too.
fn number(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn parse_expose(text: &str) -> Result<Vec<ExposedPort>, String> {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    let (ports, protocol) = split_protocol(text);
    let (first, last) = range(ports).ok_or_else(|| {
        format!("invalid range format for --expose: {text}, error: write a port or a range such as 80-90")
    })?;
    let protocol = parse_protocol(protocol)?;
    Ok((first..=last).map(|port| ExposedPort { port, protocol }).collect())
}

/// Neighbouring ports that are shown as one.
struct Run {
    /// Address on the host with its colon, in brackets for IPv6; empty for ports that are exposed only.
    address: String,
    protocol: Protocol,
    first: u16,
    last: u16,
}

impl Run {
    fn show(&self) -> String {
        let Run { address, protocol, first, last } = self;
        let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
        if address.is_empty() { format!("{ports}/{protocol}") } else { format!("{address}{ports}->{ports}/{protocol}") }
    }
}

/// The `PORTS` column. Ports that are the same on both sides are drawn together with their
/// neighbours; runs come in Docker's order: those that a gap ended, the others, then the ports that
/// change their number.
pub(super) fn column(ports: &[PortSummary]) -> String {
    let mut sorted: Vec<&PortSummary> = ports.iter().collect();
    sorted.sort_by_cached_key(|port| {
        let address = port.host.map(|host| host.ip().to_string()).unwrap_or_default();
        (port.port, address, port.host.map_or(0, |host| host.port()), port.protocol.as_str())
    });
    let mut shown = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut changed = Vec::new();
    for port in sorted {
        let address = match port.host {
            Some(host) if host.port() != port.port => {
                changed.push(format!("{host}->{}/{}", port.port, port.protocol));
                continue;
            }
            Some(host) if host.is_ipv6() => format!("[{}]:", host.ip()),
            Some(host) => format!("{}:", host.ip()),
            None => String::new(),
        };
        match runs.iter_mut().find(|run| run.address == address && run.protocol == port.protocol) {
            None => runs.push(Run { address, protocol: port.protocol, first: port.port, last: port.port }),
            Some(run) if run.last.checked_add(1) == Some(port.port) => run.last = port.port,
            Some(run) => {
                shown.push(run.show());
                (run.first, run.last) = (port.port, port.port);
            }
        }
    }
    shown.extend(runs.iter().map(Run::show));
    shown.extend(changed);
    shown.join(", ")
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
