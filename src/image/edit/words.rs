//! Words of a Dockerfile instruction: quotes, escapes and variables, by the rules of Docker's builder.

use anyhow::{Result, bail};

/// Variables, as `NAME=value`; the last of a name counts.
pub type Environment<'a> = &'a [String];

/// The longest that a word may become when its variables are put in, in bytes.
const MAX_WORD: usize = 1 << 20;

/// Splits at blanks that stand neither in quotes nor behind a backslash. Quotes and backslashes stay.
pub(super) fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            // Between single quotes a backslash is nothing special.
            ('\\', None | Some('"')) => {
                word.push('\\');
                word.extend(characters.next());
                continue;
            }
            ('"' | '\'', None) => quote = Some(character),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The word that is meant: quotes and escapes taken away, variables put in (`$A`, `${A}`, `${A:-other}`,
/// `${A:+other}`, `${A-other}`, `${A+other}`, `${A:?message}`).
///
/// # Errors
/// A quote or a brace that does not end, an unknown modifier, a variable that `?` demands.
pub(super) fn process(word: &str, environment: Environment<'_>) -> Result<String> {
    Lexer { rest: word, environment, depth: 0 }.word(None)
}

struct Lexer<'a> {
    rest: &'a str,
    environment: Environment<'a>,
    depth: u8,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    /// Reads to the end, or to `end`, which is taken.
    fn word(&mut self, end: Option<char>) -> Result<String> {
        let mut out = String::new();
        while let Some(character) = self.next() {
            match character {
                c if Some(c) == end => return Ok(out),
                '\'' => self.single(&mut out)?,
                '"' => self.double(&mut out)?,
                '\\' => out.extend(self.next()),
                '$' => out.push_str(&self.variable()?),
                c => out.push(c),
            }
            if out.len() > MAX_WORD {
                bail!("a word of more than {MAX_WORD} bytes");
            }
        }
        match end {
            None => Ok(out),
            Some(_) => bail!("syntax error: missing '}}'"),
        }
    }

    fn single(&mut self, out: &mut String) -> Result<()> {
        let Some((inside, after)) = self.rest.split_once('\'') else {
            bail!("unexpected end of statement while looking for matching single-quote");
        };
        out.push_str(inside);
        self.rest = after;
        Ok(())
    }

    fn double(&mut self, out: &mut String) -> Result<()> {
        while let Some(character) = self.next() {
            match character {
                '"' => return Ok(()),
                '$' => out.push_str(&self.variable()?),
                '\\' => match self.next() {
                    Some(c @ ('"' | '$' | '\\')) => out.push(c),
                    Some(c) => out.extend(['\\', c]),
                    None => break,
                },
                c => out.push(c),
            }
        }
        bail!("unexpected end of statement while looking for matching double-quote")
    }

    /// What stands for the variable whose dollar was just read; a dollar that begins none is one.
    fn variable(&mut self) -> Result<String> {
        if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() { Ok("$".to_owned()) } else { Ok(self.lookup(&name).unwrap_or_default()) }
    }

    fn braced(&mut self) -> Result<String> {
        // A default may hold variables that have defaults: each costs a frame of the stack.
        self.depth += 1;
        if self.depth > 64 {
            bail!("variables are nested too deep");
        }
        let name = self.name();
        if name.is_empty() {
            bail!("syntax error: bad substitution");
        }
        let value = self.lookup(&name);
        let mut modifier = self.next();
        let mut told = value.clone();
        if modifier == Some(':') {
            // With a colon, an empty variable counts as none.
            told = told.filter(|value| !value.is_empty());
            modifier = self.next();
        }
        let result = match modifier {
            Some('}') => Ok(value.unwrap_or_default()),
            Some('-') => self.word(Some('}')).map(|other| told.unwrap_or(other)),
            Some('+') => self.word(Some('}')).map(|other| told.map_or_else(String::new, |_| other)),
            Some('?') => match (self.word(Some('}'))?, told) {
                (_, Some(value)) => Ok(value),
                (message, None) if message.is_empty() => bail!("{name}: is not allowed to be unset"),
                (message, None) => bail!("{name}: {message}"),
            },
            Some(other) => bail!("unsupported modifier ({other}) in substitution"),
            None => bail!("syntax error: missing '}}'"),
        };
        self.depth -= 1;
        result
    }

    fn name(&mut self) -> String {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let length = match self.rest.chars().next() {
            Some(c) if letter(c) => {
                self.rest.find(|c: char| !letter(c) && !c.is_ascii_digit()).unwrap_or(self.rest.len())
            }
            _ => 0,
        };
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        name.to_owned()
    }

    fn lookup(&self, name: &str) -> Option<String> {
        let value = |entry: &&String| entry.split_once('=').is_some_and(|(key, _)| key == name);
        self.environment.iter().rfind(value).and_then(|entry| Some(entry.split_once('=')?.1.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        for (text, expected) in [
            ("a b  c", &["a", "b", "c"][..]),
            (r#"a="x y" b='p q' c=d\ e"#, &[r#"a="x y""#, "b='p q'", r"c=d\ e"]),
            (r#"a="x \" y" b"#, &[r#"a="x \" y""#, "b"]),
            (r"a='\' b", &[r"a='\'", "b"]),
            ("", &[]),
            ("  \t", &[]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_and_quotes() {
        let environment: Vec<String> = ["A=1", "EMPTY=", "PATH=/bin", "A=2"].map(str::to_owned).to_vec();
        for (word, expected) in [
            ("$A", "2"),
            ("${A}x", "2x"),
            ("$PATH:/x", "/bin:/x"),
            ("$ABSENT.", "."),
            (r"\$A", "$A"),
            ("'$A'", "$A"),
            (r#""$A b""#, "2 b"),
            (r#""a\"b\c""#, r#"a"b\c"#),
            ("${ABSENT:-x y}", "x y"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${A:+yes}${ABSENT:+no}${EMPTY+set}", "yesset"),
            ("${ABSENT:-${A}}", "2"),
            ("${A:?must}", "2"),
            ("a$", "a$"),
            ("$1", "$1"),
            (r"a\ b", "a b"),
            (r"end\", "end"),
        ] {
            assert_eq!(process(word, &environment).unwrap(), expected, "{word}");
        }
    }

    #[test]
    fn what_does_not_end_is_an_error() {
        for (word, reason) in [
            ("'a", "single-quote"),
            ("\"a", "double-quote"),
            ("\"a\\", "double-quote"),
            ("${A", "missing '}'"),
            ("${A:-x", "missing '}'"),
            ("${}", "bad substitution"),
            ("${A/x}", "unsupported modifier (/)"),
            ("${B:?is needed}", "B: is needed"),
            (&"${A:-".repeat(1000), "too deep"),
        ] {
            let error = process(word, &[]).unwrap_err().to_string();
            assert!(error.contains(reason), "{word}: {error}");
        }
    }
}
