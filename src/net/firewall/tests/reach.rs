//! Who may reach whom, for each back end of iptables, with and without br_netfilter.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::super::{Firewall, Forwarding};
use super::world::{Place, World, network, published};
use crate::net::{Network, Protocol, option};

/// How long an answer may take that must come: a lost first packet is sent again after a second.
const PATIENT: Duration = Duration::from_secs(5);
/// How long is waited for an answer that must not come.
const BRIEF: Duration = Duration::from_millis(300);

/// By whom a server must say it was asked; `Nobody` when it must not be reached.
#[derive(Debug, Clone, Copy)]
enum Seen {
    As(&'static str),
    Nobody,
}
use Seen::{As, Nobody};

/// TCP and UDP to `to` from the place.
struct Probe<'a> {
    what: &'static str,
    from: &'a Place,
    to: &'static str,
    seen: Seen,
}

fn probe<'a>(what: &'static str, from: &'a Place, to: &'static str, seen: Seen) -> Probe<'a> {
    Probe { what, from, to, seen }
}

/// Asks everything at once and lists what came out differently.
fn judge(probes: &[Probe<'_>]) -> Vec<String> {
    let judged = |probe: &Probe<'_>, protocol: Protocol| {
        let to: SocketAddr = probe.to.parse().unwrap();
        let (patience, wanted) = match probe.seen {
            As(address) => (PATIENT, Some(address.parse::<IpAddr>().unwrap())),
            Nobody => (BRIEF, None),
        };
        let seen = probe.from.ask(protocol, to, patience);
        let Probe { what, to, .. } = probe;
        (seen != wanted).then(|| format!("{what}: {protocol} {to}: seen as {seen:?}, must be {wanted:?}"))
    };
    thread::scope(|scope| {
        let asked: Vec<_> = probes
            .iter()
            .flat_map(|probe| {
                [Protocol::Tcp, Protocol::Udp].map(|protocol| scope.spawn(move || judged(probe, protocol)))
            })
            .collect();
        asked.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Which tables hold the rules, what policy FORWARD has, whether bridges show frames to iptables.
struct Setting {
    iptables: &'static str,
    policy: &'static str,
    br_netfilter: &'static str,
}

fn ports(host: &str, target: &str) -> [crate::net::Published; 2] {
    [published(Protocol::Tcp, host, target), published(Protocol::Udp, host, target)]
}

fn matrix(setting: &Setting) {
    let world = World::new();
    let host = &world.host;
    for program in [setting.iptables.to_owned(), setting.iptables.replace("ip", "ip6")] {
        host.output(&program, &["-P", "FORWARD", setting.policy]);
    }
    for call in ["iptables", "ip6tables"] {
        host.set(&format!("net/bridge/bridge-nf-call-{call}"), setting.br_netfilter);
    }
    let (n1, n2) = (network("n1", "01", 1), network("n2", "23", 2));
    let inner = Network { internal: true, ..network("n3", "45", 3) };
    let mut apart = network("n4", "67", 4);
    apart.options.insert(option::ICC.to_owned(), "false".to_owned());
    let firewall = Firewall::open("0badcafe");
    for network in [&n1, &n2, &inner, &apart] {
        world.bridge(network);
        host.run(|| firewall.add_network(network, Forwarding::default())).unwrap();
    }
    let (a, b) = (world.container(&n1, 2, false), world.container(&n1, 3, false));
    let other = world.container(&n2, 2, false);
    let (inside, beside) = (world.container(&inner, 2, false), world.container(&inner, 3, false));
    let (c, d) = (world.container(&apart, 2, true), world.container(&apart, 3, true));
    let local = &ports("127.0.0.1:8082", "10.1.0.2:80")[..];
    let everywhere = [ports("0.0.0.0:8080", "10.1.0.2:80"), ports("[::]:8080", "[fd00:1::2]:80")].concat();
    host.run(|| firewall.publish("aa", &n1, &[&everywhere, local].concat())).unwrap();
    host.run(|| firewall.publish("bb", &n2, &ports("192.0.2.1:8083", "10.2.0.2:80"))).unwrap();
    host.run(|| firewall.publish("cc", &apart, &ports("0.0.0.0:8084", "10.4.0.2:80"))).unwrap();
    world.outside.serve(7);
    host.serve(22);
    forge(&world.outside);

    // br_netfilter switches what is translated to the same bridge, and isolated ports are not
    // switched to each other.
    let through_host = if setting.br_netfilter == "1" { Nobody } else { As("10.4.0.1") };
    let outside = &world.outside;
    let failed = judge(&[
        probe("container to the outside, masqueraded", &a, "192.0.2.2:7", As("192.0.2.1")),
        probe("container to the outside, masqueraded", &a, "[2001:db8::2]:7", As("2001:db8::1")),
        probe("isolated container to the outside", &c, "192.0.2.2:7", As("192.0.2.1")),
        probe("outside to published", outside, "192.0.2.1:8080", As("192.0.2.2")),
        probe("outside to published", outside, "[2001:db8::1]:8080", As("2001:db8::2")),
        probe("outside to published on this address", outside, "192.0.2.1:8083", As("192.0.2.2")),
        probe("outside to published of icc=false", outside, "192.0.2.1:8084", As("192.0.2.2")),
        probe("outside to the container's address", outside, "10.1.0.2:80", Nobody),
        probe("outside to an unpublished port", outside, "10.1.0.2:81", Nobody),
        probe("outside to the container's address", outside, "[fd00:1::2]:80", Nobody),
        probe("outside to a gateway", outside, "10.1.0.1:22", Nobody),
        probe("outside to bound to 127.0.0.1", outside, "192.0.2.1:8082", Nobody),
        probe("outside to 127.0.0.1, forged", outside, "127.0.0.1:8082", Nobody),
        probe("outside to 127.0.0.1, forged", outside, "127.0.0.1:22", Nobody),
        probe("host to 127.0.0.1", host, "127.0.0.1:8080", As("10.1.0.1")),
        probe("host to 127.0.0.1", host, "127.0.0.1:8082", As("10.1.0.1")),
        probe("host to its address", host, "192.0.2.1:8080", As("192.0.2.1")),
        probe("host to its address", host, "[2001:db8::1]:8080", As("2001:db8::1")),
        probe("host to ::1, refused", host, "[::1]:8080", Nobody),
        probe("host to the gateway", host, "10.1.0.1:8080", As("10.1.0.1")),
        probe("host to the container", host, "10.1.0.2:81", As("10.1.0.1")),
        probe("host to an internal container", host, "10.3.0.2:81", As("10.3.0.1")),
        probe("container to its own published port", &a, "192.0.2.1:8080", As("10.1.0.1")),
        probe("container to its own published port", &a, "10.1.0.1:8080", As("10.1.0.1")),
        probe("container to its own published port", &a, "[2001:db8::1]:8080", As("fd00:1::1")),
        probe("neighbour to published", &b, "192.0.2.1:8080", As("10.1.0.1")),
        probe("neighbour to published", &b, "[2001:db8::1]:8080", As("fd00:1::1")),
        probe("neighbour to published of icc=false", &d, "192.0.2.1:8084", through_host),
        probe("neighbour", &b, "10.1.0.2:81", As("10.1.0.3")),
        probe("neighbour", &b, "[fd00:1::2]:81", As("fd00:1::3")),
        probe("neighbour of icc=false", &d, "10.4.0.2:80", Nobody),
        probe("neighbour of icc=false", &d, "[fd00:4::2]:80", Nobody),
        probe("neighbour on the internal network", &beside, "10.3.0.2:81", As("10.3.0.3")),
        probe("other network to published", &other, "192.0.2.1:8080", As("10.1.0.1")),
        probe("other network to published", &other, "[2001:db8::1]:8080", As("fd00:1::1")),
        probe("other network to published on this address", &a, "192.0.2.1:8083", As("10.2.0.1")),
        probe("one network to another", &a, "10.2.0.2:80", Nobody),
        probe("the other to the one", &other, "10.1.0.2:80", Nobody),
        probe("one network to another", &a, "[fd00:2::2]:80", Nobody),
        probe("the other to the one", &other, "[fd00:1::2]:80", Nobody),
        probe("container to bound to 127.0.0.1", &a, "192.0.2.1:8082", Nobody),
        probe("container to its gateway", &a, "10.1.0.1:22", As("10.1.0.2")),
        probe("container to its gateway", &a, "[fd00:1::1]:22", As("fd00:1::2")),
        probe("container to another gateway", &a, "10.2.0.1:22", Nobody),
        probe("container to another gateway", &a, "[fd00:2::1]:22", Nobody),
        probe("container to an internal network", &a, "10.3.0.2:80", Nobody),
        probe("internal to its gateway", &inside, "10.3.0.1:22", As("10.3.0.2")),
        probe("internal to the outside", &inside, "192.0.2.2:7", Nobody),
        probe("internal to the outside", &inside, "[2001:db8::2]:7", Nobody),
        probe("internal to the host's address", &inside, "192.0.2.1:22", Nobody),
        probe("internal to the host's address", &inside, "[2001:db8::1]:22", Nobody),
        probe("internal to another network", &inside, "10.1.0.2:80", Nobody),
        probe("internal to published", &inside, "192.0.2.1:8080", Nobody),
        probe("internal to published, by its gateway", &inside, "10.3.0.1:8080", Nobody),
        probe("outside to internal", outside, "10.3.0.2:80", Nobody),
    ]);
    assert!(
        failed.is_empty(),
        "{}\n{}",
        failed.join("\n"),
        host.output(&format!("{}-save", setting.iptables), &["-c"])
    );
    let pings = [
        (&a, "192.0.2.2", true),
        (&a, "2001:db8::2", true),
        (&b, "10.1.0.2", true),
        (&a, "10.1.0.1", true),
        (outside, "10.1.0.2", false),
        (outside, "fd00:1::2", false),
        (&a, "10.2.0.2", false),
        (&a, "10.2.0.1", false),
        (&d, "10.4.0.2", false),
        (&inside, "192.0.2.2", false),
        (&inside, "192.0.2.1", false),
        (&inside, "fd00:3::1", true),
    ];
    thread::scope(|scope| {
        for (from, to, wanted) in pings {
            scope.spawn(move || assert_eq!(from.ping(to.parse().unwrap()), wanted, "ping {to}"));
        }
    });

    // A container that talks to the host's loopback by way of the gateway (CVE-2020-8558).
    forge_by(&a, "10.1.0.1");
    assert_eq!(judge(&[probe("container to 127.0.0.1, forged", &a, "127.0.0.1:22", Nobody)]), [""; 0]);
    host.run(|| firewall.unpublish("aa", &n1, &everywhere)).unwrap();
    assert_eq!(judge(&[probe("outside to unpublished", outside, "192.0.2.1:8080", Nobody)]), [""; 0]);
}

/// The namespace sends what is for 127.0.0.1 to the wire.
fn forge(place: &Place) {
    forge_by(place, "192.0.2.1");
}

fn forge_by(place: &Place, router: &str) {
    place.ip(&format!("addr del 127.0.0.1/8 dev lo\nroute add 127.0.0.1/32 via {router} dev eth0\n"));
    place.set("net/ipv4/conf/eth0/route_localnet", "1");
}

#[test]
fn reachability_with_nft() {
    matrix(&Setting { iptables: "iptables-nft", policy: "DROP", br_netfilter: "1" });
}

#[test]
fn reachability_with_nft_on_an_open_host() {
    matrix(&Setting { iptables: "iptables-nft", policy: "ACCEPT", br_netfilter: "0" });
}

#[test]
fn reachability_with_legacy_tables() {
    matrix(&Setting { iptables: "iptables-legacy", policy: "DROP", br_netfilter: "0" });
}

#[test]
fn reachability_with_legacy_tables_and_br_netfilter() {
    matrix(&Setting { iptables: "iptables-legacy", policy: "DROP", br_netfilter: "1" });
}

/// Docker's bridge is not ours to open, nor ours Docker's.
#[test]
fn dockers_rules_hold_beside_ours() {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        let world = World::new();
        let host = &world.host;
        let (n1, theirs) = (network("n1", "01", 1), Network { device: "docker0".into(), ..network("d", "99", 9) });
        [&n1, &theirs].into_iter().for_each(|network| world.bridge(network));
        let rules = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
            -A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 -j ACCEPT\n\
            -A DOCKER -d 10.9.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT\nCOMMIT\n\
            *nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
            -A DOCKER ! -i docker0 -p tcp --dport 8000 -j DNAT --to-destination 10.9.0.2:80\n\
            -A POSTROUTING -s 10.9.0.0/24 ! -o docker0 -j MASQUERADE\nCOMMIT\n";
        host.run(|| super::world::feed(&format!("{iptables}-restore"), &["--noflush"], rules));
        let firewall = Firewall::open("0badcafe");
        host.run(|| firewall.add_network(&n1, Forwarding::default())).unwrap();
        host.run(|| firewall.publish("aa", &n1, &[published(Protocol::Tcp, "0.0.0.0:8080", "10.1.0.2:80")])).unwrap();
        let (ours, docker) = (world.container(&n1, 2, false), world.container(&theirs, 2, false));
        let ask = |from: &Place, to: &str, patience| from.ask(Protocol::Tcp, to.parse().unwrap(), patience).is_some();
        assert!(ask(&ours, "192.0.2.1:8000", PATIENT) && ask(&world.outside, "192.0.2.1:8000", PATIENT));
        assert!(ask(&docker, "192.0.2.1:8080", PATIENT) && ask(&world.outside, "192.0.2.1:8080", PATIENT));
        for (from, to) in [(&ours, "10.9.0.2:81"), (&docker, "10.1.0.2:80"), (&docker, "10.1.0.2:81")] {
            assert!(!ask(from, to, BRIEF), "{iptables}: {to}");
        }
    }
}

/// What is sent again and again to a port keeps its translation; whoever has the port next must get it.
#[test]
fn a_replaced_owner_gets_the_datagrams_of_old_clients() {
    use std::net::UdpSocket;
    let world = World::new();
    let n1 = network("n1", "01", 1);
    let firewall = Firewall::open("0badcafe");
    world.bridge(&n1);
    world.host.run(|| firewall.add_network(&n1, Forwarding::default())).unwrap();
    let (first, second) = (world.container(&n1, 2, false), world.container(&n1, 3, false));
    let receive = |place: &Place| {
        let socket = place.run(|| UdpSocket::bind("0.0.0.0:5353")).unwrap();
        socket.set_read_timeout(Some(PATIENT)).unwrap();
        socket
    };
    let (first, second) = (receive(&first), receive(&second));
    let client = world.outside.run(|| UdpSocket::bind("0.0.0.0:4000")).unwrap();
    let mut buffer = [0; 16];
    // Before anybody has it: the entry says that nothing is translated.
    client.send_to(b"0", "192.0.2.1:9053").unwrap();
    for (owner, target, socket) in [("aa", "10.1.0.2:5353", &first), ("bb", "10.1.0.3:5353", &second)] {
        let port = [published(Protocol::Udp, "0.0.0.0:9053", target)];
        world.host.run(|| firewall.publish(owner, &n1, &port)).unwrap();
        client.send_to(owner.as_bytes(), "192.0.2.1:9053").unwrap();
        let count = super::world::receive(socket, &mut buffer).unwrap_or_else(|e| panic!("{owner}: {e}"));
        assert_eq!(&buffer[..count], owner.as_bytes());
        world.host.run(|| firewall.unpublish(owner, &n1, &port)).unwrap();
    }
}

/// `MYDOCKER_FIGURES=<file>` takes the figures down.
#[test]
fn publishing_takes_milliseconds() {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        let world = World::new();
        world.host.output(iptables, &["-P", "FORWARD", "DROP"]);
        let n1 = network("n1", "01", 1);
        let firewall = Firewall::open("0badcafe");
        world.host.run(|| {
            firewall.add_network(&n1, Forwarding::default()).unwrap();
            let port = [published(Protocol::Tcp, "0.0.0.0:8080", "10.1.0.2:80")];
            let (mut publishing, mut unpublishing) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..20 {
                let start = Instant::now();
                firewall.publish("aa", &n1, &port).unwrap();
                publishing += start.elapsed() / 20;
                let start = Instant::now();
                firewall.unpublish("aa", &n1, &port).unwrap();
                unpublishing += start.elapsed() / 20;
            }
            assert!(publishing.max(unpublishing) < Duration::from_millis(200), "{publishing:?} {unpublishing:?}");
            if let Some(path) = std::env::var_os("MYDOCKER_FIGURES") {
                let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
                std::io::Write::write_all(
                    &mut file,
                    format!("{iptables} publish {publishing:?} unpublish {unpublishing:?}\n").as_bytes(),
                )
                .unwrap();
            }
        });
    }
}
