//! One event as JSON, in Docker's form (`api/types/events.Message`), on disk and for whoever reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::{Event, Kind};

/// Longest line. Half of what the reader of lines looks at, so that a torn one before it is no harm.
const MAX_LINE: usize = 128 * 1024;

/// Longest value of an attribute in such a line.
const MAX_VALUE: usize = 4096;
/// Attributes that are not labels.
const OWN: [&str; 8] = ["name", "image", "exitCode", "execDuration", "execID", "signal", "oldName", "error"];

/// How a record begins. Neither can stand inside one: within a JSON string every quote has a backslash
/// before it, and the nested objects have other first keys or none of these.
const HEADS: [&[u8]; 2] = [br#"{"status":""#, br#"{"Type":""#];

/// Docker's fields in Docker's order.
#[derive(Serialize, Deserialize)]
struct Message<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Cow<'a, str>>,
    #[serde(rename = "Type")]
    kind: Kind,
    #[serde(rename = "Action")]
    action: Cow<'a, str>,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    #[serde(default)]
    scope: Cow<'a, str>,
    #[serde(default)]
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Serialize, Deserialize)]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: Cow<'a, str>,
    #[serde(rename = "Attributes", default)]
    attributes: Cow<'a, BTreeMap<String, String>>,
}

impl Event {
    /// Docker's `status` and `id`: of containers and images only.
    pub fn is_legacy(&self) -> bool {
        matches!(self.kind, Kind::Container | Kind::Image)
    }

    /// Docker's `from`: the image of a container.
    pub fn from_image(&self) -> Option<&str> {
        let image = self.attributes.get("image").filter(|image| !image.is_empty());
        image.filter(|_| self.kind == Kind::Container).map(String::as_str)
    }

    /// Nanoseconds since 1970; the nearest there is for a time beyond the year 2262.
    pub fn nanoseconds(&self) -> i64 {
        let nanoseconds = self.time.as_nanosecond();
        i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let legacy = |text: &'_ str| self.is_legacy().then(|| Cow::Owned(text.to_owned()));
        Message {
            status: legacy(&self.action),
            id: legacy(&self.id),
            from: self.from_image().map(Cow::Borrowed),
            kind: self.kind,
            action: Cow::Borrowed(&self.action),
            actor: Actor { id: Cow::Borrowed(&self.id), attributes: Cow::Borrowed(&self.attributes) },
            scope: Cow::Borrowed("local"),
            time: self.time.as_second(),
            time_nano: self.nanoseconds(),
        }
        .serialize(serializer)
    }
}

/// An event as a line of the log, its newline included. Labels that make it too long are left out.
pub(super) fn line(mut event: Event) -> Vec<u8> {
    let mut line = encode(&event);
    if line.len() > MAX_LINE {
        event.attributes.retain(|key, value| OWN.contains(&key.as_str()) && value.len() <= MAX_VALUE);
        line = encode(&event);
    }
    line
}

fn encode(event: &Event) -> Vec<u8> {
    // Texts and numbers: nothing in it can fail to be encoded.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads a line of the log; `None` when it is none of ours. A torn record (its writer was killed, the
/// disk was full) has no newline, so the next one stands behind it on the same line: that one is read.
pub(super) fn parse(line: &[u8]) -> Option<Event> {
    whole(line).or_else(|| {
        let last = |head: &[u8]| line.windows(head.len()).rposition(|window| window == head);
        let start = HEADS.into_iter().filter_map(last).max().filter(|&start| start > 0)?;
        whole(&line[start..])
    })
}

fn whole(line: &[u8]) -> Option<Event> {
    let message: Message<'_> = serde_json::from_slice(line).ok()?;
    Some(Event {
        time: Timestamp::from_nanosecond(i128::from(message.time_nano)).ok()?,
        kind: message.kind,
        action: message.action.into_owned(),
        id: message.actor.id.into_owned(),
        attributes: message.actor.attributes.into_owned(),
    })
}
