//! `image` and its commands, and `load`.

mod history;
mod inspect;
mod list;
mod prune;
mod remove;
mod tree;

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use anyhow::{Context, Result};
use clap::ArgMatches;

use super::Session;
use super::output::{self, Refusal};
use super::spec::{self, Arity, Spec};
use crate::error::Failure;
use crate::image::manifest::Platform;

pub(super) use history::HISTORY;
pub(super) use inspect::INSPECT;
pub(super) use list::{Digests, IMAGES, names, short_id};
pub(super) use prune::{PRUNE, section};
pub(super) use remove::{REMOVE, TAG};

pub(super) static LOAD: Spec = Spec {
    name: "load",
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &["--platform"],
    flags: |command| {
        command
            .arg(spec::value("input", Some('i'), "string", "Read from tar archive file, instead of STDIN"))
            .arg(spec::switch("quiet", Some('q'), "Suppress the load output"))
    },
    run: load,
};

/// `--platform`.
pub(super) fn platform(matches: &ArgMatches) -> Result<Option<Platform>> {
    let text = spec::text(matches, "platform").filter(|text| !text.is_empty());
    text.map(|text| text.parse()).transpose()
}

fn load(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let mut input: Box<dyn Read> = match spec::text(matches, "input").filter(|path| !path.is_empty()) {
        Some(path) => {
            let file = File::open(&path).with_context(|| format!("open {path}"))?;
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Err(Failure::engine(format!("open {path}: it is a directory, not a tar archive")).into());
            }
            Box::new(file)
        }
        None if io::stdin().is_terminal() => {
            return Err(Refusal::plain("requested load from stdin, but stdin is empty").into());
        }
        None => Box::new(io::stdin().lock()),
    };
    for line in session.engine()?.load(&mut input)? {
        output::print_line(&output::printable(&line))?;
    }
    Ok(0)
}
