//! Time since boot, in which the kernel says when processes began.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Length of a clock tick as `/proc` counts them: `USER_HZ` is 100 on every architecture we build for (time(7)).
pub const TICK: Duration = Duration::from_millis(10);

/// Time since boot, suspensions included (CLOCK_BOOTTIME, clock_gettime(2)).
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A number of clock ticks as time.
pub fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(TICK.as_millis() as u64))
}
