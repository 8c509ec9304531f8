//! kill -9 at each step of what makes, changes and takes away networks and connections: the rows of
//! docs/state.md about networks.
//!
//! After each kill readers find no error, the next command that a user would type succeeds, and nothing
//! is left: no device, rule, lease, name, record, held port.

use crate::ours_only;
use crate::support::injection::{each, failed_at, kill_at, killed_at};
use crate::support::networks::{nothing_at_all, nothing_of_containers, targets_of};
use crate::support::{Output, Sandbox, eventually, processes};

/// A host port that nothing else in a private network has.
const PORT: u16 = 18080;
const PUBLISH: &str = "18080:80";
const SUBNET: &str = "10.77.0.0/24";

/// What everybody may ask at any time.
#[track_caller]
fn readers(sandbox: &Sandbox, what: &str) {
    for line in [&["network", "ls"][..], &["ps", "-a"]] {
        let output = sandbox.run(line);
        assert!(output.code == 0 && output.err().is_empty(), "{what}: {output}");
    }
    for network in sandbox.ok(["network", "ls", "-q"]).lines() {
        let output = sandbox.run(["network", "inspect", network]);
        assert_eq!(output.code, 0, "{what}: {output}");
    }
    for container in sandbox.ok(["ps", "-aq"]).lines() {
        let output = sandbox.run(["inspect", container]);
        assert_eq!(output.code, 0, "{what}: {output}");
    }
}

#[track_caller]
fn succeeds(sandbox: &Sandbox, what: &str, args: &[&str]) -> String {
    let output = sandbox.run(args);
    assert_eq!(output.code, 0, "{what}: {output}");
    output.out()
}

/// The same command once more: it succeeds, or says that it is done already.
#[track_caller]
fn again(sandbox: &Sandbox, what: &str, args: &[&str], done: &str) {
    let output = sandbox.run(args);
    assert!(output.code == 0 || output.err().contains(done), "{what}: {output}");
}

#[test]
fn network_create_killed_at_each_step() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    let create = ["network", "create", "--subnet", SUBNET, "n1"];
    let calls = [
        ("rename", 1),
        ("mkdir", 1),
        ("fsync", 1),
        ("sendto", 2),
        ("ioctl", 3),
        ("write", 2),
        ("clone3", 1),
        ("wait4", 1),
        ("openat", 12),
    ];
    let kills = each(&calls, |call, nth| {
        let what = format!("{call} #{nth}");
        let killed = killed_at(&sandbox, call, nth, &create);
        readers(&sandbox, &what);
        again(&sandbox, &what, &create, "network with name n1 already exists");
        if nth % 2 == 1 {
            succeeds(&sandbox, &what, &["run", "--rm", "--network", "n1", "busybox", "true"]);
        }
        succeeds(&sandbox, &what, &["network", "rm", "n1"]);
        nothing_at_all(&sandbox, &what);
        killed
    });
    assert!(kills > 20, "only {kills} kills: strace did not do its work");
}

#[test]
fn network_rm_killed_at_each_step() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    let calls = [("unlink", 1), ("unlinkat", 1), ("sendto", 2), ("clone3", 1), ("wait4", 1), ("openat", 12)];
    let kills = each(&calls, |call, nth| {
        let what = format!("{call} #{nth}");
        succeeds(&sandbox, &what, &["network", "create", "--subnet", SUBNET, "n1"]);
        // Leases and names have been there.
        if nth == 1 {
            succeeds(&sandbox, &what, &["run", "--rm", "--network", "n1", "busybox", "true"]);
        }
        let killed = killed_at(&sandbox, call, nth, &["network", "rm", "n1"]);
        readers(&sandbox, &what);
        again(&sandbox, &what, &["network", "rm", "n1"], "not found");
        nothing_at_all(&sandbox, &what);
        killed
    });
    assert!(kills > 10, "only {kills} kills: strace did not do its work");
}

/// Addresses that a running container has beside its loopback one.
fn devices_inside(sandbox: &Sandbox, name: &str) -> usize {
    let addresses = sandbox.ok(["exec", name, "ip", "-4", "-o", "address"]);
    addresses.lines().filter(|line| !line.contains(" lo ")).count()
}

#[test]
fn network_connect_killed_at_each_step() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "n1"]);
    sandbox.ok(["network", "create", "--subnet", SUBNET, "n2"]);
    let name = sandbox.name("c");
    let connect = ["network", "connect", "--alias", "db", "n2", &name];
    let mut ids = vec![sandbox.idle(&name, &["--network", "n1"])];
    let calls = [
        ("symlink", 1),
        ("rename", 1),
        ("renameat2", 1),
        ("unlink", 1),
        ("mkdir", 1),
        ("sendto", 1),
        ("setns", 2),
        ("pwrite64", 1),
        ("flock", 1),
        ("openat", 8),
    ];
    let kills = each(&calls, |call, nth| {
        let what = format!("{call} #{nth}");
        let killed = killed_at(&sandbox, call, nth, &connect);
        readers(&sandbox, &what);
        if nth % 2 == 1 {
            again(&sandbox, &what, &connect, "already exists in network n2");
            assert_eq!(devices_inside(&sandbox, &name), 2, "{what}");
            assert_eq!(leases(&sandbox, "n2"), 1, "{what}: leases");
            succeeds(&sandbox, &what, &["network", "disconnect", "n2", &name]);
            assert_eq!(devices_inside(&sandbox, &name), 1, "{what}");
        } else {
            succeeds(&sandbox, &what, &["rm", "-f", &name]);
            nothing_of_containers(&sandbox, &ids, 0, &what);
            ids.push(sandbox.idle(&name, &["--network", "n1"]));
        }
        assert_eq!(leases(&sandbox, "n2"), 0, "{what}: leases");
        killed
    });
    assert!(kills > 20, "only {kills} kills: strace did not do its work");
    sandbox.ok(["rm", "-f", &name]);
    sandbox.ok(["network", "rm", "n1", "n2"]);
    nothing_at_all(&sandbox, "the end");
}

#[track_caller]
fn leases(sandbox: &Sandbox, network: &str) -> usize {
    crate::support::networks::leases(sandbox, network).len()
}

#[test]
fn network_disconnect_killed_at_each_step() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", "10.78.1.0/24", "n1"]);
    sandbox.ok(["network", "create", "--subnet", "10.78.2.0/24", "n2"]);
    let name = sandbox.name("c");
    let start = || sandbox.idle(&name, &["--network", "n1", "--network", "n2", "-p", PUBLISH]);
    let mut ids = vec![start()];
    let mut turn = ["n1", "n2"];
    let calls = [
        ("renameat2", 1),
        ("unlink", 1),
        ("rmdir", 1),
        ("sendto", 2),
        ("setns", 2),
        ("pwrite64", 1),
        ("clone3", 1),
        ("wait4", 1),
        ("openat", 12),
    ];
    let kills = each(&calls, |call, nth| {
        let what = format!("{call} #{nth}");
        let [first, second] = turn;
        let disconnect = ["network", "disconnect", first, &name];
        let killed = killed_at(&sandbox, call, nth, &disconnect);
        readers(&sandbox, &what);
        if nth % 2 == 1 {
            again(&sandbox, &what, &disconnect, "is not connected to network");
            assert_eq!(leases(&sandbox, first), 0, "{what}: leases");
            assert_eq!(devices_inside(&sandbox, &name), 1, "{what}");
            // Its port leads to the other network now, from there and nowhere else.
            let targets = targets_of(PORT);
            let prefix = if second == "n1" { "10.78.1." } else { "10.78.2." };
            assert!(targets.len() == 1 && targets[0].starts_with(prefix), "{what}: {targets:?}");
            succeeds(&sandbox, &what, &["network", "connect", first, &name]);
            turn = [second, first];
        } else {
            succeeds(&sandbox, &what, &["rm", "-f", &name]);
            nothing_of_containers(&sandbox, &ids, PORT, &what);
            ids.push(start());
            turn = ["n1", "n2"];
        }
        killed
    });
    assert!(kills > 15, "only {kills} kills: strace did not do its work");
    sandbox.ok(["rm", "-f", &name]);
    sandbox.ok(["network", "rm", "n1", "n2"]);
    nothing_at_all(&sandbox, "the end");
}

/// Kills at each step of a start on a network with a published port; what a start has before that is
/// shared with `crash.rs`.
fn start_killed_at_each(calls: &[(&str, u32)], fewest: usize) {
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", SUBNET, "n1"]);
    let name = sandbox.name("c");
    let kills = each(calls, |call, nth| {
        let what = format!("{call} #{nth}");
        let create = ["create", "--name", &name, "-p", PUBLISH, "--network", "n1", "--network-alias", "db"];
        let id = sandbox.ok(create.into_iter().chain(["busybox", "true"]));
        // Not `run`: the shim's nth call would come after those that the command line makes.
        let killed = killed_at(&sandbox, call, nth, &["start", &name]);
        readers(&sandbox, &what);
        if nth % 2 == 1 {
            succeeds(&sandbox, &what, &["start", &name]);
            succeeds(&sandbox, &what, &["wait", &name]);
        }
        succeeds(&sandbox, &what, &["rm", "-f", &name]);
        nothing_of_containers(&sandbox, &[id], PORT, &what);
        killed
    });
    assert!(kills >= fewest, "only {kills} kills: strace did not do its work");
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "the end");
}

#[test]
fn a_start_on_a_network_killed_at_each_change_of_the_file_system() {
    ours_only!("kills our own processes");
    start_killed_at_each(&[("symlink", 1), ("renameat2", 1), ("rmdir", 1), ("unlink", 2), ("pwrite64", 1)], 15);
}

#[test]
fn a_start_on_a_network_killed_at_each_word_with_the_kernel() {
    ours_only!("kills our own processes");
    start_killed_at_each(
        &[("setns", 2), ("sendto", 2), ("ioctl", 3), ("bind", 1), ("clone3", 1), ("wait4", 1), ("flock", 1)],
        15,
    );
}

#[test]
fn a_start_of_which_any_step_fails_takes_back_what_it_has_claimed() {
    ours_only!("makes our own system calls fail");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", SUBNET, "n1"]);
    let name = sandbox.name("c");
    let create = ["create", "--name", &name, "-p", PUBLISH, "--network", "n1", "--network-alias", "db"];
    let id = sandbox.ok(create.into_iter().chain(["busybox", "true"]));
    let (mut failures, mut refused, mut kept) = (0, 0, 0);
    let calls = [
        (("symlink", "ENOSPC"), 1),
        (("mkdir", "ENOSPC"), 1),
        (("pwrite64", "ENOSPC"), 1),
        (("renameat2", "ENOSPC"), 1),
        (("setns", "EPERM"), 2),
        (("sendto", "ENOBUFS"), 2),
        (("ioctl", "EPERM"), 3),
        (("bind", "EADDRINUSE"), 1),
        (("clone3", "EAGAIN"), 1),
    ];
    for ((call, error), stride) in calls {
        for nth in (1..).step_by(stride) {
            let what = format!("{call} #{nth} with {error}");
            let (output, failed) = failed_at(&sandbox, call, nth, error, &["start", &name]);
            assert!(output.code == 0 || !output.err().is_empty(), "{what}: no reason is given");
            refused += usize::from(output.code != 0);
            succeeds(&sandbox, &what, &["wait", &name]);
            readers(&sandbox, &what);
            assert_eq!(leases(&sandbox, "n1"), 0, "{what}: leases");
            if !targets_of(PORT).is_empty() {
                // Where the program that takes rules away fails as well, the record tells of them.
                assert_eq!(call, "sendto", "{what}: rules");
                kept += 1;
                succeeds(&sandbox, &what, &["rm", &name]);
                assert!(targets_of(PORT).is_empty(), "{what}: rules");
                sandbox.ok(create.into_iter().chain(["busybox", "true"]));
            }
            if !failed {
                break;
            }
            failures += 1;
        }
    }
    assert!(kept > 0, "rules could always be taken away");
    assert!(failures > 15 && refused > 5, "only {failures} failures, {refused} refusals: strace did not do its work");
    sandbox.ok(["rm", "-f", &name]);
    nothing_of_containers(&sandbox, &[id], PORT, "rm");
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "the end");
}

#[test]
fn a_shim_killed_at_each_step_of_the_end_of_a_container_on_a_network() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", SUBNET, "n1"]);
    let name = sandbox.name("c");
    let calls =
        [("unlink", 1), ("rmdir", 1), ("renameat2", 1), ("clone3", 1), ("wait4", 1), ("flock", 1), ("pwrite64", 1)];
    let kills = each(&calls, |call, nth| {
        let what = format!("{call} #{nth}");
        let id = sandbox.idle(&name, &["--network", "n1", "-p", PUBLISH]);
        let shim = processes::shim_of(&name).unwrap().as_raw_nonzero().get();
        let strace = kill_at(&sandbox, shim, call, nth);
        let output = sandbox.run(["stop", &name]);
        assert_eq!(output.code, 0, "{what}: {output}");
        strace.finish();
        let killed = crate::support::injection::was_killed(&sandbox);
        readers(&sandbox, &what);
        if nth % 2 == 1 {
            succeeds(&sandbox, &what, &["start", &name]);
        }
        succeeds(&sandbox, &what, &["rm", "-f", &name]);
        nothing_of_containers(&sandbox, &[id], PORT, &what);
        killed
    });
    assert!(kills > 10, "only {kills} kills: strace did not do its work");
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "the end");
}

#[test]
fn who_cleans_up_after_a_killed_shim_may_be_killed_at_each_step() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", SUBNET, "n1"]);
    let name = sandbox.name("c");
    let calls =
        [("unlink", 1), ("rmdir", 1), ("rename", 1), ("renameat2", 1), ("clone3", 1), ("wait4", 1), ("pwrite64", 1)];
    let kills = each(&calls, |call, nth| {
        let what = format!("{call} #{nth}");
        let id = sandbox.idle(&name, &["--network", "n1", "-p", PUBLISH]);
        kill_shim(&name);
        let killed = killed_at(&sandbox, call, nth, &["rm", "-f", &name]);
        readers(&sandbox, &what);
        again(&sandbox, &what, &["rm", "-f", &id], "No such container");
        // What is in the trash goes with the next removal.
        succeeds(&sandbox, &what, &["run", "--rm", "-p", PUBLISH, "--network", "n1", "busybox", "true"]);
        nothing_of_containers(&sandbox, &[id], PORT, &what);
        killed
    });
    assert!(kills > 10, "only {kills} kills: strace did not do its work");
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "the end");
}

fn kill_shim(name: &str) {
    let shim = processes::shim_of(name).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    eventually("the shim is gone", || !processes::is_alive(shim.as_raw_nonzero().get()));
}

/// The shim does not live to take the network's things away; whoever comes next does.
#[test]
fn the_clean_up_of_a_killed_shim_is_done_by_whoever_comes_next() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "n1"]);
    sandbox.ok(["network", "create", "n2"]);
    let name = sandbox.name("c");
    let ends: [&[&str]; 4] =
        [&["rm", "-f", "NAME"], &["stop", "NAME"], &["kill", "NAME"], &["network", "disconnect", "n1", "NAME"]];
    for end in ends {
        let id = sandbox.idle(&name, &["--network", "n1", "--network", "n2", "-p", PUBLISH]);
        kill_shim(&name);
        assert!(sandbox.is_running(&name));
        assert_eq!(targets_of(PORT).len(), 1);
        let line: Vec<&str> = end.iter().map(|word| if *word == "NAME" { name.as_str() } else { word }).collect();
        sandbox.ok(&line);
        if end[0] == "network" {
            assert_eq!((leases(&sandbox, "n1"), leases(&sandbox, "n2")), (0, 1));
            assert_eq!(devices_inside(&sandbox, &name), 1);
            assert_eq!(targets_of(PORT).len(), 1);
        }
        if end[0] != "rm" {
            sandbox.ok(["rm", "-f", &name]);
        }
        nothing_of_containers(&sandbox, &[id], PORT, &line.join(" "));
    }
    // `restart` does it between the two runs.
    let id = sandbox.idle(&name, &["--network", "n1", "-p", PUBLISH]);
    kill_shim(&name);
    sandbox.ok(["restart", "-t", "1", &name]);
    assert_eq!((leases(&sandbox, "n1"), targets_of(PORT).len()), (1, 1));
    sandbox.ok(["rm", "-f", &name]);
    nothing_of_containers(&sandbox, &[id], PORT, "restart");
}

/// A command line for whose processes `iptables-restore` begins with `script`. Mounted over the real
/// program, in a mount namespace that goes with them: a shim has no PATH by which to find another.
fn with_restore(sandbox: &Sandbox, script: &str, args: &[&str]) -> Output {
    let real = std::fs::canonicalize("/usr/sbin/iptables-restore").unwrap();
    let copy = sandbox.path("xtables-multi");
    std::fs::copy(&real, &copy).unwrap();
    let text = format!(
        "#!/bin/sh\ncase $0 in */iptables-restore)\n{script}\nesac\nexec {} ${{0##*/}} \"$@\"\n",
        copy.display()
    );
    let stand_in = sandbox.host_file("stand-in", text);
    std::fs::set_permissions(&stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mounting = format!("mount --bind {stand_in} {} && exec \"$@\"", real.display());
    let outer = format!("exec unshare -m sh -c '{mounting}' sh \"$@\"");
    sandbox.with_shell(&outer, args).run()
}

#[test]
fn a_killed_iptables_is_an_error_and_leaves_nothing() {
    ours_only!("puts its own programs in front of the engine's");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "n1"]);
    let name = sandbox.name("c");
    let with = |args: &[&str]| with_restore(&sandbox, "kill -9 $$", args);
    assert_eq!(with(&["network", "create", "n2"]).code, 1);
    assert_eq!(with(&["run", "-d", "--name", &name, "--network", "n1", "-p", PUBLISH, "busybox", "true"]).code, 125);
    sandbox.ok(["rm", "-f", &name]);
    nothing_of_containers(&sandbox, &[], PORT, "run");
    // At the end of a container nobody is there to be told.
    let id = sandbox.idle(&name, &["--network", "n1", "-p", PUBLISH]);
    kill_shim(&name);
    assert_eq!(with(&["rm", "-f", &name]).code, 1);
    sandbox.ok(["rm", "-f", &name]);
    nothing_of_containers(&sandbox, &[id], PORT, "rm");
    assert_eq!(with(&["network", "rm", "n1"]).code, 1);
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "the end");
}

/// kill -9 takes the shim and not the program that it runs, which goes on to write its rules: whoever
/// cleans up waits for it.
#[test]
fn rules_that_are_written_after_their_shim_was_killed_do_not_stay() {
    ours_only!("puts its own programs in front of the engine's");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "n1"]);
    let name = sandbox.name("c");
    let orphan = sandbox.path("orphan");
    let script = format!("kill -9 $PPID\necho $$ >{}\nsleep 0.3", orphan.display());
    let ended = || {
        let pid = std::fs::read_to_string(&orphan).expect("the shim was not killed").trim().parse().unwrap();
        eventually("the rules are written", || !processes::is_alive(pid));
        std::fs::remove_file(&orphan).unwrap();
    };
    let run = ["run", "-d", "--name", &name, "--network", "n1", "-p", PUBLISH, "busybox", "sleep", "60"];
    drop(with_restore(&sandbox, &script, &run));
    let id = sandbox.ok(["ps", "-aq", "--no-trunc"]);
    sandbox.ok(["rm", "-f", &name]);
    ended();
    nothing_of_containers(&sandbox, &[id], PORT, "run");
    sandbox.ok(["network", "rm", "n1"]);
    // The same with a network, and a command line.
    drop(with_restore(&sandbox, &script, &["network", "create", "n2"]));
    sandbox.ok(["network", "rm", "n2"]);
    ended();
    nothing_at_all(&sandbox, "network create");
}
