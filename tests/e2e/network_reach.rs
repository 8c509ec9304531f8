//! Who reaches whom by way of bridges, and whom that must not succeed: by TCP, UDP and ICMP, between
//! containers, the host and a neighbour of the host.

use std::net::{IpAddr, Ipv4Addr};

use super::support::host::{rules, set_parameter};
use super::support::traffic::{Matrix, Server, Transport};
use super::support::{Namespace, Neighbour, Sandbox, eventually};
use crate::ours_only;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn who_reaches_whom_when_forwarding_is_denied() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    two_networks(&s);
    // The host did not forward before: the engine, which turned it on, made nothing but containers pass.
    assert!(rules(&["iptables", "-S", "FORWARD"]).starts_with("-P FORWARD DROP"));
    let (one, two) = (Neighbour::join(1), Neighbour::join(2));
    one.route("203.0.113.32/28");
    two.route("203.0.113.16/28");
    let _server = Server::on(&two.namespace, "two", 90);
    let mut matrix = Matrix::default();
    matrix.blocked("the host is no router for its neighbours", &one.namespace, (two.address, 90));
    matrix.check();
}

#[test]
fn who_reaches_whom_when_forwarding_is_allowed() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    set_parameter("net/ipv4/ip_forward", "1");
    two_networks(&s);
    // The host forwarded before: what it lets pass is the administrator's business.
    assert!(rules(&["iptables", "-S", "FORWARD"]).starts_with("-P FORWARD ACCEPT"));
}

/// Makes the host know the containers' hardware addresses: a packet whose destination is translated
/// takes another way through the bridge then (br_netfilter).
fn acquaint(addresses: &[IpAddr]) {
    let mut m = Matrix::default();
    for address in addresses {
        m.pings(&format!("the host to {address}"), &Namespace::here(), *address);
    }
    m.check();
}

/// Two containers on one network, one on another, a neighbour, and everything that they may try.
fn two_networks(s: &Sandbox) {
    s.ok(["network", "create", "blue"]);
    s.ok(["network", "create", "red"]);
    let [a, b, c] = ["a", "b", "c"].map(|stem| s.name(stem));
    s.sleeper(&a, &["--network", "blue", "-p", "8080:80", "-p", "8080:80/udp"]);
    s.sleeper(&b, &["--network", "blue"]);
    s.sleeper(&c, &["--network", "red", "-p", "8081:80", "-p", "8081:80/udp"]);
    let n = Neighbour::join(0);
    n.route(&s.subnet("blue", 0));
    n.route(&s.subnet("red", 0));
    let host = Namespace::here();
    let inside = [&a, &b, &c].map(|name| s.inside(name));
    let [a_in, b_in, c_in] = &inside;
    let _servers = [
        Server::on(a_in, "a", 80),
        Server::on(b_in, "b", 80),
        Server::on(c_in, "c", 80),
        Server::on(&n.namespace, "n", 90),
    ];
    let (at_a, at_b, at_c) = (s.address(&a, "blue"), s.address(&b, "blue"), s.address(&c, "red"));
    let (blue, red) = (s.gateway("blue", 0), s.gateway("red", 0));
    // One for each address, or datagrams would be answered from another than they were sent to.
    let _host = [blue, red, n.host].map(|address| Server::at(&host, "host", (address, 70).into()));
    acquaint(&[at_a, at_b, at_c]);

    let mut m = Matrix::default();
    // Neighbours on one network, with their own addresses.
    m.reaches("a to b", a_in, (at_b, 80), "b", at_a);
    m.reaches("b to a", b_in, (at_a, 80), "a", at_b);
    m.pings("a to b", a_in, at_b);
    // Another network: its containers, its gateway.
    m.blocked("a to c", a_in, (at_c, 80));
    m.blocked("c to a", c_in, (at_a, 80));
    m.pings_not("a to c", a_in, at_c);
    m.pings_not("c to a", c_in, at_a);
    m.blocked("a to the gateway of red", a_in, (red, 70));
    m.blocked("c to the gateway of blue", c_in, (blue, 70));
    m.pings_not("a to the gateway of red", a_in, red);
    // The host, by the own gateway and by its address outside.
    m.reaches("a to its gateway", a_in, (blue, 70), "host", at_a);
    m.reaches("a to the host's address", a_in, (n.host, 70), "host", at_a);
    m.pings("a to its gateway", a_in, blue);
    m.reaches("the host to a", &host, (at_a, 80), "a", blue);
    m.pings("the host to a", &host, at_a);
    // Out into the world, as the host.
    m.reaches("a to the neighbour", a_in, (n.address, 90), "n", n.host);
    m.pings("a to the neighbour", a_in, n.address);
    // In, by published ports only; who comes is seen.
    m.reaches("the neighbour to a's port", &n.namespace, (n.host, 8080), "a", n.address);
    m.reaches("the neighbour to c's port", &n.namespace, (n.host, 8081), "c", n.address);
    m.blocked("the neighbour to a's own address", &n.namespace, (at_a, 80));
    m.blocked("the neighbour to b's own address", &n.namespace, (at_b, 80));
    m.blocked("the neighbour to the host port at a's own address", &n.namespace, (at_a, 8080));
    m.blocked("the neighbour to the gateway of blue", &n.namespace, (blue, 70));
    m.pings_not("the neighbour to a", &n.namespace, at_a);
    // Published ports from the host itself.
    m.reaches("the host to 127.0.0.1", &host, (LOCALHOST, 8080), "a", blue);
    m.reaches("the host to its address", &host, (n.host, 8080), "a", n.host);
    m.reaches("the host to the gateway", &host, (blue, 8080), "a", blue);
    // And from containers: the one itself, its neighbour, one elsewhere.
    m.reaches("a to its own port", a_in, (n.host, 8080), "a", blue);
    m.reaches("a to its own port at the gateway", a_in, (blue, 8080), "a", blue);
    m.reaches("b to a's port", b_in, (n.host, 8080), "a", blue);
    m.reaches("c to a's port", c_in, (n.host, 8080), "a", blue);
    m.reaches("c to a's port at its own gateway", c_in, (red, 8080), "a", blue);
    m.reaches("a to c's port", a_in, (n.host, 8081), "c", red);
    m.check();
    // The same by name, with the container's own program.
    assert_eq!(s.ok(["exec", &a, "nc", &b, "80"]), format!("b {at_a}"));
    s.fails(1, ["exec", &a, "nc", "-w", "2", &c, "80"]);
}

#[test]
fn containers_are_seen_as_themselves_without_masquerading() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--opt", "com.docker.network.bridge.enable_ip_masquerade=false", "open"]);
    let name = s.name("open");
    s.sleeper(&name, &["--network", "open", "-p", "8080:80", "-p", "8080:80/udp"]);
    let n = Neighbour::join(0);
    n.route(&s.subnet("open", 0));
    let inside = s.inside(&name);
    let _servers = [Server::on(&n.namespace, "n", 90), Server::on(&inside, "open", 80)];
    let (at, gateway) = (s.address(&name, "open"), s.gateway("open", 0));
    acquaint(&[at]);
    let mut m = Matrix::default();
    m.reaches("out", &inside, (n.address, 90), "n", at);
    m.reaches("in", &n.namespace, (n.host, 8080), "open", n.address);
    m.reaches("itself", &inside, (n.host, 8080), "open", gateway);
    m.reaches("the host", &Namespace::here(), (LOCALHOST, 8080), "open", gateway);
    m.blocked("in by its address", &n.namespace, (at, 80));
    m.check();
}

#[test]
fn ports_bound_to_localhost_stay_there() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("local");
    let ports = ["127.0.0.1:8080:80", "127.0.0.1:8080:80/udp"];
    s.sleeper(&name, &["-p", ports[0], "-p", ports[1]]);
    let n = Neighbour::join(0);
    let inside = s.inside(&name);
    let _servers = [Server::on(&inside, "local", 80), Server::at(&Namespace::here(), "host", (LOCALHOST, 70).into())];
    // The neighbour takes 127.0.0.1 for an address like any other (its own loopback device is down)...
    n.namespace.run(|| set_parameter("net/ipv4/conf/all/route_localnet", "1"));
    n.route("127.0.0.1/32");
    // ... and so does the host on this wire.
    set_parameter(&format!("net/ipv4/conf/{}/route_localnet", n.device), "1");
    let gateway = s.gateway("bridge", 0);
    let mut m = Matrix::default();
    m.reaches("the host", &Namespace::here(), (LOCALHOST, 8080), "local", gateway);
    m.blocked("the host by another address", &Namespace::here(), (n.host, 8080));
    m.blocked("the neighbour", &n.namespace, (n.host, 8080));
    m.blocked("the neighbour, forged", &n.namespace, (LOCALHOST, 8080));
    m.blocked("the neighbour to the host's own services, forged", &n.namespace, (LOCALHOST, 70));
    m.blocked("the container to the host's address", &inside, (n.host, 8080));
    m.check();
    assert!(forged(&["iptables", "-t", "raw", "-vxnL", "MYDOCKER"]) > 0, "no forged packet came to the rule");
    // The container plays the same trick on the host's services.
    let before = forged(&["iptables", "-t", "raw", "-vxnL", "MYDOCKER"]);
    inside.run(|| set_parameter("net/ipv4/conf/all/route_localnet", "1"));
    inside.ip(&["address", "flush", "dev", "lo"]);
    inside.ip(&["route", "add", "127.0.0.1/32", "via", &gateway.to_string()]);
    let mut m = Matrix::default();
    m.blocked("the container to the host's own services, forged", &inside, (LOCALHOST, 70));
    m.check();
    assert!(forged(&["iptables", "-t", "raw", "-vxnL", "MYDOCKER"]) > before, "no forged packet came to the rule");
}

/// Packets that the chain's rules have taken.
fn forged(list: &[&str]) -> u64 {
    rules(list).lines().filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_port_bound_to_one_address_is_at_that_address_only() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (one, two) = (Neighbour::join(1), Neighbour::join(2));
    let (first, second) = (s.name("first"), s.name("second"));
    let at = |neighbour: &Neighbour, rest: &str| format!("{}:{rest}", neighbour.host);
    s.sleeper(&first, &["-p", &at(&one, "8080:80"), "-p", &at(&one, "8080:80/udp")]);
    let (in_first, gateway) = (s.inside(&first), s.gateway("bridge", 0));
    let _first = Server::on(&in_first, "first", 80);
    acquaint(&[s.address(&first, "bridge")]);
    let mut m = Matrix::default();
    m.reaches("by its address", &one.namespace, (one.host, 8080), "first", one.address);
    m.reaches("the host by its address", &Namespace::here(), (one.host, 8080), "first", one.host);
    m.reaches("itself", &in_first, (one.host, 8080), "first", gateway);
    m.blocked("by another address", &two.namespace, (two.host, 8080));
    m.blocked("the host by 127.0.0.1", &Namespace::here(), (LOCALHOST, 8080));
    m.check();
    // The same port of the other address is free for others.
    s.sleeper(&second, &["-p", &at(&two, "8080:80"), "-p", &at(&two, "8080:80/udp")]);
    let _second = Server::on(&s.inside(&second), "second", 80);
    let mut m = Matrix::default();
    m.reaches("first", &one.namespace, (one.host, 8080), "first", one.address);
    m.reaches("second", &two.namespace, (two.host, 8080), "second", two.address);
    m.check();
    assert_eq!(s.ok(["port", &second, "80"]), format!("{}:8080", two.host));
}

#[test]
fn a_network_may_bind_its_ports_to_one_address() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let option = "com.docker.network.bridge.host_binding_ipv4=127.0.0.1";
    s.ok(["network", "create", "--opt", option, "shy"]);
    let name = s.name("shy");
    s.sleeper(&name, &["--network", "shy", "-p", "8080:80"]);
    assert_eq!(s.ok(["port", &name]), "80/tcp -> 127.0.0.1:8080");
    let n = Neighbour::join(0);
    let _server = Server::on(&s.inside(&name), "shy", 80);
    let mut m = Matrix::default();
    m.blocked("the neighbour", &n.namespace, (n.host, 8080));
    m.reaches_by(Transport::Tcp, "the host", &Namespace::here(), (LOCALHOST, 8080), ("shy", s.gateway("shy", 0)));
    m.check();
}

#[test]
fn containers_of_a_network_may_be_kept_apart() {
    ours_only!("the networks are made on the test's own host");
    // Whether the rules see frames that stay in a bridge is up to the administrator (br_netfilter).
    // A kernel without it has no such parameter, and is the second case.
    if std::path::Path::new("/proc/sys/net/bridge").exists() {
        kept_apart("1");
    }
    kept_apart("0");
}

fn kept_apart(filtered: &str) {
    let s = Sandbox::new();
    for parameter in ["iptables", "ip6tables"].map(|of| format!("net/bridge/bridge-nf-call-{of}")) {
        if std::path::Path::new("/proc/sys").join(&parameter).exists() {
            set_parameter(&parameter, filtered);
        }
    }
    s.ok(["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart"]);
    let (a, b) = (s.name("a"), s.name("b"));
    s.sleeper(&a, &["--network", "apart", "-p", "8080:80", "-p", "8080:80/udp"]);
    s.sleeper(&b, &["--network", "apart"]);
    let n = Neighbour::join(0);
    let inside = [s.inside(&a), s.inside(&b)];
    let [a_in, b_in] = &inside;
    let _servers = [Server::on(a_in, "a", 80), Server::on(b_in, "b", 80), Server::on(&n.namespace, "n", 90)];
    let (at_a, at_b, gateway) = (s.address(&a, "apart"), s.address(&b, "apart"), s.gateway("apart", 0));
    acquaint(&[at_a, at_b]);
    let mut m = Matrix::default();
    m.blocked("a to b", a_in, (at_b, 80));
    m.blocked("b to a", b_in, (at_a, 80));
    m.pings_not("a to b", a_in, at_b);
    m.reaches("b to a's published port", b_in, (n.host, 8080), "a", gateway);
    m.reaches("a to its own published port", a_in, (n.host, 8080), "a", gateway);
    m.reaches("the neighbour to a's port", &n.namespace, (n.host, 8080), "a", n.address);
    m.reaches("the host to b", &Namespace::here(), (at_b, 80), "b", gateway);
    m.reaches("b to the neighbour", b_in, (n.address, 90), "n", n.host);
    m.check();
    // Not by a packet to the gateway, either, that is to be sent back into the same bridge.
    a_in.ip(&["route", "replace", &format!("{at_b}/32"), "via", &gateway.to_string()]);
    let mut m = Matrix::default();
    m.blocked("a to b by the gateway", a_in, (at_b, 80));
    m.check();
}

#[test]
fn rules_of_a_container_go_with_it() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("gone");
    let id = s.sleeper(&name, &["-p", "8080:80"]);
    let n = Neighbour::join(0);
    let mentioned = || rules(&["iptables-save"]).contains(&id[..12]);
    assert!(mentioned());
    s.ok(["stop", "-t", "0", &name]);
    eventually("the rules go", || !mentioned());
    // Somebody else may have the port at once.
    let _server = Server::on(&Namespace::here(), "host", 8080);
    let mut m = Matrix::default();
    m.reaches("the neighbour", &n.namespace, (n.host, 8080), "host", n.address);
    m.check();
}
