//! Many processes on the same networks at once: addresses, names, subnets and ports are given once, and
//! nothing is ever half done.

use std::collections::BTreeSet;

use crate::ours_only;
use crate::support::invocation::Running;
use crate::support::networks::{leases, no_leases, nothing_at_all, nothing_of_containers, rules};
use crate::support::{Output, Sandbox};

/// Starts all command lines before it waits for the first.
#[track_caller]
fn at_once(sandbox: &Sandbox, lines: &[Vec<String>]) -> Vec<Output> {
    let running: Vec<Running> = lines.iter().map(|line| sandbox.command(line).start()).collect();
    running.into_iter().map(Running::finish).collect()
}

fn line(words: &str) -> Vec<String> {
    words.split(' ').map(str::to_owned).collect()
}

#[test]
fn two_hundred_starts_never_share_an_address() {
    ours_only!("looks into our own records");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", "10.80.0.0/22", "n1"]);
    // As many as the machine bears at a time; those that pass free addresses while others look for them.
    let tag = sandbox.name("c");
    for batch in 0..4 {
        let lines: Vec<_> = (0..50)
            .map(|number| match number % 2 {
                0 => line(&format!("run -d --name {tag}-{batch}-{number} --network n1 busybox sleep 600")),
                _ => line("run --rm --network n1 busybox true"),
            })
            .collect();
        for output in at_once(&sandbox, &lines) {
            assert_eq!(output.code, 0, "{output}");
        }
    }
    let ids = sandbox.ok(["ps", "-q", "--no-trunc"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 100);
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let mut args = vec!["inspect", "--format", template];
    args.extend(&ids);
    let listed = sandbox.ok(args);
    let addresses: BTreeSet<&str> = listed.lines().collect();
    assert_eq!(addresses.len(), 100, "an address was given twice");
    // What is inside is what is on record; asked of a few.
    for (id, address) in ids.iter().zip(listed.lines()).step_by(20) {
        assert!(sandbox.ok(["exec", id, "ip", "-o", "-4", "address"]).contains(&format!(" {address}/22 ")), "{id}");
    }
    assert_eq!(leases(&sandbox, "n1").len(), 100);
    let mut args = vec!["rm", "-f"];
    args.extend(&ids);
    sandbox.ok(args);
    no_leases(&sandbox, "n1");
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "the end");
}

#[test]
fn of_networks_made_at_once_one_has_the_name_one_the_subnet_and_all_others_differ() {
    ours_only!("looks into our own records");
    let sandbox = Sandbox::new();
    let winners = |outputs: &[Output], wording: &str| {
        let (won, lost): (Vec<&Output>, Vec<&Output>) = outputs.iter().partition(|output| output.code == 0);
        assert!(lost.iter().all(|output| output.err().contains(wording)), "{}", lost[0]);
        won.len()
    };
    let same: Vec<_> = (0..8).map(|_| line("network create same")).collect();
    assert_eq!(winners(&at_once(&sandbox, &same), "network with name same already exists"), 1);
    let overlapping: Vec<_> =
        (0..8).map(|n| line(&format!("network create --subnet 10.81.{n}.0/{} over{n}", 20 - n % 2))).collect();
    assert_eq!(winners(&at_once(&sandbox, &overlapping), "Pool overlaps with other one"), 1);
    let free: Vec<_> = (0..8).map(|n| line(&format!("network create free{n}"))).collect();
    assert_eq!(winners(&at_once(&sandbox, &free), ""), 8);
    let names = sandbox.ok(["network", "ls", "-q", "--filter", "type=custom"]);
    let mut args = vec!["network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}}{{end}}"];
    args.extend(names.lines());
    let subnets = sandbox.ok(args);
    assert_eq!(subnets.lines().collect::<BTreeSet<_>>().len(), 10, "{subnets}");
    sandbox.ok(["network", "prune", "-f"]);
    nothing_at_all(&sandbox, "prune");
}

#[test]
fn a_start_is_on_the_network_or_the_network_is_gone() {
    ours_only!("looks into our own records");
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    let (mut ran, mut refused) = (0, 0);
    for round in 0..12 {
        sandbox.ok(["network", "create", "n1"]);
        sandbox.ok(["create", "--name", &name, "--network", "n1", "busybox", "sleep", "600"]);
        let rm = line("network rm n1");
        let start = line(&format!("start {name}"));
        // Neither should always be first.
        let lines = if round % 2 == 0 { [rm, start] } else { [start, rm] };
        let outputs = at_once(&sandbox, &lines);
        let (rm, start) = if round % 2 == 0 { (&outputs[0], &outputs[1]) } else { (&outputs[1], &outputs[0]) };
        match (rm.code, start.code) {
            (0, code) if code != 0 => {
                refused += 1;
                assert!(start.err().contains("network n1 not found"), "{start}");
                assert!(!sandbox.is_running(&name));
            }
            (1, 0) => {
                ran += 1;
                assert!(rm.err().contains("has active endpoints"), "{rm}");
                assert_eq!(leases(&sandbox, "n1").len(), 1);
                assert!(sandbox.ok(["exec", &name, "ip", "-o", "-4", "address"]).contains("eth0"));
            }
            _ => panic!("neither or both:\n{rm}\n{start}"),
        }
        sandbox.ok(["rm", "-f", &name]);
        drop(sandbox.run(["network", "rm", "n1"]));
        nothing_at_all(&sandbox, &format!("round {round}"));
    }
    assert_eq!(ran + refused, 12);
}

#[test]
fn connecting_and_disconnecting_at_once_is_serialised() {
    ours_only!("looks into our own records");
    let sandbox = Sandbox::new();
    for network in ["n1", "n2", "n3"] {
        sandbox.ok(["network", "create", network]);
    }
    let name = sandbox.name("c");
    let id = sandbox.idle(&name, &["--network", "n1", "-p", "18080:80"]);
    let lines: Vec<_> = (0..24)
        .map(|turn| {
            let verb = if turn % 2 == 0 { "connect" } else { "disconnect" };
            line(&format!("network {verb} n{} {name}", turn % 3 + 1))
        })
        .collect();
    for output in at_once(&sandbox, &lines) {
        let refused = output.err().contains("already exists in network") || output.err().contains("is not connected");
        assert!(output.code == 0 || refused, "{output}");
    }
    // Record, kernel, leases and names say the same.
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    let recorded: BTreeSet<String> = sandbox.field(&name, template).split_whitespace().map(str::to_owned).collect();
    let leased: BTreeSet<String> =
        ["n1", "n2", "n3"].iter().flat_map(|network| leases(&sandbox, network)).map(|(address, _)| address).collect();
    assert_eq!(recorded, leased);
    let inside = sandbox.ok(["exec", &name, "ip", "-o", "-4", "address"]);
    let inside: BTreeSet<String> = inside
        .lines()
        .filter(|line| !line.contains(" lo "))
        .filter_map(|line| line.split_once("inet ")?.1.split_once('/').map(|(address, _)| address.to_owned()))
        .collect();
    assert_eq!(inside, leased);
    sandbox.ok(["rm", "-f", &name]);
    nothing_of_containers(&sandbox, &[id], 18080, "rm");
    sandbox.ok(["network", "rm", "n1", "n2", "n3"]);
    nothing_at_all(&sandbox, "the end");
}

#[test]
fn a_connection_to_a_network_that_goes_is_made_or_refused() {
    ours_only!("looks into our own records");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "n1"]);
    let name = sandbox.name("c");
    sandbox.idle(&name, &["--network", "n1"]);
    for round in 0..12 {
        sandbox.ok(["network", "create", "n2"]);
        let outputs = at_once(&sandbox, &[line("network rm n2"), line(&format!("network connect n2 {name}"))]);
        let (rm, connect) = (&outputs[0], &outputs[1]);
        assert!((rm.code == 0) != (connect.code == 0), "round {round}: neither or both:\n{rm}\n{connect}");
        if connect.code == 0 {
            assert!(rm.err().contains("has active endpoints"), "{rm}");
            sandbox.ok(["network", "disconnect", "n2", &name]);
            sandbox.ok(["network", "rm", "n2"]);
        } else {
            assert!(connect.err().contains("not found"), "{connect}");
        }
    }
    sandbox.ok(["rm", "-f", &name]);
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "the end");
}

#[test]
fn fifty_published_containers_removed_at_once_leave_nothing() {
    ours_only!("looks at our own rules");
    let sandbox = Sandbox::new();
    let tag = sandbox.name("c");
    let run = |n: u32| line(&format!("run -d --name {tag}-{n} -p {}:80 busybox sleep 600", 18100 + n));
    for output in at_once(&sandbox, &(0..50).map(run).collect::<Vec<_>>()) {
        assert_eq!(output.code, 0, "{output}");
    }
    let dnat = || rules("iptables-save").iter().filter(|line| line.contains("-j DNAT")).count();
    assert_eq!(dnat(), 50);
    let ids: Vec<String> = sandbox.ok(["ps", "-aq", "--no-trunc"]).lines().map(str::to_owned).collect();
    // By one process and by many.
    let (one, many) = ids.split_at(25);
    let mut lines = vec![[line("rm -f"), one.to_vec()].concat()];
    lines.extend(many.iter().map(|id| line(&format!("rm -f {id}"))));
    for output in at_once(&sandbox, &lines) {
        assert_eq!(output.code, 0, "{output}");
    }
    assert_eq!(dnat(), 0);
    nothing_of_containers(&sandbox, &ids, 18100, "rm");
    no_leases(&sandbox, "bridge");
}
