//! Help as Docker prints it: usage, what it does, one line per flag.

use std::fmt::Write as _;

use anyhow::Result;

use super::catalog::{Entry, FLAT, GROUPS, Group};
use super::output;
use super::spec::{self, Spec};

/// Column at which a help text is broken.
const WIDTH: usize = 100;

/// `mydocker --help`.
pub(super) fn print_top(spec: &Spec) -> Result<()> {
    let mut text = format!("Usage:  mydocker {}\n\n{}\n\nManagement Commands:\n", spec.usage, spec.about);
    for group in GROUPS {
        let _ = writeln!(text, "  {:<11} {}", group.name, group.about);
    }
    text.push_str("\nCommands:\n");
    commands(&mut text, FLAT);
    options(&mut text, spec);
    text.push_str("\nRun 'mydocker COMMAND --help' for more information on a command.\n");
    output::print(&text)
}

/// `mydocker container --help`.
pub(super) fn print_group(group: &Group) -> Result<()> {
    let mut text = format!("Usage:  mydocker {} COMMAND\n\n{}\n\nCommands:\n", group.name, group.about);
    commands(&mut text, group.entries);
    let _ = writeln!(text, "\nRun 'mydocker {} COMMAND --help' for more information on a command.", group.name);
    output::print(&text)
}

/// `mydocker run --help`.
pub(super) fn print_command(spec: &Spec, path: &str) -> Result<()> {
    let mut text = format!("Usage:  mydocker {path} {}\n\n{}\n", spec.usage, spec.about);
    let names: Vec<String> = names(spec);
    if names.len() > 1 {
        let _ = writeln!(text, "\nAliases:\n  {}", names.join(", "));
    }
    options(&mut text, spec);
    output::print(&text)
}

/// Every way to name a command.
fn names(spec: &Spec) -> Vec<String> {
    let mut names = Vec::new();
    for group in GROUPS {
        for entry in group.entries.iter().filter(|entry| std::ptr::eq(entry.spec, spec)) {
            names.extend(entry.words.iter().map(|word| format!("mydocker {} {word}", group.name)));
        }
    }
    for entry in FLAT.iter().filter(|entry| std::ptr::eq(entry.spec, spec)) {
        names.extend(entry.words.iter().map(|word| format!("mydocker {word}")));
    }
    names
}

fn commands(text: &mut String, entries: &[Entry]) {
    for entry in entries {
        let _ = writeln!(text, "  {:<11} {}", entry.words.first().copied().unwrap_or_default(), entry.spec.about);
    }
}

fn options(text: &mut String, spec: &Spec) {
    let command = spec::command(spec);
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        if arg.is_hide_set() {
            continue;
        }
        let short = arg.get_short().map(|letter| format!("-{letter}, ")).unwrap_or_else(|| "    ".to_owned());
        let kind = match arg.get_value_names().and_then(|names| names.first()) {
            Some(kind) if spec::stands_alone(arg) => format!("[={kind}]"),
            Some(kind) => format!(" {kind}"),
            None => String::new(),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        rows.push((long.to_owned(), format!("  {short}--{long}{kind}"), help));
    }
    rows.sort();
    let left = rows.iter().map(|(_, flag, _)| flag.len()).max().unwrap_or(0) + 3;
    text.push_str("\nOptions:\n");
    for (_, flag, help) in rows {
        let mut line = format!("{flag:<left$}");
        for word in help.split(' ') {
            if line.len() + word.len() > WIDTH {
                let _ = writeln!(text, "{}", line.trim_end());
                line = " ".repeat(left);
            }
            line.push_str(word);
            line.push(' ');
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}
