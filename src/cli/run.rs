//! `run` and `create`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ArgMatches;

use super::create_request::{self, Surroundings};
use super::output::{self, Refusal};
use super::progress::{Display, Place, Way};
use super::spec::{self, Arity, Spec, invalid};
use super::timeline::{self, Collector};
use super::{Session, create_flags, environment, keys};
use crate::container::Streams;
use crate::engine::Outcome;
use crate::engine::request::{AttachRequest, CreateRequest, Explain, StartRequest};
use crate::engine::supervise::{TimedStep, Told};
use crate::error::Failure;
use crate::image::transfer::progress::{Progress, Silent};

pub(super) static RUN: Spec = Spec {
    name: "run",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    arity: Arity::at_least(1),
    raw_operands: true,
    legacy_options: true,
    unsupported: create_flags::UNSUPPORTED,
    flags: |command| create_flags::run_only(create_flags::shared(command)),
    run: run_command,
};

pub(super) static CREATE: Spec = Spec {
    name: "create",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    arity: Arity::at_least(1),
    raw_operands: true,
    legacy_options: true,
    unsupported: create_flags::UNSUPPORTED,
    flags: create_flags::shared,
    run: create_command,
};

/// What `--explain` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ExplainAs {
    /// Nothing.
    #[default]
    Off,
    /// A table of steps on standard error.
    Table,
    /// The steps as JSON on standard error.
    Json,
    /// The plan on standard output; nothing is run.
    Plan,
}

/// A `run` line, lowered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RunLine {
    /// The container.
    pub(super) create: CreateRequest,
    /// How the caller joins it; `None` with `-d`.
    pub(super) attach: Option<AttachRequest>,
    /// `--pidfile`.
    pub(super) pidfile: Option<PathBuf>,
    /// `--cidfile`.
    pub(super) cidfile: Option<PathBuf>,
    /// `--explain`.
    pub(super) explain: ExplainAs,
}

/// Lowers the words of `run`.
pub(super) fn lower_run(matches: &ArgMatches, around: &Surroundings) -> Result<RunLine> {
    let detach = spec::is_set(matches, "detach");
    let chosen = create_request::attached_streams(matches)?;
    if detach && !spec::texts(matches, "attach").is_empty() {
        return Err(Refusal::usage("conflicting options: cannot specify both --attach and --detach", "run").into());
    }
    let streams = if detach { Streams::default() } else { chosen };
    let create = create_request::lower(matches, streams, around)?;
    let attach = AttachRequest {
        streams,
        sig_proxy: spec::is_set_or(matches, "sig-proxy", true),
        detach_keys: detach_keys(matches)?,
    };
    let explain = match spec::text(matches, "explain").as_deref() {
        None => ExplainAs::Off,
        Some("steps" | "table") => ExplainAs::Table,
        Some("json") => ExplainAs::Json,
        Some("plan") => ExplainAs::Plan,
        Some(other) => return Err(invalid("explain", other, "it must be one of json, plan, or nothing")),
    };
    Ok(RunLine {
        create,
        attach: (!detach).then_some(attach),
        pidfile: path(matches, "pidfile"),
        cidfile: path(matches, "cidfile"),
        explain,
    })
}

fn path(matches: &ArgMatches, flag: &str) -> Option<PathBuf> {
    spec::text(matches, flag).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// `--detach-keys`, for every command that attaches.
pub(super) fn detach_keys(matches: &ArgMatches) -> Result<Option<Vec<u8>>> {
    let Some(text) = spec::text(matches, "detach-keys").filter(|text| !text.is_empty()) else { return Ok(None) };
    keys::parse(&text).map(Some).map_err(|why| invalid("detach-keys", &text, why))
}

/// Refuses a container terminal whose input is no terminal here, as Docker does: the program inside
/// would wait for keys that cannot come.
pub(super) fn check_terminal(tty: bool, stdin: bool) -> Result<()> {
    if tty && stdin && !std::io::stdin().is_terminal() {
        return Err(Refusal::plain("the input device is not a TTY").into());
    }
    Ok(())
}

/// The exit code of a foreground client.
pub(super) fn exit_code(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Exited(code) => code,
        Outcome::Started | Outcome::Detached => 0,
    }
}

fn run_command(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let line = lower_here(matches, lower_run)?;
    if line.explain == ExplainAs::Plan {
        let plan = session.engine()?.plan_of(&line.create)?;
        output::print_line(&serde_json::to_string_pretty(&plan).context("encode the plan")?)?;
        return Ok(0);
    }
    if let Some(attach) = &line.attach {
        check_terminal(line.create.tty, attach.streams.stdin)?;
    }
    let collector = (line.explain != ExplainAs::Off).then(Collector::install);
    let engine = session.engine()?;
    let id = create_with_cidfile(&engine, &line.create, line.cidfile.as_deref(), &*pulling(matches))?;
    let explain = if line.explain == ExplainAs::Off { Explain::Off } else { Explain::Steps };
    let detached = line.attach.is_none();
    let request = StartRequest { attach: line.attach, explain, pidfile: line.pidfile };
    let mut timeline = Vec::new();
    let started = engine.start(&id, &request, &mut |told| {
        warn_of(&told);
        timeline = told.steps;
    });
    // The id is printed also when the start failed: the container exists, and this is how a script finds it.
    let printed = if detached { output::print_line(&id) } else { Ok(()) };
    if let Some(collector) = collector {
        print_timeline(line.explain, &collector.merge(timeline));
    }
    let code = exit_code(started?);
    printed.map(|()| code)
}

/// Tells what the user should know of a start.
pub(super) fn warn_of(told: &Told) {
    told.warnings.iter().for_each(|warning| output::warn(warning));
}

fn create_command(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let (request, cidfile) = lower_here(matches, |matches, around| {
        let streams = create_request::attached_streams(matches)?;
        Ok((create_request::lower(matches, streams, around)?, path(matches, "cidfile")))
    })?;
    let engine = session.engine()?;
    let id = create_with_cidfile(&engine, &request, cidfile.as_deref(), &*pulling(matches))?;
    output::print_line(&id)?;
    Ok(0)
}

/// Lowers with the caller's own environment and directory.
fn lower_here<T>(matches: &ArgMatches, lower: impl Fn(&ArgMatches, &Surroundings) -> Result<T>) -> Result<T> {
    let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    lower(matches, &Surroundings { lookup: &environment::callers, directory: &directory })
}

/// Shows a pull that turns out to be needed, beside the container's own output.
fn pulling(matches: &ArgMatches) -> Box<dyn Progress> {
    match spec::is_set(matches, "quiet") {
        true => Box::new(Silent),
        false => Box::new(Display::new(Way::In, Place::Error)),
    }
}

/// Creates the container. The id file is made before, so that of two callers with one file only one
/// gets a container, and taken away again when there is none.
fn create_with_cidfile(
    engine: &crate::engine::Engine,
    request: &CreateRequest,
    path: Option<&Path>,
    progress: &dyn Progress,
) -> Result<String> {
    let file = path.map(open_cidfile).transpose()?;
    let created = match engine.create(request, progress) {
        Ok(created) => created,
        Err(error) => {
            if let Some(path) = path {
                let _ = std::fs::remove_file(path);
            }
            return Err(error);
        }
    };
    created.warnings.iter().for_each(|warning| output::warn(warning));
    if let (Some(mut file), Some(path)) = (file, path) {
        file.write_all(created.id.as_str().as_bytes())
            .with_context(|| format!("write the container id to {}", path.display()))?;
    }
    Ok(created.id.to_string())
}

fn open_cidfile(path: &Path) -> Result<File> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::usage(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        ))
        .into()),
        Err(error) => Err(Failure::usage(format!("create container ID file {}: {error}", path.display())).into()),
    }
}

fn print_timeline(explain: ExplainAs, timeline: &[TimedStep]) {
    match explain {
        ExplainAs::Table => output::complain(&timeline::as_table(timeline)),
        ExplainAs::Json => match serde_json::to_string(timeline) {
            Ok(json) => output::complain(&format!("{json}\n")),
            Err(error) => output::warn(&format!("encode the steps: {error}")),
        },
        ExplainAs::Off | ExplainAs::Plan => {}
    }
}
