//! Standard streams: binary, large, closed early, never read.

use std::time::Duration;

use crate::support::{Sandbox, contains, eventually};

/// Every byte, many times, in a pattern that no shift keeps.
fn binary(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[test]
fn stdin_passes_binary_data_and_eof() {
    let s = Sandbox::new();
    for size in [0, 1, 4096, 3 << 20] {
        let input = binary(size);
        let output = s.command(["run", "-i", "--rm", "busybox", "cat"]).stdin(input.clone()).run().code(0);
        assert!(output.stdout == input, "{} bytes of {size} came back", output.stdout.len());
    }
}

#[test]
fn without_i_stdin_is_closed() {
    let s = Sandbox::new();
    let output = s.command(["run", "--rm", "busybox", "sh", "-c", "cat; echo end"]).stdin("not for it\n").run().code(0);
    assert_eq!(output.out(), "end");
}

#[test]
fn stdin_that_is_not_read_does_not_hold_anyone() {
    let s = Sandbox::new();
    let output = s.command(["run", "-i", "--rm", "busybox", "true"]).stdin(vec![b'x'; 4 << 20]).run();
    output.code(0);
}

#[test]
fn stdin_left_open_does_not_outlive_the_command() {
    let s = Sandbox::new();
    let mut running = s.command(["run", "-i", "--rm", "busybox", "sh", "-c", "read line; echo got $line"]).start();
    running.send(b"this\n");
    running.expect("got this");
    // Our end stays open: the CLI must leave all the same.
    running.finish().code(0);
}

#[test]
fn a_conversation_is_not_buffered() {
    let s = Sandbox::new();
    let script = "while read line; do echo \"<$line>\"; done; echo end";
    let mut running = s.command(["run", "-i", "--rm", "busybox", "sh", "-c", script]).start();
    for word in ["one", "two", "three"] {
        running.send(format!("{word}\n").as_bytes());
        running.expect(&format!("<{word}>"));
    }
    running.close_stdin();
    running.expect("end");
    running.finish().code(0);
}

#[test]
fn large_output_on_both_streams_does_not_deadlock() {
    let s = Sandbox::new();
    let script = "head -c 5000000 /dev/zero & head -c 5000000 /dev/zero >&2; wait";
    let output = s.run(["run", "--rm", "busybox", "sh", "-c", script]).code(0);
    assert_eq!((output.stdout.len(), output.stderr.len()), (5_000_000, 5_000_000));
}

#[test]
fn output_just_before_the_end_is_complete() {
    let s = Sandbox::new();
    for _ in 0..5 {
        let output = s.run(["run", "--rm", "busybox", "sh", "-c", "seq 20000; echo last"]).code(0);
        assert!(output.out().ends_with("20000\nlast"), "{} bytes", output.stdout.len());
    }
}

#[test]
fn a_reader_that_vanishes_does_not_hold_the_container() {
    let s = Sandbox::new();
    let name = s.name("vanishes");
    let script = "seq 200000; echo done >&2; echo > /finished; while :; do sleep 0.05; done";
    let mut running = s.command(["run", "--name", &name, "busybox", "sh", "-c", script]).start();
    running.expect("1\n");
    running.close_stdout();
    // The container goes on to its end of the work and its log is whole.
    eventually("the command finishes its work", || s.run(["exec", &name, "test", "-e", "/finished"]).code == 0);
    eventually("the log is whole", || contains(&s.run(["logs", "--tail", "3", &name]).stdout, b"\n200000\n"));
    assert!(s.is_running(&name));
    s.ok(["rm", "-f", &name]);
    drop(running);
}

#[test]
fn a_slow_reader_loses_nothing() {
    let s = Sandbox::new();
    let mut running = s.command(["run", "--rm", "busybox", "sh", "-c", "seq 300000"]).start();
    // Nothing is read until the pipe must be full.
    std::thread::sleep(Duration::from_millis(300));
    running.expect("\n299999\n300000\n");
    running.finish().code(0);
}

#[test]
fn closed_standard_streams_of_the_caller_are_tolerated() {
    let s = Sandbox::new();
    let file = s.host_dir("out");
    let volume = format!("{file}:/out");
    let inner = [
        "run",
        "--rm",
        "-v",
        &volume,
        "busybox",
        "sh",
        "-c",
        "echo text; echo text >&2; ls -l /proc/self/fd > /out/fds",
    ];
    let output = s.with_shell("exec \"$@\" <&- >&- 2>&-", inner).run();
    output.code(0);
    let fds = std::fs::read_to_string(s.path("out/fds")).unwrap();
    assert!(fds.contains("0 -> "), "{fds}");
}

#[test]
fn the_callers_files_cannot_be_reopened_inside() {
    let s = Sandbox::new();
    // A file as standard output: the container gets a pipe, not the file.
    let inner = ["run", "--rm", "busybox", "sh", "-c", "readlink /proc/self/fd/1; readlink /proc/self/fd/2"];
    let file = s.host("stdout");
    s.with_shell(&format!("exec \"$@\" >{file} 2>&1"), inner).run().code(0);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() == 2 && text.lines().all(|line| line.starts_with("pipe:")), "{text}");
}
