//! Questions before something is removed for good.

use std::io::{self, BufRead};

use anyhow::Result;

use super::output;

/// Asks on standard output and reads the answer from standard input, be it a terminal or not.
pub(super) fn confirm(warning: &str) -> Result<bool> {
    output::print(&format!("{warning} [y/N] "))?;
    Ok(is_yes(io::stdin().lock()))
}

/// Reads a line of an answer.
fn is_yes(input: impl BufRead) -> bool {
    let mut line = String::new();
    // Nobody's yes is longer.
    let _ = input.take(16).read_line(&mut line);
    line.trim().eq_ignore_ascii_case("y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (answer, yes) in
            [("y\n", true), ("Y", true), (" y \n", true), ("", false), ("n\n", false), ("yes\n", false)]
        {
            assert_eq!(is_yes(answer.as_bytes()), yes, "{answer:?}");
        }
        assert!(!is_yes(&b"\xff\xffy\n"[..]));
    }
}
