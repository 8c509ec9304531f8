//! Image references: what users type (`busybox`, `a/b:1`, `host:5000/x@sha256:…`) and what it means.
//!
//! The grammar and the normalisation are those of the distribution project (`reference` grammar): a
//! name without a registry belongs to `docker.io`, there without a namespace to `library/`, and
//! without a tag it is `latest`. The *canonical* form spells all that out and is what the store keeps;
//! the *familiar* form leaves it away and is what people see.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;

use super::digest::{Digest, is_hex};
use crate::error::Failure;

/// The registry of names that have none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// The namespace of names on the default registry that have none.
const DEFAULT_NAMESPACE: &str = "library/";
/// The longest name, registry included, in bytes.
const MAX_NAME: usize = 255;

/// A valid, normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Registry: host, with port where given.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository on the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `None` when only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, when the reference pins one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Whether images can be called so here.
    ///
    /// # Errors
    /// The name of a digest's algorithm: `sha256:abc` would mean a name as well as the beginning of an id.
    pub fn check_name(&self) -> Result<()> {
        if self.familiar_name() == "sha256" {
            let message = "refusing to create an ambiguous tag using digest algorithm as name";
            return Err(Failure::engine(message).with_hint("call it otherwise: sha256:… is how ids begin").into());
        }
        Ok(())
    }

    /// The complete form: `docker.io/library/busybox:latest`. A digest outranks a tag.
    pub fn canonical(&self) -> String {
        format!("{}{}", self.repository(), self.suffix())
    }

    /// The short form: `busybox:latest`, always with its tag or digest.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// The short form without tag and digest: `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        self.path.strip_prefix(DEFAULT_NAMESPACE).filter(|rest| !rest.contains('/')).unwrap_or(&self.path).to_owned()
    }

    /// The same repository, with another tag.
    ///
    /// # Errors
    /// A tag that none may be: registries are strangers too.
    pub fn with_tag(&self, tag: &str) -> Result<Reference> {
        if !valid_tag(tag) {
            return Err(invalid(tag, &format!(": invalid tag {tag:?}")).into());
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository, pinned to a digest.
    pub fn with_digest(&self, digest: &Digest) -> Reference {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    fn suffix(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("@{digest}"),
            (None, Some(tag)) => format!(":{tag}"),
            (None, None) => String::new(),
        }
    }

    /// `NAME` when this is the plain name of an official image: no registry, no namespace, tag
    /// `latest` or none, no digest.
    pub fn plain_name(&self) -> Option<&str> {
        let latest = self.tag.as_deref() == Some("latest") && self.digest.is_none();
        self.path
            .strip_prefix(DEFAULT_NAMESPACE)
            .filter(|name| latest && self.domain == DEFAULT_DOMAIN && !name.contains('/'))
    }
}

impl fmt::Display for Reference {
    /// The familiar form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    /// Parses and normalises; errors keep Docker's wording (`invalid reference format…`).
    fn from_str(text: &str) -> Result<Reference> {
        let invalid = |reason: &str| anyhow::Error::new(invalid(text, reason));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(|error| invalid(&format!(": {error}")))?))
            }
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        // A colon in the remainder is the tag's: the one of a port stands before a slash.
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid(": repository name must be lowercase"));
        }
        let path = match domain {
            DEFAULT_DOMAIN if !path.contains('/') => format!("{DEFAULT_NAMESPACE}{path}"),
            _ => path.to_owned(),
        };
        if !valid_domain(domain) || !path.split('/').all(valid_component) || !tag.is_none_or(valid_tag) {
            return Err(invalid(""));
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(invalid(": repository name must not be more than 255 characters"));
        }
        if rest.len() == 64 && is_hex(rest) {
            let reason = format!(": repository name ({rest}) cannot be 64 hexadecimal digits, which name an id");
            return Err(invalid(&reason));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }
}

/// What is said of a text that is none; as with Docker no matter of the command line's form, so its code is that of
/// any other failure.
fn invalid(text: &str, reason: &str) -> Failure {
    Failure::engine(format!("invalid reference format{reason}"))
        .with_hint(format!("{text:?} is not of the form [HOST[:PORT]/]NAME[:TAG][@DIGEST], for example busybox:1.36"))
}

/// The first component is a registry when it cannot be part of a repository's name on the default one:
/// a dot, a colon, an upper-case letter, or `localhost`.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost" || first.bytes().any(|b| b == b'.' || b == b':' || b.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        // An IPv6 address in brackets.
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let address_ok = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                return address_ok && (port.is_empty() || port.strip_prefix(':').is_some_and(digits));
            }
            None => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(digits)
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `[a-z0-9]+` in groups, separated by `.`, `_`, `__` or any number of `-`.
fn valid_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|b| alphanumeric(*b)) || !bytes.last().is_some_and(|b| alphanumeric(*b)) {
        return false;
    }
    bytes.split(|b| alphanumeric(*b)).all(|separator| match separator {
        b"" | b"." | b"_" | b"__" => true,
        other => other.iter().all(|b| *b == b'-'),
    })
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
fn valid_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised() {
        let long = format!("a/b@{DIGEST}");
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/library/busybox:x", "docker.io/library/busybox:x", "busybox:x"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
            ("quay.io/a/b-c/d__e.f:V1_.-", "quay.io/a/b-c/d__e.f:V1_.-", "quay.io/a/b-c/d__e.f:V1_.-"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("a--b", "docker.io/library/a--b:latest", "a--b:latest"),
            (&long, &format!("docker.io/a/b@{DIGEST}"), &long),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error:#}"));
            assert_eq!((reference.canonical().as_str(), reference.familiar().as_str()), (canonical, familiar));
            assert_eq!(reference.canonical().parse::<Reference>().unwrap(), reference, "canonical is stable");
            assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference, "familiar is stable");
        }
        let both: Reference = format!("busybox:1@{DIGEST}").parse().unwrap();
        assert_eq!(both.canonical(), format!("docker.io/library/busybox@{DIGEST}"));
    }

    #[test]
    fn invalid_references_say_why() {
        let lower = "invalid reference format: repository name must be lowercase";
        let long = "a".repeat(256);
        let id = "a".repeat(64);
        for (text, message) in [
            ("Busybox", lower),
            ("docker.io/Busybox", lower),
            ("", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("../x", "invalid reference format"),
            ("a/../b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("/a", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("a:-x", "invalid reference format"),
            ("host:port/x", "invalid reference format"),
            ("[::1/x", "invalid reference format"),
            ("\u{e9}", "invalid reference format"),
            ("a\0", "invalid reference format"),
            (
                "a@sha256:12",
                "invalid reference format: invalid digest \"sha256:12\": 64 lower-case hexadecimal digits must follow \
                 sha256:",
            ),
            (&long, "invalid reference format: repository name must not be more than 255 characters"),
            (
                &id,
                &format!(
                    "invalid reference format: repository name ({id}) cannot be 64 hexadecimal digits, which name an id"
                ),
            ),
        ] {
            let error = text.parse::<Reference>().expect_err(text);
            assert_eq!(error.to_string(), message, "{text:?}");
        }
        assert!(format!("a:{}", "t".repeat(128)).parse::<Reference>().is_ok());
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn nothing_is_called_like_the_beginning_of_an_id() {
        let named = |text: &str| text.parse::<Reference>().unwrap().check_name().is_ok();
        assert!(!named("sha256:abc") && !named("docker.io/library/sha256"));
        assert!(named("team/sha256") && named("sha256x") && named("localhost/sha256"));
    }

    #[test]
    fn plain_names_are_the_bundled_ones() {
        let plain = |text: &str| text.parse::<Reference>().unwrap().plain_name().map(str::to_owned);
        assert_eq!(plain("busybox").as_deref(), Some("busybox"));
        assert_eq!(plain("docker.io/library/busybox:latest").as_deref(), Some("busybox"));
        for text in ["busybox:1", "a/b", "quay.io/busybox", &format!("busybox@{DIGEST}")] {
            assert_eq!(plain(text), None, "{text}");
        }
    }
}
