//! Many containers, and none left: two hundred on one bridge, a full subnet, dead ones' addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};

use super::support::host::{ip, rules};
use super::support::invocation::Invocation;
use super::support::traffic::{Matrix, Server, Transport, ask};
use super::support::{Namespace, Sandbox, eventually, patience, processes};
use crate::ours_only;

const MANY: usize = 200;
const THREADS: usize = 8;

/// Runs all of them to a good end, several at a time.
fn in_parallel(commands: Vec<Invocation>) {
    let queue = Mutex::new(commands);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop();
                    let Some(command) = next else { return };
                    command.run().code(0);
                }
            });
        }
    });
}

/// The address of each container on the network, by its name.
fn addresses(s: &Sandbox, network: &str) -> BTreeMap<String, IpAddr> {
    let template = "{{range .Containers}}{{.Name}} {{.IPv4Address}}\n{{end}}";
    let text = s.ok(["network", "inspect", "--format", template, network]);
    let pair = |line: &str| {
        let (name, address) = line.split_once(' ')?;
        Some((name.to_owned(), address.split_once('/')?.0.parse().ok()?))
    };
    text.lines().filter(|line| !line.is_empty()).map(|line| pair(line).expect("a name and an address")).collect()
}

#[test]
fn two_hundred_on_one_bridge() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    // The image is unpacked once, before everybody wants it.
    s.ok(["run", "--rm", "busybox", "true"]);
    let name = |number: usize| s.name(&format!("m{number:03}"));
    let run = |number: usize| s.command(["run", "-d", "--name", &name(number), "busybox", "sleep", "1000"]);
    in_parallel((0..MANY).map(run).collect());
    let at = addresses(&s, "bridge");
    assert_eq!(at.len(), MANY);
    assert_eq!(at.values().collect::<BTreeSet<_>>().len(), MANY, "each has an address of its own");
    // Everybody is reached from one of them: the bridge knows them all, the kernel its neighbours.
    let inside = s.inside(&name(0));
    let unreached: Vec<&IpAddr> = inside.run(|| {
        use std::net::TcpStream;
        let refused = |address: &&IpAddr| {
            // Nobody serves there: a refusal comes from the container itself.
            let outcome = TcpStream::connect_timeout(&(**address, 9).into(), patience());
            !outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        at.values().filter(refused).collect()
    });
    assert!(unreached.is_empty(), "{unreached:?}");
    let last = name(MANY - 1);
    assert!(s.ok(["exec", &name(0), "nslookup", &last]).contains(&at[&last].to_string()));
    drop(inside);

    // All down and all up again, by one command each.
    let all: Vec<String> = (0..MANY).map(name).collect();
    let with =
        |verb: &[&str]| verb.iter().map(|word| (*word).to_owned()).chain(all.iter().cloned()).collect::<Vec<_>>();
    s.ok(with(&["stop", "-t", "0"]));
    assert!(addresses(&s, "bridge").is_empty());
    s.ok(with(&["start"]));
    let again = addresses(&s, "bridge");
    assert_eq!(again.values().collect::<BTreeSet<_>>().len(), MANY);
    s.ok(with(&["rm", "-f"]));
    eventually("all devices go", || !ip(&["-o", "link"]).contains("veth"));
}

#[test]
fn a_full_subnet_says_so_and_recovers() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.41.0.0/29", "tiny"]);
    // Eight addresses: of the network, of the gateway, for all; five are left.
    let names: Vec<String> = (0..5).map(|number| s.name(&format!("full{number}"))).collect();
    for name in &names {
        s.sleeper(name, &["--network", "tiny"]);
    }
    assert_eq!(addresses(&s, "tiny").values().collect::<BTreeSet<_>>().len(), 5);
    let late = s.name("late");
    let output = s.fails(125, ["run", "-d", "--name", &late, "--network", "tiny", "busybox", "sleep", "1000"]);
    let error = output.err();
    assert!(error.contains("10.41.0.0/29") && error.contains("no available"), "{error}");
    assert_eq!(s.field(&late, "{{.State.Status}}"), "created");
    let freed = s.address(&names[2], "tiny");
    s.ok(["rm", "-f", &names[2]]);
    s.ok(["start", &late]);
    assert_eq!(s.address(&late, "tiny"), freed);
}

#[test]
fn an_address_rests_before_it_is_used_again() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.42.0.0/24", "rest"]);
    let mut seen = BTreeSet::new();
    for number in 0..5 {
        let name = s.name(&format!("rest{number}"));
        s.sleeper(&name, &["--network", "rest"]);
        assert!(seen.insert(s.address(&name, "rest")), "{seen:?}");
        s.ok(["rm", "-f", &name]);
    }
}

/// Kills the container and whoever would tell of it.
fn kill_with_shim(s: &Sandbox, name: &str) {
    let (init, shim) = (s.pid(name), processes::shim_of(name).expect("it has a shim"));
    for pid in [shim, Pid::from_raw(init).unwrap()] {
        kill_process(pid, Signal::KILL).unwrap();
    }
    eventually("both are gone", || !processes::is_alive(init) && !processes::is_alive(shim.as_raw_nonzero().get()));
}

#[test]
fn addresses_of_the_dead_are_found_when_they_are_needed() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.43.0.0/29", "--subnet", "fd43::/64", "graves"]);
    let names: Vec<String> = (0..5).map(|number| s.name(&format!("dead{number}"))).collect();
    for (number, name) in names.iter().enumerate() {
        let port = format!("{}:80", 8000 + number);
        s.sleeper(name, &["--network", "graves", "-p", &port]);
    }
    let (keeper, ghost) = (&names[0], &names[3]);
    let (ghost_at, ghost_id) = (s.address(ghost, "graves"), s.field(ghost, "{{.Id}}"));
    for name in &names[1..] {
        kill_with_shim(&s, name);
    }
    assert_eq!(s.field(ghost, "{{.State.Running}}"), "false");
    let heirs: Vec<String> = (0..4).map(|number| s.name(&format!("heir{number}"))).collect();
    for name in &heirs {
        s.sleeper(name, &["--network", "graves"]);
    }
    let at = addresses(&s, "graves");
    assert_eq!(at.len(), 5, "{at:?}");
    // Nothing of the dead leads to the heirs: no name, no published port.
    assert!(!s.ok(["exec", keeper, "sh", "-c", &format!("nslookup {ghost} || :")]).contains(&ghost_at.to_string()));
    let heir = at.iter().find(|(_, address)| **address == ghost_at).expect("the address has an heir").0;
    let _server = Server::on(&s.inside(heir), "heir", 80);
    let saved = rules(&["iptables-save", "-t", "nat"]);
    assert!(!saved.contains(&ghost_id[..12]), "{saved}");
    let localhost = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(ask(&Namespace::here(), Transport::Tcp, (localhost, 8003).into(), patience()), None);
    // A network whose only users are dead is nobody's.
    for name in heirs.iter().chain([keeper]) {
        s.ok(["rm", "-f", name]);
    }
    s.ok(["network", "rm", "graves"]);
}

#[test]
fn a_fixed_address_of_the_dead_may_be_had() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.44.0.0/24", "fixed"]);
    let (dead, heir) = (s.name("dead"), s.name("heir"));
    s.sleeper(&dead, &["--network", "fixed", "--ip", "10.44.0.44", "--network-alias", "service"]);
    kill_with_shim(&s, &dead);
    s.sleeper(&heir, &["--network", "fixed", "--ip", "10.44.0.44", "--network-alias", "service"]);
    let (inside, host) = (s.inside(&heir), Namespace::here());
    let _server = Server::on(&inside, "heir", 80);
    let mut m = Matrix::default();
    let address = s.address(&heir, "fixed");
    m.reaches("the host to the heir", &host, (address, 80), "heir", s.gateway("fixed", 0));
    m.check();
    // The dead one cannot have it as long as the heir lives.
    s.fails(1, ["start", &dead]).says("10.44.0.44");
    drop(_server);
    drop(inside);
    s.ok(["rm", "-f", &heir]);
    s.ok(["start", &dead]);
    assert_eq!(s.address(&dead, "fixed"), address);
}
