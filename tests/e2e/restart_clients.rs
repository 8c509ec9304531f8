//! `--restart` seen by those who are attached: a client belongs to one run.

use rustix::process::Signal;

use crate::ours_only;
use crate::support::{Sandbox, eventually, processes};

fn restarts(s: &Sandbox, name: &str) -> u32 {
    s.field(name, "{{.RestartCount}}").parse().unwrap()
}

#[test]
fn a_client_in_the_foreground_leaves_with_its_run() {
    let s = Sandbox::new();
    let name = s.name("c");
    let output = s.run(["run", "--name", &name, "--restart", "always", "busybox", "sh", "-c", "echo run; exit 3"]);
    assert_eq!((output.code, output.out()), (3, "run".to_owned()));
    eventually("it goes on without", || restarts(&s, &name) >= 2);
    s.ok(["rm", "-f", &name]);
}

#[test]
fn a_terminal_in_the_foreground_leaves_with_its_run() {
    let s = Sandbox::new();
    let name = s.name("c");
    let mut terminal = s.terminal([
        "run",
        "-it",
        "--name",
        &name,
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        "stty size; [ -t 0 ] && echo terminal; read line; exit 3",
    ]);
    terminal.expect("terminal");
    terminal.send("x\r");
    assert_eq!(terminal.finish().0, 3);
    terminal.assert_restored();
    // The next run has a terminal of its own, of the same size.
    eventually("it runs again", || s.ok(["logs", &name]).matches("terminal").count() == 2);
    assert_eq!(s.ok(["logs", &name]).matches("24 80").count(), 2);
    let mut terminal = s.terminal(["attach", &name]);
    eventually("it is attached", || terminal.is_raw());
    terminal.send("y\r");
    assert_eq!(terminal.finish().0, 3);
    s.ok(["rm", "-f", &name]);
}

#[test]
fn ctrl_c_is_the_users_word() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "trap 'exit 5' INT; echo ready; while :; do sleep 0.02; done";
    let mut client = s.command(["run", "--name", &name, "--restart", "always", "busybox", "sh", "-c", script]).start();
    client.expect("ready");
    client.signal(Signal::INT);
    client.finish().code(5);
    assert_eq!(s.field(&name, "{{.State.Status}} {{.RestartCount}}"), "exited 0");
    eventually("the shim leaves", || processes::shim_of(&name).is_none());
    assert_eq!(s.field(&name, "{{.State.Status}}"), "exited");
}

#[test]
fn a_slow_reader_holds_up_no_restart_and_loses_nothing() {
    ours_only!("docker cuts off who has not read everything two seconds after the end");
    let s = Sandbox::new();
    let name = s.name("c");
    // More than a pipe holds, and in later runs something else.
    let script = "[ -e /once ] && echo later && exit 4; touch /once; head -c 100000 /dev/zero | tr '\\0' x; exit 3";
    let client = s.command(["run", "--name", &name, "--restart", "always", "busybox", "sh", "-c", script]).start();
    eventually("it goes on", || s.run(["inspect", &name]).code == 0 && restarts(&s, &name) >= 3);
    let output = client.finish().code(3);
    assert!(output.stdout.len() == 100_000 && output.stdout.iter().all(|&byte| byte == b'x'), "{output}");
    s.ok(["rm", "-f", &name]);
}

#[test]
fn each_run_has_its_own_standard_input() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "cat >> /got; echo read; exit 1";
    let args = ["run", "-i", "--name", &name, "--restart", "on-failure", "busybox", "sh", "-c", script];
    s.command(args).stdin("one\n").run().code(1);
    eventually("it is started again", || s.is_running(&name) && restarts(&s, &name) == 1 && s.pid(&name) != 0);
    // It waits for input that nobody has closed: the first client's end was that of its own run.
    let mut client = s.command(["attach", &name]).start();
    client.send(b"two\n");
    client.close_stdin();
    assert_eq!(client.finish().code(1).out(), "read");
    eventually("it is started again", || restarts(&s, &name) == 2 && s.pid(&name) != 0);
    assert_eq!(s.ok(["exec", &name, "cat", "/got"]), "one\ntwo");
    s.ok(["rm", "-f", &name]);
}
