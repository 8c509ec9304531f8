//! What happened, as it happens: `events.log` below the data root, written by whoever makes it
//! happen, read by `events` and `why`.
//!
//! ```text
//! events.log      being written, one line an event, as `events --format json` prints it
//! events.log.1    the one before; the next rotation takes it away
//! ```
//!
//! There is no daemon to subscribe to, so the log is the channel: command lines and shims append
//! ([`append`]), readers follow the file ([`read`]). An event is written after it has come true, and
//! before anybody who waited for it is told, so that of two events of one container the cause stands
//! before the effect. A signal is the exception: it is written just before it is sent, because the
//! end that it brings about is written by another process.
//!
//! Telling is never worth failing for: an event that cannot be written (a full disk) is lost, and so
//! is one whose process is killed between the deed and the word. The record of a container
//! (`state.json`) tells the truth whatever the log says.

mod append;
mod filter;
mod follow;
mod read;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::container::{Config, ContainerId, HealthStatus, State, handle};

pub use filter::Filter;
pub use read::EventsRequest;

/// Most bytes of a command in the name of an `exec` event.
const MAX_COMMAND: usize = 16 * 1024;

/// What an event is about, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl Kind {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Network => "network",
            Kind::Volume => "volume",
        }
    }
}

/// Something that happened. In JSON it has Docker's form (`record`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// To what kind of object.
    pub kind: Kind,
    /// What: `start`, `die`, `exec_start: sh -c true`, ….
    pub action: String,
    /// The object: id of a container, image or network, name of a volume.
    pub id: String,
    /// `name`, `image`, labels, and what belongs to the action.
    pub attributes: BTreeMap<String, String>,
}

/// What happens to containers, with what Docker tells about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// A client was joined to its streams.
    Attach,
    /// An image was made of it.
    Commit {
        /// What was said to it.
        comment: &'a str,
        /// The image's id.
        image: &'a str,
        /// The image's name; empty for none.
        reference: &'a str,
    },
    /// It was made.
    Create,
    /// It was removed.
    Destroy,
    /// A client let go by its detach keys.
    Detach,
    /// It ended, or did not start.
    Die {
        /// As recorded: the command's own, 128+n by signal.
        exit_code: i32,
        /// From its start.
        ran_for: Duration,
        /// Why it did not start, or why the code is not known; empty for neither. Docker has no such
        /// attribute.
        error: &'a str,
    },
    /// Another process is about to run inside.
    ExecCreate(Exec<'a>),
    /// Another process runs inside.
    ExecStart(Exec<'a>),
    /// Another process has ended.
    ExecDie {
        /// Which.
        exec: Exec<'a>,
        /// Its code, 128+n by signal.
        exit_code: i32,
    },
    /// Its file system was written out.
    Export,
    /// Its health is another than before.
    Health(HealthStatus),
    /// A signal is about to be sent to its first process.
    Kill {
        /// Its number.
        signal: i32,
    },
    /// A process inside was killed for want of memory.
    Oom,
    /// It was frozen.
    Pause,
    /// It has another name.
    Rename {
        /// The one before, without a slash.
        old: &'a str,
    },
    /// It was stopped and started.
    Restart,
    /// Its command runs.
    Start,
    /// It was told to stop and has ended.
    Stop,
    /// It was thawed.
    Unpause,
    /// Its limits were changed.
    Update,
}

/// A process that `exec` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exec<'a> {
    /// 64 hexadecimal digits, made for this one process.
    pub id: &'a str,
    /// Command and arguments.
    pub command: &'a [String],
}

impl<'a> Action<'a> {
    /// The end of the run that `state` describes.
    pub fn died(state: &'a State) -> Action<'a> {
        let ran_for = state.started.zip(state.finished).map(|(started, finished)| finished.duration_since(started));
        Action::Die {
            exit_code: state.exit_code,
            ran_for: ran_for.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default(),
            error: &state.error,
        }
    }

    fn name(self) -> String {
        let word = match self {
            Action::Attach => "attach",
            Action::Commit { .. } => "commit",
            Action::Create => "create",
            Action::Destroy => "destroy",
            Action::Detach => "detach",
            Action::Die { .. } => "die",
            Action::ExecCreate(exec) => return format!("exec_create: {}", exec.line()),
            Action::ExecStart(exec) => return format!("exec_start: {}", exec.line()),
            Action::ExecDie { .. } => "exec_die",
            Action::Export => "export",
            Action::Health(status) => return format!("health_status: {}", status.as_str()),
            Action::Kill { .. } => "kill",
            Action::Oom => "oom",
            Action::Pause => "pause",
            Action::Rename { .. } => "rename",
            Action::Restart => "restart",
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Unpause => "unpause",
            Action::Update => "update",
        };
        word.to_owned()
    }

    /// What Docker tells beyond the name.
    fn attributes(self) -> Vec<(&'static str, String)> {
        match self {
            Action::Die { exit_code, ran_for, error } => {
                let error = (!error.is_empty()).then(|| ("error", error.to_owned()));
                let code = ("exitCode", exit_code.to_string());
                [code, ("execDuration", ran_for.as_secs().to_string())].into_iter().chain(error).collect()
            }
            Action::ExecCreate(exec) | Action::ExecStart(exec) => vec![("execID", exec.id.to_owned())],
            Action::ExecDie { exec, exit_code } => {
                vec![("execID", exec.id.to_owned()), ("exitCode", exit_code.to_string())]
            }
            Action::Commit { comment, image, reference } => {
                vec![("comment", comment.to_owned()), ("imageID", image.to_owned()), ("imageRef", reference.to_owned())]
            }
            Action::Kill { signal } => vec![("signal", signal.to_string())],
            Action::Rename { old } => vec![("oldName", format!("/{old}"))],
            _ => Vec::new(),
        }
    }
}

impl Exec<'_> {
    fn line(&self) -> String {
        let mut line = self.command.join(" ");
        line.truncate(line.floor_char_boundary(MAX_COMMAND));
        line
    }
}

impl Engine {
    /// Tells that something happened to a container. Never fails; costs a few microseconds.
    pub fn note(&self, config: &Config, action: Action<'_>) {
        let mut attributes = config.labels.clone();
        attributes.insert("image".to_owned(), config.image.name.clone());
        attributes.insert("name".to_owned(), config.name.clone());
        attributes.extend(action.attributes().into_iter().map(|(key, value)| (key.to_owned(), value)));
        self.tell(Event {
            time: Timestamp::now(),
            kind: Kind::Container,
            action: action.name(),
            id: config.id.to_string(),
            attributes,
        });
    }

    /// The same of a container whose record is not at hand, or cannot be read: then only its id is told.
    pub fn note_by_id(&self, id: &ContainerId, action: Action<'_>) {
        match handle::load(&self.layout, id) {
            Ok(record) => self.note(&record.config, action),
            Err(_) => self.note_object(Kind::Container, id.as_str(), &action.name(), &action.attributes()),
        }
    }

    /// Tells that something happened to an image, a network or a volume; `action` and the names of the
    /// attributes are Docker's.
    pub fn note_object(&self, kind: Kind, id: &str, action: &str, attributes: &[(&str, String)]) {
        self.tell(Event {
            time: Timestamp::now(),
            kind,
            action: action.to_owned(),
            id: id.to_owned(),
            attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        });
    }

    fn tell(&self, event: Event) {
        if let Err(error) = append::append(&self.layout.events(), &record::line(event), append::LIMIT) {
            tracing::debug!("write events.log: {error}");
        }
    }
}
