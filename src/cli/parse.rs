//! From a command's words to clap's matches, and what is wrong with them in Docker's words.

use anyhow::Result;
use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::legacy;
use super::output::Refusal;
use super::spec::{self, Spec};

/// Parses the words after a command. `path` is how the user named it (`container run`).
pub(super) fn parse(spec: &Spec, path: &str, words: Vec<String>) -> Result<ArgMatches> {
    let mut command = spec::command(spec);
    // Only commands that carry another command begin with an image.
    let first = if spec.raw_operands { legacy::FirstOperand::Image } else { legacy::FirstOperand::Other };
    let words = if spec.legacy_options { legacy::rewrite(&command, spec.unsupported, first, words) } else { words };
    command.try_get_matches_from_mut(words).map_err(|error| refusal(&error, spec, path).into())
}

/// Says in one line what clap found wrong.
fn refusal(error: &clap::Error, spec: &Spec, path: &str) -> Refusal {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let whole = context(ContextKind::InvalidArg);
    let flag = whole.split([' ', '[', '=']).next().unwrap_or_default();
    let value = context(ContextKind::InvalidValue);
    let message = match error.kind() {
        ErrorKind::UnknownArgument if spec.unsupported.contains(&flag) => format!("flag {flag} is not supported yet"),
        ErrorKind::UnknownArgument => {
            let near = context(ContextKind::SuggestedArg);
            let near = near.split([' ', '[']).next().unwrap_or_default();
            let tip = if near.is_empty() { String::new() } else { format!(" (did you mean {near}?)") };
            format!("unknown flag: {flag}{tip}")
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default();
            format!("invalid argument {value:?} for {flag} flag{why}")
        }
        _ if value.is_empty() && !flag.is_empty() => format!("flag needs an argument: {flag}"),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    Refusal::usage(message, path)
}
