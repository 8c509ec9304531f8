//! `export` and `diff`.

use anyhow::Result;
use clap::ArgMatches;

use super::Session;
use super::delivery::deliver;
use super::output;
use super::spec::{self, Arity, Spec};
use crate::engine::images::export::Change;

pub(super) static EXPORT: Spec = Spec {
    name: "export",
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command.arg(spec::value("output", Some('o'), "string", "Write to a file, instead of STDOUT")),
    run: export,
};

pub(super) static DIFF: Spec = Spec {
    name: "diff",
    usage: "CONTAINER",
    about: "Inspect changes to files or directories on a container's filesystem",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: diff,
};

fn export(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let engine = session.engine()?;
    let container = spec::operands(matches).remove(0);
    deliver(spec::text(matches, "output").as_deref(), |out| engine.export(&container, out))?;
    Ok(0)
}

fn diff(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let mut text = Vec::new();
    for (change, path) in session.engine()?.diff(&spec::operands(matches).remove(0))? {
        text.push(match change {
            Change::Changed => b'C',
            Change::Added => b'A',
            Change::Deleted => b'D',
        });
        text.push(b' ');
        text.extend(path);
        text.push(b'\n');
    }
    output::print_bytes(&text)?;
    Ok(0)
}
