//! Networks of other kinds: internal ones, IPv6, macvlan, ipvlan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::support::traffic::{Matrix, Server, Transport};
use super::support::{Namespace, Neighbour, Sandbox};
use crate::ours_only;

#[test]
fn an_internal_network_has_no_way_out() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--internal", "--ipv6", "sealed"]);
    let (a, b, open) = (s.name("a"), s.name("b"), s.name("open"));
    s.sleeper(&a, &["--network", "sealed", "-p", "8080:80"]);
    s.sleeper(&b, &["--network", "sealed"]);
    s.sleeper(&open, &[]);
    let n = Neighbour::join(0);
    n.route(&s.subnet("sealed", 0));
    n.route(&s.subnet("sealed", 1));
    let host = Namespace::here();
    let inside = [s.inside(&a), s.inside(&b), s.inside(&open)];
    let [a_in, b_in, open_in] = &inside;
    for family in ["-4", "-6"] {
        assert_eq!(a_in.ip(&[family, "route", "show", "default"]), "");
    }
    let gateways = [s.gateway("sealed", 0), s.gateway("sealed", 1)];
    let _servers = [Server::on(a_in, "a", 80), Server::on(b_in, "b", 80), Server::on(&n.namespace, "n", 90)];
    let _host = [n.host, n.host6, gateways[0]].map(|address| Server::at(&host, "host", (address, 70).into()));
    // An attacker inside (or one with NET_ADMIN) makes the routes that are missing.
    a_in.ip(&["-4", "route", "add", "default", "via", &gateways[0].to_string()]);
    a_in.ip(&["-6", "route", "add", "default", "via", &gateways[1].to_string()]);
    let addresses = |name: &str| (s.address(name, "sealed"), s.address6(name, "sealed"));
    let ((a4, a6), (b4, b6)) = (addresses(&a), addresses(&b));
    let mut m = Matrix::default();
    m.reaches("a to b", a_in, (b4, 80), "b", a4);
    m.reaches("a to b by IPv6", a_in, (b6, 80), "b", a6);
    m.reaches("the host to a", &host, (a4, 80), "a", gateways[0]);
    m.reaches("a to the gateway", a_in, (gateways[0], 70), "host", a4);
    for (to, address) in [("the neighbour", n.address), ("the neighbour by IPv6", n.address6)] {
        m.blocked(&format!("a to {to}"), a_in, (address, 90));
        m.pings_not(&format!("a to {to}"), a_in, address);
    }
    m.blocked("a to the host's address outside", a_in, (n.host, 70));
    m.blocked("a to the host's address outside by IPv6", a_in, (n.host6, 70));
    m.blocked("a to another network", a_in, (s.address(&open, "bridge"), 80));
    m.blocked("another network to a", open_in, (a4, 80));
    m.blocked("the neighbour to a", &n.namespace, (a4, 80));
    m.blocked("the neighbour to a by IPv6", &n.namespace, (a6, 80));
    m.blocked("the neighbour to a port of a", &n.namespace, (n.host, 8080));
    m.check();
    assert!(s.ok(["exec", &a, "nslookup", &b]).contains(&b4.to_string()));
}

#[test]
fn who_reaches_whom_by_ipv6() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--ipv6", "blue"]);
    s.ok(["network", "create", "--subnet", "fd66::/64", "red"]);
    let (a, b, c) = (s.name("a"), s.name("b"), s.name("c"));
    let n = Neighbour::join(0);
    s.sleeper(&a, &["--network", "blue", "-p", "8080:80", "-p", "8080:80/udp", "-p", "[2001:db8::1]:8082:80"]);
    s.sleeper(&b, &["--network", "blue"]);
    s.sleeper(&c, &["--network", "red"]);
    let ports = s.ok(["port", &a, "80/tcp"]);
    assert!(
        ports.contains("[::]:8080") && ports.contains("0.0.0.0:8080") && ports.contains("[2001:db8::1]:8082"),
        "{ports}"
    );
    n.route(&s.subnet("blue", 1));
    let host = Namespace::here();
    let inside = [s.inside(&a), s.inside(&b), s.inside(&c)];
    let [a_in, b_in, c_in] = &inside;
    let _servers = [
        Server::on(a_in, "a", 80),
        Server::on(b_in, "b", 80),
        Server::on(c_in, "c", 80),
        Server::on(&n.namespace, "n", 90),
    ];
    let (a6, b6, c6) = (s.address6(&a, "blue"), s.address6(&b, "blue"), s.address6(&c, "red"));
    let (blue, red) = (s.gateway("blue", 1), s.gateway("red", 1));
    let _host = [blue, red].map(|address| Server::at(&host, "host", (address, 70).into()));
    let mut m = Matrix::default();
    for (name, address) in [("a", a6), ("b", b6), ("c", c6)] {
        m.pings(&format!("the host to {name}"), &host, address);
    }
    m.check();
    let mut m = Matrix::default();
    m.reaches("a to b", a_in, (b6, 80), "b", a6);
    m.pings("a to b", a_in, b6);
    m.blocked("a to c", a_in, (c6, 80));
    m.blocked("c to a", c_in, (a6, 80));
    m.pings_not("a to c", a_in, c6);
    m.reaches("a to its gateway", a_in, (blue, 70), "host", a6);
    m.blocked("a to the gateway of red", a_in, (red, 70));
    m.reaches("a to the neighbour", a_in, (n.address6, 90), "n", n.host6);
    m.pings("a to the neighbour", a_in, n.address6);
    m.reaches("the neighbour to a's port", &n.namespace, (n.host6, 8080), "a", n.address6);
    m.reaches_by(
        Transport::Tcp,
        "the neighbour to the port of one address",
        &n.namespace,
        (n.host6, 8082),
        ("a", n.address6),
    );
    m.reaches("the neighbour to a's port by IPv4", &n.namespace, (n.host, 8080), "a", n.address);
    m.blocked("the neighbour to a's own address", &n.namespace, (a6, 80));
    m.blocked("the neighbour to b's own address", &n.namespace, (b6, 80));
    m.pings_not("the neighbour to a", &n.namespace, a6);
    m.reaches("the host to its address", &host, (n.host6, 8080), "a", n.host6);
    m.reaches("a to its own port", a_in, (n.host6, 8080), "a", blue);
    m.reaches("b to a's port", b_in, (n.host6, 8080), "a", blue);
    m.reaches("c to a's port", c_in, (n.host6, 8080), "a", blue);
    m.blocked("the port of one address at another", &host, (IpAddr::V4(Ipv4Addr::LOCALHOST), 8082));
    m.check();
    // ::1 cannot be translated by the kernel: a client is refused at once, and goes on to 127.0.0.1.
    let begun = std::time::Instant::now();
    assert!(std::net::TcpStream::connect((IpAddr::V6(Ipv6Addr::LOCALHOST), 8080)).is_err());
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "it hangs");
}

#[test]
fn macvlan_containers_are_on_the_wire() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let n = Neighbour::join(0);
    let parent = format!("parent={}", n.device);
    // The wire's own subnet; the addresses that others have on it are kept out.
    let wire = ["--subnet", "203.0.113.0/28", "--gateway", "203.0.113.2", "--aux-address", "host=203.0.113.1"];
    let mut create = vec!["network", "create", "-d", "macvlan", "-o", &parent];
    create.extend(wire);
    create.push("wire");
    s.ok(create);
    let (a, b) = (s.name("a"), s.name("b"));
    s.sleeper(&a, &["--network", "wire"]);
    s.sleeper(&b, &["--network", "wire", "--ip", "203.0.113.9", "--network-alias", "nine"]);
    let (a_in, b_in) = (s.inside(&a), s.inside(&b));
    let _servers = [Server::on(&a_in, "a", 80), Server::on(&b_in, "b", 80), Server::on(&n.namespace, "n", 90)];
    let (at_a, at_b) = (s.address(&a, "wire"), s.address(&b, "wire"));
    assert_eq!(at_b.to_string(), "203.0.113.9");
    let mut m = Matrix::default();
    m.reaches("a to b", &a_in, (at_b, 80), "b", at_a);
    m.reaches("b to a", &b_in, (at_a, 80), "a", at_b);
    m.reaches("a to the neighbour, as itself", &a_in, (n.address, 90), "n", at_a);
    m.reaches("the neighbour to a", &n.namespace, (at_a, 80), "a", n.address);
    m.pings("the neighbour to b", &n.namespace, at_b);
    // The kernel keeps the parent's own host out.
    m.blocked("the host to a", &Namespace::here(), (at_a, 80));
    m.check();
    let route = a_in.ip(&["route", "show", "default"]);
    assert!(route.contains("default via 203.0.113.2 dev eth0"), "{route}");
    assert!(s.ok(["exec", &a, "nslookup", "nine"]).contains("203.0.113.9"));
    assert_eq!(s.ok(["port", &a]), "");
    s.ok(["rm", "-f", &a, &b]);
    s.ok(["network", "rm", "wire"]);
    // The parent is the host's: it stays.
    assert!(super::support::host::ip(&["-o", "link"]).contains(&n.device));
    s.fails(1, ["network", "create", "-d", "macvlan", "-o", "parent=nowhere0", "lost"])
        .says("the parent device nowhere0 does not exist");
    assert!(!s.ok(["network", "ls"]).contains("lost"));
}

#[test]
fn macvlan_without_a_parent_has_one_of_its_own() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "-d", "macvlan", "--subnet", "10.61.0.0/24", "own"]);
    let (a, b) = (s.name("a"), s.name("b"));
    s.sleeper(&a, &["--network", "own"]);
    s.sleeper(&b, &["--network", "own"]);
    let (a_in, b_in) = (s.inside(&a), s.inside(&b));
    let _server = Server::on(&b_in, "b", 80);
    let mut m = Matrix::default();
    m.reaches("a to b", &a_in, (s.address(&b, "own"), 80), "b", s.address(&a, "own"));
    m.check();
    s.ok(["rm", "-f", &a, &b]);
    s.ok(["network", "rm", "own"]);
    let links = super::support::host::ip(&["-o", "link"]);
    assert_eq!(links.lines().count(), 1, "only lo is left: {links}");
}

#[test]
fn ipvlan_works_or_says_what_is_missing() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let n = Neighbour::join(0);
    let parent = format!("parent={}", n.device);
    s.ok([
        "network",
        "create",
        "-d",
        "ipvlan",
        "-o",
        &parent,
        "--subnet",
        "203.0.113.0/28",
        "--ip-range",
        "203.0.113.8/29",
        "wire",
    ]);
    let name = s.name("a");
    let probe = ["ip", "link", "add", "probe0", "link", &n.device, "type", "ipvlan"];
    if Namespace::here().command(&probe).code == 0 {
        Namespace::here().ip(&["link", "del", "probe0"]);
        s.sleeper(&name, &["--network", "wire"]);
        let inside = s.inside(&name);
        let _servers = [Server::on(&inside, "a", 80), Server::on(&n.namespace, "n", 90)];
        let at = s.address(&name, "wire");
        let mut m = Matrix::default();
        m.reaches("a to the neighbour", &inside, (n.address, 90), "n", at);
        m.reaches("the neighbour to a", &n.namespace, (at, 80), "a", n.address);
        m.check();
    } else {
        s.fails(125, ["run", "-d", "--name", &name, "--network", "wire", "busybox", "sleep", "1000"])
            .says("this kernel has no ipvlan devices");
        assert_eq!(s.field(&name, "{{.State.Status}}"), "created");
        s.ok(["rm", &name]);
        s.ok(["network", "rm", "wire"]);
    }
}
