//! What `/proc` tells of a process (proc(5)): for listings, which are out of date when they are read.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{clock, fd};

/// A process as `ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Effective user id.
    pub user: u32,
    /// Its controlling terminal's device number; 0 without one.
    pub terminal: u32,
    /// When it began, since boot.
    pub started: Duration,
    /// CPU time it has used.
    pub cpu: Duration,
    /// It has ended and waits to be reaped.
    pub zombie: bool,
    /// The kernel's short name of it.
    pub name: String,
    /// Its arguments joined by blanks; empty for kernel threads and zombies.
    pub command: String,
}

/// Reads what there is to say of `pid`; `None` when it does not exist (any more).
pub fn process(pid: i32) -> Option<Process> {
    let read = |file: &str| fd::read_small(Path::new(&format!("/proc/{pid}/{file}"))).ok();
    let status = read("status")?;
    let mut process = parse_stat(pid, &read("stat")?)?;
    process.user = effective_user(&String::from_utf8_lossy(&status))?;
    process.command = command(&read("cmdline")?);
    Some(process)
}

/// `/proc/<pid>/stat`; the name stands in parentheses and may hold anything.
fn parse_stat(pid: i32, stat: &[u8]) -> Option<Process> {
    let start = stat.iter().position(|&byte| byte == b'(')?;
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace().collect();
    // Counted from the third field on, the state.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        user: 0,
        // A signed number in the file; its bits are what counts.
        terminal: fields.get(4)?.parse::<i32>().ok()?.cast_unsigned(),
        started: clock::ticks(number(22)?),
        cpu: clock::ticks(number(14)?.saturating_add(number(15)?)),
        zombie: matches!(*fields.first()?, "Z" | "X"),
        name: String::from_utf8_lossy(stat.get(start + 1..end)?).into_owned(),
        command: String::new(),
    })
}

/// The second of the four ids of `Uid:` in `/proc/<pid>/status`.
fn effective_user(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Arguments end in a zero byte each; a process may have written anything in their place.
fn command(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    String::from_utf8_lossy(&bytes[..end]).replace('\0', " ")
}

/// Bytes that went through a network namespace's devices, loopback left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Into the namespace.
    pub received: u64,
    /// Out of it.
    pub sent: u64,
}

/// What the devices of `pid`'s network namespace have counted.
///
/// Opened for each reading: a descriptor that is held keeps the namespace, and with it the container's link and
/// address, alive after the container has ended.
///
/// # Errors
/// The process is gone.
pub fn traffic(pid: i32) -> io::Result<Traffic> {
    let text = fd::read_small(Path::new(&format!("/proc/{pid}/net/dev")))?;
    Ok(parse_devices(&String::from_utf8_lossy(&text)))
}

/// `/proc/net/dev`: two lines of headings, then `name: received-bytes packets … sent-bytes …`, eight columns each way.
fn parse_devices(text: &str) -> Traffic {
    let mut traffic = Traffic::default();
    for line in text.lines().skip(2) {
        // The last colon: a device's name may hold one.
        let Some((name, numbers)) = line.rsplit_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let mut numbers = numbers.split_ascii_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        traffic.received = traffic.received.saturating_add(numbers.next().unwrap_or(0));
        traffic.sent = traffic.sent.saturating_add(numbers.nth(7).unwrap_or(0));
    }
    traffic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = b"42 (a) (b 1) S 7 42 42 34817 42 4194560 100 0 0 0 150 50 9 9 20 0 1 0 12345 1000 20 1844";
        let process = parse_stat(42, stat).unwrap();
        assert_eq!((process.name.as_str(), process.parent, process.terminal), ("a) (b 1", 7, 34817));
        assert_eq!((process.started, process.cpu), (Duration::from_millis(123_450), Duration::from_secs(2)));
        assert!(!process.zombie && parse_stat(1, b"1 (x) Z 0 1").is_none());
        assert!(parse_stat(1, b"").is_none() && parse_stat(1, b")(").is_none());
    }

    #[test]
    fn arguments_are_joined_and_need_not_be_text() {
        assert_eq!(command(b"sh\0-c\0a b\0"), "sh -c a b");
        assert_eq!(command(b"title\0\0\0"), "title");
        assert_eq!(command(b"\xff\x1b[2J"), "\u{fffd}\u{1b}[2J");
        assert_eq!(command(b""), "");
    }

    #[test]
    fn this_process_is_found() {
        let pid = std::process::id() as i32;
        let process = super::process(pid).unwrap();
        assert_eq!(process.user, rustix::process::geteuid().as_raw());
        assert_eq!(process.parent, rustix::process::getppid().unwrap().as_raw_nonzero().get());
        assert!(process.started < clock::since_boot() && !process.command.is_empty() && !process.zombie);
        assert_eq!(super::process(i32::MAX), None);
    }

    #[test]
    fn loopback_is_left_out_of_the_traffic() {
        let text = "Inter-|   Receive      |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n\
            \x20   lo:  111       1    0    0    0     0          0         0      111       1    0    0    0     0 0 0\n\
            \x20 eth0: 2000       2    0    0    0     0          0         0      300       3    0    0    0     0 0 0\n\
            eth1:0:   10       2    0    0    0     0          0         0        4       3    0    0    0     0 0 0\n";
        assert_eq!(parse_devices(text), Traffic { received: 2010, sent: 304 });
        assert_eq!(parse_devices(""), Traffic::default());
        assert!(traffic(std::process::id() as i32).is_ok());
        assert!(traffic(i32::MAX).is_err());
    }
}
