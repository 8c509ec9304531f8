//! `inspect`.

use anyhow::{Context, Result};
use clap::ArgMatches;
use serde::Serialize;

use super::output::{self, Codes, Refusal};
use super::spec::{self, Arity, Spec, invalid};
use super::{Session, template};
use crate::engine::Engine;
use crate::engine::network::NetworkView;
use crate::engine::query::ContainerView;
use crate::error::{Class, Failure};

pub(super) static INSPECT: Spec = Spec {
    name: "inspect",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on containers and networks",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        container_flags(command).arg(spec::value(
            "type",
            None,
            "string",
            "Only inspect objects of the given type (container, network)",
        ))
    },
    run: |session, matches| {
        let kinds = kinds(spec::text(matches, "type").as_deref().unwrap_or_default())?;
        inspect(session, matches, kinds)
    },
};

pub(super) static CONTAINER_INSPECT: Spec = Spec {
    name: "inspect",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Display detailed information on one or more containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: container_flags,
    run: |session, matches| inspect(session, matches, &[Kind::Container]),
};

fn container_flags(command: clap::Command) -> clap::Command {
    command.arg(spec::value("format", Some('f'), "string", "Format output: 'json' or a Go template")).arg(spec::switch(
        "size",
        Some('s'),
        "Display total file sizes",
    ))
}

/// What a name may stand for, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Network,
}

fn kinds(word: &str) -> Result<&'static [Kind]> {
    match word {
        "" => Ok(&[Kind::Container, Kind::Network]),
        "container" => Ok(&[Kind::Container]),
        "network" => Ok(&[Kind::Network]),
        other => Err(invalid("type", other, "only container and network are supported yet")),
    }
}

/// What a name stands for.
#[derive(Serialize)]
#[serde(untagged)]
enum Object {
    Container(Box<ContainerView>),
    Network(Box<NetworkView>),
}

fn find(engine: &Engine, reference: &str, kinds: &[Kind], size: bool) -> Result<Object> {
    let mut result = Err(Refusal::plain("").into());
    for kind in kinds {
        result = match kind {
            Kind::Container if size => {
                engine.inspect_with_size(reference).map(|view| Object::Container(Box::new(view)))
            }
            Kind::Container => engine.inspect(reference).map(|view| Object::Container(Box::new(view))),
            Kind::Network => engine.network_inspect(reference).map(|view| Object::Network(Box::new(view))),
        };
        if result.as_ref().is_err_and(|error| Failure::from_error(error).class == Class::NotFound) {
            continue;
        }
        return result;
    }
    result.map_err(|error| match kinds {
        [Kind::Network] => error,
        _ => Refusal::plain(format!("Error: No such object: {reference}")).into(),
    })
}

fn inspect(session: &Session, matches: &ArgMatches, kinds: &[Kind]) -> Result<i32> {
    let format = spec::text(matches, "format").filter(|format| !format.is_empty());
    let engine = session.engine()?;
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for reference in spec::operands(matches) {
        match find(&engine, &reference, kinds, spec::is_set(matches, "size")) {
            Ok(object) => {
                let value = serde_json::to_value(&object).context("encode the object")?;
                found.push((object, value));
            }
            Err(error) => failed.push(error),
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

/// JSON indented by four blanks, fields in Docker's order.
pub(super) fn indented<T: Serialize>(value: &T) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).context("encode JSON")?;
    String::from_utf8(bytes).context("encode JSON")
}
