//! `ps`.

use anyhow::Result;
use clap::ArgMatches;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::output::Refusal;
use super::output::{self, Codes};
use super::spec::{self, Arity, Spec};
use super::table::{cut, short_id};
use super::template::{self, Format, Row};
use super::{Session, publish, quantity};
use crate::engine::query::{ContainerSummary, Filter, ListRequest, MountSummary};
use crate::engine::wording;

pub(super) static PS: Spec = Spec {
    name: "ps",
    usage: "[OPTIONS]",
    about: "List containers",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::switch("all", Some('a'), "Show all containers (default shows just running)"))
            .arg(spec::list("filter", Some('f'), "filter", "Filter output based on conditions provided (id, name, label, status, exited, ancestor, before, since, volume, network, publish, expose, health)"))
            .arg(spec::value("format", None, "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
            .arg(spec::value("last", Some('n'), "int", "Show n last created containers (includes all states)"))
            .arg(spec::switch("latest", Some('l'), "Show the latest created container (includes all states)"))
            .arg(spec::switch("no-trunc", None, "Don't truncate output"))
            .arg(spec::switch("quiet", Some('q'), "Only display container IDs"))
            .arg(spec::switch("size", Some('s'), "Display total file sizes"))
    },
    run: ps,
};

pub(super) const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Pid", "PID"),
    ("IP", "IP"),
];

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

/// What the flags ask of the engine.
pub(super) fn lower(matches: &ArgMatches) -> Result<ListRequest> {
    let mut filters = Vec::new();
    for text in spec::texts(matches, "filter") {
        filters.push(Filter::parse(&text).map_err(Refusal::plain)?);
    }
    let last: Option<i64> = spec::integer(matches, "last")?;
    let last = if spec::is_set(matches, "latest") { Some(1) } else { last };
    Ok(ListRequest {
        all: spec::is_set(matches, "all"),
        last: last.and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0),
        filters,
        size: spec::is_set(matches, "size"),
    })
}

fn ps(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let request = lower(matches)?;
    let given = spec::text(matches, "format");
    let quiet = spec::is_set(matches, "quiet");
    if quiet && given.as_deref().is_some_and(|format| !format.is_empty() && format != "table") {
        output::warn("Ignoring custom format, because both --format and --quiet are set.");
    }
    let default = if request.size { format!("{TABLE}\t{{{{.Size}}}}") } else { TABLE.to_owned() };
    let format = match quiet {
        true => Format::Raw("{{.ID}}".to_owned()),
        false => Format::parse(given.as_deref(), &default),
    };
    let listing = session.engine()?.list(&request)?;
    let now = Timestamp::now();
    let shorten = !spec::is_set(matches, "no-trunc");
    let rows: Vec<Row> = listing.containers.iter().map(|container| row(container, now, shorten)).collect();
    output::print(&template::render(&format, HEADERS, &rows)?)?;
    for problem in &listing.problems {
        output::fail(problem, "", Codes::Plain);
    }
    Ok(0)
}

/// A container's fields.
pub(super) fn row(container: &ContainerSummary, now: Timestamp, shorten: bool) -> Row {
    let id = if shorten { container.id.short() } else { container.id.as_str() };
    // Docker's quoting: it shows where words end, and is not meant for a shell.
    let word = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    let (program, rest) = container.command.split_at(container.command.len().min(1));
    let words: Vec<String> = program.iter().cloned().chain(rest.iter().map(word)).collect();
    let command = words.join(" ");
    let command = if container.created.is_none() { String::new() } else { quote(&cut(&command, 20, shorten)) };
    let by_id = container.image == container.image_id;
    let image = if by_id { short_id(&container.image, shorten) } else { container.image.clone() };
    let labels: Vec<String> = container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mounts: Vec<String> = container.mounts.iter().map(|mount| cut(&mount.name, 15, shorten)).collect();
    let volumes = container.mounts.iter().filter(|mount: &&MountSummary| mount.volume).count();
    let ago = |created| format!("{} ago", wording::human_duration(wording::since(created, now)));
    let addresses: Vec<String> = container.addresses.iter().map(ToString::to_string).collect();
    let created =
        container.created.map(|time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string());
    let size = container
        .size
        .map(|size| format!("{} (virtual {})", quantity::human_size(size.writable), quantity::human_size(size.total)));
    Row::default()
        .with("ID", id)
        .with("Names", container.name.as_str())
        .with("Image", image)
        .with("Command", command)
        .with("CreatedAt", created.unwrap_or_default())
        .with("RunningFor", container.created.map(ago).unwrap_or_default())
        .with("Ports", publish::column(&container.ports))
        .with("State", container.state())
        .with("Status", container.status_text(now))
        .with("Size", size.unwrap_or_else(|| "0B".to_owned()))
        .with("Labels", labels.join(","))
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", volumes.to_string())
        .with("Networks", container.networks.join(","))
        .with("Pid", container.pid.map(|pid| pid.to_string()).unwrap_or_default())
        .with("IP", addresses.join(","))
        .with_labels(&container.labels)
}

/// As Go's strconv.Quote: in quotes, with what does not print escaped.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            other if other.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(other))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_cut_and_quoted() {
        assert_eq!(quote(&cut("sh", 20, true)), "\"sh\"");
        assert_eq!(quote(&cut("sh -c 'while true; do sleep 1; done'", 20, true)), "\"sh -c 'while true; …\"");
        assert_eq!(quote(&cut("12345678901234567890", 20, true)), "\"12345678901234567890\"");
        assert_eq!(quote("a\u{1b}\"\\\n"), "\"a\\x1b\\\"\\\\\\n\"");
    }
}
