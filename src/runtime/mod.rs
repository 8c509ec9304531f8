//! From an OCI runtime `Spec` to a process that runs: the mechanism, with no idea of images, names
//! or state files.
//!
//! ```text
//! engine                          parent (shim, or the caller of exec)             init
//!   Spec + Launch ──plan::lower──▶ Plan
//!                                    spawn::prepare ── clone3, execveat ──────────▶ reads descriptor 3
//!      (records the pid)             Prepared::release ── InitPlan as JSON, EOF ──▶ walks the steps
//!      (makes the network)           Released::open_gate ── one byte ─────────────▶ goes on past AwaitNetwork
//!                                    ◀── Report::Step … (when timed)
//!                                    ◀── Report::Console + descriptor (with -t)
//!                                    ◀── Report::Moved + descriptor (exec)
//!                                    ◀── Report::Ready          just before execve
//!                                    ◀── end of file            execve succeeded (close-on-exec)
//!                                    ◀── Report::Failed         or this, and init exits
//! ```
//!
//! Every channel has one writer. End of file before a whole plan means that the parent died, and
//! init exits without having done anything. End of file before `Ready` or `Failed` means that init
//! was killed.

mod call;
pub mod capabilities;
pub mod copy_up;
mod device_nodes;
pub mod diagnose;
pub mod identity;
pub mod init;
pub mod overlay;
pub mod plan;
mod program;
mod rooted;
pub mod rootfs;
pub mod spawn;
pub mod spec;
pub mod user;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::sys::tty::Size;

/// Descriptor on which init finds its plan.
pub const PLAN_DESCRIPTOR: i32 = 3;
/// Descriptor on which init reports.
pub const REPORT_DESCRIPTOR: i32 = 4;
/// Descriptor of the entered container's first process, for exec.
pub const TARGET_DESCRIPTOR: i32 = 5;

/// Descriptor on which init waits until its network is ready; a start has no target, so the number is free.
pub const GATE_DESCRIPTOR: i32 = 5;

/// What a start needs and the OCI spec cannot say.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// Where the root file system comes from; `None` takes the spec's root path as it is.
    pub overlay: Option<Overlay>,
    /// `user[:group]`, looked up in the container's own files.
    pub user: String,
    /// Supplementary groups, likewise.
    pub groups: Vec<String>,
    /// cgroup v1 `tasks` files that the process joins itself.
    pub cgroup_tasks: Vec<PathBuf>,
    /// A cgroup namespace of its own, made after joining (v2).
    pub cgroup_namespace: bool,
    /// Initial window size of the terminal, when there is one.
    pub terminal_size: Option<Size>,
    /// Volumes to fill from the image before they cover it: (path inside, host directory).
    pub copy_up: Vec<(String, PathBuf)>,
    /// Symbolic links made once everything is mounted: path inside and text.
    pub links: Vec<(String, String)>,
    /// Mounts made read-only once everything below them is in place.
    pub seal: Vec<String>,
    /// Mount namespace of the container whose `/dev/shm` and `/dev/mqueue` are shared.
    pub ipc_peer: Option<PathBuf>,
    /// The parent makes the network meanwhile and opens the gate when it is ready.
    pub await_network: bool,
    /// Report each step with its time.
    pub timed: bool,
}

/// An overlay mount (overlayfs.rst). Paths are relative to `base`: a mount option list must fit a
/// page, and data roots can be long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Directory that the other paths are relative to.
    pub base: PathBuf,
    /// Layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// Writable layer.
    pub upper: PathBuf,
    /// Work directory, on the same file system as `upper`.
    pub work: PathBuf,
    /// Mount point.
    pub merged: PathBuf,
    /// No flushing to disk: the writable layer dies with the container.
    pub volatile: bool,
}

/// What init tells its parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// A step is done.
    Step(StepTime),
    /// The terminal's controlling side comes along as a descriptor.
    Console,
    /// A sibling goes on in init's place (exec); its handle comes along as a descriptor.
    Moved {
        /// Its process id as the parent sees it.
        pid: i32,
    },
    /// Everything is prepared; exec is next.
    Ready,
    /// The start failed; nothing follows.
    Failed(StartFailure),
}

/// When a step ran, on the monotonic clock shared by all processes (clock_gettime(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// What was done.
    pub step: String,
    /// Microseconds.
    pub began: u64,
    /// Microseconds.
    pub ended: u64,
}

/// A start that failed, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// The step that failed.
    pub step: String,
    /// System call and error number, when one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<(String, i32)>,
    /// What to tell the user.
    pub failure: Failure,
}

/// Now, in microseconds on the monotonic clock.
pub fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}
