//! Networks made: which subnets and devices they get, and what is refused.

use super::support::host::{ip, rules};
use super::support::{Namespace, Neighbour, Sandbox};
use crate::ours_only;

#[test]
fn the_older_forms_make_a_device_of_that_name() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "192.168.0.0/24", "--driver", "bridge", "testbridge"]);
    let device = ip(&["-o", "addr", "show", "dev", "testbridge"]);
    assert!(device.contains("inet 192.168.0.1/24 "), "{device}");
    assert!(ip(&["-d", "link", "show", "testbridge"]).contains("bridge"));
    s.ok(["network", "create", "-subnet", "192.168.9.0/24", "-driver", "bridge", "single"]);
    assert!(ip(&["-o", "addr", "show", "dev", "single"]).contains("inet 192.168.9.1/24 "));
    let listed = s.ok(["network", "list"]);
    assert!(listed.lines().any(|line| line.contains("testbridge") && line.contains("bridge")), "{listed}");
    // The old form of run.
    let at = s.ok(["run", "-net", "testbridge", "--rm", "busybox", "ip", "-o", "addr", "show", "dev", "eth0"]);
    assert!(at.contains("inet 192.168.0."), "{at}");
    assert_eq!(s.ok(["network", "remove", "testbridge"]), "testbridge");
    assert!(!ip(&["-o", "link"]).contains("testbridge"));
}

#[test]
fn devices_get_names_that_the_kernel_takes() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let long = s.ok(["network", "create", "a-name-that-is-too-long"]);
    assert!(ip(&["-o", "link"]).contains(&format!("br-{}:", &long[..12])), "{}", ip(&["-o", "link"]));
    // A device that is there is nobody's of ours.
    ip(&["link", "add", "taken0", "type", "veth", "peer", "name", "taken1"]);
    let id = s.ok(["network", "create", "taken0"]);
    assert!(ip(&["-o", "link"]).contains(&format!("br-{}:", &id[..12])));
    s.ok(["network", "create", "-o", "com.docker.network.bridge.name=chosen0", "named"]);
    assert!(ip(&["-o", "link"]).contains(": chosen0:"));
    s.ok(["network", "rm", "a-name-that-is-too-long", "taken0", "named"]);
    let left = ip(&["-o", "link"]);
    assert!(left.contains("taken0") && !left.contains("br-") && !left.contains("chosen0"), "{left}");
    assert!(!rules(&["iptables-save"]).contains("MYDOCKER-NET"));
    s.fails(1, ["network", "create", "-o", "com.docker.network.bridge.name=taken0", "thief"]).says("taken0");
    assert!(!s.ok(["network", "ls"]).contains("thief"));
    assert!(ip(&["-o", "link"]).contains("taken0"), "the host's own device stays");
}

#[test]
fn subnets_keep_out_of_the_hosts_way() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    // Addresses and routes in what would come first.
    let n = Neighbour::join(0);
    ip(&["addr", "add", "172.17.5.1/24", "dev", &n.device]);
    ip(&["route", "add", "172.18.0.0/16", "via", &n.address.to_string()]);
    ip(&["route", "add", "172.19.7.0/24", "via", &n.address.to_string()]);
    for name in ["one", "two"] {
        s.ok(["network", "create", name]);
    }
    assert_eq!(s.subnet("one", 0), "172.20.0.0/16");
    assert_eq!(s.subnet("two", 0), "172.21.0.0/16");
    assert_eq!(s.script(&[], "ip -o addr show dev eth0").split_whitespace().nth(3).map(|at| &at[..7]), Some("172.22."));
    // Those of one's choice are checked, and the other side is named.
    s.fails(1, ["network", "create", "--subnet", "172.20.5.0/24", "inner"])
        .says("Pool overlaps with other one on this address space")
        .says("network one");
    s.fails(1, ["network", "create", "--subnet", "172.16.0.0/12", "outer"]).says("overlaps with");
    s.fails(1, ["network", "create", "--subnet", "203.0.113.0/24", "hosts"]).says(&format!("of {}", n.device));
    let output = s.run(["network", "create", "--subnet", "172.19.0.0/16", "routed"]).code(0);
    assert!(output.err().contains("172.19.7.0/24"), "{}", output.err());
    s.fails(1, ["network", "create", "one"]).says("network with name one already exists");
    s.fails(1, ["network", "create", "host"]).says("predefined host network");
    for bad in [
        &["--subnet", "nonsense"][..],
        &["--subnet", "10.0.0.0/33"],
        &["--subnet", "10.1.0.0/24", "--gateway", "10.2.0.1"],
        &["--subnet", "10.1.0.0/24", "--ip-range", "10.2.0.0/25"],
        &["--subnet", "10.1.0.0/24", "--aux-address", "x=10.2.0.9"],
        &["--opt", "com.docker.network.driver.mtu=many"],
        &["--driver", "overlay"],
        &["--driver", "nonsense"],
    ] {
        let mut args = vec!["network", "create"];
        args.extend(bad);
        args.push("bad");
        let output = s.run(args);
        assert_ne!(output.code, 0, "{bad:?}");
        assert!(!output.err().is_empty(), "{bad:?}");
    }
    assert_eq!(s.ok(["network", "ls", "--format", "{{.Name}}"]), "bridge\nhost\nnone\none\nrouted\ntwo");
}

#[test]
fn two_data_roots_share_a_host() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("first");
    s.sleeper(&name, &["-p", "8080:80"]);
    let root = s.host_dir("other-root");
    let program = s.program();
    let other = |args: &[&str]| {
        let mut command = vec![program.to_str().unwrap(), "--root", &root];
        command.extend(args);
        Namespace::here().command(&command)
    };
    let second = s.name("second");
    other(&["run", "-d", "--name", &second, "busybox", "sleep", "1000"]).code(0);
    let at = other(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &second]).code(0).out();
    assert_ne!(at[..7], s.address(&name, "bridge").to_string()[..7], "a subnet of its own");
    assert!(ip(&["-o", "link"]).contains(": mydocker1:"));
    other(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).code(125).says("port is already allocated");
    // One's clean-up leaves the other's alone.
    other(&["rm", "-f", &second]).code(0);
    other(&["network", "prune", "-f"]).code(0);
    assert!(rules(&["iptables", "-t", "nat", "-S"]).contains("8080"));
    assert!(
        s.ok(["exec", &name, "ping", "-c", "1", "-W", "5", &s.gateway("bridge", 0).to_string()])
            .contains("1 packets received")
    );
}

#[test]
fn a_network_is_made_again_after_its_device_is_gone() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.51.0.0/24", "again"]);
    let name = s.name("again");
    s.idle(&name, &["--network", "again"]);
    s.ok(["stop", "-t", "1", &name]);
    // As after a reboot: neither devices nor rules.
    ip(&["link", "del", "again"]);
    for table in ["filter", "nat", "raw"] {
        rules(&["iptables", "-t", table, "-F"]);
        rules(&["iptables", "-t", table, "-X"]);
    }
    s.ok(["start", &name]);
    let device = ip(&["-o", "addr", "show", "dev", "again"]);
    assert!(device.contains("inet 10.51.0.1/24 "), "{device}");
    assert!(rules(&["iptables", "-t", "nat", "-S"]).contains("10.51.0.0/24"));
    let n = Neighbour::join(0);
    assert!(s.ok(["exec", &name, "ping", "-c", "1", "-W", "5", &n.address.to_string()]).contains("1 packets received"));
}
