//! `--health-cmd` and its siblings, `--no-healthcheck`: Docker's rules and words.

use anyhow::Result;
use clap::{Arg, ArgMatches};

use super::instant;
use super::spec::{self, invalid, switch, value};
use crate::container::HealthCheck;
use crate::error::Failure;

/// The flags.
pub(super) fn flags() -> [Arg; 7] {
    [
        value("health-cmd", None, "string", "Command to run to check health"),
        value("health-interval", None, "duration", "Time between running the check (ms|s|m|h) (default 30s)"),
        value("health-retries", None, "int", "Consecutive failures needed to report unhealthy (default 3)"),
        value(
            "health-start-interval",
            None,
            "duration",
            "Time between running the check during the start period (ms|s|m|h) (default 5s)",
        ),
        value(
            "health-start-period",
            None,
            "duration",
            "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
        ),
        value("health-timeout", None, "duration", "Maximum time to allow one check to run (ms|s|m|h) (default 30s)"),
        switch("no-healthcheck", None, "Disable any container-specified HEALTHCHECK"),
    ]
}

/// The user's wishes; `None` when there are none.
pub(super) fn check(matches: &ArgMatches) -> Result<Option<HealthCheck>> {
    let command = spec::text(matches, "health-cmd").filter(|command| !command.is_empty());
    let check = HealthCheck {
        test: command.map(|command| vec!["CMD-SHELL".to_owned(), command]).unwrap_or_default(),
        interval: duration(matches, "health-interval")?,
        timeout: duration(matches, "health-timeout")?,
        start_period: duration(matches, "health-start-period")?,
        start_interval: duration(matches, "health-start-interval")?,
        retries: spec::integer(matches, "health-retries")?.unwrap_or(0),
    };
    let given = check != HealthCheck::default();
    if spec::is_set(matches, "no-healthcheck") {
        return match given {
            true => Err(Failure::usage("--no-healthcheck conflicts with --health-* options").into()),
            false => Ok(Some(HealthCheck::none())),
        };
    }
    for (flag, number) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("retries", check.retries),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ] {
        if number < 0 {
            return Err(Failure::usage(format!("--health-{flag} cannot be negative")).into());
        }
    }
    Ok(given.then_some(check))
}

/// Nanoseconds, 0 when the flag was not given.
fn duration(matches: &ArgMatches, flag: &str) -> Result<i64> {
    let Some(text) = spec::text(matches, flag) else { return Ok(0) };
    // Go takes a bare zero, and no other number without its unit.
    if matches!(text.as_str(), "0" | "+0" | "-0") {
        return Ok(0);
    }
    let duration = instant::duration(text.strip_prefix('+').unwrap_or(&text));
    duration
        .and_then(|duration| i64::try_from(duration.as_nanos()).ok())
        .ok_or_else(|| invalid(flag, &text, "write a duration such as 30s, 1m30s or 500ms"))
}
