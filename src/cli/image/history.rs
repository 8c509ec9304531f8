//! `history`.

use anyhow::Result;
use clap::ArgMatches;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::spec::{self, Arity, Spec};
use crate::cli::table::{cut, short_id};
use crate::cli::template::{self, Format, Row};
use crate::cli::{Session, output, platform, quantity};
use crate::engine::images::HistoryEntry;
use crate::engine::wording;

pub(in crate::cli) static HISTORY: Spec = Spec {
    name: "history",
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value(
                "format",
                None,
                "string",
                "Format output: 'table', 'table TEMPLATE', 'json' or a Go template",
            ))
            .arg(spec::switch("human", Some('H'), "Print sizes and dates in human readable format (default true)"))
            .arg(spec::switch("no-trunc", None, "Don't truncate output"))
            .arg(spec::value("platform", None, "string", "Show history for the given platform (os[/arch[/variant]])"))
            .arg(spec::switch("quiet", Some('q'), "Only show image IDs"))
    },
    run: history,
};

const TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const EXACT: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
/// Characters of a command that is not shown in full.
const COMMAND_WIDTH: usize = 45;

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// How sizes and times are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Style {
    human: bool,
    shorten: bool,
}

fn history(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let reference = spec::operands(matches).into_iter().next().unwrap_or_default();
    let platform = platform::read(matches)?;
    let style = Style { human: spec::is_set_or(matches, "human", true), shorten: !spec::is_set(matches, "no-trunc") };
    let format = match spec::is_set(matches, "quiet") {
        true => Format::Raw("{{.ID}}".to_owned()),
        false => Format::parse(spec::text(matches, "format").as_deref(), if style.human { TABLE } else { EXACT }),
    };
    let entries = session.engine()?.image_history(&reference, platform.as_ref())?;
    let now = Timestamp::now();
    let rows: Vec<Row> = entries.iter().map(|entry| row(entry, style, now)).collect();
    output::print(&template::render(&format, HEADERS, &rows)?)?;
    Ok(0)
}

fn row(entry: &HistoryEntry, style: Style, now: Timestamp) -> Row {
    let id = entry.id.as_deref().map_or_else(|| "<missing>".to_owned(), |id| short_id(id, style.shorten));
    let at = entry.created.map_or_else(
        || "N/A".to_owned(),
        |time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z"),
    );
    let ago = |created| format!("{} ago", wording::human_duration(wording::since(created, now)));
    let since = match style.human {
        true => entry.created.map(ago).unwrap_or_else(|| "N/A".to_owned()),
        false => at.clone(),
    };
    let size = if style.human { quantity::human_size(entry.size) } else { entry.size.to_string() };
    Row::default()
        .with("ID", id)
        .with("CreatedSince", since)
        .with("CreatedAt", at)
        .with("CreatedBy", cut(&entry.created_by.replace('\t', " "), COMMAND_WIDTH, style.shorten))
        .with("Size", size)
        .with("Comment", &entry.comment[..])
}
