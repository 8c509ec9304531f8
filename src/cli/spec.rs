//! How a command is described, and its flags read: clap with pflag's habits.
//!
//! What Docker's parser (pflag) does and clap does not by itself: a switch takes `=true` and
//! `=false`; the last of a repeated single-valued flag wins; a flag's value may begin with a dash;
//! in commands that carry another command (`run`, `exec`) the first operand ends the options.

use anyhow::Result;
use clap::builder::ValueRange;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::Session;
use super::output::Refusal;

/// How many operands a command takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arity {
    min: usize,
    max: usize,
}

impl Arity {
    pub(super) const fn any() -> Self {
        Arity { min: 0, max: usize::MAX }
    }

    pub(super) const fn exactly(count: usize) -> Self {
        Arity { min: count, max: count }
    }

    pub(super) const fn at_least(min: usize) -> Self {
        Arity { min, max: usize::MAX }
    }

    pub(super) const fn at_most(max: usize) -> Self {
        Arity { min: 0, max }
    }

    pub(super) const fn between(min: usize, max: usize) -> Self {
        Arity { min, max }
    }

    /// Docker's words.
    pub(super) fn check(self, count: usize, spec: &Spec, path: &str) -> std::result::Result<(), Refusal> {
        if (self.min..=self.max).contains(&count) {
            return Ok(());
        }
        let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
        let wants = match (self.min, self.max) {
            (0, 0) => "accepts no arguments".to_owned(),
            (min, max) if min == max => format!("requires {min} {}", plural(min)),
            (0, max) => format!("accepts at most {max} {}", plural(max)),
            (min, usize::MAX) => format!("requires at least {min} {}", plural(min)),
            (min, max) => format!("requires at least {min} and at most {max} {}", plural(max)),
        };
        let usage = format!("'mydocker {path}' {wants}: mydocker {path} {}", spec.usage);
        Err(Refusal { message: usage, help: Some(path.to_owned()), code: 125 })
    }
}

/// A command: its words, its flags, what it does.
pub(super) struct Spec {
    /// The command's own word.
    pub(super) name: &'static str,
    /// What follows the word, as help shows it.
    pub(super) usage: &'static str,
    /// One line.
    pub(super) about: &'static str,
    /// How many operands.
    pub(super) arity: Arity,
    /// The first operand ends the options: what follows belongs to another program.
    pub(super) raw_operands: bool,
    /// Older tools' single-dash long options are understood.
    pub(super) legacy_options: bool,
    /// Flags that Docker has and this engine does not yet; refused by name.
    pub(super) unsupported: &'static [&'static str],
    /// Adds the flags.
    pub(super) flags: fn(Command) -> Command,
    /// Lowers, calls the engine, renders; the exit code.
    pub(super) run: fn(&Session, &ArgMatches) -> Result<i32>,
}

/// A flag that is on or off: `--rm`, `--rm=false`, `-it`.
pub(super) fn switch(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help).action(ArgAction::Set);
    let arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_parser(boolean);
    with_short(arg, short)
}

/// A flag with a value; the last one given counts.
pub(super) fn value(name: &'static str, short: Option<char>, kind: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help).value_name(kind).action(ArgAction::Set);
    with_short(arg.num_args(1).allow_hyphen_values(true), short)
}

/// A flag that may be given any number of times.
pub(super) fn list(name: &'static str, short: Option<char>, kind: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help).value_name(kind).action(ArgAction::Append);
    with_short(arg.num_args(1).allow_hyphen_values(true), short)
}

/// A flag whose value is optional and only taken after `=`.
pub(super) fn optional_value(name: &'static str, default: &'static str, kind: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help).value_name(kind).action(ArgAction::Set);
    arg.num_args(0..=1).require_equals(true).default_missing_value(default)
}

fn with_short(arg: Arg, short: Option<char>) -> Arg {
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// What Go's strconv.ParseBool accepts.
fn boolean(text: &str) -> Result<bool, String> {
    parse_boolean(text).ok_or_else(|| "it must be true or false".to_owned())
}

/// What Go's strconv.ParseBool accepts.
pub(super) fn parse_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the flag takes no value from the next word.
pub(super) fn stands_alone(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|range: ValueRange| range.min_values() == 0)
}

const OPERANDS: &str = "operands";

/// The clap command of a spec.
pub(super) fn command(spec: &Spec) -> Command {
    let command = Command::new(spec.name).no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
    let command = (spec.flags)(command.args_override_self(true));
    let help = switch("help", None, "Print usage");
    let taken = command.get_arguments().any(|arg| arg.get_short() == Some('h'));
    let help = if taken { help } else { help.short_alias('h') };
    let operands = Arg::new(OPERANDS).action(ArgAction::Append).num_args(0..).trailing_var_arg(spec.raw_operands);
    command.arg(help).arg(operands)
}

/// Whether a switch is on.
pub(super) fn is_set(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or(false)
}

/// A switch that is on unless turned off.
pub(super) fn is_set_or(matches: &ArgMatches, name: &str, default: bool) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or(default)
}

/// A flag's value.
pub(super) fn text(matches: &ArgMatches, name: &str) -> Option<String> {
    matches.get_one::<String>(name).cloned()
}

/// A repeated flag's values, in the order given.
pub(super) fn texts(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).map(|values| values.cloned().collect()).unwrap_or_default()
}

/// The operands.
pub(super) fn operands(matches: &ArgMatches) -> Vec<String> {
    texts(matches, OPERANDS)
}

/// How many operands there are.
pub(super) fn operand_count(matches: &ArgMatches) -> usize {
    matches.get_many::<String>(OPERANDS).map_or(0, |values| values.len())
}

/// A whole number.
pub(super) fn integer<T: std::str::FromStr>(matches: &ArgMatches, name: &str) -> Result<Option<T>> {
    let Some(text) = text(matches, name) else { return Ok(None) };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(invalid(name, &text, "it must be a whole number")),
    }
}

/// The error of a flag's value, in Docker's form.
pub(super) fn invalid(flag: &str, value: &str, why: impl std::fmt::Display) -> anyhow::Error {
    crate::error::Failure::usage(format!("invalid argument {value:?} for \"--{flag}\" flag: {why}")).into()
}
