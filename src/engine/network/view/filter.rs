//! The filters of `network ls` and `network prune`.

use jiff::Timestamp;

use super::NetworkSummary;
use crate::engine::pattern::Pattern;

/// What a network must be like. Several of one kind are alternatives (labels: all must hold), kinds
/// are combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkFilter {
    /// Of this driver.
    Driver(String),
    /// The id matches.
    Id(NetworkPattern),
    /// The name matches.
    Name(NetworkPattern),
    /// The label exists, with this value if one is given.
    Label(String, Option<String>),
    /// The label does not exist, or not with this value.
    NotLabel(String, Option<String>),
    /// `local`, which all are.
    Scope(String),
    /// Made by a user (`true`), or always there.
    Custom(bool),
    /// Made by a user and used by no running container (`true`), or not so.
    Dangling(bool),
    /// Made before this moment.
    Until(Timestamp),
}

/// A pattern for ids and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPattern(Pattern);

impl NetworkFilter {
    /// Reads `key=value` as `network ls` takes it; the error says what is wrong.
    pub fn parse(text: &str) -> Result<NetworkFilter, String> {
        let (key, value) = split(text)?;
        let wrong = || format!("invalid filter '{key}={value}'");
        match key.as_str() {
            "driver" => Ok(NetworkFilter::Driver(value)),
            "id" => Ok(NetworkFilter::Id(NetworkPattern(Pattern::parse(&value)?))),
            "name" => Ok(NetworkFilter::Name(NetworkPattern(Pattern::parse(&value)?))),
            "label" => Ok(label(&value, NetworkFilter::Label)),
            "scope" => Ok(NetworkFilter::Scope(value)),
            "type" => match value.as_str() {
                "custom" => Ok(NetworkFilter::Custom(true)),
                "builtin" => Ok(NetworkFilter::Custom(false)),
                _ => Err(format!("{}: it must be custom or builtin", wrong())),
            },
            "dangling" => match value.as_str() {
                "true" | "1" | "t" => Ok(NetworkFilter::Dangling(true)),
                "false" | "0" | "f" => Ok(NetworkFilter::Dangling(false)),
                _ => Err(wrong()),
            },
            _ => Err(format!("invalid filter '{key}'")),
        }
    }

    /// Reads `key=value` as `network prune` takes it. `moment` reads a time or a distance from now.
    pub fn parse_prune(text: &str, moment: impl Fn(&str) -> Option<Timestamp>) -> Result<NetworkFilter, String> {
        let (key, value) = split(text)?;
        match key.as_str() {
            "label" => Ok(label(&value, NetworkFilter::Label)),
            "label!" => Ok(label(&value, NetworkFilter::NotLabel)),
            "until" => moment(&value).map(NetworkFilter::Until).ok_or_else(|| {
                format!("invalid filter 'until={value}': write a time (2013-01-02T13:23:37Z) or a duration (42m)")
            }),
            _ => Err(format!("invalid filter '{key}'")),
        }
    }
}

fn split(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok((key.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn label(text: &str, kind: fn(String, Option<String>) -> NetworkFilter) -> NetworkFilter {
    match text.split_once('=') {
        Some((name, value)) => kind(name.to_owned(), Some(value.to_owned())),
        None => kind(text.to_owned(), None),
    }
}

/// Whether a network passes all kinds of filters. `is_used`: a running container is connected to it.
pub(in crate::engine) fn passes(filters: &[NetworkFilter], network: &NetworkSummary, is_used: bool) -> bool {
    let kind = std::mem::discriminant::<NetworkFilter>;
    filters.iter().all(|filter| match filter {
        NetworkFilter::Label(..) | NetworkFilter::NotLabel(..) => holds(filter, network, is_used),
        _ => filters.iter().any(|other| kind(other) == kind(filter) && holds(other, network, is_used)),
    })
}

fn holds(filter: &NetworkFilter, network: &NetworkSummary, is_used: bool) -> bool {
    let has_label = |name: &String, value: &Option<String>| {
        network.labels.get(name).is_some_and(|have| value.as_ref().is_none_or(|value| have == value))
    };
    match filter {
        NetworkFilter::Driver(driver) => network.driver == driver,
        NetworkFilter::Id(pattern) => pattern.0.matches(&network.id),
        NetworkFilter::Name(pattern) => pattern.0.matches(&network.name),
        NetworkFilter::Label(name, value) => has_label(name, value),
        NetworkFilter::NotLabel(name, value) => !has_label(name, value),
        NetworkFilter::Scope(scope) => scope == "local",
        NetworkFilter::Custom(custom) => network.is_builtin() != *custom,
        NetworkFilter::Dangling(dangling) => (!network.is_builtin() && !is_used) == *dangling,
        NetworkFilter::Until(moment) => network.created.is_some_and(|created| created < *moment),
    }
}
