//! `network ls`.

use anyhow::Result;
use clap::ArgMatches;
use jiff::tz::TimeZone;

use crate::cli::output::{self, Codes, Refusal};
use crate::cli::spec::{self, Arity, Spec};
use crate::cli::template::{self, Format, Row};
use crate::cli::{Session, natural};
use crate::engine::network::{NetworkFilter, NetworkSummary};

pub(in crate::cli) static LIST: Spec = Spec {
    name: "ls",
    usage: "[OPTIONS]",
    about: "List networks",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::list(
                "filter",
                Some('f'),
                "filter",
                "Provide filter values (driver, id, label, name, scope, type=custom|builtin, dangling)",
            ))
            .arg(spec::value(
                "format",
                None,
                "string",
                "Format output: 'table', 'table TEMPLATE', 'json' or a Go template",
            ))
            .arg(spec::switch("no-trunc", None, "Do not truncate the output"))
            .arg(spec::switch("quiet", Some('q'), "Only display network IDs"))
    },
    run: |session, matches| list(session, matches),
};

const HEADERS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
    ("Subnet", "SUBNET"),
];

/// Docker's columns, and the subnet behind them, where it disturbs no script that cuts from the left.
const TABLE: &str = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}\t{{.Subnet}}";

/// What the filters ask of the engine.
pub(in crate::cli) fn filters(matches: &ArgMatches) -> Result<Vec<NetworkFilter>> {
    let texts = spec::texts(matches, "filter");
    texts.iter().map(|text| NetworkFilter::parse(text).map_err(|why| Refusal::plain(why).into())).collect()
}

fn list(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let filters = filters(matches)?;
    let format = match spec::is_set(matches, "quiet") {
        true => Format::Raw("{{.ID}}".to_owned()),
        false => Format::parse(spec::text(matches, "format").as_deref(), TABLE),
    };
    let shorten = !spec::is_set(matches, "no-trunc");
    let mut listing = session.engine()?.network_list(&filters)?;
    listing.networks.sort_by(|a, b| natural::order(&a.name, &b.name));
    let rows: Vec<Row> = listing.networks.iter().map(|network| row(network, shorten)).collect();
    output::print(&template::render(&format, HEADERS, &rows)?)?;
    for problem in &listing.problems {
        output::fail(problem, "", Codes::Plain);
    }
    Ok(0)
}

fn row(network: &NetworkSummary, shorten: bool) -> Row {
    let id: String = if shorten { network.id.chars().take(12).collect() } else { network.id.clone() };
    let labels: Vec<String> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let subnets: Vec<String> = network.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
    let created = network
        .created
        .map(|time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string());
    Row::default()
        .with("ID", id)
        .with("Name", network.name.as_str())
        .with("Driver", network.driver)
        .with("Scope", "local")
        .with("IPv4", network.ipv4.to_string())
        .with("IPv6", network.ipv6.to_string())
        .with("Internal", network.internal.to_string())
        .with("Labels", labels.join(","))
        .with("CreatedAt", created.unwrap_or_else(|| "0001-01-01 00:00:00 +0000 UTC".to_owned()))
        .with("Subnet", subnets.join(","))
        .with_labels(&network.labels)
}
