//! kill -9 at a chosen step: strace(1) sends SIGKILL at the entry of the nth call of a kind, before the
//! kernel has carried it out.

use std::fs;

use super::invocation::Running;
use super::{Output, Sandbox};

/// Runs a command line and kills every process of it (command line, shim, init, the programs they run)
/// at the entry of its own nth `call`. Returns false when no process made so many.
#[track_caller]
pub fn killed_at(sandbox: &Sandbox, call: &str, nth: u32, args: &[&str]) -> bool {
    let trace = sandbox.path("trace");
    let inject = format!("-e trace={call} -e inject={call}:signal=SIGKILL:when={nth}");
    let script = format!("exec strace -f -q -o {} {inject} \"$@\"", trace.display());
    drop(sandbox.with_shell(&script, args).run());
    was_killed(sandbox)
}

/// Runs a command line in which the nth `call` of each process fails with `error` (`ENOSPC`) and does
/// nothing; what came of it, and false when no process made so many.
#[track_caller]
pub fn failed_at(sandbox: &Sandbox, call: &str, nth: u32, error: &str, args: &[&str]) -> (Output, bool) {
    let trace = sandbox.path("trace");
    let inject = format!("-e trace={call} -e inject={call}:error={error}:when={nth}");
    let script = format!("exec strace -f -q -o {} {inject} \"$@\"", trace.display());
    let output = sandbox.with_shell(&script, args).run();
    (output, fs::read_to_string(trace).unwrap().contains("(INJECTED)"))
}

/// Kills a process that runs already, and nobody else, at its nth `call` from now on. To be finished when
/// the process is gone; then [`was_killed`] tells how it went.
#[track_caller]
pub fn kill_at(sandbox: &Sandbox, pid: i32, call: &str, nth: u32) -> Running {
    let trace = sandbox.path("trace");
    let inject = format!("-e trace={call} -e inject={call}:signal=SIGKILL:when={nth}");
    let script = format!("exec strace -p {pid} -o {} {inject} 2>&1", trace.display());
    let mut strace = sandbox.with_shell(&script, [] as [&str; 0]).start();
    strace.expect("attached");
    strace
}

/// Whether the last strace of this sandbox came to its kill.
#[track_caller]
pub fn was_killed(sandbox: &Sandbox) -> bool {
    fs::read_to_string(sandbox.path("trace")).unwrap().contains("killed by SIGKILL")
}

/// Goes through the calls, each given with a stride, until `round` says that there is no nth one any more;
/// how many kills that were.
pub fn each(calls: &[(&str, u32)], mut round: impl FnMut(&str, u32) -> bool) -> usize {
    let mut kills = 0;
    for (call, stride) in calls {
        let mut nth = 1;
        while round(call, nth) {
            kills += 1;
            nth += stride;
        }
    }
    kills
}
