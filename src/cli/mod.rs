//! The front end: Docker's command line over an [`Engine`].
//!
//! One file per noun. Each command is a [`spec::Spec`]: its words, its flags and the function that
//! lowers them into an engine request and renders the answer. Only the command that was named is
//! built, so that a start costs microseconds. This layer parses, renders and maps failures to exit
//! codes; it makes no system calls on containers and reads no state files.

mod catalog;
mod commit;
mod confirm;
mod container;
mod create_flags;
mod create_request;
mod delivery;
mod device;
mod doctor;
mod environment;
mod events;
mod exec;
mod exit_words;
mod export;
mod health;
mod help;
mod image;
mod import;
mod inspect;
mod instant;
mod keys;
mod legacy;
mod load;
mod logs;
mod mount;
mod natural;
mod network;
mod networking;
mod output;
mod parse;
mod platform;
mod port;
mod progress;
mod prune;
mod ps;
mod publish;
mod quantity;
mod registry;
mod resources;
mod run;
mod save;
mod screen;
mod security;
mod spec;
mod stats;
mod system;
mod system_prune;
mod table;
mod template;
mod timeline;
mod top;
mod transfer;
mod update;
mod usage;
mod why;

#[cfg(test)]
mod argv_network_tests;
#[cfg(test)]
mod argv_tests;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::ArgMatches;

use self::output::Refusal;
use self::spec::{Arity, Spec};
use crate::engine::Engine;
use crate::error::Failure;

/// What the global options say; handed to every command.
#[derive(Debug, Default)]
struct Session {
    /// `--root` or `MYDOCKER_ROOT`.
    root: Option<PathBuf>,
}

impl Session {
    fn engine(&self) -> Result<Engine> {
        Engine::open(self.root.clone()).map_err(|error| {
            let denied = |link: &(dyn std::error::Error + 'static)| {
                let error = link.downcast_ref::<std::io::Error>();
                error.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
            };
            if !error.chain().any(denied) {
                return error;
            }
            Failure::engine(format!("{error:#}")).with_hint("run it as root: sudo mydocker …").into()
        })
    }
}

/// The options that stand before the command; everything from the command on is one operand list.
static GLOBAL: Spec = Spec {
    name: "",
    usage: "[OPTIONS] COMMAND",
    about: "A container engine with Docker's command line and no daemon",
    arity: Arity::any(),
    raw_operands: true,
    legacy_options: false,
    unsupported: &["-H", "--host", "-c", "--context", "--config", "--tls", "--tlscacert", "--tlscert", "--tlskey"],
    flags: |command| {
        command
            .arg(spec::value("root", None, "directory", "Data root (default /var/lib/mydocker; env MYDOCKER_ROOT)"))
            .arg(spec::switch("debug", Some('D'), "Trace what is done on standard error"))
            .arg(spec::value("log-level", Some('l'), "string", "Accepted for compatibility; see --debug"))
            .arg(spec::switch("version", Some('v'), "Print version information and quit"))
    },
    run: |_, _| Ok(0),
};

/// Runs the command line of this process; the result is the process's exit code.
pub fn main() -> i32 {
    let mut arguments = Vec::new();
    for (index, argument) in std::env::args_os().skip(1).enumerate() {
        match argument.into_string() {
            Ok(text) => arguments.push(text),
            Err(raw) => return output::fail(&not_utf8(index, &raw).into(), "", output::Codes::Plain),
        }
    }
    dispatch(arguments)
}

fn not_utf8(index: usize, raw: &OsString) -> Refusal {
    Refusal::usage(format!("argument {} is not valid UTF-8: {raw:?}", index + 1), "")
}

/// Parses the global options, finds the command, runs it.
fn dispatch(arguments: Vec<String>) -> i32 {
    let matches = match parse::parse(&GLOBAL, "", arguments) {
        Ok(matches) => matches,
        Err(error) => return output::fail(&error, "", output::Codes::Plain),
    };
    let words = spec::operands(&matches);
    if spec::is_set(&matches, "version") {
        return output::finish(system::print_short_version(), "");
    }
    if words.is_empty() {
        return output::finish(help::print_top(&GLOBAL), "");
    }
    if spec::is_set(&matches, "help") {
        return output::finish(print_help(&words), "");
    }
    if spec::is_set(&matches, "debug") {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .init();
    }
    let root = spec::text(&matches, "root").map(PathBuf::from);
    let root = root.or_else(|| std::env::var_os("MYDOCKER_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from));
    // An absolute root, because the engine's other processes have other working directories.
    let root = root.map(|root| std::path::absolute(&root).unwrap_or(root));
    execute(&Session { root }, words)
}

/// Runs the command that `words` begin with.
fn execute(session: &Session, words: Vec<String>) -> i32 {
    let found = match catalog::find(&words) {
        Ok(found) => found,
        Err(error) => return output::fail(&error.into(), "", output::Codes::Plain),
    };
    match found {
        catalog::Found::Help(rest) => output::finish(print_help(rest), ""),
        catalog::Found::Group(group) => output::finish(help::print_group(group), group.name),
        catalog::Found::Command { spec, path, rest } => {
            let codes = output::Codes::of(spec.name);
            let matches: ArgMatches = match parse::parse(spec, &path, rest.to_vec()) {
                Ok(matches) => matches,
                Err(error) => return output::fail(&error, &path, codes),
            };
            if spec::is_set(&matches, "help") {
                return output::finish(help::print_command(spec, &path), &path);
            }
            if let Err(refusal) = spec.arity.check(spec::operand_count(&matches), spec, &path) {
                return output::fail(&refusal.into(), &path, codes);
            }
            match (spec.run)(session, &matches) {
                Ok(code) => code,
                Err(error) => output::fail(&error, &path, codes),
            }
        }
    }
}

/// `help WORDS…`, and `--help` before a command.
fn print_help(words: &[String]) -> Result<()> {
    if words.is_empty() {
        return help::print_top(&GLOBAL);
    }
    match catalog::find(words)? {
        catalog::Found::Help(_) => help::print_top(&GLOBAL),
        catalog::Found::Group(group) => help::print_group(group),
        catalog::Found::Command { spec, path, .. } => help::print_command(spec, &path),
    }
}
