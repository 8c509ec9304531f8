//! kill -9 of anything, anywhere, and damage to files: the table of docs/state.md, a test a row.
//!
//! "At each step" is meant literally: strace kills the command line, the shim or init at the entry
//! of the nth call of each kind that a start makes, for every n, and after each kill the next
//! commands must find a true state, a reusable name and nothing left behind.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::ours_only;
use crate::support::injection::{kill_at, killed_at, was_killed};
use crate::support::{Sandbox, eventually, leftovers, processes};

fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
    eventually(&format!("process {pid:?} is gone"), || !processes::is_alive(pid.as_raw_nonzero().get()));
}

#[track_caller]
fn heals(sandbox: &Sandbox, name: &str, what: &str) {
    sandbox.run(["ps", "-a"]).code(0);
    let listed = sandbox.ok(["ps", "-aq", "--no-trunc"]);
    // Whatever is shown as running must have a process; nothing here runs for long.
    for id in listed.lines() {
        let output = sandbox.run(["rm", "-f", id]);
        assert_eq!(output.code, 0, "{what}: {output}");
    }
    assert!(leftovers::containers(&sandbox.root()).is_empty(), "{what}: a container that ps does not show");
    // The name is free again, and a start sweeps what is left.
    assert_eq!(sandbox.ok(["run", "--rm", "--name", name, "busybox", "echo", "again"]), "again", "{what}");
}

fn killed_at_each(calls: &[&str], args: &[&str]) {
    let sandbox = Sandbox::new();
    sandbox.ok(["run", "--rm", "busybox", "true"]);
    let mut kills = 0;
    for call in calls {
        for nth in 1.. {
            let name = sandbox.name("victim");
            let mut line: Vec<&str> = args.to_vec();
            let at = line.iter().position(|word| *word == "NAME").unwrap();
            line[at] = &name;
            if !killed_at(&sandbox, call, nth, &line) {
                // There is no such call: this start was like any other.
                sandbox.run(["rm", "-f", &name]);
                break;
            }
            kills += 1;
            heals(&sandbox, &name, &format!("{call} #{nth}"));
        }
    }
    assert!(kills >= calls.len(), "only {kills} kills: strace did not do its work");
    told_in_order(&sandbox);
}

/// Whatever was killed when: of each container nothing is told twice, and no effect before its cause.
#[track_caller]
fn told_in_order(sandbox: &Sandbox) {
    let args = ["events", "--since", "1h", "--until", "0s", "-f", "type=container", "--format", "{{.ID}} {{.Action}}"];
    let mut told: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in sandbox.ok(args).lines() {
        let (id, action) = line.split_once(' ').unwrap();
        let order = ["create", "attach", "start", "kill", "die", "destroy"];
        let rank = order.iter().position(|word| *word == action).unwrap_or_else(|| panic!("{line}"));
        told.entry(id.to_owned()).or_default().push(rank);
    }
    assert!(told.len() > 1, "nothing was told");
    for (id, ranks) in &told {
        assert!(ranks.is_sorted_by(|earlier, later| earlier < later), "{id}: {ranks:?}");
    }
}

const RUN: [&str; 7] = ["run", "--name", "NAME", "busybox", "sh", "-c", "echo x"];
const RUN_RM: [&str; 8] = ["run", "--rm", "--name", "NAME", "busybox", "sh", "-c", "echo x"];

#[test]
fn killed_at_each_change_of_the_file_system() {
    ours_only!("kills our own processes");
    killed_at_each(&["rename", "symlink", "unlink"], &RUN);
}

#[test]
fn killed_at_each_change_of_the_file_system_of_a_passing_container() {
    ours_only!("kills our own processes");
    killed_at_each(&["rename", "mkdir", "unlink"], &RUN_RM);
}

#[test]
fn killed_at_each_message_and_lock() {
    ours_only!("kills our own processes");
    killed_at_each(&["sendmsg", "flock", "clone3", "execveat", "setsid"], &RUN_RM);
}

#[test]
fn killed_at_each_step_of_init() {
    ours_only!("kills our own processes");
    killed_at_each(&["sethostname", "fsmount", "pivot_root", "umount2", "setresuid", "capset"], &RUN);
}

#[test]
fn a_shim_killed_at_each_step_of_a_restart() {
    ours_only!("kills our own process");
    let sandbox = Sandbox::new();
    let mut kills = 0;
    for call in ["flock", "renameat2", "unlink", "mkdir", "rmdir", "clone3", "sendmsg"] {
        for nth in 1.. {
            let name = sandbox.name(&format!("{call}{nth}"));
            let command =
                "[ -e /again ] && exit 3; trap 'touch /again; exit 3' HUP; echo up; while :; do sleep 0.02; done";
            let policy = ["run", "-d", "--name", &name, "--restart", "on-failure:1"];
            sandbox.ok(policy.into_iter().chain(["busybox", "sh", "-c", command]));
            sandbox.await_log(&name, "up");
            let shim = processes::shim_of(&name).unwrap().as_raw_nonzero();
            // The shim alone, and from now on: the end of a run, a restart, the end of the next.
            let strace = kill_at(&sandbox, shim.get(), call, nth);
            sandbox.ok(["kill", "-s", "HUP", &name]);
            strace.finish();
            let what = format!("{call} #{nth}");
            eventually(&format!("{what}: it is down"), || {
                sandbox.field(&name, "{{.State.Status}} {{.State.Restarting}}") == "exited false"
            });
            heals(&sandbox, &name, &what);
            if !was_killed(&sandbox) {
                // There is no such call: this container ran like any other.
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 15, "only {kills} kills: strace did not do its work");
}

#[test]
fn the_container_outlives_its_command_line() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    let script = "echo one; read line; echo two; while [ ! -e /stop ]; do sleep 0.02; done; echo three; exit 4";
    let mut client = sandbox.command(["run", "-i", "--name", &name, "busybox", "sh", "-c", script]).start();
    client.expect("one");
    client.send(b"go\n");
    client.expect("two");
    kill(client.pid());
    drop(client);
    assert!(sandbox.is_running(&name));
    sandbox.ok(["exec", &name, "touch", "/stop"]);
    assert_eq!(sandbox.ok(["wait", &name]), "4");
    assert_eq!(sandbox.ok(["logs", &name]), "one\ntwo\nthree");
}

#[test]
fn the_container_outlives_its_shim_and_is_cleaned_up_by_the_next_command() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    sandbox.idle(&name, &[]);
    kill(processes::shim_of(&name).unwrap());
    assert!(sandbox.is_running(&name));
    assert_eq!(sandbox.ok(["exec", &name, "echo", "inside"]), "inside");
    assert!(sandbox.run(["attach", &name]).code(1).err().contains("supervisor was killed"));
    sandbox.ok(["stop", &name]);
    assert_eq!(sandbox.field(&name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 255");
    assert!(sandbox.field(&name, "{{.State.Error}}").contains("supervisor was killed"));
    // It is a container like any other again.
    sandbox.ok(["start", &name]);
    assert!(sandbox.is_running(&name));
    sandbox.ok(["rm", "-f", &name]);
}

#[test]
fn an_end_that_nobody_recorded_is_seen_by_readers_and_recorded_by_writers() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    let id = sandbox.idle(&name, &[]);
    let init = Pid::from_raw(sandbox.pid(&name)).unwrap();
    kill(processes::shim_of(&name).unwrap());
    kill(init);
    assert!(sandbox.ok(["ps", "-a"]).contains("Exited"));
    assert!(!sandbox.is_running(&name));
    let record = sandbox.root().join("containers").join(&id).join("state.json");
    assert!(fs::read_to_string(&record).unwrap().contains("\"running\""), "a reader has written");
    assert_eq!(sandbox.ok(["wait", &name]), "255");
    assert!(fs::read_to_string(&record).unwrap().contains("\"exited\""));
    assert!(leftovers::cgroups().iter().all(|path| !path.ends_with(&id)));
    sandbox.ok(["start", &name]);
    sandbox.ok(["rm", "-f", &name]);
}

#[test]
fn a_passing_container_goes_even_when_its_shim_was_killed() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    sandbox.idle(&name, &["--rm"]);
    let init = Pid::from_raw(sandbox.pid(&name)).unwrap();
    kill(processes::shim_of(&name).unwrap());
    kill(init);
    // Its name is taken over by whoever asks for it next.
    assert_eq!(sandbox.ok(["run", "--rm", "--name", &name, "busybox", "echo", "next"]), "next");
    assert_eq!(sandbox.ok(["ps", "-aq"]), "");
}

#[test]
fn a_client_of_a_killed_shim_is_told() {
    ours_only!("kills our own processes");
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    let mut client = sandbox
        .command(["run", "--name", &name, "busybox", "sh", "-c", "echo up; while :; do sleep 0.05; done"])
        .start();
    client.expect("up");
    kill(processes::shim_of(&name).unwrap());
    client.finish().code(125).says("supervisor").says("mydocker stop");
    sandbox.ok(["rm", "-f", &name]);
}

#[test]
fn damaged_records_hide_no_other_container_and_can_be_removed() {
    ours_only!("damages our own files");
    let sandbox = Sandbox::new();
    let good = sandbox.name("good");
    sandbox.ok(["create", "--name", &good, "busybox", "true"]);
    for (file, text) in [
        ("state.json", Some("{\"version\":1,\"stat")),
        ("config.json", Some("")),
        ("state.json", None),
        ("config.json", None),
    ] {
        let name = sandbox.name("bad");
        let id = sandbox.ok(["create", "--name", &name, "busybox", "true"]);
        let path = sandbox.root().join("containers").join(&id).join(file);
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let listing = sandbox.run(["ps", "-a", "--no-trunc"]).code(0);
        assert!(listing.out().contains(&good), "{listing}");
        assert!(listing.err().contains(file), "the damaged file is named: {listing}");
        sandbox.fails(1, ["start", &name]).says(file);
        sandbox.ok(["rm", "-f", &name]);
        assert!(!sandbox.ok(["ps", "-aq", "--no-trunc"]).contains(&id));
        // The name is free.
        sandbox.ok(["create", "--name", &name, "busybox", "true"]);
        sandbox.ok(["rm", &name]);
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    ours_only!("mounts a small file system over our data root");
    let sandbox = Sandbox::new();
    let root = sandbox.host_dir("root");
    let script = format!(
        r#"mount -t tmpfs -o size=6m none {root} || exit 90
        "$@" run --rm busybox true || exit 91
        # More than once: what the run before had mounted comes back late.
        code=0
        for try in $(seq 20); do
            head -c 100m /dev/zero >> {root}/ballast 2>/dev/null
            "$@" run --rm busybox true; code=$?
            [ $code = 0 ] || break
        done
        rm {root}/ballast
        "$@" run --rm busybox echo room || exit 92
        [ -z "$("$@" ps -aq)" ] || exit 93
        exit $code"#
    );
    // In a mount namespace of its own: the file system goes with the shell.
    let outer = format!("exec unshare -m sh -c '{}' sh \"$@\"", script.replace('\'', "'\\''"));
    let output = sandbox.with_shell(&outer, [] as [&str; 0]).run().code(125).says("no space left on device");
    assert_eq!(output.out(), "room");
}

#[test]
fn of_many_starts_with_one_name_exactly_one_wins() {
    let sandbox = Sandbox::new();
    sandbox.ok(["run", "--rm", "busybox", "true"]);
    let name = sandbox.name("one");
    let racers: Vec<_> =
        (0..8).map(|_| sandbox.command(["run", "-d", "--name", &name, "busybox", "sleep", "60"]).start()).collect();
    let outputs: Vec<_> = racers.into_iter().map(crate::support::invocation::Running::finish).collect();
    let winners: Vec<_> = outputs.iter().filter(|output| output.code == 0).collect();
    assert_eq!(winners.len(), 1);
    for loser in outputs.iter().filter(|output| output.code != 0) {
        assert_eq!(loser.code, 125, "{loser}");
        assert!(loser.err().contains(&winners[0].out()), "the holder is named: {loser}");
    }
    sandbox.ok(["rm", "-f", &name]);
}

#[test]
fn concurrent_commands_on_one_container_are_serialised() {
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    sandbox.ok(["create", "--name", &name, "busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.02; done"]);
    let mut commands = Vec::new();
    for round in 0..6 {
        for verb in [&["start"][..], &["stop", "-t", "1"], &["restart", "-t", "1"], &["ps", "-a"]] {
            let mut args = verb.to_vec();
            if verb[0] != "ps" {
                args.push(&name);
            }
            commands.push((round, sandbox.command(&args).start()));
        }
    }
    for (round, command) in commands {
        let output = command.finish();
        assert_eq!(output.code, 0, "round {round}: {output}");
    }
    if !crate::support::against_docker() {
        // Whatever came last, the record tells the truth once a shim that has ended its work is gone.
        eventually("record and processes agree", || sandbox.is_running(&name) == processes::shim_of(&name).is_some());
    }
    sandbox.ok(["rm", "-f", &name]);
}

#[test]
fn a_detached_container_survives_its_callers_process_group() {
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    let script = "\"$@\"; echo started; sleep 60";
    let mut group = sandbox
        .with_shell(
            script,
            ["run", "-d", "--name", &name, "busybox", "sh", "-c", "while :; do echo tick; sleep 0.05; done"],
        )
        .start();
    group.expect("started");
    rustix::process::kill_process_group(group.pid(), Signal::KILL).unwrap();
    drop(group);
    assert!(sandbox.is_running(&name));
    let before = sandbox.ok(["logs", &name]).len();
    eventually("logging goes on", || sandbox.ok(["logs", &name]).len() > before);
    sandbox.ok(["rm", "-f", &name]);
}

#[test]
fn records_of_another_boot_are_of_containers_that_are_down() {
    ours_only!("pretends that the machine was rebooted");
    let sandbox = Sandbox::new();
    let name = sandbox.name("c");
    let id = sandbox.idle(&name, &[]);
    let init = Pid::from_raw(sandbox.pid(&name)).unwrap();
    let record = sandbox.root().join("containers").join(&id).join("state.json");
    let before = fs::read_to_string(&record).unwrap();
    kill(processes::shim_of(&name).unwrap());
    kill(init);
    // The numbers of another boot mean nothing, even where a process has them now: this test's own.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let stat = fs::read_to_string(format!("/proc/{own}/stat")).unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned();
    let mut state: serde_json::Value = serde_json::from_str(&before).unwrap();
    state["init"] = serde_json::json!({ "pid": own, "start_time": start.parse::<u64>().unwrap() });
    fs::write(&record, state.to_string()).unwrap();
    assert!(sandbox.is_running(&name), "the forged record is taken for true in this boot");
    fs::write(&record, state.to_string().replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
    assert!(!sandbox.is_running(&name));
    assert!(sandbox.ok(["ps", "-a"]).contains("Exited"));
    sandbox.ok(["start", &name]);
    assert!(sandbox.is_running(&name));
    sandbox.ok(["rm", "-f", &name]);
}
