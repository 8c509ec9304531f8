//! Spellings of older tools: long options with a single dash, and `--` before the command.
//!
//! Rewritten before parsing, so that no other code knows of them and help does not show them. A
//! word is rewritten only where an option may stand: never behind an image, and never as the value of
//! another option.

use clap::Command;

use super::spec;

/// Word and its replacement. `-image` has none: its value becomes the first operand.
const WORDS: &[(&str, &str)] = &[
    ("-net", "--network"),
    ("-mem", "--memory"),
    ("-name", "--name"),
    ("-image", IMAGE),
    ("-cpushare", "--cpu-shares"),
    ("-cpuset", "--cpuset-cpus"),
    ("-driver", "--driver"),
    ("-subnet", "--subnet"),
];

const IMAGE: &str = "--image";

/// The image of `run -- COMMAND`.
const DEFAULT_IMAGE: &str = "busybox";

/// What the first operand of a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstOperand {
    /// An image, which `-image` may name and `--` leaves to the default.
    Image,
    /// Something else.
    Other,
}

/// Rewrites the words after `run`, `create`, `update` or `network create`.
pub(super) fn rewrite(command: &Command, unsupported: &[&str], first: FirstOperand, words: Vec<String>) -> Vec<String> {
    let mut options = Vec::with_capacity(words.len() + 2);
    let mut image = None;
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if word == "--" {
            options.push(word);
            if first == FirstOperand::Image {
                options.push(image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()));
            }
            options.extend(words);
            return options;
        }
        if first == FirstOperand::Other && (word == "-" || !word.starts_with('-')) {
            // Options may follow, as Docker's parser has it.
            options.push(word);
            continue;
        }
        if word == "-" || !word.starts_with('-') {
            if image.is_some() {
                options.push("--".to_owned());
            }
            options.extend(image);
            options.push(word);
            options.extend(words);
            return options;
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        match WORDS.iter().find(|(old, _)| *old == name) {
            Some((_, new)) if *new == IMAGE && first == FirstOperand::Image => {
                image = attached.map(str::to_owned).or_else(|| words.next());
                if image.is_none() {
                    options.push(word);
                }
            }
            Some((_, new)) => {
                options.push(attached.map_or_else(|| (*new).to_owned(), |value| format!("{new}={value}")));
                if attached.is_none() && !unsupported.contains(new) {
                    options.extend(words.next());
                }
            }
            None => {
                let takes_next = value_is_next(command, &word);
                options.push(word);
                if takes_next {
                    options.extend(words.next());
                }
            }
        }
    }
    if let Some(image) = image {
        options.extend(["--".to_owned(), image]);
    }
    options
}

/// Whether `word`, an option, takes the next word as its value. An unknown option takes none: the
/// parser is about to refuse it.
fn value_is_next(command: &Command, word: &str) -> bool {
    if let Some(long) = word.strip_prefix("--") {
        let known = |arg: &&clap::Arg| {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|names| names.contains(&long))
        };
        return command.get_arguments().find(known).is_some_and(|arg| !spec::stands_alone(arg));
    }
    let mut cluster = word[1..].chars();
    while let Some(letter) = cluster.next() {
        match command.get_arguments().find(|arg| arg.get_short() == Some(letter)) {
            Some(arg) if spec::stands_alone(arg) => {}
            // What is left of the cluster is the value; the next word only when nothing is left.
            Some(_) => return cluster.as_str().is_empty(),
            None => return false,
        }
    }
    false
}
