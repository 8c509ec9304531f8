//! `why`: in plain words, why a container ended or did not start. Docker has no such command.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use clap::ArgMatches;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::output::{self, printable};
use super::spec::{self, Arity, Spec};
use super::{Session, exit_words, inspect, template};
use crate::engine::query::{Cause, Why};
use crate::engine::wording;

pub(super) static WHY: Spec = Spec {
    name: "why",
    usage: "[OPTIONS] CONTAINER",
    about: "Say why a container ended or did not start",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command.arg(spec::value("format", Some('f'), "string", "Format output: 'json' or a Go template")),
    run: why,
};

fn why(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let reference = spec::operands(matches).into_iter().next().unwrap_or_default();
    let why = session.engine()?.why(&reference)?;
    match spec::text(matches, "format").filter(|format| !format.is_empty()) {
        None => output::print(&text(&why, Timestamp::now()))?,
        Some(format) => {
            let value = as_json(&why)?;
            let shown =
                if format == "json" { inspect::indented(&value)? } else { template::render_object(&format, &value)? };
            output::print_line(&shown)?;
        }
    }
    Ok(0)
}

/// The facts, and the words for them.
fn as_json(why: &Why) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(why).context("encode the answer")?;
    let (message, hint) = exit_words::explain(why);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("Message".to_owned(), json!(message));
        fields.insert("Hint".to_owned(), json!(hint));
    }
    Ok(value)
}

fn text(why: &Why, now: Timestamp) -> String {
    let mut text = format!("{}\n", printable(&headline(why, now)));
    let mut line = |key: &str, value: &str| _ = writeln!(text, "{:<10}{}", format!("{key}:"), printable(value));
    let (message, hint) = exit_words::explain(why);
    if let Some(message) = message {
        line("why", &message);
    }
    if let Some(hint) = hint {
        line("hint", &hint);
    }
    // Of a run that goes on, or that did not end for it.
    if let Some(report) = &why.oom
        && why.end.as_ref().is_none_or(|end| end.cause != Cause::Memory || why.running_since.is_some())
    {
        line("memory", &exit_words::memory(Some(report)));
    }
    if let Some(health) = why.health.as_ref().and_then(exit_words::health) {
        line("health", &health);
    }
    line("image", &why.image);
    if !why.command.is_empty() {
        line("command", &why.command.join(" "));
    }
    if let Some(end) = &why.end {
        match (end.started, end.finished) {
            (Some(started), Some(finished)) => {
                let ran = wording::human_duration(wording::since(started, finished)).to_lowercase();
                let key = if why.running_since.is_some() { "before" } else { "run" };
                line(key, &format!("{} to {}, ran for {ran}", local(started), local(finished)));
            }
            (Some(started), None) => line("started", &local(started)),
            (None, Some(finished)) => line("failed", &local(finished)),
            (None, None) => {}
        }
    }
    if why.restart_count > 0 {
        line("restarts", &why.restart_count.to_string());
    }
    if !why.log.is_empty() {
        let all = if why.status == "removed" { String::new() } else { format!(" (all: mydocker logs {})", why.name) };
        let _ = writeln!(text, "last lines of its log{}:", printable(&all));
        for entry in &why.log {
            let _ = writeln!(text, "  {}", printable(entry.trim_end_matches('\r')));
        }
    }
    text
}

/// What it is now, and how it came to that.
fn headline(why: &Why, now: Timestamp) -> String {
    let name = if why.name.is_empty() { why.id.get(..12).unwrap_or(&why.id) } else { &why.name };
    let ago = |time: Option<Timestamp>| {
        time.map(|time| format!(" {} ago", wording::human_duration(wording::since(time, now)).to_lowercase()))
            .unwrap_or_default()
    };
    let ended = why.end.as_ref().map(|end| match &end.cause {
        Cause::NotStarted { .. } => format!("did not start{} (exit code {})", ago(end.finished), end.exit_code),
        _ => format!("ended{} with exit code {}", ago(end.finished), end.exit_code),
    });
    match (why.running_since, why.removed, ended) {
        (Some(since), _, ended) => {
            let paused = if why.status == "paused" { "is paused; it " } else { "" };
            let pid = why.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
            let before = ended.map(|ended| format!("; the run before {ended}")).unwrap_or_default();
            format!("{name} {paused}runs since {}{pid}{before}", local(since))
        }
        (None, Some(removed), Some(ended)) => format!("{name} {ended}; it was removed{}", ago(Some(removed))),
        (None, Some(removed), None) => format!("{name} was removed{} without having run", ago(Some(removed))),
        (None, None, Some(ended)) => format!("{name} {ended}"),
        (None, None, None) => format!("{name} was created{} and has not been started", ago(why.created)),
    }
}

fn local(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z").to_string()
}
