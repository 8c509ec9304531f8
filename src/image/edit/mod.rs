//! Image configs that are changed: by instructions as a Dockerfile has them (`commit -c`, `import -c`, builds), by
//! what a container was run with, by one more layer.
//!
//! A [`Document`] is the whole config as JSON: fields that nobody here knows go on to the new image.

mod document;
mod parse;
#[cfg(test)]
mod tests;
mod words;

pub use document::{Document, Step};
pub use parse::parse;

use super::Healthcheck;

/// An instruction that changes what an image's containers inherit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The command.
    Cmd(CommandForm),
    /// The entrypoint. A command that was not set before it in the same list is taken away.
    Entrypoint(CommandForm),
    /// Variables; values as written, with quotes and variables.
    Env(Vec<(String, String)>),
    /// Ports: `80`, `80/udp`, `8000-8010`.
    Expose(Vec<String>),
    /// How its health is checked; the test `NONE` for not at all, whatever the base image says.
    Healthcheck(Healthcheck),
    /// Labels; values as written.
    Label(Vec<(String, String)>),
    /// An instruction for builds that begin with this image.
    OnBuild(String),
    /// The signal that `stop` sends.
    StopSignal(String),
    /// `user[:group]`.
    User(String),
    /// Paths that get a volume each.
    Volume(Vec<String>),
    /// The working directory; a relative one continues the one before.
    Workdir(String),
}

/// The two ways in which a command is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandForm {
    /// `["program", "argument"]`.
    Exec(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}
