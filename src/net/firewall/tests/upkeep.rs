//! Twice is as good as once, others are left alone, what was flushed comes back.

use std::thread;

use super::super::{Firewall, Forwarding, Publication, Subject};
use super::world::{Place, World, feed, network, published};
use crate::net::{Network, Protocol};

/// All rules, without what changes by itself.
fn saved(place: &Place, iptables: &str) -> String {
    let all = [iptables.to_owned(), iptables.replace("ip", "ip6")].map(|p| place.output(&format!("{p}-save"), &[]));
    let lines = all.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    let counters = |line| if str::starts_with(line, ':') { line.split(" [").next().unwrap() } else { line };
    lines.map(counters).fold(String::new(), |text, line| text + line + "\n")
}

/// The nft back end, and the legacy one with tables that are in use.
fn with_each(test: impl Fn(&World, &'static str)) {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        let world = World::new();
        for program in [iptables.to_owned(), iptables.replace("ip", "ip6")] {
            world.host.output(&program, &["-P", "FORWARD", "DROP"]);
        }
        test(&world, iptables);
    }
}

/// Rules and chains, without tables that are there because somebody looked at them.
fn sorted(saved: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = saved.lines().filter(|line| line.starts_with(['-', ':'])).collect();
    lines.retain(|line| !line.ends_with(" ACCEPT") || line.starts_with('-'));
    lines.sort_unstable();
    lines
}

fn publication(network: &Network, owner: &str, port: u16) -> Publication {
    let ports = vec![
        published(Protocol::Tcp, &format!("0.0.0.0:{port}"), "10.1.0.2:80"),
        published(Protocol::Tcp, &format!("[::]:{port}"), "[fd00:1::2]:80"),
        published(Protocol::Udp, &format!("127.0.0.1:{port}"), "10.1.0.2:80"),
    ];
    Publication { owner: owner.repeat(32), network: network.clone(), ports }
}

fn publish(firewall: &Firewall, Publication { owner, network, ports }: &Publication) {
    firewall.publish(owner, network, ports).unwrap();
}

#[test]
fn twice_is_as_good_as_once() {
    with_each(|world, iptables| {
        let (n1, firewall) = (network("n1", "01", 1), Firewall::open("0badcafe"));
        let one = publication(&n1, "aa", 8080);
        let host = &world.host;
        let before = saved(host, iptables);
        host.run(|| firewall.add_network(&n1, Forwarding::default())).unwrap();
        let with_network = saved(host, iptables);
        host.run(|| firewall.add_network(&n1, Forwarding::default())).unwrap();
        assert_eq!(saved(host, iptables), with_network);
        host.run(|| publish(&firewall, &one));
        let with_ports = saved(host, iptables);
        host.run(|| publish(&firewall, &one));
        assert_eq!(saved(host, iptables), with_ports);
        assert_eq!(host.run(|| firewall.check(std::slice::from_ref(&n1), std::slice::from_ref(&one))).unwrap(), []);
        for _ in 0..2 {
            host.run(|| firewall.unpublish(&one.owner, &n1, &one.ports)).unwrap();
            assert_eq!(saved(host, iptables), with_network);
        }
        for _ in 0..2 {
            host.run(|| firewall.remove_network(&n1)).unwrap();
            assert!(!saved(host, iptables).contains("n1"));
        }
        // Nothing but the chains that all share has stayed.
        let left = saved(host, iptables);
        let more: Vec<&str> = left.lines().filter(|line| !before.contains(line)).collect();
        assert!(more.iter().all(|line| line.contains("MYDOCKER") || line.starts_with(['*', ':']) || *line == "COMMIT"));
        assert!(!left.contains("0badcafe"), "{left}");
    });
}

#[test]
fn flushed_rules_come_back() {
    with_each(|world, iptables| {
        let (n1, firewall) = (network("n1", "01", 1), Firewall::open("0badcafe"));
        let inner = Network { internal: true, ..network("n2", "23", 2) };
        let (networks, ports) = ([n1.clone(), inner], [publication(&n1, "aa", 8080), publication(&n1, "bb", 8081)]);
        let host = &world.host;
        host.run(|| {
            networks.iter().for_each(|network| firewall.add_network(network, Forwarding::default()).unwrap());
            ports.iter().for_each(|ports| publish(&firewall, ports));
        });
        let good = saved(host, iptables);
        let v6 = iptables.replace("ip", "ip6");
        let flushes: [&[&[&str]]; 4] = [
            &[&["-F"], &["-X"], &["-t", "nat", "-F"], &["-t", "nat", "-X"], &["-t", "raw", "-F"], &["-t", "raw", "-X"]],
            &[&["-F"], &["-t", "nat", "-F"]],
            &[&["-t", "nat", "-F", "MYDOCKER"], &["-F", "FORWARD"], &["-D", "MYDOCKER-OUT", "1"]],
            &[&["-t", "nat", "-F", "POSTROUTING"], &["-F", "MYDOCKER-NET-01010101"], &["-F", "MYDOCKER-INPUT"]],
        ];
        for (number, flush) in flushes.iter().enumerate() {
            for program in [iptables, v6.as_str()] {
                for arguments in *flush {
                    let mut command = arguments.to_vec();
                    command.insert(0, "-w");
                    host.output(program, &command);
                }
            }
            let found = host.run(|| firewall.check(&networks, &ports)).unwrap();
            assert!(found.iter().any(|problem| problem.missing > 0 && !problem.ipv6), "{number}: {found:?}");
            assert!(found.iter().any(|problem| problem.missing > 0 && problem.ipv6), "{number}: {found:?}");
            assert_eq!(host.run(|| firewall.repair(&networks, &ports)).unwrap(), found);
            assert_eq!(sorted(&saved(host, iptables)), sorted(&good), "{number}");
            assert_eq!(host.run(|| firewall.check(&networks, &ports)).unwrap(), []);
        }
        // Publishing does it by itself, and taking away does not mind.
        for arguments in [["-t", "nat", "-F"], ["-t", "nat", "-X"]] {
            host.output(iptables, &arguments);
        }
        host.run(|| publish(&firewall, &ports[0]));
        assert_eq!(host.run(|| firewall.check(&networks[..1], &ports[..1])).unwrap().len(), 3);
        host.run(|| firewall.unpublish(&ports[1].owner, &n1, &ports[1].ports)).unwrap();
    });
}

#[test]
fn orphans_are_found_and_removed() {
    with_each(|world, _| {
        let (n1, n2) = (network("n1", "01", 1), network("n2", "23", 2));
        let firewall = Firewall::open("0badcafe");
        let (one, two) = (publication(&n1, "aa", 8080), publication(&n1, "bb", 8081));
        world.host.run(|| {
            [&n1, &n2].into_iter().for_each(|network| firewall.add_network(network, Forwarding::default()).unwrap());
            [&one, &two].into_iter().for_each(|ports| publish(&firewall, ports));
            let found = firewall.repair(std::slice::from_ref(&n1), std::slice::from_ref(&one)).unwrap();
            for gone in ["bb".repeat(6), "23".repeat(6)] {
                assert_eq!(
                    found.iter().filter(|p| p.subject == Subject::Gone(gone.clone()) && p.stray > 0).count(),
                    2,
                    "{found:?}"
                );
            }
            assert_eq!(found.len(), 4, "{found:?}");
            assert_eq!(firewall.check(std::slice::from_ref(&n1), std::slice::from_ref(&one)).unwrap(), []);
            firewall.unpublish_owner(&one.owner).unwrap();
            assert_eq!(firewall.check(std::slice::from_ref(&n1), &[]).unwrap(), []);
        });
    });
}

#[test]
fn others_are_left_alone() {
    with_each(|world, iptables| {
        let host = &world.host;
        // As Docker and an administrator leave them.
        let foreign = "*filter\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n:MYDOCKER-USER - [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n\
            -A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 -j ACCEPT\n\
            -A MYDOCKER-USER -s 203.0.113.0/24 -j DROP\nCOMMIT\n\
            *nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
            -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8000 -j DNAT --to-destination 172.17.0.2:80\n\
            -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\nCOMMIT\n";
        host.run(|| feed(&format!("{iptables}-restore"), &["--noflush"], foreign));
        let theirs = |text: String| -> String {
            text.lines()
                .filter(|line| !line.contains("mydocker"))
                .filter(|line| !line.starts_with([':', '*']) || line.contains(" DROP"))
                .filter(|line| *line != "COMMIT")
                .fold(String::new(), |text, line| text + line + "\n")
        };
        let before = theirs(saved(host, iptables));
        let (n1, n2) = (network("n1", "01", 1), network("n2", "23", 2));
        let (mine, yours) = (Firewall::open("0badcafe"), Firewall::open("deadbeef"));
        let (one, two) = (publication(&n1, "aa", 8080), publication(&n2, "bb", 8081));
        host.run(|| {
            mine.add_network(&n1, Forwarding::default()).unwrap();
            publish(&mine, &one);
            yours.add_network(&n2, Forwarding::default()).unwrap();
            publish(&yours, &two);
            // Neither takes the other's for orphans.
            assert_eq!(mine.repair(std::slice::from_ref(&n1), std::slice::from_ref(&one)).unwrap(), []);
            mine.unpublish(&one.owner, &n1, &one.ports).unwrap();
            mine.remove_network(&n1).unwrap();
            assert_eq!(mine.repair(&[], &[]).unwrap(), []);
            assert_eq!(yours.check(std::slice::from_ref(&n2), std::slice::from_ref(&two)).unwrap(), []);
        });
        assert_eq!(theirs(saved(host, iptables)), before);
        // The user's chain is asked first.
        let forward = host.output(iptables, &["-S", "FORWARD"]);
        let jumps: Vec<&str> = forward.lines().filter_map(|line| line.rsplit("-j ").next()).skip(1).take(3).collect();
        assert_eq!(jumps, ["MYDOCKER-USER", "MYDOCKER-FORWARD", "DOCKER-USER"]);
    });
}

#[test]
fn the_policy_closes_when_forwarding_begins() {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        let world = World::new();
        let host = &world.host;
        host.output(iptables, &["-A", "FORWARD", "-s", "203.0.113.1", "-j", "DROP"]);
        let firewall = Firewall::open("0badcafe");
        host.run(|| firewall.add_network(&network("n1", "01", 1), Forwarding::default())).unwrap();
        assert!(host.output(iptables, &["-S", "FORWARD"]).contains("-P FORWARD ACCEPT"));
        let begun = Forwarding { ipv4: true, ipv6: false };
        host.run(|| firewall.add_network(&network("n2", "23", 2), begun)).unwrap();
        let rules = host.output(iptables, &["-S", "FORWARD"]);
        assert!(rules.contains("-P FORWARD DROP") && rules.contains("203.0.113.1"), "{rules}");
        assert!(host.output("ip6tables", &["-S", "FORWARD"]).contains("-P FORWARD ACCEPT"));
    }
}

#[test]
fn many_at_once_after_a_flush() {
    with_each(|world, iptables| {
        let (n1, firewall) = (network("n1", "01", 1), Firewall::open("0badcafe"));
        let ports: Vec<_> = (10..26).map(|n| publication(&n1, &n.to_string(), 8000 + n)).collect();
        thread::scope(|scope| {
            for ports in &ports {
                scope.spawn(|| world.host.run(|| publish(&firewall, ports)));
            }
        });
        let found = world.host.run(|| firewall.check(std::slice::from_ref(&n1), &ports)).unwrap();
        assert_eq!(found, [], "{}", saved(&world.host, iptables));
    });
}

/// Looking at the legacy tables loads them; our rules must be found where they are all the same.
#[test]
fn a_look_at_the_other_tables_changes_nothing() {
    let world = World::new();
    let host = &world.host;
    let (n1, firewall) = (network("n1", "01", 1), Firewall::open("0badcafe"));
    let one = publication(&n1, "aa", 8080);
    host.run(|| firewall.add_network(&n1, Forwarding::default())).unwrap();
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        host.output(program, &["-S"]);
        host.output(program, &["-t", "nat", "-S"]);
    }
    host.run(|| publish(&firewall, &one));
    assert_eq!(host.run(|| firewall.check(std::slice::from_ref(&n1), std::slice::from_ref(&one))).unwrap(), []);
    assert!(!saved(host, "iptables-legacy").contains("MYDOCKER"));
    host.run(|| firewall.unpublish(&one.owner, &n1, &one.ports)).unwrap();
    assert_eq!(host.run(|| firewall.check(std::slice::from_ref(&n1), &[])).unwrap(), []);
}
