//! The life of a container as a table: which transitions exist, and what is true when the record
//! and the kernel disagree. Pure.
//!
//! ```text
//!            start             exec succeeded
//!  Created ─────────▶ Starting ───────────────▶ Running ──▶ Exited ──▶ (removed)
//!     ▲                │ ▲  │ failed             │ ▲         ▲  │
//!     └── or Exited ───┼─┼──┘                    │ └─ start ─┼──┘
//!               failed │ │ time is up            │           │ called off
//!                      └▶ Restarting ◀───────────┘           │
//!                             └──────────────────────────────┘
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use super::State;

/// Recorded and shown status, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never run.
    Created,
    /// init exists and is being prepared; recorded before it is let go.
    Starting,
    /// The command runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended; its shim waits to start it again.
    Restarting,
    /// Ended, or failed to start.
    Exited,
    /// Being removed.
    Removing,
}

impl Status {
    /// Docker's word for it (`State.Status`).
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Starting | Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Removing => "removing",
        }
    }

    /// A process should exist that will write down what comes next: the container's first, or the
    /// shim that waits to start it again. Docker says *running* of all of these.
    pub fn is_live(self) -> bool {
        matches!(self, Status::Starting | Status::Running | Status::Paused | Status::Restarting)
    }

    /// Whether the engine may record `next` after `self`.
    pub fn may_become(self, next: Status) -> bool {
        use Status::*;
        matches!(
            (self, next),
            (Created | Exited, Starting | Removing)
                | (Starting, Running | Exited | Created | Restarting)
                | (Running, Paused | Exited | Restarting)
                | (Paused, Running | Exited | Restarting)
                // To itself: a start that failed before it was recorded, and is tried again.
                | (Restarting, Starting | Exited | Restarting)
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the kernel knows about the processes named in a [`State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// The container's first process exists (same pid, start time and boot).
    pub init: bool,
    /// Its shim exists likewise; asked only when the first process does not.
    pub shim: bool,
}

/// The status that is true now: the kernel overrules the record. A container recorded as live
/// whose first process is gone has exited, whether or not its shim has come to write that down.
pub fn effective(state: &State, alive: Liveness) -> Status {
    if state.status.is_live() && !alive.init {
        // A start in progress has recorded its shim before init exists.
        if state.status == Status::Starting && state.init.is_none() && alive.shim {
            return Status::Starting;
        }
        // Between two runs there is no first process; the shim alone decides.
        if state.status == Status::Restarting && alive.shim {
            return Status::Restarting;
        }
        return Status::Exited;
    }
    state.status
}

/// The record needs healing: it says live, and nobody is left who would write down the end.
pub fn is_orphaned(state: &State, alive: Liveness) -> bool {
    state.status.is_live() && !alive.init && !alive.shim
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Status; 7] = [
        Status::Created,
        Status::Starting,
        Status::Running,
        Status::Paused,
        Status::Restarting,
        Status::Exited,
        Status::Removing,
    ];

    #[test]
    fn nothing_leaves_removing_and_running_is_reached_by_starting_or_unpausing_only() {
        for from in ALL {
            assert!(!Status::Removing.may_become(from));
            assert_eq!(from.may_become(Status::Running), matches!(from, Status::Starting | Status::Paused));
        }
    }

    #[test]
    fn a_container_waits_to_be_started_again_only_after_a_run() {
        for from in ALL {
            let ran = matches!(from, Status::Starting | Status::Running | Status::Paused | Status::Restarting);
            assert_eq!(from.may_become(Status::Restarting), ran, "{from:?}");
        }
        assert!(!Status::Restarting.may_become(Status::Running), "without a start");
    }

    #[test]
    fn the_kernel_overrules_the_record() {
        let mut state = State::created();
        for status in ALL {
            state.status = status;
            state.init = Some(crate::container::ProcessRef { pid: 1, start_time: 1 });
            let dead = effective(&state, Liveness { init: false, shim: false });
            assert_eq!(dead == Status::Exited, status.is_live() || status == Status::Exited);
            let ending = effective(&state, Liveness { init: false, shim: true });
            assert_eq!(ending, if status == Status::Restarting { status } else { dead });
            assert_eq!(effective(&state, Liveness { init: true, shim: false }), status);
            assert_eq!(is_orphaned(&state, Liveness { init: false, shim: false }), status.is_live());
            assert!(!is_orphaned(&state, Liveness { init: false, shim: true }));
        }
    }
}
