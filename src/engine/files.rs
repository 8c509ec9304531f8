//! The files that the engine gives each container: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
//! Texts are pure functions; they are written into the container's directory and bound inside.

use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use crate::container::{Config, Endpoint, HOST_GATEWAY, NetworkMode};
use crate::layout::Layout;
use crate::net::dns;

/// `/etc/hosts` (hosts(5)): the container finds itself by its host name.
pub fn hosts(config: &Config, endpoints: &[Endpoint]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    // The host as the container reaches it: the router of its first network, itself where it has the
    // host's network.
    let gateway = endpoints.iter().flat_map(|endpoint| &endpoint.gateways).next().map(ToString::to_string);
    let gateway = gateway.or_else(|| (config.namespaces.network == NetworkMode::Host).then(|| "127.0.0.1".to_owned()));
    for host in &config.extra_hosts {
        let address = if host.address == HOST_GATEWAY { gateway.as_deref() } else { Some(host.address.as_str()) };
        if let Some(address) = address {
            text.push_str(&format!("{address}\t{}\n", host.name));
        }
    }
    let name = match config.domainname.as_str() {
        "" => config.hostname.clone(),
        domain => format!("{}.{domain} {}", config.hostname, config.hostname),
    };
    for address in endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
        text.push_str(&format!("{}\t{name}\n", address.ip()));
    }
    text
}

/// Writes a container's `hosts` anew for the connections it has now. In place: the file is bound
/// inside, and a new one in its stead would not be seen there.
pub fn refresh(layout: &Layout, config: &Config, endpoints: &[Endpoint]) -> Result<()> {
    let path = layout.container(&config.id).join("hosts");
    let text = hosts(config, endpoints);
    let write = || -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// `/etc/hostname` (hostname(5)).
pub fn hostname(config: &Config) -> String {
    format!("{}\n", config.hostname)
}

/// `/etc/resolv.conf` (resolv.conf(5)). On networks the server is the container's own resolver, which
/// asks those of the config or of the host; elsewhere the host's file, where what was asked for takes
/// the place of what stands there. A name server on the host's loopback cannot be reached from a
/// network namespace of the container's own, so it is left out there.
pub fn resolv_conf(host: &str, config: &Config) -> String {
    let dns = &config.networking.dns;
    let network = &config.namespaces.network;
    let wanted = !dns.servers.is_empty() || !dns.search.is_empty() || !dns.options.is_empty();
    if *network == NetworkMode::Host && !wanted {
        return host.to_owned();
    }
    let words = |keyword: &str| -> Vec<Vec<&str>> {
        let lines = host.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.filter(|words| words.first() == Some(&keyword)).map(|words| words[1..].to_vec()).collect()
    };
    let mut text = String::new();
    if config.is_networked() {
        text.push_str(&format!("nameserver {}\n", dns::ADDRESS));
    } else if dns.servers.is_empty() {
        for server in words("nameserver").iter().filter_map(|words| words.first()) {
            let address = server.split('%').next().and_then(|word| word.parse::<IpAddr>().ok());
            if address.is_some_and(|address| *network == NetworkMode::Host || !address.is_loopback()) {
                text.push_str(&format!("nameserver {server}\n"));
            }
        }
    } else {
        dns.servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    }
    // The last one counts; `domain` is an older word for the same.
    let host_search = words("search").pop().or_else(|| words("domain").pop()).unwrap_or_default();
    let search: Vec<&str> = match dns.search.as_slice() {
        [] => host_search,
        list => list.iter().map(String::as_str).filter(|domain| *domain != ".").collect(),
    };
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    let mut options: Vec<&str> = match dns.options.as_slice() {
        [] => words("options").concat(),
        list => list.iter().map(String::as_str).collect(),
    };
    // Names of containers have no dots: they are asked for as they are before any search domain.
    if config.is_networked() && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0");
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    if text.is_empty() {
        text.push_str("# no name server of the host can be reached from here\n");
    }
    text
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
