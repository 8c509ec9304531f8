//! Health checks: what is asked for, what is known, and what a result makes of it. Docker's rules.
//!
//! What is known stands in `health.json` beside the other documents. It has one writer, the shim of the run
//! that it is about, and is replaced as a whole, so neither it nor its readers need the container's lock. No
//! file, or one of an earlier run, is a container that has not been checked yet: a start writes nothing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ContainerId, ProcessRef};
use crate::layout::Layout;
use crate::store::{self, Durability};

/// Bytes of a check's output that are kept, as with Docker.
pub const MAX_OUTPUT: usize = 4096;
/// Results that are kept, as with Docker.
const MAX_LOG: usize = 5;
/// The shortest duration that may be asked for.
const SHORTEST: i64 = 1_000_000;

/// What is asked for. Durations are in nanoseconds, as in image configs and Docker's API; a number that is 0
/// takes the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// `NONE`, or `CMD` and words, or `CMD-SHELL` and a line for the shell; empty when only numbers were given.
    pub test: Vec<String>,
    /// From the end of a check to the next.
    pub interval: i64,
    /// How long a check may take.
    pub timeout: i64,
    /// How long from its start failures of a container that has not been healthy do not count.
    pub start_period: i64,
    /// The interval in that time.
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    pub retries: i64,
}

impl HealthCheck {
    /// The check that does away with the image's.
    pub fn none() -> HealthCheck {
        HealthCheck { test: vec!["NONE".into()], ..HealthCheck::default() }
    }

    /// The user's wishes over those of the image: field by field, where the user has one.
    pub fn over(self, image: HealthCheck) -> HealthCheck {
        let given = |own: i64, other: i64| if own == 0 { other } else { own };
        HealthCheck {
            test: if self.test.is_empty() { image.test } else { self.test },
            interval: given(self.interval, image.interval),
            timeout: given(self.timeout, image.timeout),
            start_period: given(self.start_period, image.start_period),
            start_interval: given(self.start_interval, image.start_interval),
            retries: given(self.retries, image.retries),
        }
    }

    /// What is wrong with the numbers, in the words of Docker's daemon.
    pub fn fault(&self) -> Option<String> {
        let durations = [
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
        ];
        let short = durations.into_iter().find(|(_, value)| *value != 0 && *value < SHORTEST);
        match short {
            Some((name, _)) => Some(format!("{name} in Healthcheck cannot be less than 1ms")),
            None if self.retries < 0 => Some("Retries in Healthcheck cannot be negative".into()),
            None => None,
        }
    }

    /// The command that checks, `shell` being what shell forms are given to; `None` when nothing is checked.
    pub fn command(&self, shell: &[String]) -> Option<Vec<String>> {
        let (kind, words) = self.test.split_first()?;
        match kind.as_str() {
            "CMD" => Some(words.to_vec()),
            "CMD-SHELL" if shell.is_empty() => Some([&["/bin/sh".into(), "-c".into()], words].concat()),
            "CMD-SHELL" => Some([shell, words].concat()),
            _ => None,
        }
    }

    /// A kind of test that is none.
    pub fn unknown_kind(&self) -> Option<&str> {
        self.test.first().map(String::as_str).filter(|kind| !matches!(*kind, "NONE" | "CMD" | "CMD-SHELL"))
    }

    /// How long a check may take.
    pub fn timeout(&self) -> Duration {
        given(self.timeout).unwrap_or(Duration::from_secs(30))
    }

    /// From the end of a check, or the start, to the next check.
    pub fn pause(&self, status: HealthStatus, since_start: Duration) -> Duration {
        if status == HealthStatus::Starting && since_start < self.start_period() {
            given(self.start_interval).unwrap_or(Duration::from_secs(5))
        } else {
            given(self.interval).unwrap_or(Duration::from_secs(30))
        }
    }

    fn start_period(&self) -> Duration {
        given(self.start_period).unwrap_or_default()
    }

    fn retries(&self) -> u32 {
        if self.retries <= 0 { 3 } else { u32::try_from(self.retries).unwrap_or(u32::MAX) }
    }
}

/// A duration that was given. Nonsense in an image, which nobody has refused, is as good as nothing.
fn given(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().filter(|value| *value > 0).map(|value| {
        // Without this an image's interval of a nanosecond would keep a processor busy.
        Duration::from_nanos(value.max(SHORTEST as u64))
    })
}

/// Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not yet known.
    Starting,
    /// The last check succeeded, or not enough of them have failed since one did.
    Healthy,
    /// Too many checks have failed, or there is nothing that runs.
    Unhealthy,
    /// Nobody checks: the container's shim was killed. Never recorded; Docker has no such case.
    #[serde(rename = "none")]
    Unknown,
}

impl HealthStatus {
    /// Docker's word; that of a container without a health check when nobody checks.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
            HealthStatus::Unknown => "none",
        }
    }

    /// As listings show it behind the time that a container is up.
    pub fn in_words(self) -> &'static str {
        match self {
            HealthStatus::Starting => "health: starting",
            HealthStatus::Unknown => "health: unknown",
            other => other.as_str(),
        }
    }
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended or was given up.
    pub end: Timestamp,
    /// The command's own, 128+n by signal; -1 when it did not start or did not end in time.
    pub exit_code: i32,
    /// The beginning of what it wrote, or why there is nothing.
    pub output: String,
}

/// What is known of the health of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The run's first process.
    pub run: ProcessRef,
    /// What follows from the results.
    pub status: HealthStatus,
    /// Failures since the last success that count.
    pub failing_streak: u32,
    /// The last results, oldest first.
    pub log: Vec<HealthResult>,
}

impl HealthReport {
    /// Of a run that has not been checked yet.
    pub fn new(run: ProcessRef) -> HealthReport {
        HealthReport { run, status: HealthStatus::Starting, failing_streak: 0, log: Vec::new() }
    }

    /// Takes in the result of a check that began `since_start` after the run. True when it changes the status.
    pub fn note(&mut self, check: &HealthCheck, result: HealthResult, since_start: Duration) -> bool {
        let before = self.status;
        if result.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if self.status != HealthStatus::Starting || since_start >= check.start_period() {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries() {
                self.status = HealthStatus::Unhealthy;
            }
        }
        if self.log.len() >= MAX_LOG {
            self.log.drain(..=self.log.len() - MAX_LOG);
        }
        self.log.push(result);
        before != self.status
    }

    /// Writes it, for the shim of its run alone.
    ///
    /// # Errors
    /// A full disk; a container that was removed.
    pub fn save(&self, layout: &Layout, id: &ContainerId) -> Result<()> {
        store::write_json(&path(layout, id), self, Durability::ProcessCrash)
    }

    /// What was last written. A file that is damaged, or cannot be read, is as good as none: the next check
    /// writes it anew.
    pub fn load(layout: &Layout, id: &ContainerId) -> Option<HealthReport> {
        store::read_json(&path(layout, id)).unwrap_or_else(|error| {
            tracing::debug!("{error:#}");
            None
        })
    }
}

fn path(layout: &Layout, id: &ContainerId) -> PathBuf {
    layout.container(id).join("health.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn result(exit_code: i32) -> HealthResult {
        HealthResult { start: Timestamp::UNIX_EPOCH, end: Timestamp::UNIX_EPOCH, exit_code, output: String::new() }
    }

    fn fresh() -> HealthReport {
        HealthReport::new(ProcessRef { pid: 1, start_time: 1 })
    }

    #[test]
    fn the_user_overrides_single_fields_of_the_image() {
        let image = HealthCheck { test: words(&["CMD", "a"]), interval: SECOND, retries: 5, ..HealthCheck::default() };
        let user = HealthCheck { timeout: 2 * SECOND, retries: 1, ..HealthCheck::default() };
        let merged = user.over(image.clone());
        assert_eq!(merged, HealthCheck { timeout: 2 * SECOND, retries: 1, ..image.clone() });
        assert_eq!(HealthCheck::none().over(image).command(&[]), None);
    }

    #[test]
    fn commands_are_words_or_for_the_shell() {
        let command = |test: &[&str], shell: &[&str]| {
            HealthCheck { test: words(test), ..HealthCheck::default() }.command(&words(shell))
        };
        assert_eq!(command(&["CMD", "a", "b c"], &["x"]), Some(words(&["a", "b c"])));
        assert_eq!(command(&["CMD-SHELL", "a; b"], &[]), Some(words(&["/bin/sh", "-c", "a; b"])));
        assert_eq!(command(&["CMD-SHELL", "a; b"], &["/bin/ash", "-ec"]), Some(words(&["/bin/ash", "-ec", "a; b"])));
        for test in [&[][..], &["NONE"], &["NONE", "a"], &["cmd", "a"], &["a"]] {
            assert_eq!(command(test, &[]), None, "{test:?}");
        }
    }

    #[test]
    fn numbers_are_checked_and_have_defaults() {
        assert_eq!(HealthCheck::default().fault(), None);
        assert_eq!(HealthCheck { interval: SHORTEST, ..HealthCheck::default() }.fault(), None);
        for (check, text) in [
            (HealthCheck { interval: 1, ..HealthCheck::default() }, "Interval in Healthcheck cannot be less than 1ms"),
            (HealthCheck { timeout: -1, ..HealthCheck::default() }, "Timeout in Healthcheck cannot be less than 1ms"),
            (HealthCheck { retries: -1, ..HealthCheck::default() }, "Retries in Healthcheck cannot be negative"),
        ] {
            assert_eq!(check.fault().as_deref(), Some(text));
        }
        let nonsense = HealthCheck { interval: 1, timeout: i64::MIN, retries: i64::MAX, ..HealthCheck::default() };
        assert_eq!(nonsense.pause(HealthStatus::Healthy, Duration::ZERO), Duration::from_millis(1));
        assert_eq!((nonsense.timeout(), nonsense.retries()), (Duration::from_secs(30), u32::MAX));
    }

    #[test]
    fn the_start_period_has_an_interval_of_its_own() {
        let check = HealthCheck { interval: 7 * SECOND, start_period: 60 * SECOND, ..HealthCheck::default() };
        let early = Duration::from_secs(59);
        assert_eq!(check.pause(HealthStatus::Starting, early), Duration::from_secs(5));
        assert_eq!(check.pause(HealthStatus::Starting, Duration::from_secs(60)), Duration::from_secs(7));
        assert_eq!(check.pause(HealthStatus::Healthy, early), Duration::from_secs(7));
        let without = HealthCheck { start_interval: SECOND, ..HealthCheck::default() };
        assert_eq!(without.pause(HealthStatus::Starting, Duration::ZERO), Duration::from_secs(30));
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let check = HealthCheck::default();
        let mut report = fresh();
        let mut note = |code| (report.note(&check, result(code), Duration::ZERO), report.status, report.failing_streak);
        use HealthStatus::{Healthy, Starting, Unhealthy};
        assert_eq!(note(1), (false, Starting, 1));
        assert_eq!(note(-1), (false, Starting, 2));
        assert_eq!(note(137), (true, Unhealthy, 3));
        assert_eq!(note(1), (false, Unhealthy, 4));
        assert_eq!(note(0), (true, Healthy, 0));
        assert_eq!(note(1), (false, Healthy, 1));
        assert_eq!(note(0), (false, Healthy, 0));
    }

    #[test]
    fn early_failures_do_not_count_until_the_first_success() {
        let check = HealthCheck { start_period: 10 * SECOND, retries: 1, ..HealthCheck::default() };
        let mut report = fresh();
        assert!(!report.note(&check, result(1), Duration::from_secs(9)));
        assert_eq!((report.status, report.failing_streak), (HealthStatus::Starting, 0));
        assert!(report.note(&check, result(0), Duration::from_secs(1)));
        assert!(report.note(&check, result(1), Duration::from_secs(2)));
        assert_eq!((report.status, report.failing_streak), (HealthStatus::Unhealthy, 1));
    }

    #[test]
    fn the_last_five_results_are_kept() {
        let mut report = fresh();
        for code in 0..9 {
            report.note(&HealthCheck::default(), result(code), Duration::ZERO);
        }
        assert_eq!(report.log.iter().map(|result| result.exit_code).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    }
}
