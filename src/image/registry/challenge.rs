//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, section 11.6.1; Docker's token
//! specification).

use std::collections::BTreeMap;

/// A longer header is no challenge of a registry, in bytes.
const MAX_HEADER: usize = 16 * 1024;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case: `basic`, `bearer`, …
    pub(super) scheme: String,
    /// Parameters; names in lower case.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter's value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The challenges of one header, of which there may be several, separated by the same commas as their
/// parameters. What cannot be read ends the list.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = if header.len() > MAX_HEADER { "" } else { header };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else { return found };
        let spaced = after.trim_start_matches([' ', '\t']);
        match (spaced.strip_prefix('='), found.last_mut()) {
            // `name = value` belongs to the challenge before it.
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = parameter(value.trim_start_matches([' ', '\t'])) else { return found };
                // The first of a repeated one counts, as it does for whoever logs the header.
                challenge.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) => {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
                rest = spaced;
            }
        }
    }
}

/// A token (RFC 9110, section 5.6.2) and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or quoted string, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries_are_read() {
        let hub = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#,
        );
        assert_eq!(hub.len(), 1);
        assert_eq!(hub[0].scheme, "bearer");
        assert_eq!(hub[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(hub[0].get("scope"), Some("repository:library/busybox:pull,push"), "a comma inside quotes");
        assert_eq!(parse(r#"Basic realm="Registry Realm""#)[0].get("realm"), Some("Registry Realm"));
    }

    #[test]
    fn several_challenges_share_a_header() {
        let both = parse(r#"Negotiate, Basic realm="a \"b\", c" , BEARER Realm = "https://x/", service=plain"#);
        let schemes: Vec<&str> = both.iter().map(|challenge| challenge.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(both[1].get("realm"), Some(r#"a "b", c"#));
        assert_eq!((both[2].get("realm"), both[2].get("service")), (Some("https://x/"), Some("plain")));
    }

    #[test]
    fn malformed_ones_end_the_list() {
        assert!(parse("").is_empty() && parse(",,,").is_empty() && parse("=x").is_empty());
        assert_eq!(parse(r#"Bearer realm="unterminated"#)[0].get("realm"), None);
        assert_eq!(parse("Bearer realm=\"a\", realm=\"b\"")[0].get("realm"), Some("a"));
        assert!(parse(&format!("Bearer realm=\"{}\"", "x".repeat(MAX_HEADER))).is_empty());
        assert_eq!(parse("Basic é")[0].scheme, "basic");
    }
}
