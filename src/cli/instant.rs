//! `--since` and `--until`: a moment, or a distance from now.

use anyhow::Result;
use clap::ArgMatches;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};

use super::spec;

/// The moment that a flag names, seen from `now`.
pub(super) fn of_flag(matches: &ArgMatches, flag: &str, now: Timestamp) -> Result<Option<Timestamp>> {
    let Some(text) = spec::text(matches, flag).filter(|text| !text.is_empty()) else { return Ok(None) };
    match parse(&text, now) {
        Some(moment) => Ok(Some(moment)),
        None => {
            Err(spec::invalid(flag, &text, "write a time (2013-01-02T13:23:37Z), unix seconds, or a duration (42m)"))
        }
    }
}

/// Reads RFC 3339 with or without a zone (the local one is assumed), a date, unix seconds with a
/// fraction, or a duration before `now` (`10m`, `1h30m`).
pub(super) fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text.is_empty() {
        return None;
    }
    if let Some(duration) = duration(text) {
        return now.checked_sub(duration).ok();
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return unix(text);
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    let local = text.parse::<civil::DateTime>().ok()?;
    Some(local.to_zoned(TimeZone::system()).ok()?.timestamp())
}

/// `1136073845` or `1136073845.000000001`.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

/// A duration as Go writes it: numbers with units, no spaces (`1h30m`, `1.5h`, `300ms`).
pub(super) fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    SignedDuration::try_from_secs_f64(if negative { -total } else { total }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_distances() {
        let now: Timestamp = "2024-05-06T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09Z"),
            ("2024-05-06T07:08:09.5+02:00", "2024-05-06T05:08:09.5Z"),
            ("1136073845", "2006-01-01T00:04:05Z"),
            ("1136073845.000000001", "2006-01-01T00:04:05.000000001Z"),
            ("10m", "2024-05-06T11:50:00Z"),
            ("1h30m", "2024-05-06T10:30:00Z"),
            ("1.5h", "2024-05-06T10:30:00Z"),
            ("300ms", "2024-05-06T11:59:59.7Z"),
            ("-10m", "2024-05-06T12:10:00Z"),
        ] {
            assert_eq!(parse(text, now), Some(expected.parse().unwrap()), "{text}");
        }
        let local = |text: &str| text.parse::<civil::DateTime>().unwrap().to_zoned(TimeZone::system()).unwrap();
        assert_eq!(parse("2024-05-06", now), Some(local("2024-05-06T00:00:00").timestamp()));
        assert_eq!(parse("2024-05-06T07:08", now), Some(local("2024-05-06T07:08:00").timestamp()));
        for bad in ["", "x", "10", "h", "10x", "1.2.3", "2024-13-01", "-", "99999999999999999999"] {
            assert!(bad == "10" || parse(bad, now).is_none(), "{bad}");
        }
    }
}
