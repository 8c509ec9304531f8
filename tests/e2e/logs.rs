//! `logs`, and the log on disk.

use serde_json::Value;

use crate::ours_only;
use crate::support::{Sandbox, eventually};

#[test]
fn streams_are_kept_apart() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.run(["run", "--name", &name, "busybox", "sh", "-c", "echo out; echo err >&2"]).code(0);
    let output = s.run(["logs", &name]).code(0);
    assert_eq!((output.out(), output.err()), ("out".into(), "err".into()));
}

#[test]
fn detached_containers_are_logged() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", "echo one; echo two"]);
    s.ok(["wait", &name]);
    assert_eq!(s.ok(["logs", &name]), "one\ntwo");
}

#[test]
fn follow_ends_when_the_container_does() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "echo first; while ! [ -e /go ]; do sleep 0.05; done; echo last; exit 3";
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    let mut follower = s.command(["logs", "-f", &name]).start();
    follower.expect("first");
    s.run(["exec", &name, "touch", "/go"]);
    follower.expect("last");
    follower.finish().code(0);
    // Of a container that has ended, it ends at once.
    assert_eq!(s.ok(["logs", "-f", &name]), "first\nlast");
}

#[test]
fn follow_ends_when_the_container_is_killed_or_removed() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", "echo ready; sleep 60"]);
    let mut follower = s.command(["logs", "--follow", &name]).start();
    follower.expect("ready");
    s.ok(["rm", "-f", &name]);
    follower.finish();
}

#[test]
fn tail_and_since_and_until() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "for n in 1 2 3 4 5; do echo $n; sleep 0.02; done";
    s.run(["run", "--name", &name, "busybox", "sh", "-c", script]).code(0);
    assert_eq!(s.ok(["logs", "--tail", "2", &name]), "4\n5");
    assert_eq!(s.ok(["logs", "-n", "2", &name]), "4\n5");
    assert_eq!(s.ok(["logs", "--tail", "0", &name]), "");
    assert_eq!(s.ok(["logs", "--tail", "all", &name]).lines().count(), 5);
    assert_eq!(s.ok(["logs", "--tail", "100", &name]).lines().count(), 5);

    let stamped = s.ok(["logs", "-t", &name]);
    let third = stamped.lines().nth(2).unwrap().split(' ').next().unwrap();
    assert_eq!(s.ok(["logs", "--since", third, &name]), "3\n4\n5");
    assert_eq!(s.ok(["logs", "--until", third, &name]), "1\n2\n3");
    assert_eq!(s.ok(["logs", "--since", third, "--tail", "1", &name]), "5");
    assert_eq!(s.ok(["logs", "--since", "1h", &name]).lines().count(), 5);
    assert_eq!(s.ok(["logs", "--until", "1h", &name]), "");
    assert_eq!(s.ok(["logs", "--since", "2999-01-01", &name]), "");
    for bad in ["--since", "--until", "--tail"] {
        if bad != "--tail" {
            assert_ne!(s.run(["logs", bad, "nonsense", &name]).code, 0, "{bad}");
        }
    }
}

#[test]
fn tail_counts_over_both_streams_and_with_follow() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "echo a; sleep 0.1; echo b >&2; sleep 0.1; echo c; while ! [ -e /go ]; do sleep 0.05; done; echo d";
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    s.await_log(&name, "c");
    let mut follower = s.command(["logs", "-f", "--tail", "1", &name]).start();
    follower.expect("c\n");
    s.run(["exec", &name, "touch", "/go"]);
    let output = follower.finish().code(0);
    assert_eq!((output.out(), output.err()), ("c\nd".into(), String::new()));
}

#[test]
fn timestamps_have_nanoseconds_and_zone() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.run(["run", "--name", &name, "busybox", "echo", "line"]).code(0);
    let line = s.ok(["logs", "--timestamps", &name]);
    let (time, text) = line.split_once(' ').unwrap();
    assert_eq!(text, "line");
    // 2024-01-02T03:04:05.123456789Z
    assert!(time.len() == 30 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
    time.parse::<jiff::Timestamp>().unwrap();
}

#[test]
fn partial_lines_survive() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.run(["run", "--name", &name, "busybox", "printf", "no line break"]).code(0);
    assert_eq!(s.run(["logs", &name]).code(0).stdout, b"no line break");
}

#[test]
fn long_lines_are_one_line() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.run(["run", "--name", &name, "busybox", "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo after"])
        .code(0);
    let text = s.ok(["logs", &name]);
    let lengths: Vec<usize> = text.lines().map(str::len).collect();
    assert_eq!(lengths, [100_000, 5]);
    assert_eq!(s.ok(["logs", "--tail", "1", &name]), "after");
}

#[test]
fn binary_output_survives() {
    let s = Sandbox::new();
    let name = s.name("c");
    // What is no UTF-8 is replaced in JSON by Docker; valid text and control characters are kept.
    let script = "printf 'a\\000b\\033[1m\\r\\n\\t\"\\\\ \\303\\274 <&>\\n'";
    let direct = s.run(["run", "--name", &name, "busybox", "sh", "-c", script]).code(0).stdout;
    assert_eq!(direct, b"a\0b\x1b[1m\r\n\t\"\\ \xc3\xbc <&>\n");
    assert_eq!(s.run(["logs", &name]).code(0).stdout, direct);
}

#[test]
fn bytes_that_are_no_text_survive_too() {
    ours_only!("docker replaces them");
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "head -c 70000 /dev/urandom > /r; cat /r";
    let direct = s.run(["run", "--name", &name, "busybox", "sh", "-c", script]).code(0).stdout;
    assert!(s.run(["logs", &name]).code(0).stdout == direct);
}

#[test]
fn a_terminals_output_is_logged_as_it_came() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["run", "-dt", "--name", &name, "busybox", "sh", "-c", "echo one; echo two >&2"]);
    s.ok(["wait", &name]);
    let output = s.run(["logs", &name]).code(0);
    assert_eq!((output.stdout, output.stderr), (b"one\r\ntwo\r\n".to_vec(), Vec::new()));
}

#[test]
fn the_log_goes_on_after_a_restart() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["run", "--name", &name, "busybox", "sh", "-c", "echo run"]);
    assert_eq!(s.ok(["start", "-a", &name]), "run");
    assert_eq!(s.ok(["logs", &name]), "run\nrun");
}

#[test]
fn the_file_is_dockers_json() {
    ours_only!("reads our data root");
    let s = Sandbox::new();
    let name = s.name("c");
    s.run(["run", "--name", &name, "busybox", "sh", "-c", "echo 'a \"b\" <c>'; echo e >&2"]).code(0);
    let id = s.field(&name, "{{.Id}}");
    let path = s.field(&name, "{{.LogPath}}");
    assert_eq!(path, s.root().join(format!("containers/{id}/{id}-json.log")).to_str().unwrap());
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut kept: Vec<_> =
        lines.iter().map(|line| (line["stream"].as_str().unwrap(), line["log"].as_str().unwrap())).collect();
    kept.sort_unstable();
    assert_eq!(kept, [("stderr", "e\n"), ("stdout", "a \"b\" <c>\n")]);
    assert!(lines.iter().all(|line| line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok()));
}

#[test]
fn rotation_bounds_the_files() {
    ours_only!("reads our data root");
    let s = Sandbox::new();
    let name = s.name("c");
    let flags = ["--log-opt", "max-size=10k", "--log-opt", "max-file=3"];
    let mut args = vec!["run", "--name", &name];
    args.extend(flags);
    args.extend(["busybox", "seq", "5000"]);
    assert_eq!(s.ok(args).lines().count(), 5000);
    let id = s.field(&name, "{{.Id}}");
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(s.root().join("containers").join(&id)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().contains("-json.log") {
            sizes.push(entry.metadata().unwrap().len());
        }
    }
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| *size < 12 * 1024), "{sizes:?}");
    // What is left is the end, in order, over all files.
    let text = s.ok(["logs", &name]);
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 100 && numbers.len() < 5000);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) && numbers.last() == Some(&5000));
    assert_eq!(s.ok(["logs", "--tail", "2", &name]), "4999\n5000");
}

#[test]
fn follow_survives_rotation() {
    ours_only!("docker loses lines");
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "while ! [ -e /go ]; do sleep 0.05; done; for n in $(seq 2000); do echo $n; done";
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "--log-opt",
        "max-size=20k",
        "--log-opt",
        "max-file=9",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let follower = s.command(["logs", "-f", &name]).start();
    s.run(["exec", &name, "touch", "/go"]);
    let text = follower.finish().code(0).out();
    assert_eq!(text.lines().count(), 2000, "{}", text.lines().last().unwrap_or_default());
}

#[test]
fn log_options_are_checked() {
    let s = Sandbox::new();
    for option in ["max-size=nonsense", "max-file=0", "no-such-option=1"] {
        let output = s.run(["run", "--rm", "--log-opt", option, "busybox", "true"]);
        assert_ne!(output.code, 0, "{option}");
    }
    s.fails(125, ["run", "--rm", "--log-driver", "no-such-driver", "busybox", "true"]).says("no-such-driver");
}

#[test]
fn log_driver_none_keeps_nothing() {
    let s = Sandbox::new();
    let name = s.name("c");
    assert_eq!(s.ok(["run", "--name", &name, "--log-driver", "none", "busybox", "echo", "seen"]), "seen");
    assert_ne!(s.run(["logs", &name]).code, 0);
}

#[test]
fn of_a_container_that_has_said_nothing_or_is_not_there() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "--name", &name, "busybox", "true"]);
    assert_eq!(s.ok(["logs", &name]), "");
    s.fails(1, ["logs", "no-such-container"]).says("No such container: no-such-container");
}

#[test]
fn a_reader_that_leaves_ends_the_command() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.run(["run", "--name", &name, "busybox", "seq", "100000"]).code(0);
    let output = s.with_shell("\"$@\" | head -n 1", ["logs", &name]).run().code(0);
    assert_eq!(output.out(), "1");
    assert!(!output.err().contains("panicked"));
    // Following, it leaves as soon as there is something to write.
    let talker = s.name("talker");
    s.ok(["run", "-d", "--name", &talker, "busybox", "sh", "-c", "while :; do echo x; sleep 0.01; done"]);
    eventually("it talks", || !s.ok(["logs", "--tail", "1", &talker]).is_empty());
    s.with_shell("\"$@\" | head -n 3", ["logs", "-f", &talker]).run().code(0);
}
