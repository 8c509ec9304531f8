//! What `run`, `create` and `network connect` say of a container's networks, names and resolver.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::spec::{self, invalid};
use super::{mount, publish};
use crate::container::{Attachment, Dns, Link, MacAddress, Networking};
use crate::error::Failure;

/// The network of a container that names none, under the name that it has in listings.
const DEFAULT: &str = "bridge";

/// The flags of this file and the ports'.
pub(super) fn flags(command: Command) -> Command {
    endpoint_flags(publish::flags(command))
        .arg(spec::list("dns", None, "list", "Set custom DNS servers"))
        .arg(spec::list("dns-option", None, "list", "Set DNS options").alias("dns-opt"))
        .arg(spec::list("dns-search", None, "list", "Set custom DNS search domains"))
        .arg(spec::value("mac-address", None, "string", "Container MAC address (e.g., \"92:d0:c6:0a:29:33\")"))
        .arg(spec::list("network", None, "network", "Connect a container to a network").alias("net"))
        .arg(spec::list("network-alias", None, "list", "Add network-scoped alias for the container").alias("net-alias"))
}

/// Those that `network connect` has too.
pub(super) fn endpoint_flags(command: Command) -> Command {
    command
        .arg(spec::value("ip", None, "string", "IPv4 address (e.g., \"172.30.100.104\")"))
        .arg(spec::value("ip6", None, "string", "IPv6 address (e.g., \"2001:db8::33\")"))
        .arg(spec::list("link", None, "list", "Add link to another container"))
}

/// Lowers the flags of `run` and `create`.
pub(super) fn networking(matches: &ArgMatches) -> Result<Networking> {
    Ok(Networking {
        attachments: attachments(matches)?,
        ports: publish::published(matches)?,
        exposed: publish::exposed(matches)?,
        publish_all: spec::is_set(matches, "publish-all"),
        dns: dns(matches)?,
        links: links(matches)?,
    })
}

fn attachments(matches: &ArgMatches) -> Result<Vec<Attachment>> {
    let mut attachments = Vec::new();
    for text in spec::texts(matches, "network") {
        let attachment = if text.contains('=') { long_form(&text)? } else { named(&text) };
        if attachment.network.is_empty() {
            return Err(Failure::usage("no name set for network").into());
        }
        if attachments.iter().any(|other: &Attachment| other.network == attachment.network) {
            let message = format!("network {:?} is specified multiple times", attachment.network);
            return Err(Failure::usage(message).into());
        }
        attachments.push(attachment);
    }
    if attachments.len() > 1 && attachments.iter().any(|attachment| !is_network(&attachment.network)) {
        let message = "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
        return Err(Failure::usage(message).into());
    }
    let separate = separate_flags(matches)?;
    if separate != Attachment::default() {
        if attachments.is_empty() {
            attachments.push(named(DEFAULT));
        }
        // As with Docker, these flags are about the first network.
        if let Some(first) = attachments.first_mut() {
            join(first, separate)?;
        }
    }
    Ok(attachments)
}

/// Whether the word names a network, and no other way of having one.
fn is_network(word: &str) -> bool {
    !matches!(word, "none" | "host") && !word.starts_with("container:")
}

fn named(network: &str) -> Attachment {
    let network = if network == "default" { DEFAULT } else { network };
    Attachment { network: network.to_owned(), ..Attachment::default() }
}

/// `--network-alias`, `--ip`, `--ip6`, `--mac-address`.
fn separate_flags(matches: &ArgMatches) -> Result<Attachment> {
    let given = |flag| spec::text(matches, flag).filter(|text| !text.is_empty());
    let mac = given("mac-address").map(|text| text.parse::<MacAddress>().map_err(Failure::usage)).transpose()?;
    let aliases = spec::texts(matches, "network-alias");
    if aliases.iter().any(String::is_empty) {
        return Err(invalid("network-alias", "", "the alias has no name"));
    }
    Ok(Attachment { aliases, mac, ..fixed_addresses(matches)? })
}

/// `--ip` and `--ip6`.
pub(super) fn fixed_addresses(matches: &ArgMatches) -> Result<Attachment> {
    let given = |flag| spec::text(matches, flag).filter(|text| !text.is_empty());
    Ok(Attachment {
        ip: given("ip").map(|text| address(&text, "IPv4")).transpose()?,
        ip6: given("ip6").map(|text| address(&text, "IPv6")).transpose()?,
        ..Attachment::default()
    })
}

fn address<T: FromStr>(text: &str, family: &str) -> Result<T> {
    text.parse().map_err(|_| Failure::usage(format!("invalid {family} address: {text}")).into())
}

/// Adds what the separate flags say to what the long form says; neither overrules the other.
fn join(first: &mut Attachment, flags: Attachment) -> Result<()> {
    fn one<T>(into: &mut Option<T>, flag: Option<T>, what: &str) -> Result<()> {
        if into.is_some() && flag.is_some() {
            return Err(Failure::usage(format!("conflicting options: cannot specify both {what}")).into());
        }
        *into = flag.or(into.take());
        Ok(())
    }
    if !first.aliases.is_empty() && !flags.aliases.is_empty() {
        let message = "conflicting options: cannot specify both --network-alias and per-network alias";
        return Err(Failure::usage(message).into());
    }
    first.aliases.extend(flags.aliases);
    one(&mut first.ip, flags.ip, "--ip and per-network IPv4 address")?;
    one(&mut first.ip6, flags.ip6, "--ip6 and per-network IPv6 address")?;
    one(&mut first.mac, flags.mac, "--mac-address and per-network MAC address")
}

/// `name=n1,alias=a,alias=b,ip=1.2.3.4,…`, one record of comma-separated values.
fn long_form(text: &str) -> Result<Attachment> {
    let refuse = |why: &dyn Display| invalid("network", text, why);
    let mut attachment = Attachment::default();
    for field in mount::csv(text).map_err(|why| refuse(&why))? {
        let pair = field.split_once('=').map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim()));
        let Some((key, value)) = pair.filter(|(key, _)| !key.is_empty()) else {
            return Err(refuse(&format!("invalid field {field}")));
        };
        match key.as_str() {
            "name" => attachment.network = named(value).network,
            "alias" if value.is_empty() => return Err(refuse(&"the alias has no name")),
            "alias" => attachment.aliases.push(value.to_owned()),
            "ip" => attachment.ip = Some(address(value, "IPv4")?),
            "ip6" => attachment.ip6 = Some(address(value, "IPv6")?),
            "mac-address" => attachment.mac = Some(value.parse().map_err(Failure::usage)?),
            "driver-opt" => {
                let (key, value) =
                    driver_option(value).ok_or_else(|| refuse(&"invalid key value pair format in driver options"))?;
                attachment.driver_options.insert(key, value);
            }
            "gw-priority" => {
                attachment.gateway_priority =
                    value.parse().map_err(|_| refuse(&format!("invalid gw-priority ({value}): invalid syntax")))?;
            }
            "link-local-ip" => return Err(refuse(&"link-local-ip is not supported yet")),
            _ => return Err(refuse(&format!("invalid field key {key}"))),
        }
    }
    if attachment.network.is_empty() {
        return Err(refuse(&"network name/id is not specified"));
    }
    Ok(attachment)
}

fn driver_option(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim();
    (!key.is_empty()).then(|| (key.to_owned(), value.trim().to_owned()))
}

/// `--driver-opt` of `network connect`.
pub(super) fn driver_options(matches: &ArgMatches) -> Result<BTreeMap<String, String>> {
    let refuse = || Failure::usage("invalid key/value pair format in driver options").into();
    let options = spec::texts(matches, "driver-opt");
    options.iter().map(|text| driver_option(text).ok_or_else(refuse)).collect()
}

/// `--link CONTAINER[:ALIAS]`; also as `inspect` shows links (`/other:/this/alias`).
pub(super) fn links(matches: &ArgMatches) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for text in spec::texts(matches, "link") {
        let refuse = |why: &dyn Display| invalid("link", &text, why);
        if text.is_empty() {
            return Err(refuse(&"empty string specified for links"));
        }
        let (container, alias) = match text.split_once(':') {
            None => (text.as_str(), text.as_str()),
            Some((_, alias)) if alias.contains(':') => return Err(refuse(&format!("bad format for links: {text}"))),
            Some((container, alias)) if container.starts_with('/') => {
                (&container[1..], alias.rsplit('/').next().unwrap_or_default())
            }
            Some(pair) => pair,
        };
        if container.is_empty() || alias.is_empty() {
            return Err(refuse(&format!("bad format for links: {text}")));
        }
        links.push(Link { container: container.to_owned(), alias: alias.to_owned() });
    }
    Ok(links)
}

fn dns(matches: &ArgMatches) -> Result<Dns> {
    let mut dns = Dns::default();
    for text in spec::texts(matches, "dns") {
        let address: IpAddr = text
            .trim()
            .parse()
            .map_err(|_| invalid("dns", &text, format!("IP address is not correctly formatted: {text}")))?;
        dns.servers.push(address);
    }
    for text in spec::texts(matches, "dns-search") {
        let domain = text.trim_matches(' ');
        if !is_domain(domain) {
            return Err(invalid("dns-search", &text, format!("{text} is not a valid domain")));
        }
        dns.search.push(domain.to_owned());
    }
    for text in spec::texts(matches, "dns-option") {
        // It becomes a word of a line of resolv.conf(5).
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(invalid("dns-option", &text, "it must be one word"));
        }
        dns.options.push(text);
    }
    Ok(dns)
}

/// A domain name, or `.` for no search at all.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let domain = text.strip_suffix('.').unwrap_or(text);
    text == "." || (domain.len() < 255 && domain.split('.').all(is_label))
}
