//! What can go wrong with a registry, in words: Docker's where scripts look for them, with the cure where
//! there is one, and never with a control character that a server put there.

use std::io::{self, ErrorKind};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Response};
use ureq::{Body, Timeout};

use super::body::remainder;
use super::url::Origin;
use crate::error::{Class, Failure};

/// What is read of a response that says no, in bytes.
const MAX_COMPLAINT: usize = 64 * 1024;
/// What is shown of one text of a server's, in characters.
const MAX_TEXT: usize = 512;
/// How the standard library's error begins when a name was not found.
const LOOKUP: &str = "failed to lookup address information";
const LOOKUP_HINT: &str =
    "check the registry's name and this machine's DNS (/etc/resolv.conf), or set a proxy (HTTPS_PROXY)";
/// A longer pause than this that a server asks for is not waited out.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Whether to try the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail the same way.
    Never,
    /// It may pass.
    Perhaps,
    /// It may pass after this time, which the server asked for.
    After(Duration),
}

/// Whom an exchange met before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// Nobody whom another protocol would help to meet.
    Nobody,
    /// Nobody, or somebody who does not speak TLS.
    PerhapsPlain,
    /// Somebody who speaks TLS, but not with us.
    Encrypted,
    /// A server that answered.
    Server,
}

/// An exchange that failed.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) error: anyhow::Error,
    pub(super) again: Again,
    /// Whom the exchange met.
    pub(super) met: Met,
    /// HTTP status; `None` when no response came.
    pub(super) status: Option<u16>,
    /// Codes of the distribution specification (`MANIFEST_UNKNOWN`).
    pub(super) codes: Vec<String>,
}

impl From<anyhow::Error> for Trouble {
    /// Something of our own, which does not pass.
    fn from(error: anyhow::Error) -> Trouble {
        Trouble { error, again: Again::Never, met: Met::Nobody, status: None, codes: Vec::new() }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        anyhow::Error::from(failure).into()
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        Failure::from_error(&trouble.error)
    }
}

impl Trouble {
    /// The reason in one line, for progress and for the log.
    pub(super) fn reason(&self) -> String {
        Failure::from_error(&self.error).to_string()
    }

    /// Whether the registry names this reason.
    pub(super) fn has(&self, code: &str) -> bool {
        self.codes.iter().any(|known| known == code)
    }

    /// Whether who we are, or are not, is the reason.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.status, Some(401 | 403)) || self.has("DENIED") || self.has("UNAUTHORIZED")
    }
}

/// Whether the peer has been talked to before: then what looks like an absent one is a broken line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Reached,
    Never,
}

/// What happened on the wire to `origin`.
pub(super) fn of_wire(origin: &Origin, known: Known, error: anyhow::Error) -> Trouble {
    let error = match error.downcast::<ureq::Error>() {
        Ok(error) => error,
        Err(error) => return error.into(),
    };
    let absent = if known == Known::Reached { Again::Perhaps } else { Again::Never };
    let (what, hint, again) = match &error {
        ureq::Error::HostNotFound => (format!("lookup {}: no such host", origin.host), LOOKUP_HINT.into(), absent),
        // The standard library gives getaddrinfo(3)'s failures no kind of their own.
        ureq::Error::Io(error) if error.to_string().starts_with(LOOKUP) => (
            format!(
                "lookup {}: no such host ({})",
                origin.host,
                error.to_string()[LOOKUP.len()..].trim_start_matches(": ")
            ),
            LOOKUP_HINT.into(),
            absent,
        ),
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => (
            "connecting timed out".into(),
            "check the network and any firewall between here and there, or set a proxy (HTTPS_PROXY)".into(),
            absent,
        ),
        ureq::Error::Timeout(_) => ("it sends nothing any more: timed out".into(), String::new(), Again::Perhaps),
        ureq::Error::ConnectProxyFailed(why) => (
            format!("the proxy does not lead there: {}", printable(why)),
            "check HTTP_PROXY, HTTPS_PROXY, NO_PROXY and [proxies] in /etc/mydocker/config.toml".into(),
            Again::Never,
        ),
        ureq::Error::LargeResponseHeader(..) => {
            ("its response has absurdly large headers".into(), String::new(), Again::Never)
        }
        ureq::Error::Rustls(error) => of_tls(origin, error),
        ureq::Error::Io(error) => of_io(origin, error, absent),
        ureq::Error::Protocol(why) => {
            let hint = "is it a registry that listens there?";
            (format!("malformed HTTP response: {}", printable(&why.to_string())), hint.into(), Again::Never)
        }
        other => (printable(&other.to_string()), String::new(), Again::Never),
    };
    let failure = Failure::engine(format!("cannot talk to registry {origin}: {what}"));
    let failure = if hint.is_empty() { failure } else { failure.with_hint(hint) };
    let met = match error {
        _ if speaks_tls(&error) => Met::Encrypted,
        ureq::Error::HostNotFound | ureq::Error::ConnectProxyFailed(_) => Met::Nobody,
        ureq::Error::Io(error) if error.to_string().starts_with(LOOKUP) => Met::Nobody,
        _ => Met::PerhapsPlain,
    };
    Trouble { error: failure.into(), again, met, status: None, codes: Vec::new() }
}

/// Whether the other side has shown that it speaks TLS: it has sent an alert, or a certificate that does not do.
fn speaks_tls(error: &ureq::Error) -> bool {
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    };
    matches!(tls, Some(rustls::Error::AlertReceived(_) | rustls::Error::InvalidCertificate(_)))
}

fn of_io(origin: &Origin, error: &io::Error, absent: Again) -> (String, String, Again) {
    if let Some(failure) = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()) {
        return (failure.to_string(), failure.hint.clone().unwrap_or_default(), Again::Never);
    }
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(origin, tls);
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => (
            "connect: connection refused".into(),
            format!("nothing listens on {}; check host and port", origin.host_and_port()),
            absent,
        ),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => (
            format!("connect: {error}"),
            "check this machine's network and routes, or set a proxy (HTTPS_PROXY)".into(),
            absent,
        ),
        ErrorKind::PermissionDenied => (format!("connect: {error}"), String::new(), Again::Never),
        _ => (printable(&format!("the connection broke: {error}")), String::new(), Again::Perhaps),
    }
}

fn of_tls(origin: &Origin, error: &rustls::Error) -> (String, String, Again) {
    use rustls::CertificateError as Certificate;
    let place = origin.host_and_port();
    let (what, hint) = match error {
        rustls::Error::InvalidMessage(_) => (
            "http: server gave HTTP response to HTTPS client".to_owned(),
            format!(
                "if it may be trusted without encryption, add \"{place}\" to insecure-registries in \
                     /etc/mydocker/config.toml"
            ),
        ),
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer) => (
            "x509: certificate signed by unknown authority".to_owned(),
            format!("put the authority's certificate at /etc/mydocker/certs.d/{place}/ca.crt"),
        ),
        rustls::Error::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        ) => (
            "x509: certificate has expired or is not yet valid".to_owned(),
            "check this machine's clock, and tell whoever runs the registry".to_owned(),
        ),
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => (
            format!("x509: certificate is not valid for {}", origin.host),
            "use the name that the certificate is for".to_owned(),
        ),
        rustls::Error::AlertReceived(alert) if is_of_our_certificate(*alert) => (
            format!("remote error: tls: {alert:?}: it wants a client certificate of an authority that it knows"),
            format!("put client.cert and client.key into /etc/mydocker/certs.d/{place}/"),
        ),
        other => (format!("tls: {}", printable(&other.to_string())), String::new()),
    };
    (what, hint, Again::Never)
}

/// What servers say who want to see a certificate, or another one than they were shown.
fn is_of_our_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(alert, Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA | Alert::CertificateUnknown)
}

#[derive(Deserialize)]
struct Complaints {
    #[serde(default)]
    errors: Vec<Complaint>,
    /// Token servers' own form.
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A response that says no.
pub(super) fn of_response(origin: &Origin, response: Response<Body>) -> Trouble {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    // What cannot be read of it is not missed: the status says enough.
    let text = remainder(body, MAX_COMPLAINT);
    let complaints = serde_json::from_slice::<Complaints>(&text).ok();
    let (errors, details) = complaints.map_or_else(Default::default, |all| (all.errors, all.details));
    let mut said: Vec<String> = errors
        .iter()
        .take(8)
        .map(|one| {
            format!("{}: {}", printable(&one.code.to_ascii_lowercase().replace('_', " ")), printable(&one.message))
        })
        .collect();
    if said.is_empty() && !details.is_empty() {
        said.push(printable(&details));
    }
    let codes: Vec<String> = errors.into_iter().take(8).map(|one| one.code).collect();
    let mut message = said.join("; ");
    if message.is_empty() {
        let reason = parts.status.canonical_reason().unwrap_or_default();
        message = match status {
            401 => "unauthorized: authentication required".to_owned(),
            429 => "toomanyrequests: too many requests".to_owned(),
            _ => format!("received unexpected HTTP status: {status} {reason}").trim_end().to_owned(),
        };
    }
    let again = match status {
        429 | 503 => asked_pause(&parts.headers).map_or(Again::Perhaps, Again::After),
        408 | 500 | 502 | 504 => Again::Perhaps,
        _ => Again::Never,
    };
    let class = if status == 404 { Class::NotFound } else { Class::Engine };
    let mut failure = Failure::new(class, message);
    if status == 429 {
        failure = failure.with_hint(format!(
            "wait, log in with 'mydocker login' for a higher limit, or set registry-mirrors{}",
            match again {
                Again::After(pause) => format!("; {origin} asks for {} seconds", pause.as_secs()),
                _ => String::new(),
            }
        ));
    }
    Trouble { error: failure.into(), again, met: Met::Server, status: Some(status), codes }
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let left = date.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(left).unwrap_or_default())
}

/// A server's text, fit for a message: short, and without characters that a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == MAX_TEXT {
            out.push('…');
            break;
        }
        // Bidirectional overrides reorder a line without being control characters.
        if c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_servers_are_tamed() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\u{202e}c"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c");
        assert_eq!(printable(&"x".repeat(9999)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn pauses_are_seconds_or_dates() {
        let pause = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            asked_pause(&headers)
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "a date in the past");
        let far = pause("Fri, 31 Dec 2049 23:59:59 GMT").unwrap();
        assert!(far > MAX_PAUSE, "{far:?}");
        for bad in ["-1", "soon", "99999999999999999999"] {
            assert_eq!(pause(bad), None, "{bad}");
        }
    }
}
