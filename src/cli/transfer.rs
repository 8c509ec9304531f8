//! `pull`, `push`.

use anyhow::Result;
use clap::ArgMatches;

use super::progress::{Display, Place, Way};
use super::spec::{self, Arity, Spec};
use super::{Session, output};
use crate::engine::images::transfer::Extent;
use crate::error::Failure;
use crate::image::oci::reference::Reference;
use crate::image::transfer::progress::{Progress, Silent};

pub(super) static PULL: Spec = Spec {
    name: "pull",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        flags(command, "Download all tagged images in the repository").arg(spec::value(
            "platform",
            None,
            "string",
            "Set platform if the image is there for several (for example linux/arm64)",
        ))
    },
    run: pull,
};

pub(super) static PUSH: Spec = Spec {
    name: "push",
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        flags(command, "Push all tags of an image to the repository").arg(spec::value(
            "platform",
            None,
            "string",
            "Push only if the image is for this platform (os/arch[/variant])",
        ))
    },
    run: push,
};

fn flags(command: clap::Command, all: &'static str) -> clap::Command {
    command
        .arg(spec::switch("all-tags", Some('a'), all))
        .arg(spec::switch("disable-content-trust", None, "Skip verification of signatures (default true)"))
        .arg(spec::switch("quiet", Some('q'), "Suppress verbose output"))
}

/// Signatures are not verified here, so whoever asks for that is not to be told that all is well.
fn check_trust(matches: &ArgMatches) -> Result<()> {
    match spec::is_set_or(matches, "disable-content-trust", true) {
        true => Ok(()),
        false => Err(Failure::usage("--disable-content-trust=false is not supported: signatures are not verified")
            .with_hint("pin what you trust by its digest: NAME@sha256:…")
            .into()),
    }
}

/// Says which tag is meant where the name has none.
fn tell_default_tag(name: &str, extent: Extent, progress: &dyn Progress) {
    if let Ok(reference) = name.parse::<Reference>()
        && extent == Extent::One
        && reference.digest().is_none()
        && reference.tag() == Some("latest")
        && !name.ends_with(":latest")
    {
        progress.line("Using default tag: latest");
    }
}

fn extent(matches: &ArgMatches) -> Extent {
    if spec::is_set(matches, "all-tags") { Extent::AllTags } else { Extent::One }
}

/// Shows a transfer, or nothing with `-q`.
fn display(matches: &ArgMatches, way: Way) -> Box<dyn Progress> {
    match spec::is_set(matches, "quiet") {
        true => Box::new(Silent),
        false => Box::new(Display::new(way, Place::Output)),
    }
}

fn pull(session: &Session, matches: &ArgMatches) -> Result<i32> {
    check_trust(matches)?;
    let name = spec::operands(matches).remove(0);
    let progress = display(matches, Way::In);
    let extent = extent(matches);
    tell_default_tag(&name, extent, &*progress);
    let platform = spec::text(matches, "platform").filter(|text| !text.is_empty());
    let pulled = session.engine()?.pull(&name, extent, platform.as_deref(), &*progress)?;
    // What was asked for: with all tags the repository, once.
    match (extent, pulled.first()) {
        (Extent::AllTags, Some((reference, _))) => output::print_line(&reference.repository())?,
        (_, Some((reference, _))) => output::print_line(&reference.canonical())?,
        (_, None) => {}
    }
    Ok(0)
}

fn push(session: &Session, matches: &ArgMatches) -> Result<i32> {
    check_trust(matches)?;
    let name = spec::operands(matches).remove(0);
    let progress = display(matches, Way::Out);
    let extent = extent(matches);
    let platform = spec::text(matches, "platform").filter(|text| !text.is_empty());
    tell_default_tag(&name, extent, &*progress);
    for (reference, _) in session.engine()?.push(&name, extent, platform.as_deref(), &*progress)? {
        if spec::is_set(matches, "quiet") {
            output::print_line(&reference.canonical())?;
        }
    }
    Ok(0)
}
