//! `images`.

use anyhow::Result;
use clap::ArgMatches;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::output;
use crate::cli::spec::{self, Arity, Spec};
use crate::cli::template::{self, Format, Row};
use crate::cli::{Session, quantity};
use crate::engine::images::ImageSummary;
use crate::engine::query::wording;

pub(in crate::cli) static IMAGES: Spec = Spec {
    name: "images",
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    arity: Arity::at_most(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &["-f", "--filter", "--tree", "--digests"],
    flags: |command| {
        command
            .arg(spec::switch("all", Some('a'), "Show all images (there are no intermediate ones to hide)"))
            .arg(spec::value(
                "format",
                None,
                "string",
                "Format output: 'table', 'table TEMPLATE', 'json' or a Go template",
            ))
            .arg(spec::switch("no-trunc", None, "Don't truncate output"))
            .arg(spec::switch("quiet", Some('q'), "Only show image IDs"))
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

fn images(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let wanted = spec::operands(matches).into_iter().next();
    let quiet = spec::is_set(matches, "quiet");
    let format = match quiet {
        true => Format::Raw("{{.ID}}".to_owned()),
        false => Format::parse(spec::text(matches, "format").as_deref(), TABLE),
    };
    let shorten = !spec::is_set(matches, "no-trunc");
    let now = Timestamp::now();
    let mut images = session.engine()?.images()?;
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.references.cmp(&b.references)));
    let mut rows = Vec::new();
    for image in &images {
        for (repository, tag) in names(image) {
            if wanted.as_deref().is_none_or(|wanted| matches_name(wanted, &repository, &tag)) {
                rows.push(row(image, &repository, &tag, now, shorten));
            }
        }
    }
    output::print(&template::render(&format, HEADERS, &rows)?)?;
    Ok(0)
}

/// Repository and tag of each reference; an image without one is shown once.
fn names(image: &ImageSummary) -> Vec<(String, String)> {
    let none = || "<none>".to_owned();
    if image.references.is_empty() {
        return vec![(none(), none())];
    }
    let split = |reference: &String| {
        let name = reference.split('@').next().unwrap_or_default();
        // The colon of a port (`host:5000/a`) is no tag's.
        match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((repository, tag)) => (repository.to_owned(), tag.to_owned()),
            None => (name.to_owned(), none()),
        }
    };
    image.references.iter().map(split).collect()
}

fn matches_name(wanted: &str, repository: &str, tag: &str) -> bool {
    wanted == repository || wanted.strip_prefix(repository).is_some_and(|rest| rest.strip_prefix(':') == Some(tag))
}

fn row(image: &ImageSummary, repository: &str, tag: &str, now: Timestamp, shorten: bool) -> Row {
    let digits = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    let id = if shorten { digits.chars().take(12).collect() } else { image.id.clone() };
    let since = |created| format!("{} ago", wording::human_duration(wording::since(created, now)));
    let created =
        image.created.map(|time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string());
    let size = quantity::human_size(image.size);
    Row::default()
        .with("Repository", repository)
        .with("Tag", tag)
        .with("Digest", "<none>")
        .with("ID", id)
        .with("CreatedSince", image.created.map(since).unwrap_or_else(|| "N/A".to_owned()))
        .with("CreatedAt", created.unwrap_or_else(|| "N/A".to_owned()))
        .with("Size", size.clone())
        .with("Containers", "N/A")
        .with("SharedSize", "N/A")
        .with("UniqueSize", "N/A")
        .with("VirtualSize", size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_at_the_tag() {
        let image = |references: &[&str]| ImageSummary {
            id: "sha256:0".into(),
            references: references.iter().map(|reference| (*reference).to_owned()).collect(),
            created: None,
            size: 0,
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(names(&image(&[])), [pair("<none>", "<none>")]);
        assert_eq!(names(&image(&["a:1", "h:5000/b"])), [pair("a", "1"), pair("h:5000/b", "<none>")]);
        assert!(matches_name("a", "a", "1") && matches_name("a:1", "a", "1"));
        assert!(!matches_name("a:2", "a", "1") && !matches_name("ab", "a", "1"));
    }
}
