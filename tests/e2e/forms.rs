//! Spellings: those of the older tools (`command-forms.md`), Docker's, and wrong ones.

use crate::ours_only;
use crate::support::{Sandbox, eventually};

#[test]
fn single_dash_names_of_the_older_tools() {
    ours_only!("the older tools' spellings");
    let s = Sandbox::new();
    let name = s.name("c1");
    s.ok(["run", "-d", "-name", &name, "-image", "busybox", "-net", "none", "--", "sleep", "60"]);
    assert!(s.is_running(&name));
    assert_eq!(s.field(&name, "{{.HostConfig.NetworkMode}} {{.Path}}"), "none sleep");
    assert!(!s.ok(["run", "--help"]).contains("-image "));
}

#[test]
fn without_an_image_it_is_busybox() {
    ours_only!("the older tools' spellings");
    let s = Sandbox::new();
    assert_eq!(s.ok(["run", "--rm", "--", "echo", "default", "image"]), "default image");
    let name = s.name("c1");
    s.ok(["run", "-d", "--name", &name, "--", "top"]);
    assert_eq!(s.field(&name, "{{.Config.Image}}"), "busybox");
    s.await_log(&name, "Mem:");
}

#[test]
fn ti_is_it() {
    ours_only!("the older tools' spellings");
    let s = Sandbox::new();
    let name = s.name("c1");
    let mut terminal = s.terminal(["run", "-ti", "--name", &name, "-image", "busybox", "--", "/bin/sh"]);
    terminal.expect("/ # ");
    terminal.send("exit 3\r");
    assert_eq!(terminal.finish().0, 3);
    let mut terminal =
        s.terminal(["run", "--rm", "-it", "-e", "s1=hello", "-e", "s2=world", "busybox", "sh", "-c", "echo $s1-$s2"]);
    terminal.expect("hello-world");
    assert_eq!(terminal.finish().0, 0);
}

#[test]
fn detached_with_environment() {
    let s = Sandbox::new();
    let name = s.name("t");
    s.ok(["run", "-d", "-e", "K1=v1", "-e", "K2=v2", "--name", &name, "busybox", "sh", "-c", "echo $K1$K2; sleep 60"]);
    s.await_log(&name, "v1v2");
    assert_eq!(s.ok(["exec", &name, "/bin/sh", "-c", "echo $K2$K1"]), "v2v1");
}

#[test]
fn top_keeps_running_and_keeps_logging() {
    let s = Sandbox::new();
    let name = s.name("c1");
    let id = s.ok(["run", "-d", "--name", &name, "busybox", "top", "-b", "-d", "1"]);
    assert_eq!(id.len(), 64);
    let size = || s.ok(["logs", &name]).len();
    s.await_log(&name, "Mem:");
    let before = size();
    eventually("more is logged", || size() > before);
    s.ok(["stop", "-t", "0", &name]);
    s.ok(["start", &name]);
    s.ok(["restart", "-t", "0", &name]);
    s.fails(1, ["rm", &name]);
    s.ok(["kill", &name]);
    s.ok(["rm", "-f", &name]);
}

#[test]
fn usage_errors_are_one_message_and_125() {
    ours_only!("docker's codes differ by command");
    let s = Sandbox::new();
    for line in [
        &["run"][..],
        &["run", "--no-such-flag", "busybox"],
        &["run", "-Z", "busybox"],
        &["run", "--name"],
        &["run", "--stop-timeout", "nonsense", "busybox"],
        &["run", "--rm=nonsense", "busybox"],
        &["ps", "--no-such-flag"],
        &["logs"],
        &["exec"],
        &["stop"],
    ] {
        let output = s.fails(125, line.iter().copied());
        assert!(output.stdout.is_empty(), "{output}");
        assert!(output.err().lines().count() <= 12, "{output}");
        output.says("--help");
    }
    // An unknown command is 1, as with Docker.
    let output = s.fails(1, ["no-such-command"]);
    output.says("no-such-command");
}

#[test]
fn near_misses_are_suggested() {
    ours_only!("docker suggests for commands only");
    let s = Sandbox::new();
    s.fails(125, ["run", "--hostnam", "x", "busybox"]).says("--hostname");
    s.fails(1, ["inspct", "x"]).says("inspect");
}

#[test]
fn help_is_on_stdout_and_free() {
    let s = Sandbox::new();
    for line in [&["--help"][..], &["run", "--help"], &["container", "--help"], &["exec", "--help"], &["help", "run"]] {
        let output = s.run(line.iter().copied()).code(0);
        assert!(output.stderr.is_empty() && output.out().to_lowercase().contains("usage"), "{output}");
    }
    // Help needs no data root.
    assert!(!s.root().exists());
}

#[test]
fn the_data_root_by_flag_or_environment() {
    ours_only!("our own flag");
    let s = Sandbox::new();
    let other = s.host("other");
    let program = std::env::var_os("MYDOCKER_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_mydocker").into());
    let run = |flag: Option<&str>, args: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("MYDOCKER_ROOT", &other);
        command.args(flag.map(|root| format!("--root={root}"))).args(args);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let id = run(None, &["create", "busybox"]);
    assert_eq!(id.trim().len(), 64);
    assert!(s.path("other/containers").join(id.trim()).exists());
    assert_eq!(run(None, &["ps", "-aq", "--no-trunc"]), id);
    // The flag wins.
    assert_eq!(run(Some(s.root().to_str().unwrap()), &["ps", "-aq"]), "");
    assert_eq!(run(None, &["rm", id.trim()]), id);
}

#[test]
fn output_to_a_full_disk_is_an_error() {
    ours_only!("docker says so or not by command");
    let s = Sandbox::new();
    let output = s.with_shell("exec \"$@\" > /dev/full", ["version"]).run().cleanly();
    assert_ne!(output.code, 0);
}

#[test]
fn few_descriptors_are_enough() {
    ours_only!("docker's client is another program");
    let s = Sandbox::new();
    let output = s.with_shell("ulimit -n 32; exec \"$@\"", ["run", "--rm", "busybox", "echo", "fits"]).run().cleanly();
    assert_eq!(output.code(0).out(), "fits");
}
