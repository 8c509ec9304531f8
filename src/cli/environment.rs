//! `-e`, `--env-file`, `--label`, `--label-file`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use anyhow::Result;
use clap::{Arg, ArgMatches};

use super::spec::{self, invalid};
use crate::error::Failure;

/// What a variable of the caller is; in tests, something that does not depend on who runs them.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The caller's own environment.
pub(super) fn callers(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Bytes of a file that are read at most: a mistaken `--env-file /dev/zero` ends in an error.
const FILE_LIMIT: u64 = 4 << 20;

/// The flags that set variables.
pub(super) fn flags() -> [Arg; 2] {
    [
        spec::list("env", Some('e'), "list", "Set environment variables (NAME alone takes the caller's value)"),
        spec::list("env-file", None, "list", "Read in a file of environment variables"),
    ]
}

/// Variables of `--env-file` and `-e`, in that order, so that the command line wins.
pub(super) fn variables(matches: &ArgMatches, lookup: Lookup) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for path in spec::texts(matches, "env-file") {
        for (_, line) in lines(&path, "env-file")? {
            match line.split_once('=') {
                Some(_) => variables.push(line),
                None => variables.extend(lookup(&line).map(|value| format!("{line}={value}"))),
            }
        }
    }
    for text in spec::texts(matches, "env") {
        match text.split_once('=') {
            Some(("", _)) => return Err(invalid("env", &text, "the variable has no name")),
            None if text.is_empty() => return Err(invalid("env", &text, "the variable has no name")),
            Some(_) => variables.push(text),
            None => variables.push(match lookup(&text) {
                Some(value) => format!("{text}={value}"),
                None => text,
            }),
        }
    }
    Ok(variables)
}

/// Labels of `--label-file` and `--label`, in that order.
pub(super) fn labels(matches: &ArgMatches) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for path in spec::texts(matches, "label-file") {
        labels.extend(lines(&path, "label-file")?.iter().map(|(_, line)| label(line)));
    }
    labels.extend(label_flags(matches)?);
    Ok(labels)
}

/// Labels of `--label`.
pub(super) fn label_flags(matches: &ArgMatches) -> Result<BTreeMap<String, String>> {
    let read = |text: &String| {
        if text.is_empty() || text.starts_with('=') {
            return Err(invalid("label", text, "the label has no name"));
        }
        Ok(label(text))
    };
    spec::texts(matches, "label").iter().map(read).collect()
}

fn label(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// Lines that say something, with their numbers: no comments, no blank lines, a name in each.
fn lines(path: &str, flag: &str) -> Result<Vec<(usize, String)>> {
    let failed = |error: std::io::Error| Failure::usage(format!("read --{flag} {path}: {error}"));
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(Failure::usage(format!("read --{flag} {path}: it is larger than {FILE_LIMIT} bytes")).into());
    }
    parse_lines(&bytes)
        .map_err(|(line, why)| Failure::usage(format!("read --{flag} {path}: line {line}: {why}")).into())
}

fn parse_lines(bytes: &[u8]) -> std::result::Result<Vec<(usize, String)>, (usize, String)> {
    let mut lines = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| (number, "it is not valid UTF-8".to_owned()))?;
        // Only the left is trimmed: blanks at the end may belong to the value.
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains('\0') {
            return Err((number, "it contains a NUL byte".to_owned()));
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err((number, "no name before '='".to_owned()));
        }
        if name.contains(char::is_whitespace) {
            return Err((number, format!("the name {name:?} contains white space")));
        }
        lines.push((number, line.to_owned()));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_comments_blank_lines_and_bare_names() {
        let text = b"\xef\xbb\xbfA=1\r\n# no\n\n   B=x = y \nC\n  #x\nD=#not a comment\nE=\n";
        let lines: Vec<String> = parse_lines(text).unwrap().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["A=1", "B=x = y ", "C", "D=#not a comment", "E="]);
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(parse_lines(b"A=1\n=x\n").unwrap_err().0, 2);
        assert_eq!(parse_lines(b"A B=1\n").unwrap_err().0, 1);
        assert_eq!(parse_lines(b"A=1\n\nB=\xff\n").unwrap_err().0, 3);
        assert_eq!(parse_lines(b"A=\0\n").unwrap_err().0, 1);
    }
}
