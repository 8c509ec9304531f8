//! Networks joined and left, by containers that run and by such that do not, and what is shown of it.

use super::support::traffic::{Matrix, Server};
use super::support::{Namespace, Neighbour, Sandbox, eventually};
use crate::ours_only;

fn default_route(s: &Sandbox, name: &str) -> String {
    s.ok(["exec", name, "sh", "-c", "ip route | grep default || :"]).trim().to_owned()
}

fn hosts(s: &Sandbox, name: &str) -> String {
    s.ok(["exec", name, "cat", "/etc/hosts"])
}

/// Whether `name` is known to a container.
fn knows(s: &Sandbox, who: &str, name: &str) -> bool {
    s.run(["exec", who, "nslookup", name]).code == 0
}

#[test]
fn a_running_container_joins_and_leaves() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.81.0.0/24", "one"]);
    s.ok(["network", "create", "--subnet", "10.82.0.0/24", "two"]);
    let (name, other) = (s.name("mover"), s.name("other"));
    s.idle(&name, &["--network", "one"]);
    s.idle(&other, &["--network", "two"]);
    assert!(!knows(&s, &other, &name));

    let flags = ["network", "connect", "--alias", "guest", "--ip", "10.82.0.40", "two", &name];
    s.ok(flags);
    // All of it at once, with nothing to wait for.
    assert!(knows(&s, &other, &name) && knows(&s, &other, "guest") && knows(&s, &name, &other));
    assert!(hosts(&s, &name).contains("10.82.0.40\t"), "{}", hosts(&s, &name));
    assert_eq!(s.address(&name, "two").to_string(), "10.82.0.40");
    assert_eq!(default_route(&s, &name), "default via 10.81.0.1 dev eth0");
    {
        let (inside, outside) = (s.inside(&name), s.inside(&other));
        let _server = Server::on(&inside, "mover", 80);
        let mut m = Matrix::default();
        let at = s.address(&name, "two");
        m.reaches("other to the new address", &outside, (at, 80), "mover", s.address(&other, "two"));
        m.pings("other to the new address", &outside, at);
        m.check();
    }
    s.fails(1, flags).says("already exists in network two");

    s.ok(["network", "disconnect", "one", &name]);
    assert_eq!(default_route(&s, &name), "default via 10.82.0.1 dev eth1");
    assert!(!hosts(&s, &name).contains("10.81.0."), "{}", hosts(&s, &name));
    assert!(!s.ok(["exec", &name, "ip", "-o", "link"]).contains("eth0"));
    s.fails(1, ["network", "disconnect", "one", &name]).says("is not connected to network one");
    // The freed device name is used again.
    s.ok(["network", "connect", "one", &name]);
    assert!(s.ok(["exec", &name, "ip", "-o", "addr", "show", "dev", "eth0"]).contains("10.81.0."));

    s.ok(["network", "disconnect", "one", &name]);
    s.ok(["network", "disconnect", "two", &name]);
    assert!(!knows(&s, &other, &name) && !knows(&s, &other, "guest"));
    assert_eq!(default_route(&s, &name), "");
    assert_eq!(s.field(&name, "{{len .NetworkSettings.Networks}}"), "0");
    // What it left it does not get back by a restart; what it joined it keeps.
    s.ok(["network", "connect", "--alias", "guest", "two", &name]);
    s.ok(["restart", "-t", "1", &name]);
    assert_eq!(s.field(&name, "{{range $name, $on := .NetworkSettings.Networks}}{{$name}} {{end}}"), "two ");
    assert!(knows(&s, &other, "guest"));
}

#[test]
fn a_stopped_container_joins_and_leaves() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.83.0.0/24", "three"]);
    s.ok(["network", "create", "--subnet", "10.84.0.0/24", "four"]);
    let name = s.name("later");
    s.ok(["create", "--name", &name, "--network", "three", "busybox", "sleep", "1000"]);
    s.ok(["network", "connect", "--ip", "10.84.0.44", "four", &name]);
    s.ok(["network", "disconnect", "three", &name]);
    s.ok(["start", &name]);
    assert_eq!(s.address(&name, "four").to_string(), "10.84.0.44");
    assert_eq!(s.field(&name, "{{len .NetworkSettings.Networks}}"), "1");
    s.fails(1, ["network", "connect", "nowhere", &name]).says("network nowhere not found");
    s.fails(1, ["network", "connect", "four", "nobody"]).says("no such container");
    s.fails(1, ["network", "connect", "host", &name]).says("cannot be connected to network host");
    let bare = s.name("bare");
    s.idle(&bare, &["--network", "none"]);
    s.fails(1, ["network", "connect", "four", &bare]).says("--network none");
}

#[test]
fn published_ports_move_on_when_their_network_is_left() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "one"]);
    s.ok(["network", "create", "two"]);
    let name = s.name("moved");
    s.sleeper(&name, &["--network", "one", "--network", "two", "-p", "8080:80", "-p", "8080:80/udp"]);
    let n = Neighbour::join(0);
    let inside = s.inside(&name);
    let _server = Server::on(&inside, "moved", 80);
    let reached = |network: &str| {
        let mut m = Matrix::default();
        m.pings("the host to the container", &Namespace::here(), s.address(&name, network));
        m.check();
        let mut m = Matrix::default();
        m.reaches("the neighbour", &n.namespace, (n.host, 8080), "moved", n.address);
        m.reaches("itself", &inside, (n.host, 8080), "moved", s.gateway(network, 0));
        m.check();
    };
    reached("one");
    s.ok(["network", "disconnect", "one", &name]);
    reached("two");
    assert_eq!(s.ok(["port", &name, "80/udp"]), "0.0.0.0:8080");
    s.ok(["network", "rm", "one"]);
}

#[test]
fn a_network_in_use_is_not_removed() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let id = s.ok(["network", "create", "used"]);
    let name = s.name("user");
    s.idle(&name, &["--network", "used"]);
    s.fails(1, ["network", "rm", "used"]).says(&format!("active endpoints ({name})"));
    assert_eq!(s.ok(["network", "prune", "-f"]), "");
    s.ok(["stop", "-t", "1", &name]);
    // A container that is to have it some day does not hold it, as with Docker; it is told when it starts.
    s.ok(["network", "rm", &id[..8]]);
    s.fails(1, ["start", &name]).says("network used not found");
    let links = || super::support::host::ip(&["-o", "link"]);
    assert!(!links().contains(": used:"), "{}", links());
    let rules = super::support::host::rules(&["iptables-save"]);
    assert!(!rules.contains(&id[..12]), "{rules}");
    for directory in ["networks", "ipam", "names"] {
        let path = s.root().join("network").join(directory);
        let left: Vec<_> = std::fs::read_dir(&path).map(|entries| entries.flatten().collect()).unwrap_or_default();
        assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("used")), "{left:?}");
    }
    s.fails(1, ["network", "rm", "used"]).says("network used not found");
    s.fails(1, ["network", "rm", "host"]).says("pre-defined");
}

#[test]
fn prune_takes_what_nobody_wants() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    for name in ["idle", "busy", "wanted"] {
        s.ok(["network", "create", name]);
    }
    s.ok(["network", "create", "--label", "keep=yes", "kept"]);
    let (busy, wanted) = (s.name("busy"), s.name("wanted"));
    s.idle(&busy, &["--network", "busy"]);
    s.ok(["create", "--name", &wanted, "--network", "wanted", "busybox", "true"]);
    let pruned = s.ok(["network", "prune", "-f", "--filter", "label!=keep"]);
    assert!(pruned.contains("idle") && !pruned.contains("busy") && !pruned.contains("kept"), "{pruned}");
    assert_eq!(s.ok(["network", "ls", "--format", "{{.Name}}"]), "bridge\nbusy\nhost\nkept\nnone\nwanted");
    assert_eq!(s.ok(["start", "-a", &wanted]), "");
}

#[test]
fn what_is_shown_of_connections() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let network = s.ok(["network", "create", "--subnet", "10.85.0.0/24", "--label", "a=b", "shown"]);
    let name = s.name("shown");
    let id = s.idle(&name, &["--network", "shown", "-p", "8080:80", "-p", "127.0.0.1:5353:53/udp", "--expose", "99"]);
    let on = |template: &str| s.field(&name, template);
    assert_eq!(on("{{.HostConfig.NetworkMode}}"), "shown");
    assert_eq!(on("{{.NetworkSettings.Networks.shown.NetworkID}}"), network);
    assert_eq!(on("{{.NetworkSettings.Networks.shown.Gateway}}"), "10.85.0.1");
    assert_eq!(on("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}"), "8080");
    assert_eq!(on("{{json (index .NetworkSettings.Ports \"99/tcp\")}}"), "null");
    assert_eq!(
        on("{{json .HostConfig.PortBindings}}"),
        r#"{"53/udp":[{"HostIp":"127.0.0.1","HostPort":"5353"}],"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#
    );
    let ports = s.ok(["ps", "--format", "{{.Ports}}|{{.Networks}}"]);
    assert_eq!(ports, "99/tcp, 127.0.0.1:5353->53/udp, 0.0.0.0:8080->80/tcp|shown");
    assert_eq!(s.ok(["ps", "-q", "--filter", "network=shown"]), id[..12]);
    assert_eq!(s.ok(["port", &name]), "53/udp -> 127.0.0.1:5353\n80/tcp -> 0.0.0.0:8080");
    assert_eq!(s.ok(["port", &name, "80"]), "0.0.0.0:8080");
    s.fails(1, ["port", &name, "81"]).says("no public port '81");

    let of = |template: &str| s.ok(["network", "inspect", "--format", template, "shown"]);
    assert_eq!(of("{{(index .IPAM.Config 0).Subnet}} {{.Driver}} {{.Labels.a}}"), "10.85.0.0/24 bridge b");
    assert_eq!(
        of("{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.MacAddress}}{{end}}"),
        format!("{name} 10.85.0.2/24 02:42:0a:55:00:02")
    );
    assert_eq!(of("{{range $id, $on := .Containers}}{{$id}}{{end}}"), id);
    assert_eq!(
        s.ok(["network", "ls", "--filter", "label=a=b", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]),
        "shown bridge local"
    );
    s.ok(["stop", "-t", "1", &name]);
    assert_eq!(of("{{len .Containers}}"), "0");
    assert_eq!(on("{{json .NetworkSettings.Ports}} {{.NetworkSettings.Networks.shown.IPAddress}}"), "{} ");
    eventually("the port column empties", || s.ok(["ps", "-a", "--format", "{{.Ports}}"]).is_empty());
}

#[test]
fn a_network_that_was_made_anew_is_not_the_one_that_was_left() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.86.0.0/24", "again"]);
    let name = s.name("again");
    s.idle(&name, &["--network", "again"]);
    s.ok(["stop", "-t", "1", &name]);
    s.ok(["network", "rm", "again"]);
    s.ok(["network", "create", "--subnet", "10.87.0.0/24", "again"]);
    s.ok(["start", &name]);
    assert_eq!(s.address(&name, "again").to_string(), "10.87.0.2");
}
