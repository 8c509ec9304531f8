//! Whether a registry accepts a credential, before it is kept.

use std::sync::Arc;

use anyhow::Result;
use ureq::http::Method;

use super::accounts::{Accounts, Credential};
use super::body::drain;
use super::endpoint::Endpoint;
use super::exchange::{Call, Patience};
use super::quietly;
use super::transport::Transport;
use super::url::{Origin, Scheme};
use crate::error::Failure;
use crate::settings::Settings;

/// The registry that a user names at login: without scheme and path, and docker.io by any of its names.
///
/// # Errors
/// It is no host.
pub fn server_of(text: &str) -> Result<String> {
    let name = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = name.split('/').next().unwrap_or_default();
    // Only its form is of interest here.
    Origin::new(Scheme::Https, host)?;
    Ok(match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    })
}

/// Tries a credential at a registry.
///
/// # Errors
/// `unauthorized: incorrect username or password`, or the registry cannot be talked to.
pub fn log_in(settings: &Settings, domain: &str, credential: &Credential) -> Result<()> {
    let transport = Arc::new(Transport::new(settings));
    let endpoint = Endpoint::registry(&transport, &Accounts::default(), domain, None)?;
    let endpoint = endpoint.with_credential(Some(credential.clone()));
    let try_out = || {
        let session = endpoint.session()?;
        let call = Call::new(Method::GET, endpoint.url(&session, ""));
        session.call(&call, Patience::new(2, settings.first_pause), &quietly).map(drain)
    };
    try_out().map_err(|trouble| {
        if !trouble.is_refusal() {
            return trouble.error;
        }
        let what = match credential {
            Credential::Password { .. } => "incorrect username or password",
            _ => "the token is not accepted any more",
        };
        Failure::engine(format!("login attempt to {domain} failed: unauthorized: {what}"))
            .with_hint("where passwords alone do not do (two factors), use an access token as password")
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_its_host() {
        for (text, server) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("http://host:5000/v2/", "host:5000"),
            ("host:5000", "host:5000"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(server_of(text).unwrap(), server);
        }
        for bad in ["", "https://", "a b", "u:p@host", "host:port"] {
            assert!(server_of(bad).is_err(), "{bad}");
        }
    }
}
