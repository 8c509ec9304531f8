//! `commit`.

use anyhow::Result;
use clap::ArgMatches;

use super::Session;
use super::delivery::deliver;
use super::output;
use super::spec::{self, Arity, Spec};
use crate::engine::images::archives::SaveRequest;
use crate::engine::images::commit::{CommitRequest, Meanwhile};
use crate::error::Failure;

pub(super) static COMMIT: Spec = Spec {
    name: "commit",
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Create a new image from a container's changes",
    arity: Arity::at_most(2),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value(
                "author",
                Some('a'),
                "string",
                "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")",
            ))
            .arg(spec::list("change", Some('c'), "list", "Apply Dockerfile instruction to the created image"))
            .arg(spec::value("message", Some('m'), "string", "Commit message"))
            .arg(spec::switch("pause", Some('p'), "Pause container during commit (default true)"))
            .arg(spec::switch("no-pause", None, "Disable pausing container during commit"))
            .arg(spec::value("output", Some('o'), "string", "Also write the new image to a file, as 'save' does"))
            // Older tools name both ends by options.
            .arg(spec::value("container", Some('n'), "string", "The container").alias("name").hide(true))
            .arg(spec::value("image", Some('t'), "string", "The new image's name").alias("tag").hide(true))
    },
    run,
};

fn run(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let mut operands = spec::operands(matches).into_iter();
    let container = spec::text(matches, "container").or_else(|| operands.next());
    let reference = spec::text(matches, "image").or_else(|| operands.next()).filter(|text| !text.is_empty());
    let (Some(container), None) = (container, operands.next()) else {
        return Err(Failure::usage("'mydocker commit' requires at least 1 and at most 2 arguments").into());
    };
    let paused = spec::is_set_or(matches, "pause", true) && !spec::is_set(matches, "no-pause");
    let request = CommitRequest {
        container,
        reference,
        author: spec::text(matches, "author").unwrap_or_default(),
        message: spec::text(matches, "message").unwrap_or_default(),
        changes: spec::texts(matches, "change"),
        meanwhile: if paused { Meanwhile::Paused } else { Meanwhile::Running },
    };
    let engine = session.engine()?;
    let id = engine.commit(&request)?;
    if let Some(path) = spec::text(matches, "output") {
        let name = request.reference.unwrap_or_else(|| id.clone());
        let request = SaveRequest { names: vec![name], ..SaveRequest::default() };
        deliver(Some(&path), |out| engine.save(&request, out))?;
    }
    output::print_line(&id)?;
    Ok(0)
}
