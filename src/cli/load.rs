//! `load`, `image load`.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use clap::ArgMatches;

use super::Session;
use super::output::{self, Refusal};
use super::spec::{self, Arity, Spec};
use crate::engine::images::archives::Source;
use crate::error::Failure;

pub(super) static LOAD: Spec = Spec {
    name: "load",
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value("input", Some('i'), "string", "Read from tar archive file, instead of STDIN"))
            .arg(spec::value("platform", None, "string", "Load only the given platform variant (os/arch[/variant])"))
            .arg(spec::switch("quiet", Some('q'), "Suppress the load output"))
    },
    run,
};

fn run(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let file = match spec::text(matches, "input").filter(|path| !path.is_empty()) {
        Some(path) => {
            let file = File::open(&path).with_context(|| format!("open {path}"))?;
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Err(Failure::engine(format!("open {path}: it is a directory, not a tar archive"))
                    .with_hint("of an OCI layout that is a directory: tar -C DIRECTORY -c . | mydocker load")
                    .into());
            }
            file
        }
        None if io::stdin().is_terminal() => {
            return Err(Refusal::plain("requested load from stdin, but stdin is empty").into());
        }
        // A file that was redirected is read in place as well.
        None => File::from(io::stdin().as_fd().try_clone_to_owned().context("open standard input")?),
    };
    let platform = spec::text(matches, "platform");
    for line in session.engine()?.load(Source::File(file), platform.as_deref())? {
        output::print_line(&output::printable(&line))?;
    }
    Ok(0)
}
