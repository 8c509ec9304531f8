//! `export`: a container's file system in one tar.

use std::fs;
use std::path::Path;

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::peers::{host, tree};

#[test]
fn the_whole_without_what_is_mounted() {
    let s = Sandbox::new();
    let name = s.name("c");
    fs::create_dir(s.path("bound")).unwrap();
    fs::write(s.path("bound/secret"), "x").unwrap();
    let bound = format!("{}:/mnt/bound", s.host("bound"));
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "-v",
        &bound,
        "--tmpfs",
        "/mem",
        "busybox",
        "sh",
        "-c",
        "echo 1 > /written; rm /bin/vi; echo 2 > /mem/lost; echo ready; exec sleep 1000",
    ]);
    s.await_log(&name, "ready");
    let running = s.host("running.tar");
    s.ok(["export", "-o", &running, &name]);
    let names = host("tar", ["-tf", &running]);
    let has = |name: &str| names.lines().any(|line| line.trim_start_matches("./").trim_end_matches('/') == name);
    assert!(has("written") && has("bin/busybox") || has("bin/sh"), "{names}");
    assert!(has("mnt/bound") && has("mem") && has("proc") && has("dev"), "{names}");
    for absent in ["bin/vi", "mnt/bound/secret", "mem/lost", "proc/1", "dev/null"] {
        assert!(!has(absent), "{absent} in {names}");
    }
    assert!(s.is_running(&name));
    // It ends and is exported again: the same.
    s.ok(["kill", &name]);
    s.ok(["wait", &name]);
    let stopped = s.host("stopped.tar");
    drop(s.with_shell(&format!("exec \"$@\" > {stopped}"), ["container", "export", &name]).run().code(0));
    host("cmp", [&running, &stopped]);
    let mut terminal = s.terminal(["export", &name]);
    terminal.expect("cowardly refusing to save to a terminal");
    assert_eq!(terminal.finish().0, 1);
    s.fails(1, ["export", "absent"]).says("No such container: absent");
    s.ok(["rm", &name]);
}

#[test]
fn out_and_in_again() {
    ours_only!("reads layers");
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok([
        "run",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "ln -s x /l; ln /bin/busybox /hard; mkfifo /p; mknod /dv b 7 9; chmod 2750 /mnt; chown 5:6 /opt; rm -r /home",
    ]);
    let id = s.with_shell("\"$@\" | \"$1\" \"$2\" \"$3\" import -", ["export", &name]).run().code(0).out();
    let again = s.name("again");
    s.ok(["create", "--name", &again, &id, "true"]);
    let unpacked = |container: &str, directory: &str| {
        let directory = s.host_dir(directory);
        let script = format!("\"$@\" | tar -x --numeric-owner -p -C {directory}");
        drop(s.with_shell(&script, ["export", container]).run().code(0));
        tree(Path::new(&directory))
    };
    let files = unpacked(&name, "one");
    assert_eq!(files, unpacked(&again, "two"));
    assert!(files.iter().any(|line| line.starts_with("opt d 755 5:6")), "{files:?}");
    assert_eq!(s.ok(["diff", &again]), "");
}

#[test]
fn a_kill_leaves_no_mount_and_no_file() {
    ours_only!("strace on our own program");
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "--name", &name, "busybox", "true"]);
    s.host_dir("out");
    let out = s.host("out/f.tar");
    let mut kills = 0;
    for (call, nth) in [("fsmount", 1), ("write", 1), ("write", 5), ("linkat", 1), ("rename", 1)] {
        // An older kernel's overlay is mounted without `fsmount`: then nothing is killed and the file is complete.
        let killed = crate::support::injection::killed_at(&s, call, nth, &["export", "-o", &out, &name]);
        assert_eq!(killed, fs::remove_file(&out).is_err(), "{call} {nth}");
        kills += u32::from(killed);
    }
    assert!(kills >= 3, "{kills} kills");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(s.root().to_str().unwrap()), "{mounts}");
    s.ok(["export", "-o", &out, &name]);
    let names: Vec<_> = fs::read_dir(s.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    // At most the name that was linked in the very moment before the rename.
    assert!(names.len() <= 2, "{names:?}");
}
