//! `logs`.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::ArgMatches;
use jiff::Timestamp;

use super::instant;
use super::output::Outlet;
use super::spec::{self, Arity, Spec, invalid};
use crate::engine::request::LogsRequest;

pub(super) static LOGS: Spec = Spec {
    name: "logs",
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::switch("details", None, "Show extra details provided to logs"))
            .arg(spec::switch("follow", Some('f'), "Follow log output"))
            .arg(spec::value("since", None, "string", "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"))
            .arg(spec::value("tail", Some('n'), "string", "Number of lines to show from the end of the logs (default \"all\")"))
            .arg(spec::switch("timestamps", Some('t'), "Show timestamps"))
            .arg(spec::value("until", None, "string", "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"))
    },
    run: |session, matches| {
        let (reference, request) = lower(matches, Timestamp::now())?;
        let (mut out, mut err) = (Outlet::new(io::stdout()), Outlet::new(io::stderr()));
        let copied = session.engine()?.logs(&reference, &request, &mut out, &mut err);
        let copied = copied.and_then(|()| out.flush().context("write standard output"));
        // `logs -f c1 | head -1` ends here.
        if out.reader_gone() || err.reader_gone() { Ok(0) } else { copied.map(|()| 0) }
    },
};

/// The container and which of its lines.
pub(super) fn lower(matches: &ArgMatches, now: Timestamp) -> Result<(String, LogsRequest)> {
    let tail = match spec::text(matches, "tail").as_deref() {
        None | Some("all" | "") => None,
        Some(text) => {
            let count: i64 = text.parse().map_err(|_| invalid("tail", text, "it must be a number or \"all\""))?;
            u64::try_from(count).ok()
        }
    };
    let request = LogsRequest {
        follow: spec::is_set(matches, "follow"),
        timestamps: spec::is_set(matches, "timestamps"),
        tail,
        since: instant::of_flag(matches, "since", now)?,
        until: instant::of_flag(matches, "until", now)?,
        stdout: true,
        stderr: true,
    };
    Ok((spec::operands(matches).into_iter().next().unwrap_or_default(), request))
}
