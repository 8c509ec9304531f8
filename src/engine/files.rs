//! The files that the engine gives each container: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
//! Texts are pure functions; they are written into the container's directory and bound inside.

use std::net::IpAddr;

use crate::container::{Config, NetworkMode};

/// `/etc/hosts` (hosts(5)).
pub fn hosts(config: &Config) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for host in &config.extra_hosts {
        text.push_str(&format!("{}\t{}\n", host.address, host.name));
    }
    text
}

/// `/etc/hostname` (hostname(5)).
pub fn hostname(config: &Config) -> String {
    format!("{}\n", config.hostname)
}

/// `/etc/resolv.conf` (resolv.conf(5)) from the host's. A name server on the host's loopback cannot
/// be reached from a network namespace of the container's own, so it is left out there.
pub fn resolv_conf(host: &str, network: &NetworkMode) -> String {
    if *network == NetworkMode::Host {
        return host.to_owned();
    }
    let usable = |line: &&str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return true;
        }
        let address = words.next().and_then(|word| word.split('%').next()).and_then(|word| word.parse::<IpAddr>().ok());
        address.is_some_and(|address| !address.is_loopback())
    };
    let mut text: String = host.lines().filter(usable).map(|line| format!("{line}\n")).collect();
    if text.is_empty() {
        text.push_str("# no name server of the host can be reached from here\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_stay_outside_unless_the_network_is_shared() {
        let host =
            "search corp\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\noptions ndots:2\n";
        let own = resolv_conf(host, &NetworkMode::Networks);
        assert_eq!(own, "search corp\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\noptions ndots:2\n");
        assert_eq!(resolv_conf(host, &NetworkMode::Host), host);
    }
}
