//! `exec`.

use anyhow::Result;
use clap::ArgMatches;

use super::environment::{self, Lookup};
use super::spec::{self, Arity, Spec};
use super::{Session, run};
use crate::engine::request::ExecRequest;

pub(super) static EXEC: Spec = Spec {
    name: "exec",
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    arity: Arity::at_least(2),
    raw_operands: true,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .args(environment::flags())
            .arg(spec::switch("detach", Some('d'), "Detached mode: run command in the background"))
            .arg(spec::value("detach-keys", None, "string", "Override the key sequence for detaching a container"))
            .arg(spec::switch("interactive", Some('i'), "Keep STDIN open even if not attached"))
            .arg(spec::switch("privileged", None, "Give extended privileges to the command"))
            .arg(spec::switch("tty", Some('t'), "Allocate a pseudo-TTY"))
            .arg(spec::value("user", Some('u'), "string", "Username or UID (format: <name|uid>[:<group|gid>])"))
            .arg(spec::value("workdir", Some('w'), "string", "Working directory inside the container"))
    },
    run: exec,
};

/// The container and what to run in it.
pub(super) fn lower(matches: &ArgMatches, lookup: Lookup) -> Result<(String, ExecRequest)> {
    let mut operands = spec::operands(matches).into_iter();
    let reference = operands.next().unwrap_or_default();
    let given = |flag| spec::text(matches, flag).filter(|text| !text.is_empty());
    let request = ExecRequest {
        command: operands.collect(),
        env: environment::variables(matches, lookup)?,
        user: given("user"),
        workdir: given("workdir"),
        tty: spec::is_set(matches, "tty"),
        interactive: spec::is_set(matches, "interactive"),
        detach: spec::is_set(matches, "detach"),
        privileged: spec::is_set(matches, "privileged"),
        detach_keys: run::detach_keys(matches)?,
    };
    Ok((reference, request))
}

fn exec(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let (reference, request) = lower(matches, &environment::callers)?;
    run::check_terminal(request.tty && !request.detach, request.interactive)?;
    session.engine()?.exec(&reference, &request)
}
