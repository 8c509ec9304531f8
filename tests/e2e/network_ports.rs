//! Published ports: which ones, whose they are, and when they are free again.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use super::support::traffic::{Matrix, Server, Transport, ask};
use super::support::{Namespace, Neighbour, Sandbox, eventually, patience, processes};
use crate::ours_only;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The host's port that `port` prints.
fn host_port(s: &Sandbox, name: &str, port: &str) -> u16 {
    let line = s.ok(["port", name, port]);
    line.rsplit_once(':').unwrap_or_else(|| panic!("{line}")).1.parse().unwrap()
}

/// What a client of the host's 127.0.0.1 hears; an empty string for a refusal.
fn heard(port: u16) -> String {
    ask(&Namespace::here(), Transport::Tcp, (LOCALHOST, port).into(), patience()).unwrap_or_default()
}

#[test]
fn ranges_and_ports_of_the_kernels_choice() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (ranged, random, exposed, chosen) = (s.name("ranged"), s.name("random"), s.name("exposed"), s.name("chosen"));
    s.sleeper(&ranged, &["-p", "7000-7002:80-82", "-p", "7000:90/udp"]);
    let ports = s.ok(["port", &ranged]);
    assert_eq!(ports, "80/tcp -> 0.0.0.0:7000\n81/tcp -> 0.0.0.0:7001\n82/tcp -> 0.0.0.0:7002\n90/udp -> 0.0.0.0:7000");
    s.sleeper(&random, &["-p", "80", "-p", "127.0.0.1::81"]);
    assert!(host_port(&s, &random, "80") >= 1024);
    assert!(s.ok(["port", &random, "81"]).starts_with("127.0.0.1:"));
    s.sleeper(&exposed, &["-P", "--expose", "80-81", "--expose", "53/udp", "-p", "7100:81"]);
    assert_eq!(s.ok(["port", &exposed]).lines().count(), 3, "{}", s.ok(["port", &exposed]));
    assert_eq!(host_port(&s, &exposed, "81"), 7100, "what was said goes before -P");
    // One of a range: the first that is free.
    s.sleeper(&chosen, &["-p", "7001-7005:80"]);
    assert_eq!(host_port(&s, &chosen, "80"), 7003);
    s.fails(125, ["run", "--rm", "-p", "7000-7003:80", "busybox", "true"]).says("7000-7003").says("taken");
    s.fails(125, ["run", "--rm", "-p", "7000-7003:80-81", "busybox", "true"]).says("invalid ranges");
    // They all lead where they say.
    for (name, port, reply) in
        [(&ranged, 82, "last"), (&random, 80, "random"), (&random, 81, "local"), (&exposed, 80, "exposed")]
    {
        let _server = Server::on(&s.inside(name), reply, port);
        assert!(heard(host_port(&s, name, &port.to_string())).starts_with(reply), "{reply}");
    }
}

#[test]
fn ports_of_images_are_published_on_request() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let path = s.path("image.tar");
    let config = serde_json::json!({ "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Cmd": ["sleep", "1000"] });
    super::support::archive::save(&path, "exposing:latest", &config, &[super::support::archive::Layer::busybox()]);
    s.ok(["load", "-i", path.to_str().unwrap()]);
    let name = s.name("exposing");
    s.ok(["run", "-d", "--name", &name, "-P", "exposing"]);
    assert!(host_port(&s, &name, "80/tcp") >= 1024 && host_port(&s, &name, "53/udp") >= 1024);
    let quiet = s.name("quiet");
    s.ok(["run", "-d", "--name", &quiet, "exposing"]);
    assert_eq!(s.ok(["port", &quiet]), "");
    assert_eq!(s.ok(["ps", "--filter", &format!("name={quiet}"), "--format", "{{.Ports}}"]), "53/udp, 80/tcp");
}

#[test]
fn a_port_belongs_to_one_container() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (first, second) = (s.name("first"), s.name("second"));
    s.sleeper(&first, &["-p", "8080:80", "-p", "8080:80/udp"]);
    for port in ["8080:80", "127.0.0.1:8080:80", "8080:80/udp"] {
        let output =
            s.fails(125, ["run", "-d", "--name", &second, "-p", "9090:90", "-p", port, "busybox", "sleep", "1000"]);
        assert!(output.err().contains("port is already allocated"), "{port}: {}", output.err());
        assert!(
            output.err().contains(&first) && output.err().contains("port 8081 is free"),
            "{port}: {}",
            output.err()
        );
        // It is there, and down: nothing of it holds anything.
        assert_eq!(s.field(&second, "{{.State.Status}} {{len .NetworkSettings.Ports}}"), "created 0");
        drop(TcpListener::bind("0.0.0.0:9090").expect("the other port is free"));
        let rules = super::support::host::rules(&["iptables-save"]);
        assert!(!rules.contains(&s.field(&second, "{{.Id}}")[..12]), "{rules}");
        s.fails(1, ["start", &second]).says("port is already allocated");
        s.ok(["rm", &second]);
    }
    s.fails(125, ["run", "-d", "--name", &second, "-p", "8080:80", "busybox", "sleep", "1000"]);
    s.ok(["stop", "-t", "0", &first]);
    s.ok(["start", &second]);
    let server = Server::on(&s.inside(&second), "second", 80);
    assert!(heard(8080).starts_with("second"));
    drop(server);
    s.fails(1, ["start", &first]).says(&second);
}

#[test]
fn a_port_of_another_program_is_named_with_it() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("late");
    let own = std::process::id();
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let holder = format!("process {own} ({})", comm.trim());
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:8080").unwrap(), UdpSocket::bind("0.0.0.0:8053").unwrap());
    let args = ["run", "-d", "--name", &name, "-p", "8080:80", "-p", "8053:53/udp", "busybox", "sleep", "1000"];
    s.fails(125, args).says("port is already allocated").says(&holder);
    drop(tcp);
    s.fails(1, ["start", &name]).says(":8053").says(&holder);
    drop(udp);
    s.ok(["start", &name]);
    // And the other way round: a program that comes later is refused by the kernel.
    assert!(TcpListener::bind("0.0.0.0:8080").is_err());
    assert!(UdpSocket::bind("127.0.0.1:8053").is_err());
    s.ok(["rm", "-f", &name]);
    drop(TcpListener::bind("0.0.0.0:8080").expect("free with the container"));
    s.fails(125, ["run", "--rm", "-p", "192.0.2.9:80:80", "busybox", "true"])
        .says("this host has no address 192.0.2.9");
}

#[test]
fn a_port_outlives_restarts() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("server");
    let serve = "nc -ll -p 80 -e echo served";
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "--restart",
        "always",
        "-p",
        "8080:80",
        "-p",
        "90",
        "busybox",
        "sh",
        "-c",
        serve,
    ]);
    let served = |when: &str| {
        eventually(when, || {
            ask(&Namespace::here(), Transport::Tcp, (LOCALHOST, 8080).into(), patience())
                .is_some_and(|text| text.trim() == "served")
        });
    };
    served("after run");
    s.ok(["restart", "-t", "0", &name]);
    served("after restart");
    s.ok(["stop", "-t", "0", &name]);
    assert_eq!(heard(8080), "");
    assert_eq!(s.ok(["port", &name]), "");
    s.ok(["start", &name]);
    served("after start");
    // The restart policy makes a new network namespace, with the same port.
    let before = s.pid(&name);
    rustix::process::kill_process(rustix::process::Pid::from_raw(before).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    eventually("it runs anew", || s.is_running(&name) && s.pid(&name) != before && s.pid(&name) != 0);
    served("after the restart policy");
    let n = Neighbour::join(0);
    let answer = ask(&n.namespace, Transport::Tcp, (n.host, 8080).into(), patience());
    assert_eq!(answer.as_deref().map(str::trim), Some("served"));
    let id = s.field(&name, "{{.Id}}");
    let jumps = super::support::host::rules(&["iptables", "-t", "nat", "-S", "MYDOCKER"]);
    assert_eq!(jumps.lines().filter(|rule| rule.contains(&id[..12])).count(), 1, "{jumps}");
}

#[test]
fn a_port_is_free_when_container_and_shim_were_killed() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (dead, next) = (s.name("dead"), s.name("next"));
    s.sleeper(&dead, &["-p", "8080:80"]);
    let (init, shim) = (s.pid(&dead), processes::shim_of(&dead).expect("it has a shim"));
    let at = s.address(&dead, "bridge");
    for pid in [shim, rustix::process::Pid::from_raw(init).unwrap()] {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    eventually("both are gone", || !processes::is_alive(init) && !processes::is_alive(shim.as_raw_nonzero().get()));
    s.sleeper(&next, &["-p", "8080:80"]);
    assert_ne!(s.address(&next, "bridge"), at);
    let _server = Server::on(&s.inside(&next), "next", 80);
    // The rule of the dead one led elsewhere; whoever came next is the one that is reached.
    assert!(heard(8080).starts_with("next"), "{:?}", heard(8080));
    let n = Neighbour::join(0);
    let mut m = Matrix::default();
    m.reaches_by(Transport::Tcp, "the neighbour", &n.namespace, (n.host, 8080), ("next", n.address));
    m.check();
}

#[test]
fn sctp_is_published_too() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("sctp");
    s.sleeper(&name, &["-p", "7000:80/sctp"]);
    let id = s.field(&name, "{{.Id}}");
    let at = s.address(&name, "bridge");
    let nat = rules_of(&id);
    assert!(nat.contains("-p sctp") && nat.contains(&format!("{at}:80")), "{nat}");
    assert_eq!(s.ok(["port", &name]), "80/sctp -> 0.0.0.0:7000");
    s.fails(125, ["run", "--rm", "-p", "7000:80/sctp", "busybox", "true"])
        .says("port is already allocated")
        .says(&name);
    // The same number of another protocol is another port.
    s.ok(["run", "--rm", "-p", "7000:80", "busybox", "true"]);
}

fn rules_of(id: &str) -> String {
    let all = super::support::host::rules(&["iptables-save", "-t", "nat"]);
    all.lines().filter(|rule| rule.contains(&id[..12])).collect::<Vec<_>>().join("\n")
}
