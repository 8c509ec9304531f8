//! What end-to-end tests stand on: a sandbox per test, commands with a time limit, a terminal, and
//! a look at what is left.
//!
//! `MYDOCKER_TEST_BIN` points the suite at another binary. `MYDOCKER_TEST_TARGET=docker` points it at
//! Docker itself, to prove that a test asks for the right thing; tests that have no counterpart
//! there say so with [`ours_only!`].

pub mod archive;
pub mod host;
pub mod injection;
pub mod invocation;
pub mod leftovers;
pub mod nameserver;
pub mod networks;
pub mod peers;
pub mod processes;
pub mod registry;
pub mod sandbox;
pub mod scripted;
pub mod shelf;
pub mod terminal;
pub mod traffic;

use std::time::{Duration, Instant};

pub use host::{Namespace, Neighbour};
pub use invocation::Output;
pub use sandbox::Sandbox;
pub use terminal::Terminal;

/// How long anything may take before it counts as hung. Generous, because a test machine is busy;
/// no test waits this long when all is well. `MYDOCKER_TEST_PATIENCE` changes it, in seconds.
pub fn patience() -> Duration {
    let chosen = std::env::var("MYDOCKER_TEST_PATIENCE").ok();
    Duration::from_secs(chosen.map_or(30, |seconds| seconds.parse().expect("MYDOCKER_TEST_PATIENCE is in seconds")))
}

/// Whether the suite runs against Docker.
pub fn against_docker() -> bool {
    std::env::var_os("MYDOCKER_TEST_TARGET").is_some_and(|target| target == "docker")
}

/// Ends a test that has no counterpart in Docker when the suite runs against Docker.
#[macro_export]
macro_rules! ours_only {
    ($reason:literal) => {
        if $crate::support::against_docker() {
            eprintln!("not comparable with docker: {}", $reason);
            return;
        }
    };
}

/// Waits for something that another process brings about and announces nowhere.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(patience(), condition), "waited {:?} in vain: {what}", patience());
}

/// Whether `condition` comes true within `limit`.
pub fn comes_true(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        // The one place that polls by time: files and processes of others send us no event.
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Whether `needle` occurs in `hay`.
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    position(hay, needle).is_some()
}

/// Where `needle` first occurs in `hay`.
pub fn position(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
