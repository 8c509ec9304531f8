//! What a container finds of its network: devices, addresses, routes, names in `/etc`, parameters.

use std::net::IpAddr;

use super::support::Sandbox;
use super::support::host::{ip, rules};
use crate::ours_only;

/// The lines of `ip -o addr` that are about a device.
fn addresses(s: &Sandbox, name: &str, device: &str) -> String {
    s.ok(["exec", name, "ip", "-o", "addr", "show", "dev", device])
}

#[test]
fn the_default_network_is_made_when_it_is_needed() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    assert!(!ip(&["-o", "link"]).contains("mydocker"));
    let name = s.name("first");
    let id = s.idle(&name, &[]);
    let (subnet, gateway, at) = (s.subnet("bridge", 0), s.gateway("bridge", 0), s.address(&name, "bridge"));
    let prefix = subnet.split_once('/').unwrap().1;
    let device = ip(&["-o", "addr", "show", "dev", "mydocker0"]);
    assert!(device.contains(&format!("inet {gateway}/{prefix} ")), "{device}");
    let nat = rules(&["iptables", "-t", "nat", "-S"]);
    assert!(
        nat.lines()
            .any(|rule| rule.contains(&subnet) && rule.contains("! -o mydocker0") && rule.ends_with("MASQUERADE")),
        "{nat}"
    );

    let IpAddr::V4(v4) = at else { panic!("{at}") };
    let [a, b, c, d] = v4.octets();
    let mac = format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    let link = s.ok(["exec", &name, "ip", "-o", "link", "show", "dev", "eth0"]);
    assert!(link.contains(&mac) && link.contains("mtu 1500"), "{link}");
    let inet = addresses(&s, &name, "eth0");
    assert!(inet.contains(&format!("inet {at}/{prefix} ")), "{inet}");
    assert!(!inet.contains("inet6"), "{inet}");
    let routes = s.ok(["exec", &name, "ip", "route"]);
    assert!(routes.contains(&format!("default via {gateway} dev eth0")), "{routes}");
    assert!(routes.contains(&format!("{subnet} dev eth0")), "{routes}");

    let hosts = s.ok(["exec", &name, "cat", "/etc/hosts"]);
    assert!(hosts.contains(&format!("{at}\t{}", &id[..12])) && hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    let resolv = s.ok(["exec", &name, "cat", "/etc/resolv.conf"]);
    assert!(resolv.contains("nameserver 127.0.0.11"), "{resolv}");
    // What `inspect` says is what is there.
    let template = "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Gateway}} {{.NetworkSettings.MacAddress}} \
                    {{.NetworkSettings.IPPrefixLen}}";
    assert_eq!(s.field(&name, template), format!("{at} {gateway} {mac} {prefix}"));
    assert_eq!(s.field(&name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"), at.to_string());

    // Names are known on the default network, too.
    let other = s.name("second");
    s.idle(&other, &[]);
    for reference in [&name, &id[..12]] {
        assert!(s.ok(["exec", &other, "nslookup", reference]).contains(&at.to_string()), "{reference}");
    }
    assert!(s.ok(["exec", &other, "ping", "-c", "1", "-W", "5", &name]).contains("1 packets received"));
    s.fails(1, ["network", "rm", "bridge"]).says("pre-defined network and cannot be removed");
}

#[test]
fn parameters_inside_are_safe() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("parameters");
    s.idle(&name, &[]);
    let parameter = |name: &str, key: &str| s.ok(["exec", name, "cat", &format!("/proc/sys/net/{key}")]);
    assert_eq!(parameter(&name, "ipv6/conf/eth0/disable_ipv6"), "1");
    assert_eq!(parameter(&name, "ipv6/conf/eth0/accept_ra"), "0");
    assert_eq!(parameter(&name, "ipv4/conf/all/accept_redirects"), "0");
    s.ok(["network", "create", "--ipv6", "six"]);
    let six = s.name("six");
    s.idle(&six, &["--network", "six", "--sysctl", "net.ipv4.ip_unprivileged_port_start=1000"]);
    assert_eq!(parameter(&six, "ipv6/conf/eth0/disable_ipv6"), "0");
    assert_eq!(parameter(&six, "ipv6/conf/eth0/accept_ra"), "0");
    assert_eq!(parameter(&six, "ipv4/ip_unprivileged_port_start"), "1000");
    // A second network, connected later, has IPv6 where the first has none.
    s.ok(["network", "connect", "six", &name]);
    assert_eq!(parameter(&name, "ipv6/conf/eth0/disable_ipv6"), "1");
    assert_eq!(parameter(&name, "ipv6/conf/eth1/disable_ipv6"), "0");
    assert_eq!(parameter(&name, "ipv6/conf/eth1/accept_ra"), "0");
    assert!(addresses(&s, &name, "eth1").contains(&s.address6(&name, "six").to_string()));
    // Usable at once: there is no duplicate address detection to wait for.
    assert!(!addresses(&s, &six, "eth0").contains("tentative"));
}

#[test]
fn networks_that_are_none() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let links = s.script(&["--network", "none"], "ip -o link; ip route; cat /etc/hosts");
    assert!(links.contains(": lo:") && !links.contains("eth0") && !links.contains("default"), "{links}");
    // The host's own devices, and its name.
    assert!(!ip(&["-o", "link"]).contains("mydocker"), "none of these needs a bridge");
    let own = ip(&["-o", "link"]);
    let seen = s.script(&["--network", "host"], "ip -o link; hostname");
    assert_eq!(seen.lines().filter(|line| line.contains(": <")).count(), own.lines().count(), "{seen}");
    let output = s.run(["run", "--rm", "--network", "host", "-p", "80:80", "busybox", "true"]).code(0);
    assert!(output.err().contains("discarded when using host network mode"), "{}", output.err());
    for (flags, words) in [
        (&["--network", "none", "--ip", "10.0.0.2"][..], "conflicting options"),
        (&["--network", "host", "--link", "other"], "no such container"),
        (&["--network", "nowhere"], "network nowhere not found"),
        (&["--network", "container:nobody"], "no such container"),
        (&["--ip", "172.17.0.9"], "user defined networks only"),
    ] {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["busybox", "true"]);
        s.fails(125, args).says(words);
    }
    assert_eq!(s.ok(["ps", "-aq"]), "");
}

#[test]
fn a_container_may_share_anothers_network() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (owner, guest) = (s.name("owner"), s.name("guest"));
    s.idle(&owner, &["-h", "the-host"]);
    let mode = format!("container:{owner}");
    s.idle(&guest, &["--network", &mode]);
    assert_eq!(addresses(&s, &guest, "eth0"), addresses(&s, &owner, "eth0"));
    for file in ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"] {
        assert_eq!(s.ok(["exec", &guest, "cat", file]), s.ok(["exec", &owner, "cat", file]), "{file}");
    }
    assert_eq!(s.ok(["exec", &guest, "hostname"]), "the-host");
    // The file is the same, not a copy of it.
    s.ok(["exec", &owner, "sh", "-c", "echo 192.0.2.7 seven >> /etc/hosts"]);
    assert!(s.ok(["exec", &guest, "cat", "/etc/hosts"]).contains("192.0.2.7 seven"));
    // One serves on 127.0.0.1, the other is its client.
    s.ok(["exec", "-d", &owner, "sh", "-c", "nc -ll -p 99 -e echo through-lo"]);
    let script = "until nc 127.0.0.1 99; do :; done 2>/dev/null";
    assert_eq!(s.ok(["exec", &guest, "sh", "-c", script]), "through-lo");
    s.fails(125, ["run", "--rm", "--network", &mode, "-p", "80:80", "busybox", "true"]).says("conflicting options");
    s.ok(["network", "create", "other"]);
    s.fails(1, ["network", "connect", "other", &guest]).says("network of another container");
    // A network that is gone with its container cannot be joined.
    s.ok(["stop", "-t", "1", &owner]);
    let output = s.fails(125, ["run", "--rm", "--network", &mode, "busybox", "true"]);
    assert!(output.err().contains("not running") || output.err().contains("is not"), "{}", output.err());
}

#[test]
fn several_networks_at_once() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.91.0.0/24", "one"]);
    s.ok(["network", "create", "--subnet", "10.92.0.0/24", "--gateway", "10.92.0.99", "two"]);
    let (plain, chosen) = (s.name("plain"), s.name("chosen"));
    s.idle(&plain, &["--network", "one", "--network", "two"]);
    let inside = |device: &str| addresses(&s, &plain, device);
    assert!(inside("eth0").contains("inet 10.91.0.2/24 "), "{}", inside("eth0"));
    assert!(inside("eth1").contains("inet 10.92.0.1/24 "), "{}", inside("eth1"));
    let default = |name: &str| s.ok(["exec", name, "sh", "-c", "ip route | grep default"]).trim().to_owned();
    assert_eq!(default(&plain), "default via 10.91.0.1 dev eth0");
    s.idle(&chosen, &["--network", "one", "--network", "name=two,gw-priority=7,ip=10.92.0.50,alias=fifty"]);
    assert_eq!(default(&chosen), "default via 10.92.0.99 dev eth1");
    assert_eq!(s.address(&chosen, "two").to_string(), "10.92.0.50");
    assert!(s.ok(["exec", &plain, "nslookup", "fifty"]).contains("10.92.0.50"));
    let hosts = s.ok(["exec", &plain, "cat", "/etc/hosts"]);
    assert!(hosts.contains("10.91.0.2\t") && hosts.contains("10.92.0.1\t"), "{hosts}");
    // The way back is the way it came by: both networks are reached.
    for gateway in ["10.91.0.1", "10.92.0.99"] {
        assert!(s.ok(["exec", &plain, "ping", "-c", "1", "-W", "5", gateway]).contains("1 packets received"));
    }
}

#[test]
fn addresses_and_names_of_ones_choice() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok([
        "network",
        "create",
        "--subnet",
        "10.93.0.0/24",
        "--subnet",
        "fd93::/64",
        "--ip-range",
        "10.93.0.128/25",
        "mine",
    ]);
    let (name, other) = (s.name("chosen"), s.name("other"));
    let flags = [
        "--network",
        "mine",
        "--ip",
        "10.93.0.77",
        "--ip6",
        "fd93::77",
        "--mac-address",
        "92:d0:c6:0a:29:33",
        "--network-alias",
        "db",
        "--network-alias",
        "cache",
    ];
    s.idle(&name, &flags);
    let inet = addresses(&s, &name, "eth0");
    assert!(inet.contains("inet 10.93.0.77/24 ") && inet.contains("inet6 fd93::77/64 "), "{inet}");
    assert!(s.ok(["exec", &name, "cat", "/sys/class/net/eth0/address"]).contains("92:d0:c6:0a:29:33"));
    let routes = s.ok(["exec", &name, "ip", "-6", "route", "show", "default"]);
    assert!(routes.contains("default via fd93::1 dev eth0"), "{routes}");
    s.idle(&other, &["--network", "mine"]);
    let at = s.address(&other, "mine").to_string();
    let last: u8 = at.strip_prefix("10.93.0.").expect("an address of the subnet").parse().unwrap();
    assert!(last >= 128, "{at} is not of the range");
    for alias in ["db", "cache"] {
        assert!(s.ok(["exec", &other, "nslookup", alias]).contains("10.93.0.77"), "{alias}");
    }
    assert!(s.ok(["exec", &other, "ping", "-6", "-c", "1", "-W", "5", "fd93::77"]).contains("1 packets received"));
    let third = s.name("third");
    let taken = s.fails(125, ["run", "--name", &third, "--network", "mine", "--ip", "10.93.0.77", "busybox", "true"]);
    assert!(taken.err().contains("10.93.0.77") && taken.err().contains("in use"), "{}", taken.err());
    s.fails(125, ["run", "--rm", "--network", "mine", "--ip", "10.94.0.7", "busybox", "true"])
        .says("10.94.0.7 is not an address of network mine");
    // Addresses stay with whoever asked for them.
    s.ok(["restart", "-t", "1", &name]);
    assert_eq!(s.address(&name, "mine").to_string(), "10.93.0.77");
}

#[test]
fn the_largest_packet_is_the_networks() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--opt", "com.docker.network.driver.mtu=1400", "small"]);
    let name = s.name("small");
    s.idle(&name, &["--network", "small"]);
    assert_eq!(s.ok(["exec", &name, "cat", "/sys/class/net/eth0/mtu"]), "1400");
    let output =
        s.inside(&name).command(&["/bin/busybox", "ping", "-c", "1", "-s", "1372", &s.gateway("small", 0).to_string()]);
    output.code(0);
}
