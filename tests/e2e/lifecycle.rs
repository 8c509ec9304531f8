//! `start`, `stop`, `restart`, `kill`, `wait`, `rm`, `rename`, `attach` without a terminal.

use std::time::Duration;

use crate::ours_only;
use crate::support::{Sandbox, against_docker, eventually, processes};

#[test]
fn stop_sends_the_stop_signal_and_waits() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "trap 'echo stopping; exit 4' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    s.await_log(&name, "ready");
    assert_eq!(s.ok(["stop", &name]), name);
    assert_eq!(s.field(&name, "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}"), "exited 4 0");
    assert_eq!(s.ok(["logs", &name]), "ready\nstopping");
    // Once more is no error.
    assert_eq!(s.ok(["stop", &name]), name);
}

#[test]
fn stop_kills_after_the_timeout() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    s.await_log(&name, "ready");
    let output = s.run(["stop", "-t", "1", &name]).code(0);
    assert!(output.took >= Duration::from_secs(1) && output.took < Duration::from_secs(8), "{output}");
    assert_eq!(s.field(&name, "{{.State.ExitCode}}"), "137");
}

#[test]
fn stop_timeout_and_signal_of_the_container() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script =
        "trap 'echo usr1; exit 5' USR1; trap 'echo usr2; exit 6' USR2; echo ready; while :; do sleep 0.05; done";
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "--stop-signal",
        "USR1",
        "--stop-timeout",
        "77",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    s.await_log(&name, "ready");
    assert_eq!(s.field(&name, "{{.Config.StopTimeout}}"), "77");
    s.ok(["stop", &name]);
    assert_eq!(s.field(&name, "{{.State.ExitCode}}"), "5");
    s.fails(125, ["run", "--rm", "--stop-signal", "NONSENSE", "busybox", "true"]).says("nonsense");
    // 0 seconds: killed at once.
    s.ok(["start", &name]);
    let output = s.run(["stop", "-t", "0", &name]).code(0);
    assert!(output.took < Duration::from_secs(8), "{output}");
}

#[test]
fn start_keeps_name_id_and_writable_layer() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.run(["run", "--name", &name, "busybox", "sh", "-c", "echo run >> /runs; cat /runs; hostname"]).code(0);
    let (id, host) = (s.field(&name, "{{.Id}}"), s.ok(["logs", "--tail", "1", &name]));
    assert_eq!(s.ok(["start", "-a", &name]), format!("run\nrun\n{host}"));
    assert_eq!(s.ok(["start", &name]), name);
    s.ok(["wait", &name]);
    assert_eq!(s.field(&name, "{{.Id}}"), id);
    assert_eq!(s.ok(["logs", "--tail", "4", &name]), format!("run\nrun\nrun\n{host}"));
}

#[test]
fn start_attached_has_the_exit_code_and_stdin() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "-i", "--name", &name, "busybox", "sh", "-c", "cat; exit 11"]);
    let output = s.command(["start", "-a", "-i", &name]).stdin("through\n").run().code(11);
    assert_eq!(output.out(), "through");
    let output = s.command(["start", "-ai", &name]).stdin("again\n").run().code(11);
    assert_eq!(output.out(), "again");
}

#[test]
fn start_of_a_running_container_is_no_error() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let pid = s.pid(&name);
    assert_eq!(s.ok(["start", &name]), name);
    assert_eq!(s.pid(&name), pid);
}

#[test]
fn start_of_several_reports_each_failure() {
    let s = Sandbox::new();
    let (a, b) = (s.name("a"), s.name("b"));
    for name in [&a, &b] {
        s.ok(["create", "--name", name, "busybox", "sleep", "60"]);
    }
    let output = s.fails(1, ["start", &a, "no-such-container", &b]);
    assert_eq!(output.out(), format!("{a}\n{b}"));
    output.says("No such container: no-such-container");
    assert!(s.is_running(&a) && s.is_running(&b));
}

#[test]
fn a_failed_start_is_reported_again_each_time() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "--name", &name, "busybox", "no-such-program"]);
    for _ in 0..2 {
        s.fails(1, ["start", &name]).says("no-such-program");
    }
    s.ok(["rm", &name]);
}

#[test]
fn restart_makes_a_new_process_of_the_same_container() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.idle(&name, &[]);
    let before = s.pid(&name);
    s.ok(["exec", &name, "touch", "/mark"]);
    assert_eq!(s.ok(["restart", &name]), name);
    assert!(s.is_running(&name) && s.pid(&name) != before);
    s.ok(["exec", &name, "ls", "/mark"]);
    assert_eq!(s.field(&name, "{{.Id}}"), id);
    // A stopped one is started.
    s.ok(["stop", "-t", "1", &name]);
    s.ok(["restart", "-t", "1", &name]);
    assert!(s.is_running(&name));
}

#[test]
fn kill_sends_any_signal() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done",
    ]);
    s.await_log(&name, "ready");
    for (count, signal) in ["HUP", "SIGHUP", "1"].iter().enumerate() {
        assert_eq!(s.ok(["kill", "--signal", signal, &name]), name);
        eventually("the signal arrives", || s.ok(["logs", &name]).matches("hup").count() == count + 1);
    }
    assert_ne!(s.run(["kill", "-s", "NONSENSE", &name]).code, 0);
    s.ok(["kill", &name]);
    s.ok(["wait", &name]);
    assert_eq!(s.field(&name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    s.fails(1, ["kill", &name]).says("is not running");
}

#[test]
fn wait_prints_exit_codes_when_they_come() {
    let s = Sandbox::new();
    let (a, b) = (s.name("a"), s.name("b"));
    s.ok(["run", "-d", "--name", &a, "busybox", "sh", "-c", "while ! [ -e /go ]; do sleep 0.05; done; exit 21"]);
    s.ok(["run", "-d", "--name", &b, "busybox", "sh", "-c", "exit 22"]);
    let waiting = s.command(["wait", &a, &b]).start();
    // It may be killed with the container, which ends because of it.
    s.run(["exec", &a, "touch", "/go"]);
    assert_eq!(waiting.finish().code(0).out(), "21\n22");
    let output = s.fails(1, ["wait", "no-such-container", &a]);
    assert_eq!(output.out(), "21");
}

#[test]
fn wait_outlives_an_automatic_removal() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok([
        "run",
        "-d",
        "--rm",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "while ! [ -e /go ]; do sleep 0.05; done; exit 23",
    ]);
    let waiting = s.command(["wait", &name]).start();
    // There is no telling from outside when `wait` has begun to wait. The shell inside may be killed with its container.
    s.run(["exec", &name, "sh", "-c", "sleep 0.5; touch /go"]);
    assert_eq!(waiting.finish().code(0).out(), "23");
}

#[test]
fn rm_refuses_what_runs_without_force() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    s.fails(1, ["rm", &name]).says("running container");
    assert!(s.is_running(&name));
    assert_eq!(s.ok(["rm", "-f", &name]), name);
    s.fails(1, ["inspect", &name]).says("no such");
}

#[test]
fn rm_of_several_carries_on() {
    let s = Sandbox::new();
    let (a, b) = (s.name("a"), s.name("b"));
    for name in [&a, &b] {
        s.ok(["create", "--name", name, "busybox"]);
    }
    let output = s.fails(1, ["rm", &a, "no-such-container", &b]);
    assert_eq!(output.out(), format!("{a}\n{b}"));
    output.says("No such container: no-such-container");
}

#[test]
fn rm_f_of_what_is_not_there_is_forgiven() {
    let s = Sandbox::new();
    let output = s.run(["rm", "-f", "no-such-container"]);
    // Docker's client of today: told, and 0. The older one said 1.
    assert!(output.code == 0 || against_docker(), "{output}");
    output.says("No such container: no-such-container");
}

#[test]
fn rm_f_leaves_no_process_of_any_kind() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "sleep 7654 & (sleep 7654 &) ; trap '' TERM; wait; sleep 7654",
    ]);
    s.ok(["exec", "-d", &name, "sleep", "7654"]);
    let sleepers =
        || processes::all().into_iter().filter(|(pid, line)| line == "sleep 7654" && processes::is_alive(*pid)).count();
    eventually("all run", || sleepers() >= 3);
    s.ok(["rm", "-f", &name]);
    eventually("none is left", || sleepers() == 0);
}

#[test]
fn the_end_of_pid_1_ends_its_children() {
    let s = Sandbox::new();
    let output = s.run(["run", "--rm", "busybox", "sh", "-c", "sleep 7653 & echo started"]).code(0);
    assert_eq!(output.out(), "started");
    assert!(output.took < Duration::from_secs(15), "it waited for the child: {output}");
    eventually("none is left", || {
        !processes::all().iter().any(|(pid, line)| line == "sleep 7653" && processes::is_alive(*pid))
    });
}

#[test]
fn few_descriptors_are_enough_to_end_many_processes() {
    ours_only!("docker's client is another program than its supervisor");
    let s = Sandbox::new();
    // In the host's PID namespace the end of the first process does not end the others.
    let script = "i=0; while [ $i -lt 80 ]; do sleep 7652 & i=$((i+1)); done";
    let args = ["run", "--rm", "--pid", "host", "busybox", "sh", "-c", script];
    s.with_shell("ulimit -n 32; exec \"$@\"", args).run().code(0);
    eventually("none is left", || {
        !processes::all().iter().any(|(pid, line)| line == "sleep 7652" && processes::is_alive(*pid))
    });
}

#[test]
fn rename_moves_the_name_and_frees_the_old_one() {
    let s = Sandbox::new();
    let (old, new) = (s.name("old"), s.name("new"));
    let id = s.idle(&old, &[]);
    s.ok(["rename", &old, &new]);
    assert_eq!(s.field(&new, "{{.Name}}"), format!("/{new}"));
    s.fails(1, ["inspect", &old]);
    s.ok(["create", "--name", &old, "busybox"]);
    s.fails(1, ["rename", &old, &new]).says(&id);
    assert_ne!(s.run(["rename", &old, "bad name"]).code, 0);
    assert_ne!(s.run(["rename", &old, &old]).code, 0);
    s.fails(1, ["rename", "no-such-container", "other"]);
    // By id too, and while it runs it stays as it is.
    s.ok(["rename", &id[..12], &s.name("third")]);
    assert!(s.is_running(&id));
}

#[test]
fn attach_without_a_terminal_joins_the_streams() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "while ! [ -e /go ]; do sleep 0.05; done; echo out; echo err >&2; exit 14";
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    let attached = s.command(["attach", "--no-stdin", &name]).start();
    // There is no telling from outside when `attach` has joined.
    s.run(["exec", &name, "sh", "-c", "sleep 0.5; touch /go"]);
    let output = attached.finish().code(14);
    assert_eq!((output.out(), output.err()), ("out".into(), "err".into()));
    s.fails(1, ["attach", &name]);
    s.fails(1, ["attach", "no-such-container"]).says("No such container: no-such-container");
}

#[test]
fn attach_feeds_stdin_that_was_kept_open() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok([
        "run",
        "-di",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "while read line; do echo \"<$line>\"; done; echo eof",
    ]);
    let mut attached = s.command(["attach", &name]).start();
    attached.send(b"hello\n");
    attached.expect("<hello>");
    // The one who goes takes nothing along: the container reads on.
    attached.signal(rustix::process::Signal::KILL);
    attached.finish();
    assert!(s.is_running(&name));
    let mut attached = s.command(["attach", &name]).start();
    attached.send(b"again\n");
    attached.expect("<again>");
    assert!(s.ok(["logs", &name]).starts_with("<hello>\n<again>"));
}

#[test]
fn commands_on_one_container_take_their_turns() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    // Whatever the order, each ends, and the end is a state that is true.
    let commands: [&[&str]; 6] =
        [&["stop", "-t", "1"], &["start"], &["restart", "-t", "1"], &["kill"], &["stop", "-t", "1"], &["start"]];
    let mut running = Vec::new();
    for command in commands {
        running.push(s.command(command.iter().copied().chain([name.as_str()])).start());
    }
    for running in running {
        let output = running.finish().cleanly();
        assert!(matches!(output.code, 0 | 1), "{output}");
    }
    let state = s.inspect(&name);
    let (is_running, pid) = (state["State"]["Running"].as_bool().unwrap(), state["State"]["Pid"].as_i64().unwrap());
    assert_eq!(is_running, pid != 0, "{state}");
    assert!(!is_running || processes::is_alive(i32::try_from(pid).unwrap()));
    s.ok(["rm", "-f", &name]);
}

#[test]
fn two_removals_at_once() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let running: Vec<_> = (0..4).map(|_| s.command(["rm", "-f", &name]).start()).collect();
    for running in running {
        let output = running.finish().cleanly();
        assert!(output.code == 0 || against_docker(), "{output}");
    }
    s.fails(1, ["inspect", &name]);
}

#[test]
fn the_shim_is_named_and_goes_with_its_container() {
    ours_only!("our own process");
    let s = Sandbox::new();
    let name = s.name("shim");
    s.idle(&name, &[]);
    let shim = processes::shim_of(&name).expect("a process called `mydocker: shim NAME`");
    let pid = shim.as_raw_nonzero().get();
    // It holds nothing of the caller's: session, directory, terminal.
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), std::path::Path::new("/"));
    assert_eq!(rustix::process::getsid(Some(shim)).unwrap(), shim);
    s.ok(["stop", "-t", "1", &name]);
    eventually("the shim ends", || !processes::is_alive(pid));
}
