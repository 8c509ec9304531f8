//! Flushing what came into the store, without anybody waiting for it.

use rustix::fs::Mode;

use crate::engine::Engine;
use crate::image::Store;
use crate::sys::fd;
use crate::sys::process::{self, Fork};

impl Engine {
    /// Has new layers flushed by a process of its own, which lives as long as the disk takes. Should it die, or
    /// the machine, the marks of these layers stay, and whoever uses one next looks (`image::settle`).
    pub(in crate::engine) fn settle_later(&self) {
        let store = Store::open(&self.layout);
        if !store.is_unsettled() {
            return;
        }
        match process::fork_orphan() {
            Ok(Fork::Parent) => {}
            Ok(Fork::Child) => {
                process::reset_signals();
                // Nobody's terminal, nobody's pipe: who reads our caller's output must see its end.
                let _ = rustix::process::setsid();
                fd::close_all_but(&[]);
                fd::ensure_standard_streams();
                let _ = rustix::process::chdir("/");
                rustix::process::umask(Mode::from_raw_mode(0o022));
                process::set_title("mydocker: flush layers");
                let _ = store.settle();
                process::exit_now(0)
            }
            Err(error) => tracing::debug!("flush layers later: {error}"),
        }
    }
}
