//! A host's network for one test: a network namespace that the test's thread, and whatever it starts,
//! take for the machine's.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Gives the calling thread a network of its own, with nothing but a loopback device that is up.
/// Threads and processes that it starts from now on have the same.
#[track_caller]
pub fn enter_private() {
    unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
    ip(&["link", "set", "lo", "up"]);
}

/// Runs `ip` (iproute2) in the present namespace; what it prints.
#[track_caller]
pub fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().expect("run ip");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
