//! Names that tell which process made a file, so that what a dead one left is known.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::process::start_time;

/// A name that tells who it belongs to; unique within the machine.
pub(super) fn own_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let pid = std::process::id();
    let start = start_time(pid.cast_signed()).unwrap_or_default();
    format!("{pid}-{start}-{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Whether the maker that an [`own_name`] tells is no more.
pub(super) fn is_dead(maker: &str) -> bool {
    let mut parts = maker.split('-').map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(pid), Some(start)) => i32::try_from(pid).ok().and_then(start_time) != Some(start),
        _ => true,
    }
}
