//! `images`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::ArgMatches;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::tree;
use crate::cli::output::{self, Refusal};
use crate::cli::spec::{self, Arity, Spec};
use crate::cli::table::short_id;
use crate::cli::template::{self, Format, Row};
use crate::cli::{Session, instant, quantity};
use crate::engine::images::{ImageFilter, ImageListRequest, ImageSummary, ListedImage};
use crate::engine::wording;

pub(in crate::cli) static IMAGES: Spec = Spec {
    name: "images",
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    arity: Arity::at_most(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::switch("all", Some('a'), "Show all images (there are no intermediate ones to hide)"))
            .arg(spec::switch("digests", None, "Show digests"))
            .arg(spec::list(
                "filter",
                Some('f'),
                "filter",
                "Filter output based on conditions provided (dangling, label, before, since, until, reference)",
            ))
            .arg(spec::value(
                "format",
                None,
                "string",
                "Format output: 'table', 'table TEMPLATE', 'json' or a Go template",
            ))
            .arg(spec::switch("no-trunc", None, "Don't truncate output"))
            .arg(spec::switch("quiet", Some('q'), "Only show image IDs"))
            .arg(spec::switch("tree", None, "Show the layers of each image, who shares them, and who uses it"))
    },
    run: images,
};

const HEADERS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "VIRTUAL SIZE"),
];

const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const DIGEST_TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const NONE: &str = "<none>";

/// What the filters and the operand ask of the engine.
pub(in crate::cli) fn filters(matches: &ArgMatches, now: Timestamp) -> Result<Vec<ImageFilter>> {
    let parse = |text: &String| ImageFilter::parse(text, |moment| instant::parse(moment, now));
    let given = spec::texts(matches, "filter");
    let named = spec::operands(matches).into_iter().filter(|name| !name.is_empty());
    given
        .iter()
        .map(parse)
        .chain(named.map(|name| ImageFilter::reference(&name)))
        .map(|filter| filter.map_err(|why| Refusal::plain(why).into()))
        .collect()
}

fn images(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let now = Timestamp::now();
    let filters = filters(matches, now)?;
    let given = spec::text(matches, "format").unwrap_or_default();
    let quiet = spec::is_set(matches, "quiet");
    let shorten = !spec::is_set(matches, "no-trunc");
    let digests = spec::is_set(matches, "digests");
    if spec::is_set(matches, "tree") {
        for (flag, is_given) in [("--quiet", quiet), ("--format", !given.is_empty()), ("--no-trunc", !shorten)] {
            if is_given {
                return Err(Refusal::plain(format!("{flag} is not yet supported with --tree")).into());
            }
        }
        let images = session.engine()?.image_list(&ImageListRequest { filters, usage: true })?;
        output::print(&tree::render(&images))?;
        return Ok(0);
    }
    let format = match (quiet, digests) {
        (true, _) => Format::Raw("{{.ID}}".to_owned()),
        (false, true) => Format::parse(Some(&given), DIGEST_TABLE),
        (false, false) => Format::parse(Some(&given), TABLE),
    };
    // Who uses an image is asked only where the answer is shown.
    let usage = ["Containers", "SharedSize", "UniqueSize", "json"].iter().any(|word| given.contains(word));
    let wanted = if digests || given.contains(".Digest") || given == "json" { Digests::Shown } else { Digests::Hidden };
    let images = session.engine()?.image_list(&ImageListRequest { filters, usage })?;
    let mut rows = Vec::new();
    for listed in &images {
        for name in names(&listed.image, wanted) {
            rows.push(row(listed, &name, now, shorten));
        }
    }
    output::print(&template::render(&format, HEADERS, &rows)?)?;
    Ok(0)
}

/// Whether digests make rows of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Digests {
    Shown,
    Hidden,
}

/// What a row calls an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Name {
    pub(in crate::cli) repository: String,
    pub(in crate::cli) tag: String,
    pub(in crate::cli) digest: String,
}

/// A row for each tag, and for each of its repository's digests where those are shown; one for a repository
/// that has digests only; one for an image without any name. As Docker does.
pub(in crate::cli) fn names(image: &ImageSummary, digests: Digests) -> Vec<Name> {
    let name = |repository: &str, tag: &str, digest: &str| Name {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        digest: digest.to_owned(),
    };
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (repository, digest) in image.digests.iter().filter_map(|text| text.split_once('@')) {
        known.entry(repository).or_default().push(digest);
    }
    let mut rows = Vec::new();
    let tags: Vec<(&str, &str)> = image.references.iter().map(|reference| split(reference)).collect();
    for (repository, tag) in &tags {
        match known.get(repository).filter(|_| digests == Digests::Shown) {
            Some(digests) => rows.extend(digests.iter().map(|digest| name(repository, tag, digest))),
            None => rows.push(name(repository, tag, NONE)),
        }
    }
    for (repository, list) in &known {
        if tags.iter().any(|(tagged, _)| tagged == repository) {
            continue;
        }
        match digests {
            Digests::Shown => rows.extend(list.iter().map(|digest| name(repository, NONE, digest))),
            Digests::Hidden => rows.push(name(repository, NONE, NONE)),
        }
    }
    if rows.is_empty() {
        rows.push(name(NONE, NONE, NONE));
    }
    rows
}

/// Repository and tag of a reference. The colon of a port (`host:5000/a`) is no tag's.
fn split(reference: &str) -> (&str, &str) {
    reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((reference, NONE))
}

/// When an image was built, as a distance from now and as a time.
pub(in crate::cli) fn created(created: Option<Timestamp>, now: Timestamp) -> (String, String) {
    let Some(created) = created else { return ("N/A".to_owned(), "N/A".to_owned()) };
    let since = format!("{} ago", wording::human_duration(wording::since(created, now)));
    (since, created.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string())
}

fn row(listed: &ListedImage, name: &Name, now: Timestamp, shorten: bool) -> Row {
    let image = &listed.image;
    let (since, at) = created(image.created, now);
    let size = quantity::human_size(image.size);
    let unknown = || "N/A".to_owned();
    let usage = listed.usage.as_ref();
    let shared = usage.map(|usage| usage.shared);
    Row::default()
        .with("Repository", &name.repository[..])
        .with("Tag", &name.tag[..])
        .with("Digest", &name.digest[..])
        .with("ID", short_id(&image.id, shorten))
        .with("CreatedSince", since)
        .with("CreatedAt", at)
        .with("Size", size.clone())
        .with("Containers", usage.map_or_else(unknown, |usage| usage.containers.len().to_string()))
        .with("SharedSize", shared.map_or_else(unknown, quantity::human_size))
        .with(
            "UniqueSize",
            shared.map_or_else(unknown, |shared| quantity::human_size(image.size.saturating_sub(shared))),
        )
        .with("VirtualSize", size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_dockers() {
        let image = |references: &[&str], digests: &[&str]| ImageSummary {
            references: references.iter().map(|name| (*name).to_owned()).collect(),
            digests: digests.iter().map(|name| (*name).to_owned()).collect(),
            ..ImageSummary::default()
        };
        let shown = |image: &ImageSummary, digests| -> Vec<String> {
            names(image, digests).iter().map(|name| [&name.repository[..], &name.tag, &name.digest].join(" ")).collect()
        };
        assert_eq!(shown(&image(&[], &[]), Digests::Shown), ["<none> <none> <none>"]);
        let ported = image(&["a:1", "h:5000/b:x"], &[]);
        assert_eq!(shown(&ported, Digests::Hidden), ["a 1 <none>", "h:5000/b x <none>"]);
        let both = image(&["a:1", "a:2"], &["a@sha256:0", "b@sha256:0", "b@sha256:1"]);
        assert_eq!(shown(&both, Digests::Hidden), ["a 1 <none>", "a 2 <none>", "b <none> <none>"]);
        assert_eq!(
            shown(&both, Digests::Shown),
            ["a 1 sha256:0", "a 2 sha256:0", "b <none> sha256:0", "b <none> sha256:1"]
        );
    }
}
