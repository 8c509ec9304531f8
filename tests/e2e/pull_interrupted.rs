//! Pulls that are interrupted, and pulls that wait for others that are.

use std::fs;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use crate::ours_only;
use crate::support::archive::Layer;
use crate::support::scripted::Scripted;
use crate::support::shelf::Shelf;
use crate::support::{Sandbox, eventually};

/// A registry of one image, whose large layer stops in its middle until the sender is gone; then it is whole.
fn stopping() -> (Scripted, mpsc::Sender<()>) {
    let mut shelf = Shelf::default();
    let noise = super::registry_faults::noise(2 << 20);
    shelf.image("latest", &[Layer::busybox().bytes(), Layer::default().file("noise", 0o644, noise).bytes()]);
    let (sender, receiver) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(Some(receiver)));
    let server = Scripted::start(move |request, answer| match shelf.asked(request) {
        Some(blob) if blob.len() > 2 << 20 => {
            let Some(gate) = gate.lock().unwrap().take() else { return shelf.serve(request, answer) };
            answer.raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", blob.len()).as_bytes());
            answer.raw(&blob[..blob.len() / 2]);
            let _ = gate.recv();
            answer.raw(&blob[blob.len() / 2..]);
        }
        _ => shelf.serve(request, answer),
    });
    (server, sender)
}

fn temporaries(s: &Sandbox) -> usize {
    let entries = fs::read_dir(s.root().join("overlay2/layers")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-")).count()
}

#[test]
fn an_interrupted_pull_leaves_the_terminal_in_order_and_nothing_in_the_way() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    let (server, gate) = stopping();
    let name = format!("{}/box", server.address());
    let mut terminal = s.terminal(["pull", &name]);
    terminal.expect(": Pull complete");
    terminal.expect(": Downloading");
    terminal.send(b"\x03");
    let (code, screen) = terminal.finish();
    assert_eq!(code, 130, "{screen}");
    terminal.assert_restored();
    assert!(!screen.contains("\u{1b}[?25l") || screen.ends_with("\u{1b}[?25h"), "the cursor is hidden: {screen:?}");
    assert!(!screen.contains("\u{1b}[2A"), "two layers take two lines of 80 columns: {screen:?}");
    assert!(screen.ends_with('\n'), "the shell's prompt begins a line of its own: {screen:?}");
    drop(gate);
    s.fails(1, ["image", "inspect", &name]);
    // What was whole is not fetched again, what was not leaves nothing.
    let again = s.ok(["pull", &name]);
    assert_eq!(
        (again.matches(": Already exists").count(), again.matches(": Pull complete").count()),
        (1, 1),
        "{again}"
    );
    assert_eq!(temporaries(&s), 0);
    assert_eq!(
        s.ok(["run", "--rm", "--network", "none", &name, "sh", "-c", "cat /noise | wc -c"]),
        (2 << 20).to_string()
    );
}

#[test]
fn an_interrupted_pull_without_a_terminal_ends_by_the_signal() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    for signal in [Signal::INT, Signal::TERM] {
        let (server, _gate) = stopping();
        let mut pull = s.command(["pull", &format!("{}/box", server.address())]).start();
        pull.expect(": Pulling fs layer");
        eventually("the large layer is on its way", || temporaries(&s) > 0);
        pull.signal(signal);
        assert_eq!(pull.finish().code, 128 + signal.as_raw());
        s.ok(["image", "prune", "-f"]);
        assert_eq!(temporaries(&s), 0);
    }
}

#[test]
fn whoever_waits_for_a_pull_that_dies_does_its_work() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    let (server, gate) = stopping();
    let name = format!("{}/box", server.address());
    let mut first = s.terminal(["pull", &name]);
    first.expect(": Downloading");
    let mut second = s.terminal(["pull", &name]);
    second.expect(": Waiting for another process that pulls it");
    first.signal(Signal::KILL);
    assert_eq!(first.finish().0, 137);
    second.expect("Status: Downloaded newer image for");
    let (code, screen) = second.finish();
    assert_eq!(code, 0, "{screen}");
    second.assert_restored();
    drop(gate);
}

#[test]
fn two_pulls_at_once_on_terminals_fetch_each_layer_once() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    let (server, gate) = stopping();
    let name = format!("{}/box", server.address());
    let mut first = s.terminal(["pull", &name]);
    first.expect(": Downloading");
    let mut second = s.terminal(["pull", &name]);
    second.expect(": Waiting for another process that pulls it");
    drop(gate);
    for terminal in [&mut first, &mut second] {
        terminal.expect("Status: ");
        let (code, screen) = terminal.finish();
        assert_eq!(code, 0, "{screen}");
        terminal.assert_restored();
    }
    assert!(second.screen().contains(": Already exists"), "{}", second.screen());
    let layers = server.requests().iter().filter(|request| request.target.contains("/blobs/")).count();
    assert_eq!(layers, 4, "two layers once, the config for each");
}

#[test]
fn a_pull_that_fails_on_a_terminal_says_why_on_a_line_of_its_own() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    let mut shelf = Shelf::default();
    let noise = super::registry_faults::noise(1 << 20);
    shelf.image("latest", &[Layer::busybox().bytes(), Layer::default().file("noise", 0o644, noise).bytes()]);
    let server = Scripted::start(move |request, answer| match shelf.asked(request) {
        Some(blob) if (1 << 20..3 << 19).contains(&blob.len()) => {
            let mut lie = blob.to_vec();
            lie[700_000] ^= 1;
            answer.send("200 OK", &[], &lie);
        }
        _ => shelf.serve(request, answer),
    });
    let mut terminal = s.terminal(["pull", &format!("{}/box", server.address())]);
    let (code, screen) = terminal.finish();
    assert_eq!(code, 1, "{screen}");
    terminal.assert_restored();
    let (before, _) = screen.split_once("mydocker: ").expect("an error");
    let line = before.rsplit(['\r', '\n']).next().unwrap().replace("\u{1b}[2K", "").replace("\u{1b}[1A", "");
    // A bar that stays fills its line, and what comes next goes to the following one.
    assert!(matches!(line.chars().count(), 0 | 80), "{line:?} of {screen:?}");
}
