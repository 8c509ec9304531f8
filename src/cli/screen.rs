//! A display that is shown again and again in its own place.

use std::io::{self, IsTerminal};

use anyhow::Result;

use super::output;
use crate::engine::exec::window;

/// Shows `text` instead of what was shown before: from the terminal's top left corner on. Where there is no terminal
/// one text follows the other.
pub(super) fn show(text: &str) -> Result<()> {
    if !io::stdout().is_terminal() {
        return output::print(text);
    }
    let size = window().map(|size| (usize::from(size.rows), usize::from(size.columns)));
    // In one write, and nothing is blanked before it is written over: the eye sees no flicker.
    output::print_raw(&frame(&output::on_terminal(text), size))
}

/// The text with what the terminal needs: the cursor goes home, each line ends in clearing the rest of its line, the
/// last in clearing what is below (ECMA-48: CUP, EL, ED). Lines for which the window (rows, columns) has no place are
/// left out and counted; otherwise the terminal would scroll, and the next text begin in the middle of this one.
fn frame(text: &str, size: Option<(usize, usize)>) -> String {
    let mut framed = String::from("\x1b[H");
    let mut add = |line: &str| {
        framed.push_str(line);
        framed.push_str("\x1b[K\n");
    };
    let lines: Vec<&str> = text.lines().collect();
    // The cursor stands in the line below the last.
    let room = size.map_or(usize::MAX, |(rows, _)| rows.saturating_sub(1).max(1));
    let height = |line: &str| match size {
        Some((_, columns)) => line.chars().count().div_ceil(columns.max(1)).max(1),
        None => 1,
    };
    if lines.iter().map(|line| height(line)).sum::<usize>() <= room {
        lines.iter().for_each(|line| add(line));
    } else {
        // One row is for the count.
        let mut left = room - 1;
        let fits = |line: &&&str| left.checked_sub(height(line)).map(|rest| left = rest).is_some();
        let shown: Vec<&&str> = lines.iter().take_while(fits).collect();
        shown.iter().for_each(|line| add(line));
        add(&format!("… {} more lines: make the window larger", lines.len() - shown.len()));
    }
    framed.push_str("\x1b[J");
    framed
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn each_line_replaces_what_was_there() {
        assert_eq!(frame("a\nbb\n", None), "\x1b[Ha\x1b[K\nbb\x1b[K\n\x1b[J");
        assert_eq!(frame("a\nbb\n", Some((3, 80))), frame("a\nbb\n", None));
        assert_eq!(frame("", Some((24, 80))), "\x1b[H\x1b[J");
    }

    #[test]
    fn what_has_no_place_is_counted() {
        let shown = |text: &str, rows, columns| {
            let framed = frame(text, Some((rows, columns)));
            framed.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "")
        };
        assert_eq!(shown("a\nb\nc\nd\n", 4, 80), "a\nb\n… 2 more lines: make the window larger\n");
        assert_eq!(shown("a\nb\nc\n", 4, 80), "a\nb\nc\n");
        // A long line takes two rows.
        assert_eq!(shown("12345\nb\nc\n", 4, 4), "12345\n… 2 more lines: make the window larger\n");
        assert_eq!(shown("a\nb\n", 1, 1), "… 2 more lines: make the window larger\n");
    }
}
