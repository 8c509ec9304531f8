//! `inspect`.

use anyhow::{Context, Result};
use clap::ArgMatches;
use serde::Serialize;

use super::output::{self, Codes, Refusal};
use super::spec::{self, Arity, Spec, invalid};
use super::{Session, platform, template};
use crate::engine::Engine;
use crate::engine::images::ImageView;
use crate::engine::network::NetworkView;
use crate::engine::query::ContainerView;
use crate::error::{Class, Failure};
use crate::image::oci::platform::Platform;

pub(super) static INSPECT: Spec = Spec {
    name: "inspect",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on containers, images and networks",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        container_flags(command).arg(spec::value(
            "type",
            None,
            "string",
            "Only inspect objects of the given type (container, image, network)",
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
pub(super) enum Kind {
    Container,
    Image,
    Network,
}

fn kinds(word: &str) -> Result<&'static [Kind]> {
    match word {
        "" => Ok(&[Kind::Container, Kind::Image, Kind::Network]),
        "container" => Ok(&[Kind::Container]),
        "image" => Ok(&[Kind::Image]),
        "network" => Ok(&[Kind::Network]),
        other => Err(invalid("type", other, "only container, image and network are supported yet")),
    }
}

/// What a name stands for.
#[derive(Serialize)]
#[serde(untagged)]
enum Object {
    Container(Box<ContainerView>),
    Image(Box<ImageView>),
    Network(Box<NetworkView>),
}

/// What is asked of each object.
struct Wish {
    size: bool,
    platform: Option<Platform>,
}

fn find(engine: &Engine, reference: &str, kinds: &[Kind], wish: &Wish) -> Result<Object> {
    let mut result = Err(Refusal::plain("").into());
    for kind in kinds {
        result = match kind {
            Kind::Container if wish.size => {
                engine.inspect_with_size(reference).map(|view| Object::Container(Box::new(view)))
            }
            Kind::Container => engine.inspect(reference).map(|view| Object::Container(Box::new(view))),
            Kind::Image => {
                engine.image_inspect(reference, wish.platform.as_ref()).map(|view| Object::Image(Box::new(view)))
            }
            Kind::Network => engine.network_inspect(reference).map(|view| Object::Network(Box::new(view))),
        };
        // What cannot be an image's name may be a network's.
        let is_other = |class| class == Class::NotFound || (kinds.len() > 1 && class == Class::Usage);
        if result.as_ref().is_err_and(|error| is_other(Failure::from_error(error).class)) {
            continue;
        }
        return result;
    }
    result.map_err(|error| match kinds {
        [Kind::Network | Kind::Image] => error,
        _ => Refusal::plain(format!("Error: No such object: {reference}")).into(),
    })
}

/// Shows the objects that the operands name, of the first of these kinds that has one.
pub(super) fn inspect(session: &Session, matches: &ArgMatches, kinds: &[Kind]) -> Result<i32> {
    let format = spec::text(matches, "format").filter(|format| !format.is_empty());
    // Not all forms of `inspect` have all flags.
    let has = |flag: &str| matches.try_contains_id(flag).is_ok();
    let wish = Wish {
        size: has("size") && spec::is_set(matches, "size"),
        platform: if has("platform") { platform::read(matches)? } else { None },
    };
    let engine = session.engine()?;
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for reference in spec::operands(matches) {
        match find(&engine, &reference, kinds, &wish) {
            Ok(object) => {
                let mut value = serde_json::to_value(&object).context("encode the object")?;
                if matches!(object, Object::Image(_)) {
                    complete(&mut value);
                }
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

/// Fields that an image's JSON leaves out when they are empty, and that Go's templates know all the same.
fn complete(image: &mut serde_json::Value) {
    if let Some(config) = image.get_mut("Config").and_then(serde_json::Value::as_object_mut) {
        for name in ["ExposedPorts", "Healthcheck", "Shell"] {
            config.entry(name).or_insert(serde_json::Value::Null);
        }
        config.entry("StopSignal").or_insert_with(|| "".into());
    }
    if let Some(fields) = image.as_object_mut() {
        ["Created", "Variant"].iter().for_each(|name| _ = fields.entry(*name).or_insert_with(|| "".into()));
    }
}

/// JSON indented by four blanks, fields in Docker's order.
pub(super) fn indented<T: Serialize>(value: &T) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).context("encode JSON")?;
    String::from_utf8(bytes).context("encode JSON")
}
