//! What a shim and its clients say to each other: one JSON message a frame.
//!
//! ```text
//! client ──Attach{…} + its descriptors──▶ shim       (run and start: inherited by fork instead)
//!        ◀──────────── Attached ─────────
//!        ────────────── Ready ──────────▶             (its terminal is raw: bytes may flow)
//!        ──Wait{run}, WaitNext──▶                     (stop, wait, rm: no streams)
//!        ──Signal(n), Resize(size)──▶
//!        ──LookAgain──▶                               (stop, rm: no run is to come)
//!        ──NetworksChanged──▶                         (network connect, disconnect)
//!        ◀── Steps, Warning, then Started or Failed            (to the client that started it)
//!        ◀── Detached                                 (detach keys were typed)
//!        ◀── OutputFailed{errno}                      (its terminal hung up, its pipe has no reader)
//!        ◀── Exited{code}                             (state recorded, all output delivered)
//! ```
//!
//! End of file from the client: it is gone; the container goes on. End of file from the shim
//! without `Exited`: the shim was killed; the caller looks at the kernel.

use serde::{Deserialize, Serialize};

use crate::container::{ProcessRef, Streams};
use crate::runtime::{StartFailure, StepTime};
use crate::sys::tty::Size;

/// From a client to the shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Join these streams; their descriptors come along in the order input, output, error.
    Attach {
        /// Which.
        streams: Streams,
        /// Bytes that detach; empty for never.
        detach_keys: Vec<u8>,
        /// The client's window.
        size: Option<Size>,
        /// The client, when its standard input is its controlling terminal.
        owner: Option<ProcessRef>,
    },
    /// The client, which was told that it is attached, has changed its terminal to raw mode. Before, keys would be
    /// its terminal's: it takes a ctrl-q for itself.
    Ready,
    /// Only tell me when this run ends. A run that has just ended is told at once; for an earlier one
    /// the connection is closed.
    Wait {
        /// The first process of the run.
        run: ProcessRef,
    },
    /// Only tell me when the run that is to come ends, or is called off.
    WaitNext,
    /// The record has changed: whether the container is still to be started again stands there.
    LookAgain,
    /// The container's networks have changed: which they are stands in the record.
    NetworksChanged,
    /// Pass a signal on to the first process.
    Signal(i32),
    /// The client's window has another size.
    Resize(Size),
}

/// From the shim to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// The timed steps of the start.
    Steps(Vec<(String, StepTime)>),
    /// Something the user should know of the start; not an error.
    Warning(String),
    /// The command runs.
    Started {
        /// Its process id on the host.
        pid: i32,
    },
    /// The start failed; the record says so already.
    Failed(StartFailure),
    /// The streams will be joined when the client is ready; the mode of its terminal is remembered.
    Attached,
    /// The client's detach keys were typed; its descriptors are let go.
    Detached,
    /// The client's output cannot be written any more; its descriptors are let go.
    OutputFailed {
        /// Of the write.
        errno: i32,
    },
    /// The container ended, this is recorded, and all output has been delivered.
    Exited {
        /// Its code, 128+n by signal.
        code: i32,
    },
}
