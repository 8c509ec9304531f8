//! `exec`.

use rustix::process::{Signal, kill_process};

use crate::ours_only;
use crate::support::{Sandbox, against_docker, eventually, processes};

#[test]
fn output_and_exit_code_are_the_commands() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let output = s.run(["exec", &name, "sh", "-c", "echo out; echo err >&2; exit 17"]).code(17);
    assert_eq!((output.out(), output.err()), ("out".into(), "err".into()));
    s.fails(137, ["exec", &name, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    s.fails(137, ["exec", &name, "sh", "-c", "kill -9 $$"]);
    assert!(s.is_running(&name));
}

#[test]
fn codes_126_and_127() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    // Docker 20.10 still said 126.
    let missing = s.run(["exec", &name, "no-such-program"]).says_anywhere("no-such-program");
    assert!(missing.code == 127 || (against_docker() && missing.code == 126), "{missing}");
    s.fails(126, ["exec", &name, "/etc"]);
    s.fails(126, ["exec", "-w", "/no/such/directory", &name, "true"]).says_anywhere("/no/such/directory");
    assert_ne!(s.run(["exec", "-u", "no-such-user", &name, "true"]).code, 0);
    // None of this did anything to the container.
    assert!(s.is_running(&name));
    assert_eq!(s.ok(["exec", &name, "echo", "fine"]), "fine");
}

#[test]
fn containers_that_do_not_run_or_exist() {
    let s = Sandbox::new();
    let name = s.name("stopped");
    s.fails(1, ["exec", "no-such-container", "true"]).says("No such container: no-such-container");
    s.ok(["run", "--name", &name, "busybox", "true"]);
    s.fails(1, ["exec", &name, "true"]).says("is not running");
}

#[test]
fn a_container_that_is_being_started_is_not_entered_before_it_has_its_root() {
    ours_only!("stops our own process halfway");
    let s = Sandbox::new();
    // Exists outside, and must never be seen by a command inside.
    let outside = s.host_file("outside", "");
    for kill_shim in [false, true] {
        let name = s.name(&format!("c{kill_shim}"));
        // init waits before it leaves the host's root behind.
        let delay =
            "exec strace -f -q -o /dev/null -e trace=pivot_root -e inject=pivot_root:delay_enter=2000000 \"$@\"";
        let start =
            s.with_shell(delay, ["run", "-d", "--name", &name, "busybox", "sh", "-c", "while :; do sleep 0.05; done"]);
        let start = start.start();
        eventually("init is recorded", || {
            let output = s.run(["inspect", "--format", "{{.State.Pid}}", &name]);
            output.code == 0 && output.out() != "0"
        });
        if kill_shim {
            kill_process(processes::shim_of(&name).unwrap(), Signal::KILL).unwrap();
        }
        let output = s.run(["exec", &name, "test", "-e", &outside]).code(1);
        assert_eq!(output.err().contains("no root file system of its own yet"), kill_shim, "{output}");
        s.ok(["rm", "-f", &name]);
        // strace follows the container to its end.
        start.finish();
    }
}

#[test]
fn environment_is_the_containers_and_ours() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &["-e", "A=container", "-e", "B=container", "-w", "/tmp"]);
    let file = s.host_file("env", "C=file\n");
    let args = [
        "exec",
        "-e",
        "B=exec",
        "--env-file",
        &file,
        "-e",
        "CALLER",
        &name,
        "sh",
        "-c",
        "echo $A $B $C $CALLER $PWD $HOME",
    ];
    assert_eq!(
        s.command(args).env("CALLER", "c").env("SECRET", "x").run().code(0).out(),
        "container exec file c /tmp /root"
    );
    assert_eq!(s.command(["exec", &name, "sh", "-c", "echo ${SECRET-none}"]).env("SECRET", "x").run().out(), "none");
}

#[test]
fn user_and_directory_of_its_own() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &["-u", "nobody"]);
    assert_eq!(s.ok(["exec", &name, "id", "-u"]), "65534");
    assert_eq!(s.ok(["exec", "-u", "0", "-w", "/etc", &name, "sh", "-c", "id -u; pwd"]), "0\n/etc");
    assert_eq!(s.ok(["exec", "--user", "7:8", &name, "sh", "-c", "id -u; id -g"]), "7\n8");
}

#[test]
fn stdin_is_piped_with_i_only() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let input: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let output = s.command(["exec", "-i", &name, "cat"]).stdin(input.clone()).run().code(0);
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
    assert_eq!(s.command(["exec", &name, "cat"]).stdin("not for it").run().code(0).out(), "");
}

#[test]
fn large_output_is_whole() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let output = s.run(["exec", &name, "sh", "-c", "seq 100000; seq 100000 >&2"]).code(0);
    assert_eq!((output.out().lines().count(), output.err().lines().count()), (100_000, 100_000));
}

#[test]
fn what_exec_prints_is_not_in_the_log() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    s.ok(["exec", &name, "echo", "from exec"]);
    assert_eq!(s.ok(["logs", &name]), "");
}

#[test]
fn detached_returns_at_once_and_runs_on() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let output = s.run(["exec", "-d", &name, "sh", "-c", "echo lost; sleep 0.2; echo done > /done; sleep 60"]).code(0);
    assert_eq!(output.stdout.len(), 0);
    eventually("the file appears", || s.run(["exec", &name, "cat", "/done"]).out() == "done");
    // A start that fails is told even so.
    assert_ne!(s.run(["exec", "-d", &name, "no-such-program"]).code, 0);
}

#[test]
fn it_is_in_all_the_containers_namespaces() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let namespaces = "for n in pid mnt uts ipc net cgroup; do readlink /proc/$0/ns/$n; done";
    let own = s.ok(["exec", &name, "sh", "-c", namespaces, "self"]);
    assert_eq!(own, s.ok(["exec", &name, "sh", "-c", namespaces, "1"]));
    // And its children too.
    assert_eq!(
        s.ok(["exec", &name, "sh", "-c", "cat /proc/self/cgroup"]),
        s.ok(["exec", &name, "cat", "/proc/1/cgroup"])
    );
}

#[test]
fn it_ends_with_the_container() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let mut running = s.command(["exec", &name, "sh", "-c", "echo ready; sleep 60"]).start();
    running.expect("ready");
    s.ok(["kill", &name]);
    running.finish().code(137);
}

#[test]
fn many_at_once() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let running: Vec<_> = (0..20).map(|n| s.command(["exec", &name, "echo", &n.to_string()]).start()).collect();
    for (n, running) in running.into_iter().enumerate() {
        assert_eq!(running.finish().code(0).out(), n.to_string());
    }
}

#[test]
fn a_pipe_that_breaks_does_not_hang_it() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let output = s.with_shell("\"$@\" | head -n 1", ["exec", &name, "sh", "-c", "seq 1000000"]).run();
    assert_eq!(output.out(), "1");
}

#[test]
fn usage() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    assert_ne!(s.run(["exec", &name]).code, 0);
    assert_ne!(s.run(["exec", "--no-such-flag", &name, "true"]).code, 0);
    // What follows the container is the command's.
    assert_eq!(s.ok(["exec", &name, "echo", "-d", "--", "-u"]), "-d -- -u");
}
