//! `run` and `create`: exit codes, what is printed where, what is made and taken away.

use std::fs;

use crate::ours_only;
use crate::support::{Sandbox, eventually};

#[test]
fn the_commands_exit_code_is_the_clis() {
    let s = Sandbox::new();
    for code in [0, 1, 2, 42, 125, 126, 127, 255] {
        s.fails(code, ["run", "--rm", "busybox", "sh", "-c", &format!("exit {code}")]);
    }
}

#[test]
fn death_by_signal_is_128_plus_its_number() {
    let s = Sandbox::new();
    // The first process of a pid namespace can be killed only from outside it.
    for (signal, code) in [("KILL", 137), ("9", 137), ("SIGKILL", 137)] {
        let name = s.name(&format!("kill-{signal}"));
        s.idle(&name, &[]);
        s.ok(["kill", "-s", signal, &name]);
        assert_eq!(s.ok(["wait", &name]), code.to_string());
    }
    // A shell's child that dies by a signal, as the shell tells it.
    s.fails(143, ["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]);
}

#[test]
fn a_command_that_does_not_exist_is_127() {
    let s = Sandbox::new();
    for command in ["no-such-program", "/no/such/program", "./no-such-program"] {
        let output = s.fails(127, ["run", "--rm", "busybox", command]);
        assert!(output.stdout.is_empty(), "{output}");
        output.says(command);
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let s = Sandbox::new();
    for command in ["/etc", "/etc/passwd"] {
        s.fails(126, ["run", "--rm", "busybox", command]).says(command);
    }
}

#[test]
fn the_engines_own_failures_are_125() {
    let s = Sandbox::new();
    s.fails(125, ["run", "--no-such-flag", "busybox"]).says("--no-such-flag");
    s.fails(125, ["run", "-v", "not/absolute/target:not-absolute", "busybox"]);
    s.fails(125, ["run", "--pull", "never", "no-such-image-here", "true"]).says("no-such-image-here");
    s.fails(125, ["run", "--network", "container:no-such-container", "busybox"]).says("no-such-container");
    s.fails(125, ["run", "--name", "bad name", "busybox", "true"]).says("bad name");
}

#[test]
fn a_failed_start_leaves_no_name_behind() {
    let s = Sandbox::new();
    let name = s.name("fails");
    s.fails(127, ["run", "--rm", "--name", &name, "busybox", "no-such-program"]);
    s.ok(["run", "--rm", "--name", &name, "busybox", "true"]);
}

#[test]
fn without_rm_a_failed_start_stays_to_be_looked_at() {
    let s = Sandbox::new();
    let name = s.name("stays");
    s.fails(127, ["run", "--name", &name, "busybox", "no-such-program"]);
    assert_eq!(s.field(&name, "{{.State.Status}} {{.State.ExitCode}}"), "created 127");
    assert!(s.field(&name, "{{.State.Error}}").contains("no-such-program"));
    s.ok(["rm", &name]);
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let s = Sandbox::new();
    let output = s.run(["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]).code(0);
    assert_eq!((output.out(), output.err()), ("out".into(), "err".into()));
}

#[test]
fn everything_after_the_image_is_the_commands() {
    let s = Sandbox::new();
    assert_eq!(s.ok(["run", "--rm", "busybox", "echo", "-n", "--rm", "-it", "--", "a  b", ""]), "--rm -it -- a  b ");
    // No word is split or joined on the way.
    assert_eq!(
        s.ok([
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "for a in \"$@\"; do echo \"[$a]\"; done",
            "sh",
            "a b",
            "",
            "$HOME\n'\""
        ]),
        "[a b]\n[]\n[$HOME\n'\"]"
    );
}

#[test]
fn run_d_prints_the_full_id_and_nothing_else() {
    let s = Sandbox::new();
    let name = s.name("d");
    let output = s.run(["run", "-d", "--name", &name, "busybox", "sleep", "60"]).code(0);
    let id = output.out();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{output}");
    assert_eq!(output.stdout.len(), 65);
    assert!(output.stderr.is_empty(), "{output}");
    assert_eq!(s.field(&name, "{{.Id}}"), id);
    assert!(s.is_running(&name));
}

#[test]
fn create_prints_the_id_and_starts_nothing() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.ok(["create", "--name", &name, "busybox", "echo", "started"]);
    assert_eq!(id.len(), 64);
    assert_eq!(s.field(&id, "{{.State.Status}}"), "created");
    assert_eq!(s.ok(["start", "-a", &name]), "started");
    assert_eq!(s.field(&id, "{{.State.Status}}"), "exited");
}

#[test]
fn rm_takes_the_container_away_when_it_ends() {
    let s = Sandbox::new();
    let name = s.name("gone");
    s.ok(["run", "--rm", "--name", &name, "busybox", "true"]);
    s.fails(1, ["inspect", &name]).says("no such");
    // Detached too, and after a failure.
    s.fails(3, ["run", "--rm", "--name", &name, "busybox", "sh", "-c", "exit 3"]);
    s.ok(["run", "-d", "--rm", "--name", &name, "busybox", "true"]);
    eventually("the container is gone", || s.run(["inspect", &name]).code == 1);
}

#[test]
fn rm_equals_false_keeps_it() {
    let s = Sandbox::new();
    let name = s.name("kept");
    s.ok(["run", "--rm=false", "--name", &name, "busybox", "true"]);
    assert_eq!(s.field(&name, "{{.State.Status}}"), "exited");
    s.ok(["rm", &name]);
}

#[test]
fn rm_and_detach_go_together_with_streams_of_the_caller_closed() {
    let s = Sandbox::new();
    let name = s.name("closed");
    // Were a descriptor of ours held, this would hang until the time limit.
    let output = s.run(["run", "-d", "--rm", "--name", &name, "busybox", "sleep", "60"]).code(0);
    assert!(output.took.as_secs() < 20, "{output}");
    assert!(s.is_running(&name));
}

#[test]
fn cidfile_holds_the_id_and_is_never_overwritten() {
    let s = Sandbox::new();
    let file = s.host("cid");
    let id = s.ok(["create", "--cidfile", &file, "--name", &s.name("c"), "busybox", "true"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), id);
    s.fails(125, ["run", "--rm", "--cidfile", &file, "busybox", "true"]).says("cid");
    assert_eq!(fs::read_to_string(&file).unwrap(), id);
}

#[test]
fn pidfile_holds_the_pid_of_the_first_process() {
    ours_only!("--pidfile is podman's");
    let s = Sandbox::new();
    let (name, file) = (s.name("p"), s.host("pid"));
    s.idle(&name, &["--pidfile", &file]);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), s.pid(&name).to_string());
}

#[test]
fn the_images_command_is_the_default() {
    let s = Sandbox::new();
    // busybox's is `sh`, which reads its commands from standard input.
    let output = s.command(["run", "-i", "--rm", "busybox"]).stdin("echo from-$((40+2))\n").run().code(0);
    assert_eq!(output.out(), "from-42");
}

#[test]
fn entrypoint_replaces_the_images_and_drops_its_command() {
    let s = Sandbox::new();
    assert_eq!(s.ok(["run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"]), "a b");
    assert_eq!(s.ok(["run", "--rm", "--entrypoint", "/bin/echo", "busybox"]), "");
    assert_eq!(s.ok(["run", "--rm", "--entrypoint", "", "busybox", "echo", "none"]), "none");
    s.fails(127, ["run", "--rm", "--entrypoint", "/no/such", "busybox", "echo"]);
}

#[test]
fn labels_of_every_spelling() {
    let s = Sandbox::new();
    let name = s.name("labels");
    let file = s.host_file("labels", "c=from file\n# comment\n\n");
    s.ok(["create", "--name", &name, "-l", "a=1=2", "--label", "b", "--label-file", &file, "busybox"]);
    assert_eq!(s.field(&name, "{{json .Config.Labels}}"), r#"{"a":"1=2","b":"","c":"from file"}"#);
    assert_eq!(s.field(&name, r#"{{index .Config.Labels "a"}}"#), "1=2");
}

#[test]
fn flags_in_clusters_and_glued_to_their_values() {
    let s = Sandbox::new();
    assert_eq!(
        s.ok([
            "run",
            "--rm",
            "-eA=1",
            "-w/tmp",
            "-hbox",
            "-u1:2",
            "busybox",
            "sh",
            "-c",
            "echo $A $PWD $(hostname) $(id -u)"
        ]),
        "1 /tmp box 1"
    );
    let output =
        s.command(["run", "-i", "--rm", "--env=A=x y", "busybox", "sh", "-c", "cat; echo $A"]).stdin("in ").run();
    assert_eq!(output.code(0).out(), "in x y");
    let name = s.name("cluster");
    s.ok(["run", "-itd", "--name", &name, "busybox"]);
    assert_eq!(s.field(&name, "{{.Config.Tty}} {{.Config.OpenStdin}}"), "true true");
}

#[test]
fn attach_chooses_streams() {
    let s = Sandbox::new();
    let output = s.run(["run", "--rm", "-a", "stdout", "busybox", "sh", "-c", "echo out; echo err >&2"]).code(0);
    assert_eq!((output.out(), output.err()), ("out".into(), String::new()));
    let output =
        s.run(["run", "--rm", "-a", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2; exit 4"]).code(4);
    assert_eq!((output.out(), output.err()), (String::new(), "err".into()));
    assert_ne!(s.run(["run", "--rm", "-d", "-a", "stdout", "busybox", "true"]).code, 0);
    s.fails(125, ["run", "--rm", "-a", "nonsense", "busybox", "true"]);
}

#[test]
fn a_lone_signal_reaches_pid_1() {
    let s = Sandbox::new();
    let script = "trap 'echo got-usr1; exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    let mut running = s.command(["run", "--rm", "busybox", "sh", "-c", script]).start();
    running.expect("ready");
    running.signal(rustix::process::Signal::USR1);
    running.expect("got-usr1");
    running.finish().code(9);
}

#[test]
fn sig_proxy_false_keeps_signals_to_ourselves() {
    let s = Sandbox::new();
    let name = s.name("unproxied");
    let script = "trap 'echo got-term' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = s.command(["run", "--sig-proxy=false", "--name", &name, "busybox", "sh", "-c", script]).start();
    running.expect("ready");
    running.signal(rustix::process::Signal::TERM);
    // Whatever the CLI made of it, what comes later through the container's log comes alone.
    s.ok(["exec", &name, "sh", "-c", "sleep 0.3; echo later > /proc/1/fd/1"]);
    s.await_log(&name, "later");
    assert!(!s.ok(["logs", &name]).contains("got-term"));
    assert!(s.is_running(&name));
}

#[test]
fn the_container_survives_its_clis_whole_process_group() {
    let s = Sandbox::new();
    let name = s.name("survivor");
    let script = "echo ready; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    let mut running = s.command(["run", "--name", &name, "busybox", "sh", "-c", script]).start();
    running.expect("ready");
    rustix::process::kill_process_group(running.pid(), rustix::process::Signal::KILL).unwrap();
    running.finish().code(137);
    assert!(s.is_running(&name));
    // Logging goes on without anybody attached.
    let lines = || s.ok(["logs", &name]).lines().count();
    let before = lines();
    eventually("the log grows", || lines() > before + 2);
}
