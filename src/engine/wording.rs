//! Docker's phrases for times and states. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::container::status::Status;

/// Time from `then` to `now`; nothing when the clock went backwards.
pub fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// A duration in one unit, rounded as Docker does (go-units `HumanDuration`): `About a minute`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Hours alone are rounded to the nearest.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// A duration in full, as Go prints it (`time.Duration.String`): `1m30s`, `1.5s`, `100ms`.
pub fn exact_duration(duration: Duration) -> String {
    let fraction = |number: u128, unit: u128, name: &str| {
        let digits = format!("{:09}", number % unit * (1_000_000_000 / unit));
        let digits = digits.trim_end_matches('0');
        let point = if digits.is_empty() { "" } else { "." };
        format!("{}{point}{digits}{name}", number / unit)
    };
    let nanoseconds = duration.as_nanos();
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1000 => format!("{nanoseconds}ns"),
        1000..1_000_000 => fraction(nanoseconds, 1000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanoseconds, 1_000_000, "ms"),
        _ => {
            let seconds = fraction(nanoseconds % 60_000_000_000, 1_000_000_000, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// The `STATUS` column.
pub fn status(
    status: Status,
    exit_code: i32,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    now: Timestamp,
) -> String {
    let ago = |then: Option<Timestamp>| then.map(|then| human_duration(since(then, now)));
    let up = || ago(started).unwrap_or_else(|| "Less than a second".to_owned());
    match status {
        Status::Created => "Created".to_owned(),
        Status::Starting | Status::Running => format!("Up {}", up()),
        Status::Paused => format!("Up {} (Paused)", up()),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Exited | Status::Restarting => {
            let word = if status == Status::Exited { "Exited" } else { "Restarting" };
            match ago(finished) {
                Some(ago) => format!("{word} ({exit_code}) {ago} ago"),
                None => format!("{word} ({exit_code})"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (3600 + 1799, "About an hour"),
            (3600 + 1800, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (59 * 86400, "8 weeks"),
            (60 * 86400, "2 months"),
            (729 * 86400, "24 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
        assert_eq!(human_duration(Duration::from_millis(999)), "Less than a second");
    }

    #[test]
    fn exact_durations_are_gos() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (100_000_000, "100ms"),
            (3_000_000_000, "3s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_001, "1m0.000000001s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(exact_duration(Duration::from_nanos(nanoseconds)), text, "{nanoseconds}");
        }
    }

    #[test]
    fn states_are_dockers() {
        let now: Timestamp = "2024-01-01T12:00:00Z".parse().unwrap();
        let then = |seconds: i64| Some(now - jiff::SignedDuration::from_secs(seconds));
        assert_eq!(status(Status::Created, 0, None, None, now), "Created");
        assert_eq!(status(Status::Running, 0, then(3), None, now), "Up 3 seconds");
        assert_eq!(status(Status::Starting, 0, None, None, now), "Up Less than a second");
        assert_eq!(status(Status::Paused, 0, then(70), None, now), "Up About a minute (Paused)");
        assert_eq!(status(Status::Exited, 137, then(9000), then(7200), now), "Exited (137) 2 hours ago");
        assert_eq!(status(Status::Exited, 0, None, None, now), "Exited (0)");
        assert_eq!(status(Status::Restarting, 1, then(9), then(3), now), "Restarting (1) 3 seconds ago");
        assert_eq!(status(Status::Running, 0, then(-60), None, now), "Up Less than a second");
    }
}
