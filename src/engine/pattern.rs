//! The patterns of `--filter name=…` and `id=…`: a small regular expression, matched anywhere.
//!
//! Literals, `.`, `^`, `$`, `*`, `+`, `?`, `|`, `( )`, `[ ]` and `\`. Bounded in steps, so that no
//! pattern makes a listing hang.

use std::cell::Cell;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Pattern {
    branches: Vec<Vec<Node>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Literal(char),
    Any,
    Begin,
    End,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Group(Vec<Vec<Node>>),
    /// At least so often, at most once or without bound.
    Repeat {
        node: Box<Node>,
        at_least: usize,
        once: bool,
    },
}

/// Longest pattern; names and ids are shorter.
const MAX_LENGTH: usize = 256;
/// Steps of one match.
const MAX_STEPS: usize = 100_000;

impl Pattern {
    /// Reads a pattern; the error says what is wrong.
    pub(in crate::engine) fn parse(text: &str) -> Result<Pattern, String> {
        let characters: Vec<char> = text.chars().collect();
        if characters.len() > MAX_LENGTH {
            return Err(format!("the pattern is longer than {MAX_LENGTH} characters"));
        }
        let mut reader = Reader { rest: &characters };
        let branches = reader.branches()?;
        if reader.rest.is_empty() { Ok(Pattern { branches }) } else { Err("a ')' closes nothing".to_owned()) }
    }

    /// Whether it matches anywhere in `text`.
    pub(in crate::engine) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let matcher = Matcher { text: &text, steps: Cell::new(0) };
        (0..=text.len()).any(|at| matcher.branches(&self.branches, at, &|_| true))
    }
}

struct Reader<'a> {
    rest: &'a [char],
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn branches(&mut self) -> Result<Vec<Vec<Node>>, String> {
        let mut branches = vec![Vec::new()];
        while let Some(&character) = self.rest.first() {
            match character {
                ')' => break,
                '|' => {
                    self.next();
                    branches.push(Vec::new());
                }
                _ => {
                    let node = self.node()?;
                    branches.last_mut().ok_or("empty")?.push(node);
                }
            }
        }
        Ok(branches)
    }

    fn node(&mut self) -> Result<Node, String> {
        let node = match self.next().ok_or("it ends early")? {
            '.' => Node::Any,
            '^' => return Ok(Node::Begin),
            '$' => return Ok(Node::End),
            '(' => {
                let branches = self.branches()?;
                self.next().ok_or("a '(' is not closed")?;
                Node::Group(branches)
            }
            '[' => self.class()?,
            '\\' => Node::Literal(self.next().ok_or("it ends with '\\'")?),
            mark @ ('*' | '+' | '?') => return Err(format!("'{mark}' repeats nothing")),
            '{' => return Err("'{' is not supported".to_owned()),
            character => Node::Literal(character),
        };
        let (at_least, once) = match self.rest.first() {
            Some('*') => (0, false),
            Some('+') => (1, false),
            Some('?') => (0, true),
            _ => return Ok(node),
        };
        self.next();
        Ok(Node::Repeat { node: Box::new(node), at_least, once })
    }

    fn class(&mut self) -> Result<Node, String> {
        let negated = self.rest.first() == Some(&'^');
        if negated {
            self.next();
        }
        let mut ranges = Vec::new();
        loop {
            let open = || "a '[' is not closed".to_owned();
            let mut first = self.next().ok_or_else(open)?;
            match first {
                ']' if !ranges.is_empty() => return Ok(Node::Class { negated, ranges }),
                '\\' => first = self.next().ok_or_else(open)?,
                _ => {}
            }
            match self.rest {
                ['-', last, ..] if *last != ']' => {
                    ranges.push((first, *last));
                    self.rest = &self.rest[2..];
                }
                _ => ranges.push((first, first)),
            }
        }
    }
}

struct Matcher<'a> {
    text: &'a [char],
    steps: Cell<usize>,
}

/// What must match after a node, given the position where the node ended.
type Then<'a> = &'a dyn Fn(usize) -> bool;

impl Matcher<'_> {
    fn branches(&self, branches: &[Vec<Node>], at: usize, then: Then) -> bool {
        branches.iter().any(|branch| self.sequence(branch, at, then))
    }

    fn sequence(&self, nodes: &[Node], at: usize, then: Then) -> bool {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_STEPS {
            return false;
        }
        match nodes.split_first() {
            None => then(at),
            Some((node, rest)) => self.node(node, at, &|at| self.sequence(rest, at, then)),
        }
    }

    fn node(&self, node: &Node, at: usize, then: Then) -> bool {
        let character = self.text.get(at);
        match node {
            Node::Literal(wanted) => character == Some(wanted) && then(at + 1),
            Node::Any => character.is_some() && then(at + 1),
            Node::Begin => at == 0 && then(at),
            Node::End => at == self.text.len() && then(at),
            Node::Class { negated, ranges } => character.is_some_and(|character| {
                ranges.iter().any(|(first, last)| (first..=last).contains(&character)) != *negated && then(at + 1)
            }),
            Node::Group(branches) => self.branches(branches, at, then),
            Node::Repeat { node, at_least: 0, once: true } => self.node(node, at, then) || then(at),
            Node::Repeat { node, at_least, .. } => self.repeat(node, *at_least, at, then),
        }
    }

    fn repeat(&self, node: &Node, at_least: usize, at: usize, then: Then) -> bool {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_STEPS {
            return false;
        }
        // A repetition that consumes nothing would go on for ever.
        let again = |next: usize| next > at && self.repeat(node, at_least.saturating_sub(1), next, then);
        self.node(node, at, &again) || (at_least == 0 && then(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_anywhere_unless_anchored() {
        for (pattern, text, expected) in [
            ("web", "my-web-1", true),
            ("^web", "my-web-1", false),
            ("^/?web$", "web", true),
            ("^/?web$", "web-1", false),
            ("^web-[0-9]+$", "web-12", true),
            ("^web-[^0-9]$", "web-1", false),
            ("^(web|db)-.*", "db-x", true),
            ("^(web|db)$", "dbx", false),
            ("a.c", "xabcx", true),
            ("a\\.c", "abc", false),
            ("ab+c", "abbbc", true),
            ("ab+c", "ac", false),
            ("ab*c", "ac", true),
            ("", "x", true),
            ("(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
            ("[]]", "]", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(text), expected, "{pattern} on {text}");
        }
        for bad in ["(", ")", "[", "*", "a{2}", "\\", "[a"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
