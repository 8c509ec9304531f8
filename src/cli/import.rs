//! `import`, `image import`.

use std::fs::File;
use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use clap::ArgMatches;

use super::Session;
use super::output::{self, Refusal};
use super::spec::{self, Arity, Spec};
use crate::engine::images::archives::ImportRequest;
use crate::error::Failure;

pub(super) static IMPORT: Spec = Spec {
    name: "import",
    usage: "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    about: "Import the contents from a tarball to create a filesystem image",
    arity: Arity::between(1, 2),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::list("change", Some('c'), "list", "Apply Dockerfile instruction to the created image"))
            .arg(spec::value("message", Some('m'), "string", "Set commit message for imported image"))
            .arg(spec::value("platform", None, "string", "Set platform if server is multi-platform capable"))
    },
    run,
};

fn run(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let mut operands = spec::operands(matches).into_iter();
    let source = operands.next().unwrap_or_default();
    let request = ImportRequest {
        source: source.clone(),
        reference: operands.next().filter(|reference| !reference.is_empty()),
        message: spec::text(matches, "message").unwrap_or_default(),
        changes: spec::texts(matches, "change"),
        platform: spec::text(matches, "platform"),
    };
    let engine = session.engine()?;
    let id = if source == "-" {
        if io::stdin().is_terminal() {
            return Err(Refusal::plain("requested import from stdin, but stdin is a terminal").into());
        }
        engine.import(&request, &mut io::stdin())?
    } else if source.starts_with("http://") || source.starts_with("https://") {
        return Err(Failure::usage(format!("import {source}: importing from a URL is not supported"))
            .with_hint(format!("curl -fL {source} | mydocker import -"))
            .into());
    } else {
        let mut file = File::open(&source).with_context(|| format!("open {source}"))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Failure::engine(format!("open {source}: it is a directory, not a tar archive"))
                .with_hint(format!("of what is in it: tar -C {source} -c . | mydocker import -"))
                .into());
        }
        engine.import(&request, &mut file)?
    };
    output::print_line(&id)?;
    Ok(0)
}
