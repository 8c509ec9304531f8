//! URLs as far as registries need them, and the one question that matters about two of them: whether
//! they lead to the same origin. Credentials are for an origin and go nowhere else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;

use crate::error::Failure;

/// The longest URL that is followed, in bytes; signed ones of object stores take about 2000.
const MAX_URL: usize = 16 * 1024;

/// Plain or encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Scheme, host and port (RFC 6454): what a credential is given for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    /// In lower case; an IPv6 address has its brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// An absolute URL without user and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) origin: Origin,
    /// Path and query; begins with `/`.
    pub(super) target: String,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Origin {
    /// The origin of `authority`, which is `host` or `host:port`.
    pub(super) fn new(scheme: Scheme, authority: &str) -> Result<Origin> {
        let invalid = || anyhow::Error::from(Failure::usage(format!("invalid registry host {authority:?}")));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or_else(invalid)?;
                let address: Ipv6Addr = address.parse().map_err(|_| invalid())?;
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(invalid)?) };
                (format!("[{address}]"), port)
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
                None => (authority.to_ascii_lowercase(), None),
            },
        };
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !host.starts_with('[') && (host.is_empty() || host.len() > 253 || !host.bytes().all(letter)) {
            return Err(invalid());
        }
        let port = match port {
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().map_err(|_| invalid())?,
            Some(_) => return Err(invalid()),
            None => scheme.default_port(),
        };
        Ok(Origin { scheme, host, port })
    }

    /// The host without brackets as an address, if it is one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether it is this machine: `localhost`, 127.0.0.0/8, `::1`.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    /// Whether the port is the scheme's own.
    pub(super) fn has_default_port(&self) -> bool {
        self.port == self.scheme.default_port()
    }

    /// `host:port`, whatever the port.
    pub(super) fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A URL of this origin.
    pub(super) fn url(&self, target: impl Into<String>) -> Url {
        Url { origin: self.clone(), target: target.into() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.host)?;
        if self.has_default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl Url {
    /// Parses an absolute `http` or `https` URL. One with a user in it is refused: secrets come from
    /// accounts, never from a server.
    pub(super) fn parse(text: &str) -> Result<Url> {
        let invalid = |why: &str| anyhow::Error::from(Failure::engine(format!("invalid URL {text:?}: {why}")));
        if text.len() > MAX_URL {
            return Err(Failure::engine(format!("a URL has more than {MAX_URL} bytes")).into());
        }
        // A backslash is a slash to some readers and none to others.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>')) {
            return Err(invalid("it has characters that a URL cannot have"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("it is not absolute"))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(invalid("only http and https are")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            // Without the text: what stands before the @ may be a secret.
            return Err(Failure::engine("a URL holds a user name, which is not accepted").into());
        }
        let origin = Origin::new(scheme, authority).map_err(|_| invalid("its host is malformed"))?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Url { origin, target })
    }

    /// What `reference` (a `Location` or `Link`) means where this URL stands (RFC 3986, section 5.2). Dot
    /// segments go to the server as they are.
    pub(super) fn join(&self, reference: &str) -> Result<Url> {
        let scheme_end = reference.find(':').unwrap_or(usize::MAX);
        if scheme_end < reference.find(['/', '?', '#']).unwrap_or(reference.len()) {
            return Url::parse(reference);
        }
        if reference.starts_with("//") {
            return Url::parse(&format!("{}:{reference}", self.origin.scheme.name()));
        }
        let path = self.path();
        let target = match reference.bytes().next() {
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{path}{reference}"),
            Some(b'#') | None => self.target.clone(),
            Some(_) => format!("{}/{reference}", path.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        // Through the parser, so that what a server sent is checked however it was written.
        Url::parse(&format!("{}{target}", self.origin))
    }

    /// The path alone.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The URL with one more parameter.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: &str) -> Url {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(name);
        self.target.push('=');
        self.target.push_str(&escape(value));
        self
    }

    /// The URL without its query, for messages: queries of signed URLs are secrets.
    pub(super) fn shown(&self) -> String {
        format!("{}{}", self.origin, self.path())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.target)
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3).
pub(super) fn escape(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Url::parse(text).unwrap().origin
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("https://a.b/x"), origin("HTTPS://A.B:443"));
        for other in ["http://a.b", "https://a.b:444", "https://a.b.", "https://b.a.b", "https://a.bc"] {
            assert_ne!(origin("https://a.b"), origin(other), "{other}");
        }
        assert!(origin("http://[::1]:5000/").is_loopback() && origin("http://127.9.8.7").is_loopback());
        assert!(!origin("http://127.0.0.1.evil.example").is_loopback());
        assert!(!origin("http://localhost.evil.example").is_loopback());
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for text in [
            "https://user:secret@host/",
            "https://good.example\\@evil.example/",
            "https://good.example@evil.example/",
            "https://a b/",
            "https://a/\r\nAuthorization: x",
            "https:///x",
            "https://host:99999/",
            "https://host:+1/",
            "https://host:/",
            "https://[::1/",
            "ftp://host/",
            "file:///etc/passwd",
            "host/x",
        ] {
            let error = Url::parse(text).expect_err(text).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn references_are_resolved() {
        let base = Url::parse("https://host:5000/v2/a/blobs/uploads/1?state=x").unwrap();
        for (reference, whole) in [
            ("/v2/y?z", "https://host:5000/v2/y?z"),
            ("2", "https://host:5000/v2/a/blobs/uploads/2"),
            ("?q=1", "https://host:5000/v2/a/blobs/uploads/1?q=1"),
            ("//other/z", "https://other/z"),
            ("http://other:81/z#f", "http://other:81/z"),
            ("a?b=http://c", "https://host:5000/v2/a/blobs/uploads/a?b=http://c"),
        ] {
            assert_eq!(base.join(reference).unwrap().to_string(), whole);
        }
        for bad in ["javascript:alert(1)", "/a\u{7f}", "/a b", "//u@h/"] {
            assert!(base.join(bad).is_err(), "{bad:?}");
        }
        let with = Url::parse("https://h/x").unwrap().with("scope", "repository:a/b:pull").with("q", "a&b=c d");
        assert_eq!(with.to_string(), "https://h/x?scope=repository%3Aa%2Fb%3Apull&q=a%26b%3Dc%20d");
        assert_eq!(with.shown(), "https://h/x");
    }
}
