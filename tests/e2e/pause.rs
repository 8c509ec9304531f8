//! `pause` and `unpause`, and everything else of a paused container.

use super::support::{Sandbox, eventually};

/// A container that counts as fast as it can.
fn counter(s: &Sandbox, name: &str) {
    let script = "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";
    s.ok(["run", "-d", "--name", name, "busybox", "sh", "-c", script]);
    s.await_log(name, "3");
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let s = Sandbox::new();
    let name = s.name("still");
    counter(&s, &name);
    assert_eq!(s.ok(["pause", &name]), name);
    assert_eq!(s.field(&name, "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"), "paused true true");
    assert!(s.ok(["ps", "--filter", &format!("name={name}")]).contains("(Paused)"));
    // What it had written before may still be on its way into the log.
    let mut last = s.ok(["logs", &name]);
    eventually("an end of the output", || {
        let now = s.ok(["logs", &name]);
        std::mem::replace(&mut last, now.clone()) == now
    });
    let output = s.run(["exec", &name, "true"]).code(1);
    assert!(output.err().contains("is paused"), "{}", output.err());
    let output = s.run(["pause", &name]).code(1);
    assert!(output.err().contains("already paused"), "{}", output.err());

    assert_eq!(s.ok(["container", "unpause", &name]), name);
    assert_eq!(s.field(&name, "{{.State.Status}}"), "running");
    eventually("more output", || s.ok(["logs", &name]).len() > last.len());
    let output = s.run(["unpause", &name]).code(1);
    assert!(output.err().contains("is not paused"), "{}", output.err());
}

#[test]
fn stop_kill_and_rm_of_a_paused_container_work() {
    let s = Sandbox::new();
    for (command, code) in [(&["stop", "-t", "20"][..], "7"), (&["kill"], "137")] {
        let name = s.name(command[0]);
        counter(&s, &name);
        s.ok(["pause", &name]);
        let mut args = command.to_vec();
        args.push(&name);
        s.ok(args);
        assert_eq!(
            s.field(&name, "{{.State.Status}} {{.State.Paused}} {{.State.ExitCode}}"),
            format!("exited false {code}")
        );
    }
    let name = s.name("rm");
    counter(&s, &name);
    s.ok(["pause", &name]);
    s.fails(1, ["rm", &name]);
    s.ok(["rm", "-f", &name]);
    assert_eq!(s.ok(["ps", "-aq", "--filter", &format!("name={name}")]), "");
}

#[test]
fn a_signal_that_does_not_end_it_waits() {
    let s = Sandbox::new();
    let name = s.name("signal");
    let script = "trap 'echo got it' USR1; echo ready; while :; do sleep 0.01; done";
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    s.await_log(&name, "ready");
    s.ok(["pause", &name]);
    s.ok(["kill", "-s", "USR1", &name]);
    assert_eq!(s.field(&name, "{{.State.Status}}"), "paused");
    s.ok(["unpause", &name]);
    s.await_log(&name, "got it");
}

#[test]
fn only_what_runs_can_be_paused() {
    let s = Sandbox::new();
    let name = s.name("ended");
    s.ok(["run", "--name", &name, "busybox", "true"]);
    for command in ["pause", "unpause"] {
        let output = s.run([command, &name]).code(1);
        assert!(output.err().contains("is not running"), "{}", output.err());
        s.fails(1, [command, "no-such-container"]);
    }
}
