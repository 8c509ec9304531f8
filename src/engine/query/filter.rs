//! The filters of `ps`: read once, resolved once, asked for each container.

use jiff::Timestamp;

use super::PortSummary;
use super::summary::ContainerSummary;
use crate::container::{HealthStatus, Protocol, handle};
use crate::engine::Engine;
use crate::engine::pattern::Pattern;
use crate::image::Store;

/// One `--filter`. Several of one kind are alternatives (labels: all must hold), kinds are combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// The id matches.
    Id(IdPattern),
    /// The name matches.
    Name(NamePattern),
    /// The label exists, with this value if one is given.
    Label(String, Option<String>),
    /// The status is this word.
    Status(String),
    /// Ended with this code.
    Exited(i32),
    /// Its health is this word.
    Health(String),
    /// Made from this image or one built on it.
    Ancestor(String),
    /// Made before this container.
    Before(String),
    /// Made after this container.
    Since(String),
    /// Has this volume, or something mounted at this path.
    Volume(String),
    /// Joined to this network, by name, id, or prefix of the id.
    Network(String),
    /// One of these ports of the host leads to it.
    Publish(PortRange),
    /// It publishes or exposes one of these ports of its own.
    Expose(PortRange),
}

/// `80`, `80/udp`, `8000-8010/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl PortRange {
    fn parse(text: &str) -> Option<PortRange> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(PortRange { first, last, protocol: protocol.parse().ok()? })
    }

    fn contains(self, port: u16, protocol: Protocol) -> bool {
        (self.first..=self.last).contains(&port) && self.protocol == protocol
    }
}

fn wrong_ports(key: &str, value: &str) -> String {
    format!("invalid filter '{key}={value}': write PORT[/PROTOCOL] or FIRST-LAST[/PROTOCOL]")
}

/// A pattern for ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPattern(Pattern);

/// A pattern for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(Pattern);

const STATUSES: [&str; 8] = ["created", "restarting", "running", "removing", "paused", "exited", "dead", "damaged"];

const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

impl Filter {
    /// Reads `key=value`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Filter, String> {
        let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
        match key.as_str() {
            "id" => Ok(Filter::Id(IdPattern(Pattern::parse(&value)?))),
            "name" => Ok(Filter::Name(NamePattern(Pattern::parse(&value)?))),
            "label" => Ok(match value.split_once('=') {
                Some((name, value)) => Filter::Label(name.to_owned(), Some(value.to_owned())),
                None => Filter::Label(value, None),
            }),
            "status" if STATUSES.contains(&value.as_str()) => Ok(Filter::Status(value)),
            "status" => Err(format!("invalid filter 'status={value}': it must be one of {}", STATUSES.join(", "))),
            "exited" => value.parse().map(Filter::Exited).map_err(|_| format!("invalid filter 'exited={value}'")),
            "ancestor" => Ok(Filter::Ancestor(value)),
            "before" => Ok(Filter::Before(value)),
            "since" => Ok(Filter::Since(value)),
            "volume" => Ok(Filter::Volume(value)),
            "network" => Ok(Filter::Network(value)),
            "publish" => PortRange::parse(&value).map(Filter::Publish).ok_or_else(|| wrong_ports(&key, &value)),
            "expose" => PortRange::parse(&value).map(Filter::Expose).ok_or_else(|| wrong_ports(&key, &value)),
            "health" if HEALTH.contains(&value.as_str()) => Ok(Filter::Health(value)),
            "health" => Err(format!("Unrecognised filter value for health: {value}")),
            "is-task" => Err(format!("filter {key} is not supported yet")),
            _ => Err(format!("invalid filter '{key}'")),
        }
    }
}

/// A filter with its references looked up.
pub(super) enum Resolved<'a> {
    Plain(&'a Filter),
    /// Image id and layers.
    Ancestor(&'a str, Option<(String, Vec<String>)>),
    Before(Timestamp),
    Since(Timestamp),
    /// What was written, and name and id of the network that it means.
    Network(&'a str, Option<(String, String)>),
}

/// Looks up what the filters refer to.
pub(super) fn resolve<'a>(engine: &Engine, filters: &'a [Filter]) -> anyhow::Result<Vec<Resolved<'a>>> {
    let created = |reference: &str| -> anyhow::Result<Timestamp> {
        let id = handle::find(&engine.layout, reference)?;
        Ok(handle::load(&engine.layout, &id)?.config.created)
    };
    let mut resolved = Vec::with_capacity(filters.len());
    for filter in filters {
        resolved.push(match filter {
            Filter::Ancestor(reference) => {
                let image = Store::open(&engine.layout).get(reference)?;
                Resolved::Ancestor(reference, image.map(|image| (image.id, image.layers)))
            }
            Filter::Before(reference) => Resolved::Before(created(reference)?),
            Filter::Since(reference) => Resolved::Since(created(reference)?),
            Filter::Network(reference) => Resolved::Network(reference, engine.network_named(reference)),
            other => Resolved::Plain(other),
        });
    }
    Ok(resolved)
}

/// Whether a container passes all kinds of filters.
pub(super) fn passes(filters: &[Resolved], container: &ContainerSummary, layers: &[String]) -> bool {
    filters.iter().all(|filter| match filter {
        Resolved::Plain(Filter::Label(..)) => holds(filter, container, layers),
        _ => filters.iter().any(|other| kind(other) == kind(filter) && holds(other, container, layers)),
    })
}

fn kind(filter: &Resolved) -> u8 {
    match filter {
        Resolved::Ancestor(..) => 0,
        Resolved::Before(_) => 1,
        Resolved::Since(_) => 2,
        Resolved::Network(..) => 9,
        Resolved::Plain(plain) => match plain {
            Filter::Id(_) => 3,
            Filter::Name(_) => 4,
            Filter::Label(..) => 5,
            Filter::Status(_) => 6,
            Filter::Exited(_) => 7,
            Filter::Volume(_) => 8,
            // As with Docker, these two are alternatives.
            Filter::Publish(_) | Filter::Expose(_) => 10,
            Filter::Health(_) => 11,
            Filter::Ancestor(_) | Filter::Before(_) | Filter::Since(_) | Filter::Network(_) => 12,
        },
    }
}

fn holds(filter: &Resolved, container: &ContainerSummary, layers: &[String]) -> bool {
    match filter {
        Resolved::Ancestor(text, image) => match image {
            Some((id, below)) => container.image_id == *id || (!below.is_empty() && layers.starts_with(below)),
            None => is_image(text, container),
        },
        Resolved::Before(time) => container.created.is_some_and(|created| created < *time),
        Resolved::Since(time) => container.created.is_some_and(|created| created > *time),
        Resolved::Network(text, network) => {
            let joined = |name: &str| container.networks.iter().any(|network| network == name);
            match network {
                // Of a connected container the id is known: another network may have had that name.
                Some((_, id)) if !container.network_ids.is_empty() => container.network_ids.contains(id),
                Some((name, _)) => joined(name),
                None => joined(text),
            }
        }
        Resolved::Plain(plain) => match plain {
            Filter::Id(pattern) => pattern.0.matches(container.id.as_str()),
            // Docker's names begin with a slash; both spellings are asked.
            Filter::Name(pattern) => {
                pattern.0.matches(&container.name) || pattern.0.matches(&format!("/{}", container.name))
            }
            Filter::Label(name, value) => {
                container.labels.get(name).is_some_and(|have| value.as_ref().is_none_or(|value| have == value))
            }
            Filter::Status(word) => container.state() == word,
            Filter::Exited(code) => container.exit_code() == Some(*code),
            Filter::Health(word) => container.health.map_or("none", HealthStatus::as_str) == word,
            Filter::Volume(text) => {
                container.mounts.iter().any(|mount| mount.name == *text || mount.target == text.trim_end_matches('/'))
            }
            Filter::Publish(range) => {
                let host =
                    |port: &PortSummary| port.host.is_some_and(|host| range.contains(host.port(), port.protocol));
                container.ports.iter().any(host)
            }
            Filter::Expose(range) => container.ports.iter().any(|port| range.contains(port.port, port.protocol)),
            Filter::Ancestor(_) | Filter::Before(_) | Filter::Since(_) | Filter::Network(_) => false,
        },
    }
}

/// The image that is no longer in the store: by the words of its name or the digits of its id.
fn is_image(text: &str, container: &ContainerSummary) -> bool {
    let latest = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
    let digits = container.image_id.strip_prefix("sha256:").unwrap_or(&container.image_id);
    let wanted = text.strip_prefix("sha256:").unwrap_or(text);
    latest(text) == latest(&container.image) || (wanted.len() >= 4 && digits.starts_with(wanted))
}
