//! `start`, `stop`, `restart`, `kill`, `wait`, `rm`, `rename`, `attach`.

use anyhow::Result;
use clap::ArgMatches;

use super::output::{self, Codes, Refusal};
use super::spec::{self, Arity, Spec};
use super::{Session, run};
use crate::container::Streams;
use crate::engine::Engine;
use crate::engine::request::{AttachRequest, Explain, RemoveRequest, StartRequest, StopRequest};
use crate::error::{Class, Failure};

pub(super) static START: Spec = Spec {
    name: "start",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &["--checkpoint", "--checkpoint-dir"],
    flags: |command| {
        command
            .arg(spec::switch("attach", Some('a'), "Attach STDOUT/STDERR and forward signals"))
            .arg(spec::value("detach-keys", None, "string", "Override the key sequence for detaching a container"))
            .arg(spec::switch("interactive", Some('i'), "Attach container's STDIN"))
            .arg(spec::switch("sig-proxy", None, "Proxy received signals to the process (default true)"))
    },
    run: start,
};

pub(super) static STOP: Spec = Spec {
    name: "stop",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: stop_flags,
    run: |session, matches| {
        let references = spec::operands(matches);
        let request = stop_request(matches)?;
        each(&references, session.engine()?.stop(&references, &request))
    },
};

pub(super) static RESTART: Spec = Spec {
    name: "restart",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Restart one or more containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: stop_flags,
    run: |session, matches| {
        let request = stop_request(matches)?;
        one_by_one(session, matches, |engine, reference| engine.restart(reference, &request))
    },
};

pub(super) static KILL: Spec = Spec {
    name: "kill",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command.arg(spec::value("signal", Some('s'), "string", "Signal to send to the container (default KILL)"))
    },
    run: |session, matches| {
        let signal = spec::text(matches, "signal").filter(|signal| !signal.is_empty());
        let signal = signal.unwrap_or_else(|| "KILL".to_owned());
        one_by_one(session, matches, |engine, reference| engine.kill(reference, &signal))
    },
};

pub(super) static PAUSE: Spec = Spec {
    name: "pause",
    usage: "CONTAINER [CONTAINER...]",
    about: "Pause all processes within one or more containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: |session, matches| one_by_one(session, matches, Engine::pause),
};

pub(super) static UNPAUSE: Spec = Spec {
    name: "unpause",
    usage: "CONTAINER [CONTAINER...]",
    about: "Unpause all processes within one or more containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: |session, matches| one_by_one(session, matches, Engine::unpause),
};

pub(super) static WAIT: Spec = Spec {
    name: "wait",
    usage: "CONTAINER [CONTAINER...]",
    about: "Block until one or more containers stop, then print their exit codes",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: wait,
};

pub(super) static REMOVE: Spec = Spec {
    name: "rm",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &["-l", "--link"],
    flags: |command| {
        command
            .arg(spec::switch("force", Some('f'), "Force the removal of a running container (uses SIGKILL)"))
            .arg(spec::switch("volumes", Some('v'), "Remove anonymous volumes associated with the container"))
    },
    run: remove,
};

pub(super) static RENAME: Spec = Spec {
    name: "rename",
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    arity: Arity::exactly(2),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: |session, matches| {
        if let [reference, name] = spec::operands(matches).as_slice() {
            session.engine()?.rename(reference, name)?;
        }
        Ok(0)
    },
};

pub(super) static ATTACH: Spec = Spec {
    name: "attach",
    usage: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value("detach-keys", None, "string", "Override the key sequence for detaching a container"))
            .arg(spec::switch("no-stdin", None, "Do not attach STDIN"))
            .arg(spec::switch("sig-proxy", None, "Proxy all received signals to the process (default true)"))
    },
    run: attach,
};

fn stop_flags(command: clap::Command) -> clap::Command {
    command
        .arg(spec::value("signal", Some('s'), "string", "Signal to send to the container"))
        .arg(spec::value("timeout", Some('t'), "int", "Seconds to wait before killing the container").alias("time"))
}

fn stop_request(matches: &ArgMatches) -> Result<StopRequest> {
    Ok(StopRequest {
        signal: spec::text(matches, "signal").filter(|signal| !signal.is_empty()),
        timeout: spec::integer(matches, "timeout")?,
    })
}

/// Echoes each reference whose result is good and prints each failure; 1 when there was one.
fn each(references: &[String], results: Vec<Result<()>>) -> Result<i32> {
    let mut code = 0;
    for (reference, result) in references.iter().zip(results) {
        code = code.max(echo(reference, result)?);
    }
    Ok(code)
}

fn echo(reference: &str, result: Result<()>) -> Result<i32> {
    match result {
        // Nobody reading the names is no reason to leave the remaining containers alone.
        Ok(()) => match output::print_line(reference) {
            Err(error) if !output::is_reader_gone(&error) => Err(error),
            _ => Ok(0),
        },
        Err(error) => Ok(output::fail(&error, "", Codes::Plain).min(1)),
    }
}

pub(super) fn one_by_one(
    session: &Session,
    matches: &ArgMatches,
    action: impl Fn(&Engine, &str) -> Result<()>,
) -> Result<i32> {
    let engine = session.engine()?;
    let mut code = 0;
    for reference in spec::operands(matches) {
        code = code.max(echo(&reference, action(&engine, &reference))?);
    }
    Ok(code)
}

fn start(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let references = spec::operands(matches);
    let interactive = spec::is_set(matches, "interactive");
    if !spec::is_set(matches, "attach") && !interactive {
        return one_by_one(session, matches, |engine, reference| {
            engine.start(reference, &StartRequest::default(), &mut |told| run::warn_of(&told)).map(drop)
        });
    }
    let [reference] = references.as_slice() else {
        return Err(Refusal::plain("you cannot start and attach multiple containers at once").into());
    };
    let engine = session.engine()?;
    let process = engine.inspect(reference)?.config;
    let stdin = interactive && process.open_stdin;
    run::check_terminal(process.tty, stdin)?;
    let attach = AttachRequest {
        streams: Streams { stdin, stdout: true, stderr: true },
        sig_proxy: spec::is_set_or(matches, "sig-proxy", true) && !process.tty,
        detach_keys: run::detach_keys(matches)?,
    };
    let request = StartRequest { attach: Some(attach), explain: Explain::Off, pidfile: None };
    Ok(run::exit_code(engine.start(reference, &request, &mut |told| run::warn_of(&told))?))
}

fn attach(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let reference = spec::operands(matches).into_iter().next().unwrap_or_default();
    let engine = session.engine()?;
    let process = engine.inspect(&reference)?.config;
    let stdin = !spec::is_set(matches, "no-stdin");
    run::check_terminal(process.tty, stdin)?;
    let request = AttachRequest {
        streams: Streams { stdin: stdin && process.open_stdin, stdout: true, stderr: true },
        sig_proxy: spec::is_set_or(matches, "sig-proxy", true) && !process.tty,
        detach_keys: run::detach_keys(matches)?,
    };
    Ok(run::exit_code(engine.attach(&reference, &request)?))
}

fn wait(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let engine = session.engine()?;
    let mut code = 0;
    for reference in spec::operands(matches) {
        match engine.wait(&reference) {
            Ok(status) => output::print_line(&status.to_string())?,
            Err(error) => code = code.max(output::fail(&error, "", Codes::Plain).min(1)),
        }
    }
    Ok(code)
}

fn remove(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let references = spec::operands(matches);
    let force = spec::is_set(matches, "force");
    let request = RemoveRequest { force, volumes: spec::is_set(matches, "volumes") };
    let mut code = 0;
    for (reference, result) in references.iter().zip(session.engine()?.remove(&references, request)) {
        // With -f a container that does not exist is what was asked for; it is still named, as Docker does.
        let gone = force && result.as_ref().is_err_and(|error| Failure::from_error(error).class == Class::NotFound);
        let echoed = echo(reference, result)?;
        code = code.max(if gone { 0 } else { echoed });
    }
    Ok(code)
}
