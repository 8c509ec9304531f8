//! The instruments themselves, on programs whose behaviour is known.

use std::process::Command;

use crate::support::archive::Layer;
use crate::support::invocation::Invocation;
use crate::support::{Output, Terminal};

fn shell(script: &str) -> Invocation {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Invocation::new(command)
}

#[test]
fn streams_and_codes_are_told_apart() {
    let output: Output = shell("cat; echo err >&2; exit 3").stdin("in\0put").run();
    assert_eq!((output.code, output.stdout.as_slice(), output.err().as_str()), (3, &b"in\0put"[..], "err"));
    assert_eq!(shell("kill -9 $$").run().code, 137);
}

#[test]
fn large_streams_both_ways_do_not_deadlock() {
    let input = vec![b'x'; 3 << 20];
    assert_eq!(shell("tee /dev/stderr").stdin(input.clone()).run().stdout, input);
}

#[test]
fn a_conversation_over_pipes() {
    let mut running = shell("while read line; do echo \"<$line>\"; done").start();
    running.send(b"a\n");
    running.expect("<a>");
    running.send(b"b\n");
    running.expect("<b>");
    running.close_stdin();
    running.finish().code(0);
}

#[test]
fn a_terminal_has_a_size_and_delivers_signals() {
    let mut terminal = Terminal::start(
        shell("stty size; tty; trap 'echo int; exit 4' INT; echo ready; while :; do sleep 0.05; done"),
        30,
        100,
    );
    terminal.expect("30 100");
    terminal.expect("/dev/pts/");
    terminal.expect("ready");
    assert!(!terminal.is_raw());
    terminal.send([3]);
    assert_eq!(terminal.finish().0, 4);
    terminal.assert_restored();
}

#[test]
#[should_panic(expected = "was left changed")]
fn a_terminal_left_raw_is_noticed() {
    let mut terminal = Terminal::start(shell("stty raw -echo; echo done"), 24, 80);
    terminal.finish();
    assert!(terminal.is_raw());
    terminal.assert_restored();
}

#[test]
fn layers_are_readable_tars() {
    let bytes = Layer::default().dir("a/", 0o755).file("a/b", 0o644, "x").symlink("c", "a/b").bytes();
    let mut tar = tar::Archive::new(bytes.as_slice());
    let names: Vec<_> = tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names.len(), 3);
}
