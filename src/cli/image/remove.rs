//! `rmi` and `tag`.

use anyhow::Result;
use clap::ArgMatches;

use crate::cli::Session;
use crate::cli::output::{self, Codes};
use crate::cli::spec::{self, Arity, Spec};
use crate::engine::images::Deletion;
use crate::error::{Class, Failure};
use crate::image::Force;

pub(in crate::cli) static REMOVE: Spec = Spec {
    name: "rmi",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &["--platform"],
    flags: |command| {
        command.arg(spec::switch("force", Some('f'), "Force removal of the image")).arg(spec::switch(
            "no-prune",
            None,
            "Accepted for compatibility: images have no parents of their own here",
        ))
    },
    run: remove,
};

pub(in crate::cli) static TAG: Spec = Spec {
    name: "tag",
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    arity: Arity::exactly(2),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: |session, matches| {
        if let [source, target] = spec::operands(matches).as_slice() {
            session.engine()?.image_tag(source, target)?;
        }
        Ok(0)
    },
};

fn remove(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let force = if spec::is_set(matches, "force") { Force::Yes } else { Force::No };
    let mut code = 0;
    for result in session.engine()?.image_remove(&spec::operands(matches), force) {
        let lines = match result {
            Ok(lines) => lines,
            Err(error) => {
                // By force, what is not there is as it should be; it is told all the same.
                let forgiven = force == Force::Yes && Failure::from_error(&error).class == Class::NotFound;
                let failed = output::fail(&error, "", Codes::Plain).min(1);
                code = code.max(if forgiven { 0 } else { failed });
                continue;
            }
        };
        for line in lines {
            let text = match line {
                Deletion::Untagged(name) => format!("Untagged: {}", output::printable(&name)),
                Deletion::Deleted(digest) => format!("Deleted: {digest}"),
            };
            match output::print_line(&text) {
                Err(error) if !output::is_reader_gone(&error) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(code)
}
