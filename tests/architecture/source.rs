//! Rust sources as text: comments and literals blanked out, words, and the paths that code names.

use std::path::Path;

/// `src/engine/create.rs` is `[engine, create]`, `src/engine/mod.rs` is `[engine]`, `src/main.rs` is `[]`.
pub fn module_path(name: &str) -> Vec<String> {
    let path = Path::new(name.strip_prefix("src/").unwrap_or(name)).with_extension("");
    let mut parts: Vec<String> = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "main" | "lib")) {
        parts.pop();
    }
    parts
}

/// Replaces comments and the contents of literals by spaces; line breaks stay.
pub fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal_length(rest);
        if length > 0 {
            let (literal, after) = rest.split_at(length);
            out.extend(literal.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            // Of an identifier the rest goes along, so that the `r` of `for"` never begins a literal.
            if first.is_ascii_alphabetic() || first == '_' {
                let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let raw = matches!(first, 'r' | 'b' | 'c') && word <= 1;
                if !raw {
                    out.push_str(&rest[..word]);
                    rest = &rest[word..];
                }
            }
        }
    }
    out
}

/// Bytes of the comment or literal that begins here; 0 when none does.
fn literal_length(text: &str) -> usize {
    let end = |found: Option<usize>, after: usize| found.map_or(text.len(), |at| at + after);
    if text.starts_with("//") {
        return end(text.find('\n'), 0);
    }
    if text.starts_with("/*") {
        return end(text.find("*/"), 2);
    }
    let prefix = text.find(|c| !matches!(c, 'r' | 'b' | 'c')).unwrap_or(text.len());
    if prefix > 2 {
        return 0;
    }
    let body = &text[prefix..];
    let hashes = body.find(|c| c != '#').unwrap_or(body.len());
    if text[..prefix].contains('r') && body[hashes..].starts_with('"') {
        let close = format!("\"{}", "#".repeat(hashes));
        let start = prefix + hashes + 1;
        return end(text[start..].find(&close).map(|at| at + start), close.len());
    }
    if body.starts_with('"') {
        let mut escaped = false;
        for (at, c) in body.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return prefix + at + 1,
                _ => {}
            }
        }
        return text.len();
    }
    // A character literal, told from a lifetime by its closing quote.
    if body.starts_with("'\\") {
        return end(body[3..].find('\'').map(|at| prefix + at + 3), 1);
    }
    let mut chars = body.char_indices();
    if prefix < 2 && chars.next().is_some_and(|(_, c)| c == '\'') && chars.next().is_some() {
        return chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| prefix + at + 1);
    }
    0
}

/// Words of the code with their line and what follows them.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut at = 0;
    let mut line = 1;
    std::iter::from_fn(move || {
        loop {
            let rest = code.get(at..).filter(|rest| !rest.is_empty())?;
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if length > 0 {
                at += length;
                return Some((line, &rest[..length], &rest[length..]));
            }
            let first = rest.chars().next()?;
            line += usize::from(first == '\n');
            at += first.len_utf8();
        }
    })
}

/// Whether this `exit` is `process::exit` (a slice of `code`, so its place is known).
pub fn preceded_by_process(code: &str, word: &str) -> bool {
    let at = word.as_ptr() as usize - code.as_ptr() as usize;
    code[..at].ends_with("process::")
}

/// Paths that start at the crate's root, with their lines: `crate::a::b`, `crate::{a, b::c}`, enough
/// `super::`, and `mydocker::a` in the program's own main.
pub fn imports(code: &str, module: &[String]) -> Vec<(usize, String)> {
    paths_after(code, |word, supers| match word {
        "crate" => true,
        "mydocker" => module.is_empty(),
        "super" => supers == module.len(),
        _ => false,
    })
}

/// All paths into the crate, from its root: `crate::a::b` is `a::b`, and so is `super::b` in `a::c`.
pub fn all_imports(code: &str, module: &[String]) -> Vec<(usize, String)> {
    let mut found = paths_after(code, |word, _| word == "crate");
    for depth in 1..=module.len() {
        let above = module[..module.len() - depth].join("::");
        let from = paths_after(code, |word, supers| word == "super" && supers == depth);
        found.extend(
            from.into_iter().map(|(line, path)| (line, format!("{above}::{path}").trim_matches(':').to_owned())),
        );
    }
    found
}

/// Paths below the module's own top-level module, in the same form: `crate::image::a` and, in `image::b`, `super::a`.
pub fn inner_imports(code: &str, module: &[String]) -> Vec<(usize, String)> {
    let own = format!("{}::", module[0]);
    let mut found: Vec<_> = imports(code, module)
        .into_iter()
        .filter_map(|(line, path)| path.strip_prefix(&own).map(|inner| (line, inner.to_owned())))
        .collect();
    found.extend(paths_after(code, |word, supers| word == "super" && supers + 1 == module.len()));
    found
}

/// The paths after those words that `leads` says lead somewhere: given the word, and how many `super` it is the last of.
fn paths_after(code: &str, leads: impl Fn(&str, usize) -> bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut supers = 0;
    for (line, word, rest) in words(code) {
        let Some(after) = rest.strip_prefix("::") else {
            supers = 0;
            continue;
        };
        supers = if word == "super" { supers + 1 } else { 0 };
        if !after.starts_with("super") && leads(word, supers) {
            found.extend(group(after).into_iter().map(|path| (line, path)));
        }
    }
    found
}

/// The paths of `a::b` or `a::{b, c::{d, self}}`, every one in full.
fn group(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let (prefix, rest) = text.split_at(end);
    let Some(inner) = rest.strip_prefix('{') else { return vec![prefix.to_owned()] };
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth > 0 => {}
            ',' | '}' => {
                paths.extend(group(inner[start..at].trim_start()).into_iter().map(|path| format!("{prefix}{path}")));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    paths.retain(|path| *path != prefix);
    paths
}
