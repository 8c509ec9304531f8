//! What the product says when something goes wrong: one typed [`Failure`], carried inside
//! [`anyhow::Error`], printed once at the edge.
//!
//! Inside the engine an error is a chain of lower-case sentences (verb, object, reason). Where the
//! *kind* matters to a caller (an exit code, later an HTTP status) the chain holds a [`Failure`].
//! Errors are either returned or printed, never both.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it is; decides the exit code (`docs/errors.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The command line or another request is malformed: exit code 125.
    Usage,
    /// The object named does not exist.
    NotFound,
    /// Another object or process is in the way.
    Conflict,
    /// The engine or the kernel could not do what was asked.
    Engine,
    /// The container's command exists and cannot be executed: exit code 126.
    NotExecutable,
    /// The container's command does not exist: exit code 127.
    CommandNotFound,
}

/// A failure with its cause and its cure. Crosses process boundaries as JSON (init → shim → caller).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub class: Class,
    /// One sentence: lower case, verb, object, reason. Texts that scripts grep for keep Docker's wording.
    pub message: String,
    /// Reasons below the message, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What the user can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of `class` that says `message`.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Failure { class, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A malformed request.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Class::Usage, message)
    }

    /// The object named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Failure::new(Class::NotFound, message)
    }

    /// Something else is in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Failure::new(Class::Conflict, message)
    }

    /// The engine or the kernel could not do it.
    pub fn engine(message: impl Into<String>) -> Self {
        Failure::new(Class::Engine, message)
    }

    /// The same failure with a line that tells the cure.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Flattens an error chain: the first [`Failure`] in it keeps its class and hint, what stands
    /// above it becomes the message, what stands below becomes causes.
    pub fn from_error(error: &anyhow::Error) -> Self {
        let mut above: Vec<String> = Vec::new();
        let mut chain = error.chain();
        for link in chain.by_ref() {
            if let Some(failure) = link.downcast_ref::<Failure>() {
                let mut failure = failure.clone();
                if let Some((first, rest)) = above.split_first() {
                    let mut causes: Vec<String> = rest.to_vec();
                    causes.push(failure.message);
                    causes.append(&mut failure.causes);
                    failure.message = first.clone();
                    failure.causes = causes;
                }
                return failure;
            }
            above.push(link.to_string());
        }
        // A failure that was put on top of its cause (`Error::context`) is no link of the chain.
        let (class, hint) = match error.downcast_ref::<Failure>() {
            Some(failure) => (failure.class, failure.hint.clone()),
            None => (Class::Engine, None),
        };
        let mut links = above.into_iter();
        let message = links.next().unwrap_or_default();
        // A failure that tells its causes itself is not told them again.
        let causes = links.filter(|link| !message.ends_with(link.as_str())).collect();
        Failure { class, message, causes, hint }
    }
}

impl fmt::Display for Failure {
    /// The message and its causes on one line, joined by colons; the hint is the printer's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_numbers(&self.message))?;
        for cause in &self.causes {
            write!(f, ": {}", without_numbers(cause))?;
        }
        Ok(())
    }
}

/// Leaves the ` (os error 2)` away that Rust's standard library puts after what the kernel said: the words say it all.
pub fn without_numbers(text: &str) -> String {
    let mut pieces = text.split(" (os error ");
    let mut spoken = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once(')') {
            Some((number, rest)) if number.parse::<u32>().is_ok() => spoken.push_str(rest),
            _ => {
                spoken.push_str(" (os error ");
                spoken.push_str(piece);
            }
        }
    }
    spoken
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn context_above_a_failure_keeps_class_and_hint() {
        let inner = Failure::conflict("name is taken").with_hint("choose another");
        let error = Err::<(), _>(anyhow::Error::new(inner)).context("create c1").unwrap_err();
        let flat = Failure::from_error(&error);
        assert_eq!(flat.class, Class::Conflict);
        assert_eq!(flat.to_string(), "create c1: name is taken");
        assert_eq!(flat.hint.as_deref(), Some("choose another"));
    }

    #[test]
    fn a_failure_on_top_of_its_cause_keeps_class_and_hint() {
        let cause = anyhow::anyhow!("no such file");
        let failure = Failure::new(Class::CommandNotFound, "exec x").with_hint("install it");
        let flat = Failure::from_error(&cause.context(failure));
        assert_eq!((flat.class, flat.to_string()), (Class::CommandNotFound, "exec x: no such file".to_owned()));
        assert_eq!(flat.hint.as_deref(), Some("install it"));
    }

    #[test]
    fn the_kernels_words_are_enough() {
        let cause = std::io::Error::from_raw_os_error(2);
        let error = anyhow::Error::new(cause).context("open /x (os error 5): again");
        assert_eq!(Failure::from_error(&error).to_string(), "open /x: again: No such file or directory");
        for text in ["a (os error )", "a (os error x)", "a (os error 5"] {
            assert_eq!(Failure::engine(text).to_string(), text);
        }
    }

    #[test]
    fn plain_errors_are_the_engines() {
        let error = anyhow::anyhow!("no such device").context("mount overlay for c1");
        let flat = Failure::from_error(&error);
        assert_eq!(flat.class, Class::Engine);
        assert_eq!(flat.to_string(), "mount overlay for c1: no such device");
    }
}
