//! `save`, `image save`.

use anyhow::Result;
use clap::ArgMatches;

use super::Session;
use super::delivery::deliver;
use super::spec::{self, Arity, Spec};
use crate::engine::images::archives::{Form, SaveRequest};

pub(super) static SAVE: Spec = Spec {
    name: "save",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value("output", Some('o'), "string", "Write to a file, instead of STDOUT"))
            .arg(spec::value("platform", None, "string", "Save only the given platform variant (os/arch[/variant])"))
            .arg(spec::value(
                "format",
                None,
                "string",
                "Form of the archive: 'docker-archive' (an OCI layout that Docker reads; default) or 'oci-archive'",
            ))
    },
    run,
};

fn run(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let form = match spec::text(matches, "format").as_deref() {
        None | Some("docker-archive" | "docker") => Form::Docker,
        Some("oci-archive" | "oci") => Form::Oci,
        Some(other) => return Err(spec::invalid("format", other, "it must be docker-archive or oci-archive")),
    };
    let platform = spec::text(matches, "platform").map(|platform| platform.parse()).transpose()?;
    let request = SaveRequest { names: spec::operands(matches), platform, form };
    let engine = session.engine()?;
    deliver(spec::text(matches, "output").as_deref(), |out| engine.save(&request, out))?;
    Ok(0)
}
