//! Patterns of image names, as Go's `path.Match` reads them: `*`, `?`, `[a-z]`, `[^a]` and `\`, none of which
//! matches a slash.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// Between slashes.
    parts: Vec<Vec<Token>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    Any,
    Star,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// Longest pattern; no name is longer.
const MAX_LENGTH: usize = 1024;

impl Glob {
    /// Reads a pattern; the error is Go's.
    pub fn parse(text: &str) -> Result<Glob, String> {
        let wrong = || "syntax error in pattern".to_owned();
        if text.len() > MAX_LENGTH {
            return Err(wrong());
        }
        let mut parts = vec![Vec::new()];
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            let token = match character {
                '/' => {
                    parts.push(Vec::new());
                    continue;
                }
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Literal(rest.next().ok_or_else(wrong)?),
                '[' => class(&mut rest).ok_or_else(wrong)?,
                other => Token::Literal(other),
            };
            parts.last_mut().ok_or_else(wrong)?.push(token);
        }
        Ok(Glob { parts })
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let texts: Vec<&str> = text.split('/').collect();
        // What stands between two slashes stands alone: nothing but a slash matches one.
        texts.len() == self.parts.len() && self.parts.iter().zip(texts).all(|(part, text)| part_matches(part, text))
    }
}

fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        let mut one = |first: bool| match rest.next()? {
            ']' if !first => Some(None),
            ']' | '-' | '/' => None,
            '\\' => rest.next().map(Some),
            other => Some(Some(other)),
        };
        let Some(low) = one(ranges.is_empty())? else { return Some(Token::Class { negated, ranges }) };
        let mut high = low;
        if rest.as_str().starts_with('-') {
            rest.next();
            high = match rest.next()? {
                ']' | '-' | '/' => return None,
                '\\' => rest.next()?,
                other => other,
            };
        }
        ranges.push((low, high));
    }
}

/// Steps are bounded by the product of the lengths: only the last star is ever tried again.
fn part_matches(part: &[Token], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match part.get(at) {
            Some(Token::Star) => {
                star = Some((at, from));
                at += 1;
                continue;
            }
            Some(token) if text.get(from).is_some_and(|character| one_matches(token, *character)) => {
                at += 1;
                from += 1;
                continue;
            }
            None if from == text.len() => return true,
            _ => {}
        }
        // The last star takes one character more.
        let Some((place, taken)) = star.filter(|(_, taken)| *taken < text.len()) else { return false };
        star = Some((place, taken + 1));
        (at, from) = (place + 1, taken + 1);
    }
}

fn one_matches(token: &Token, character: char) -> bool {
    match token {
        Token::Literal(literal) => *literal == character,
        Token::Any | Token::Star => true,
        Token::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy", "busybox", false),
            ("busy*", "busybox", true),
            ("busy*", "busybox:1", true),
            ("*box*:1", "busybox:1", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a/*/c", "a/b/c", true),
            ("b?x", "box", true),
            ("b?x", "b/x", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("", "", true),
            ("host:5000/*", "host:5000/a", true),
        ] {
            assert_eq!(Glob::parse(pattern).unwrap().matches(text), expected, "{pattern} on {text}");
        }
        for bad in ["[", "[a", "[]", "[-a]", "[a-", "a\\", "[a-]", &"a".repeat(2000)] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
        // Many stars cost no more than their number times the length.
        let pattern = Glob::parse(&"*a".repeat(400)).unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(10_000))));
    }
}
