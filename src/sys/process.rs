//! Processes: identity, creation, signals.

use std::fs;
use std::sync::OnceLock;

/// This boot's identity: process ids of another boot mean nothing. Empty when the kernel hides it.
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
    })
}

/// When a process began, in clock ticks since boot (field 22 of `/proc/<pid>/stat`, proc(5)). `None`
/// when there is none, or only a zombie of it.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in parentheses and may contain both spaces and parentheses.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
