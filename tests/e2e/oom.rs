//! Memory that runs out: told by the kernel, not guessed from an exit code.

use super::support::{Sandbox, eventually};

#[test]
fn a_container_killed_for_want_of_memory_says_so() {
    let s = Sandbox::new();
    let name = s.name("oom");
    let script = "[ -e /again ] && exit 0; touch /again; exec tail /dev/zero";
    let flags = ["run", "--name", &name, "-m", "16m", "--memory-swap", "16m"];
    s.fails(137, flags.into_iter().chain(["busybox", "sh", "-c", script]));
    assert_eq!(s.field(&name, "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    // The next run has nothing to do with that.
    s.ok(["start", "-a", &name]);
    assert_eq!(s.field(&name, "{{.State.OOMKilled}} {{.State.ExitCode}}"), "false 0");
}

#[test]
fn a_killed_child_is_noticed_while_the_container_goes_on() {
    let s = Sandbox::new();
    let name = s.name("child");
    // A child so that the shell survives; the container waits for us to have looked.
    let script = "tail /dev/zero; echo status $?; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    s.ok(["run", "-d", "--name", &name, "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script]);
    s.await_log(&name, "status 137");
    eventually("the record of it", || s.field(&name, "{{.State.OOMKilled}}") == "true");
    assert!(s.is_running(&name));
    s.ok(["stop", &name]);
    assert_eq!(s.field(&name, "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 0");
}

#[test]
fn an_exit_code_alone_proves_nothing() {
    let s = Sandbox::new();
    let name = s.name("liar");
    s.fails(137, ["run", "--name", &name, "-m", "64m", "busybox", "sh", "-c", "exit 137"]);
    assert_eq!(s.field(&name, "{{.State.OOMKilled}}"), "false");
    s.idle(&s.name("killed"), &["-m", "64m"]);
    s.ok(["kill", &s.name("killed")]);
    assert_eq!(s.field(&s.name("killed"), "{{.State.OOMKilled}} {{.State.ExitCode}}"), "false 137");
}

#[test]
fn without_the_killer_processes_wait() {
    let s = Sandbox::new();
    let name = s.name("waits");
    // Memory that the program itself touches: inside a system call the kernel would refuse it instead.
    let script = "x=aaaaaaaa; while :; do x=$x$x; done";
    let flags = ["run", "-d", "--name", &name, "-m", "16m", "--memory-swap", "16m", "--oom-kill-disable"];
    let output = s.run(flags.into_iter().chain(["busybox", "sh", "-c", script])).code(0);
    if output.err().contains("OomKillDisable discarded") {
        // cgroups v2 has no such thing, and said so.
        eventually("its end", || !s.is_running(&name));
        return;
    }
    let control = |name: &str| {
        let path = format!("/sys/fs/cgroup/memory/mydocker/{}/memory.oom_control", s.field(name, "{{.Id}}"));
        std::fs::read_to_string(path).unwrap()
    };
    eventually("a full container", || control(&name).contains("under_oom 1"));
    assert!(s.is_running(&name));
    // More memory lets it go on, and a kill ends it wherever it is.
    s.ok(["kill", &name]);
    assert_eq!(s.field(&name, "{{.State.OOMKilled}}"), "false");
}

#[test]
fn a_group_that_asks_for_it_dies_as_a_whole() {
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // cgroups v1 has no such file, and `limits` tests that this is said.
        return;
    }
    let s = Sandbox::new();
    let name = s.name("whole");
    let script = "sleep 1000 & tail /dev/zero; echo survived";
    let flags = ["run", "--name", &name, "-m", "16m", "--memory-swap", "16m", "--cgroup-conf", "memory.oom.group=1"];
    let output = s.run(flags.into_iter().chain(["busybox", "sh", "-c", script])).code(137);
    assert_eq!(output.out(), "");
    assert_eq!(s.field(&name, "{{.State.OOMKilled}}"), "true");
}
