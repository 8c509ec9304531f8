//! The filters of `events`, with Docker's rules (`daemon/events/filter.go` is their reference).

use super::{Event, Kind};

/// One `--filter`. Several of one kind are alternatives (labels: all must hold), kinds are combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// The object's id or name begins so.
    Object(Kind, String),
    /// The image, or the image of the container: an id, a name, a name without its tag.
    Image(String),
    /// The action is this word; `exec_start` and its like are words before a colon.
    Event(String),
    /// What it is about.
    Type(String),
    /// The attribute exists, with this value if one is given.
    Label(String, Option<String>),
    /// `local` for everything here.
    Scope(String),
}

/// Docker's types; those we have no events of are no mistake.
const TYPES: [&str; 11] =
    ["builder", "config", "container", "daemon", "image", "network", "node", "plugin", "secret", "service", "volume"];

impl Filter {
    /// Reads `key=value`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Filter, String> {
        let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
        match key.as_str() {
            "container" => Ok(Filter::Object(Kind::Container, value.trim_start_matches('/').to_owned())),
            "network" => Ok(Filter::Object(Kind::Network, value)),
            "volume" => Ok(Filter::Object(Kind::Volume, value)),
            "image" => Ok(Filter::Image(value)),
            "event" => Ok(Filter::Event(value)),
            "type" if TYPES.contains(&value.as_str()) => Ok(Filter::Type(value)),
            "type" => Err(format!("invalid filter 'type={value}': it must be one of {}", TYPES.join(", "))),
            "label" => Ok(match value.split_once('=') {
                Some((name, value)) => Filter::Label(name.to_owned(), Some(value.to_owned())),
                None => Filter::Label(value, None),
            }),
            "scope" => Ok(Filter::Scope(value)),
            "config" | "daemon" | "node" | "plugin" | "secret" | "service" => {
                Err(format!("filter {key} is not supported: there are no such objects here"))
            }
            _ => Err(format!("invalid filter '{key}'")),
        }
    }

    fn holds(&self, event: &Event) -> bool {
        let name = || event.attributes.get("name").map(String::as_str).unwrap_or_default();
        match self {
            Filter::Object(kind, text) => {
                event.kind == *kind && (event.id.starts_with(text.as_str()) || name().starts_with(text.as_str()))
            }
            Filter::Image(text) => match event.kind {
                Kind::Image => is_image(text, &event.id) || is_image(text, name()),
                Kind::Container => event.attributes.get("image").is_some_and(|image| is_image(text, image)),
                Kind::Network | Kind::Volume => false,
            },
            Filter::Event(text) => match event.action.strip_prefix(text.as_str()) {
                Some(rest) => rest.is_empty() || rest.starts_with(':'),
                None => false,
            },
            Filter::Type(word) => event.kind.as_str() == word,
            Filter::Label(name, value) => {
                event.attributes.get(name).is_some_and(|have| value.as_ref().is_none_or(|value| have == value))
            }
            Filter::Scope(word) => word == "local",
        }
    }

    /// Filters of the same kind are alternatives.
    fn is_alternative_to(&self, other: &Filter) -> bool {
        match (self, other) {
            (Filter::Object(kind, _), Filter::Object(others, _)) => kind == others,
            (Filter::Label(..), Filter::Label(..)) => false,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// Whether an event passes all kinds of filters.
pub(super) fn passes(filters: &[Filter], event: &Event) -> bool {
    filters.iter().all(|filter| {
        filter.holds(event) || filters.iter().any(|other| other.is_alternative_to(filter) && other.holds(event))
    })
}

/// By the whole reference, or by the name without its tag. A registry's port is no tag.
fn is_image(text: &str, reference: &str) -> bool {
    let untagged = match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => reference,
    };
    !text.is_empty() && (reference == text || untagged == text)
}
