//! Archives that lie, disks that are full, kills in the middle: what is there stays right, and nothing stays behind.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::ours_only;
use crate::support::archive::{Layer, save};
use crate::support::injection::{each, killed_at};
use crate::support::{Sandbox, eventually};

/// Names in the store that belong to nobody: temporaries, leases, marks of work.
fn unfinished(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = |directory: &str, belongs: &dyn Fn(&str) -> bool| {
        let Ok(entries) = fs::read_dir(root.join(directory)) else { return };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !belongs(&name) {
                found.push(format!("{directory}/{name}"));
            }
        }
    };
    let nobodys = |_: &str| false;
    let visible = |name: &str| !name.starts_with('.');
    names("overlay2/layers", &visible);
    names("image/leases", &nobodys);
    names("image/making", &nobodys);
    for directory in ["image", "image/configs/sha256", "image/manifests/sha256", "image/blobs/sha256"] {
        names(directory, &visible);
    }
    found
}

/// A refused archive makes the engine sweep, as `image prune` does.
#[track_caller]
fn sweep(s: &Sandbox) {
    let bad = s.host_file("bad.tar", Layer::default().file("manifest.json", 0o644, "[{\"Config\":\"x\"}]").bytes());
    s.fails(1, ["load", "-i", &bad]);
}

fn layers(root: &Path) -> usize {
    fs::read_dir(root.join("overlay2/layers")).map_or(0, Iterator::count)
}

#[test]
fn killed_while_loading() {
    ours_only!("strace on our own program");
    let host = Sandbox::new();
    let file = host.host("image.tar");
    let upper = Layer::default().file("x", 0o644, vec![1; 200_000]);
    save(Path::new(&file), "kill:1", &json!({"Cmd": ["true"]}), &[Layer::busybox(), upper]);
    let calls = [("write", 3), ("mkdirat", 5), ("renameat2", 1), ("rename", 1), ("flock", 4), ("unlink", 2)];
    let kills = each(&calls, |call, nth| {
        // A store of its own each time: one that has the layers already makes fewer calls.
        let s = Sandbox::new();
        let killed = killed_at(&s, call, nth, &["load", "-i", &file]);
        // Either it is there and runs, or it is not there.
        let tagged = !s.ok(["images", "-q", "kill:1"]).is_empty();
        if tagged {
            s.ok(["run", "--rm", "kill:1", "true"]);
        }
        sweep(&s);
        let configs = fs::read_dir(s.root().join("image/configs/sha256")).map_or(0, Iterator::count);
        assert_eq!(layers(&s.root()), if configs > 0 { 2 } else { 0 }, "{call} {nth}: {tagged}");
        assert_eq!(unfinished(&s.root()), [""; 0], "{call} {nth}");
        if killed {
            s.ok(["load", "-i", &file]);
            s.ok(["run", "--rm", "kill:1", "true"]);
        }
        killed && nth < 60
    });
    assert!(kills > 10, "only {kills} kills");
}

#[test]
fn killed_while_committing() {
    ours_only!("strace on our own program");
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
        "echo 1 > /f; mkdir /d; echo 2 > /d/g; exec sleep 1000",
    ]);
    eventually("it has written", || s.run(["exec", &name, "test", "-e", "/d/g"]).code == 0);
    let calls = [("write", 7), ("mkdirat", 2), ("renameat2", 2), ("rename", 1), ("flock", 4), ("openat2", 9)];
    let kills = each(&calls, |call, nth| {
        // The guard of the pause is killed as well when it comes so far: `-f` follows everybody.
        let killed = killed_at(&s, call, nth, &["commit", &name, "killed:1"]);
        if s.field(&name, "{{.State.Status}}") == "paused" {
            s.run(["unpause", &name]);
        }
        assert!(s.is_running(&name), "{call} {nth}");
        if !s.ok(["images", "-q", "killed:1"]).is_empty() {
            assert_eq!(s.ok(["run", "--rm", "killed:1", "cat", "/d/g"]), "2", "{call} {nth}");
        }
        sweep(&s);
        assert_eq!(unfinished(&s.root()), [""; 0], "{call} {nth}");
        killed && nth < 60
    });
    assert!(kills > 8, "only {kills} kills");
    s.ok(["commit", &name, "killed:1"]);
    assert_eq!(s.ok(["run", "--rm", "killed:1", "cat", "/f"]), "1");
}

#[test]
fn a_killed_commit_lets_the_container_go_on() {
    ours_only!("the guard is ours");
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
        "dd if=/dev/urandom of=/big bs=1M count=64 2>/dev/null; echo written; exec sleep 1000",
    ]);
    s.await_log(&name, "written");
    // Killed alone, as by a user or for want of memory, in the middle of the reading.
    let committing = s.command(["commit", &name]).start();
    eventually("it is paused", || s.field(&name, "{{.State.Status}}") == "paused");
    committing.signal(rustix::process::Signal::KILL);
    drop(committing.finish());
    eventually("it goes on", || s.field(&name, "{{.State.Status}}") == "running");
    assert_eq!(s.ok(["exec", &name, "echo", "alive"]), "alive");
    sweep(&s);
    assert_eq!(unfinished(&s.root()), [""; 0]);
}

#[test]
fn a_full_disk_is_a_clean_error() {
    ours_only!("a data root on a small file system");
    let s = Sandbox::new();
    let root = s.root();
    fs::create_dir_all(&root).unwrap();
    let file = s.host("image.tar");
    let big = Layer::default().file("big", 0o644, vec![3; 6_000_000]);
    save(Path::new(&file), "full:1", &json!({"Cmd": ["true"]}), &[Layer::busybox(), big]);
    // In a mount namespace of its own, which takes the file system with it.
    let script = format!(
        "exec unshare -m sh -c 'mount -t tmpfs -o size=5m none {0} || exit 99; \"$@\" -i {file}; code=$?; \
         \"$1\" \"$2\" \"$3\" images -q; ls -A {0}/overlay2/layers {0}/image/leases {0}/image/making; exit $code' sh \"$@\"",
        root.display()
    );
    for form in ["", ".gz"] {
        let archive = format!("{file}{form}");
        if !form.is_empty() {
            crate::support::peers::host("gzip", ["-k", &file]);
        }
        let output = s.with_shell(&script.replace(&file, &archive), ["load"]).run();
        assert_eq!(output.code, 1, "{output}");
        assert!(output.err().contains("no space left on device") || output.err().contains("No space left"), "{output}");
        let listing = output.out();
        assert!(listing.lines().all(|line| line.is_empty() || line.starts_with('/')), "{listing}");
    }
    // A file that does not fit is not written.
    s.ok(["load", "-i", &file]);
    let out = s.host_dir("small");
    let script = format!(
        "exec unshare -m sh -c 'mount -t tmpfs -o size=2m none {out} || exit 99; \"$@\" -o {out}/f full:1; code=$?; \
         ls -A {out}; exit $code' sh \"$@\""
    );
    let output = s.with_shell(&script, ["save"]).run();
    assert_eq!((output.code, output.out()), (1, String::new()), "{}", output.err());
}

#[test]
fn cut_anywhere_it_is_refused() {
    ours_only!("docker takes some of these");
    let s = Sandbox::new();
    let (file, cut) = (s.host("whole.tar"), s.host("cut.tar"));
    save(Path::new(&s.host("made.tar")), "cut:1", &json!({"Cmd": ["true"]}), &[Layer::default().file("f", 0o644, "x")]);
    s.ok(["load", "-i", &s.host("made.tar")]);
    s.ok(["save", "-o", &file, "cut:1"]);
    let bytes = fs::read(&file).unwrap();
    let there = Sandbox::new();
    for length in (0..bytes.len() - 1024).step_by(700) {
        fs::write(&cut, &bytes[..length]).unwrap();
        let output = there.run(["load", "-i", &cut]);
        assert_eq!(output.code, 1, "{length}: {output}");
        assert_eq!(there.ok(["images", "-q"]), "", "{length}");
        assert_eq!(unfinished(&there.root()), [""; 0], "{length}");
        assert_eq!(layers(&there.root()), 0, "{length}");
    }
}
