//! `inspect`.

use anyhow::{Context, Result};
use clap::ArgMatches;
use serde::Serialize;

use super::output::{self, Codes, Refusal};
use super::spec::{self, Arity, Spec, invalid};
use super::{Session, template};
use crate::error::{Class, Failure};

pub(super) static INSPECT: Spec = Spec {
    name: "inspect",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value("format", Some('f'), "string", "Format output: 'json' or a Go template"))
            .arg(spec::switch("size", Some('s'), "Display total file sizes"))
            .arg(spec::value("type", None, "string", "Only inspect objects of the given type (container)"))
    },
    run: inspect,
};

fn inspect(session: &Session, matches: &ArgMatches) -> Result<i32> {
    match spec::text(matches, "type").as_deref() {
        None | Some("" | "container") => {}
        Some(other) => return Err(invalid("type", other, "only container is supported yet")),
    }
    let format = spec::text(matches, "format").filter(|format| !format.is_empty());
    let engine = session.engine()?;
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for reference in spec::operands(matches) {
        let view = match spec::is_set(matches, "size") {
            true => engine.inspect_with_size(&reference),
            false => engine.inspect(&reference),
        };
        match view {
            Ok(view) => {
                found.push(serde_json::to_value(&view).map(|value| (view, value)).context("encode the container")?)
            }
            Err(error) => failed.push(missing(&reference, error)),
        }
    }
    match format {
        // Each object is shown before the next template failure is known, as Docker does.
        Some(format) => {
            for (_, value) in &found {
                output::print_line(&template::render_object(&format, value)?)?;
            }
        }
        None => {
            let views: Vec<_> = found.iter().map(|(view, _)| view).collect();
            output::print_line(&indented(&views)?)?;
        }
    }
    let code = i32::from(!failed.is_empty());
    for error in failed {
        output::fail(&error, "", Codes::Plain);
    }
    Ok(code)
}

/// Docker's words for what is neither container nor anything else.
fn missing(reference: &str, error: anyhow::Error) -> anyhow::Error {
    if Failure::from_error(&error).class == Class::NotFound {
        return Refusal::plain(format!("Error: No such object: {reference}")).into();
    }
    error
}

/// JSON indented by four blanks, fields in Docker's order.
pub(super) fn indented<T: Serialize>(value: &T) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).context("encode JSON")?;
    String::from_utf8(bytes).context("encode JSON")
}
