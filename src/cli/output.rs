//! What leaves the program: text on standard output, failures on standard error, exit codes.

use std::fmt;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};

use crate::error::{Class, Failure, without_numbers};

/// A command line that is refused, with its own exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// One sentence.
    pub(super) message: String,
    /// The command whose help tells more; empty for the program's.
    pub(super) help: Option<String>,
    /// Exit code.
    pub(super) code: i32,
}

impl Refusal {
    /// A malformed command line: exit code 125.
    pub(super) fn usage(message: impl Into<String>, path: &str) -> Self {
        Refusal { message: message.into(), help: Some(path.to_owned()), code: 125 }
    }

    /// Something that is well-formed and not possible here: exit code 1, as Docker's own front end.
    pub(super) fn plain(message: impl Into<String>) -> Self {
        Refusal { message: message.into(), help: None, code: 1 }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// Which exit codes a command's failures have (`docs/errors.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// `run`: 125 for the engine, 126 and 127 for the container's command.
    Run,
    /// `exec`, `start`: 126 and 127 for the container's command, else 1.
    Inside,
    /// Others: 1.
    Plain,
}

impl Codes {
    /// The codes of a command.
    pub(super) fn of(command: &str) -> Self {
        match command {
            "run" => Codes::Run,
            "exec" | "start" => Codes::Inside,
            _ => Codes::Plain,
        }
    }

    /// The exit code of a failure.
    pub(super) fn code(self, class: Class) -> i32 {
        match (class, self) {
            (Class::Usage, _) => 125,
            (Class::NotExecutable, Codes::Run | Codes::Inside) => 126,
            (Class::CommandNotFound, Codes::Run | Codes::Inside) => 127,
            (_, Codes::Run) => 125,
            _ => 1,
        }
    }
}

/// Standard output was closed by its reader (`mydocker ps | head -1`): nothing more to do or to say.
#[derive(Debug)]
struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed by its reader")
    }
}

impl std::error::Error for ReaderGone {}

/// Writes to standard output, all of it or an error. On a terminal, control characters that a template
/// let through are spelled out; a pipe gets them as they are.
pub(super) fn print(text: &str) -> Result<()> {
    let tamed = if io::stdout().is_terminal() { Some(on_terminal(text)) } else { None };
    print_raw(tamed.as_deref().unwrap_or(text))
}

/// Writes names that need not be text: as they are to a pipe, what is none spelled out on a terminal.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<()> {
    if io::stdout().is_terminal() { print(&String::from_utf8_lossy(bytes)) } else { write_out(bytes) }
}

/// The same without a look at what is in it.
pub(super) fn print_raw(text: &str) -> Result<()> {
    write_out(text.as_bytes())
}

fn write_out(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => result.context("write standard output"),
    }
}

/// Writes a line to standard output.
pub(super) fn print_line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Writes to standard error; nobody is left to be told when that fails.
pub(super) fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A line the user should see that is no failure.
pub(super) fn warn(text: &str) {
    complain(&format!("WARNING: {}\n", printable(text)));
}

/// The exit code of a command that only prints.
pub(super) fn finish(result: Result<()>, path: &str) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => fail(&error, path, Codes::Plain),
    }
}

/// Prints a failure and tells its exit code: the one printer of errors.
pub(super) fn fail(error: &anyhow::Error, path: &str, codes: Codes) -> i32 {
    if is_reader_gone(error) {
        return 0;
    }
    let (text, code) = rendered(error, path, codes);
    complain(&text);
    code
}

/// Standard output's reader is gone, which is nobody's failure. Other broken pipes are: the engine
/// talks to processes through pipes, too.
pub(super) fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|link| link.is::<ReaderGone>())
}

/// One of our own streams for the engine to write to; remembers that its reader has gone.
pub(super) struct Outlet<W> {
    inner: W,
    gone: bool,
}

impl<W: Write> Outlet<W> {
    /// Writes to `inner`.
    pub(super) fn new(inner: W) -> Self {
        Outlet { inner, gone: false }
    }

    /// Whether a write found nobody reading.
    pub(super) fn reader_gone(&self) -> bool {
        self.gone
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.gone |= result.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Outlet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}

fn rendered(error: &anyhow::Error, path: &str, codes: Codes) -> (String, i32) {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        // Docker's `Error: No such object: x` stands alone; scripts compare the whole line.
        let name = if refusal.message.starts_with("Error: ") { "" } else { "mydocker: " };
        let mut text = format!("{name}{}\n", printable(&without_numbers(&refusal.message)));
        if let Some(path) = &refusal.help {
            text.push_str(&more(path));
        }
        return (text, refusal.code);
    }
    let failure = Failure::from_error(error);
    let mut text = format!("mydocker: {}\n", printable(&failure.to_string()));
    match &failure.hint {
        Some(hint) => {
            let _ = writeln!(text, "hint: {}", printable(hint));
        }
        None if failure.class == Class::Usage => text.push_str(&more(path)),
        None => {}
    }
    (text, codes.code(failure.class))
}

fn more(path: &str) -> String {
    let space = if path.is_empty() { "" } else { " " };
    format!("\nRun 'mydocker {path}{space}--help' for more information\n")
}

/// Text that came from outside, with control characters spelled out: a name or a label must not
/// move the cursor, forge a line or change the terminal's colours.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_direction_mark(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Text for a terminal: lines and tabs are kept, other control characters spelled out.
pub(super) fn on_terminal(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(printable).collect::<Vec<_>>().join("\t");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Marks that reorder what follows (CVE-2021-42574).
fn is_direction_mark(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_hint() {
        let error = anyhow::Error::new(Failure::conflict("name is \u{1b}[31mtaken").with_hint("choose another"));
        let (text, code) = rendered(&error.context("create c1"), "run", Codes::Run);
        assert_eq!(text, "mydocker: create c1: name is \\u{1b}[31mtaken\nhint: choose another\n");
        assert_eq!(code, 125);
    }

    #[test]
    fn a_malformed_request_points_to_help() {
        let (text, code) = rendered(&Failure::usage("bad").into(), "container run", Codes::Run);
        assert_eq!(text, "mydocker: bad\n\nRun 'mydocker container run --help' for more information\n");
        assert_eq!(code, 125);
    }

    #[test]
    fn a_terminal_gets_lines_and_tabs_and_nothing_else() {
        assert_eq!(on_terminal("a\tb\n\u{1b}[2Jc\r\n"), "a\tb\n\\u{1b}[2Jc\\r\n");
    }

    #[test]
    fn only_our_own_broken_pipe_is_quiet() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut outlet = Outlet::new(writer);
        let error = anyhow::Error::new(outlet.write_all(b"x").unwrap_err()).context("send to the shim");
        assert!(outlet.reader_gone());
        assert!(!is_reader_gone(&error));
        assert!(is_reader_gone(&anyhow::Error::new(ReaderGone).context("list")));
    }

    #[test]
    fn exit_codes_are_dockers() {
        for (class, run, inside, plain) in [
            (Class::Usage, 125, 125, 125),
            (Class::NotFound, 125, 1, 1),
            (Class::Conflict, 125, 1, 1),
            (Class::Engine, 125, 1, 1),
            (Class::NotExecutable, 126, 126, 1),
            (Class::CommandNotFound, 127, 127, 1),
        ] {
            assert_eq!(Codes::of("run").code(class), run);
            assert_eq!(Codes::of("exec").code(class), inside);
            assert_eq!(Codes::of("rm").code(class), plain);
        }
    }
}
