//! Looking for repositories by name.
//!
//! docker.io has a search of its own (`/v1/search`, from before the distribution specification), which
//! some other registries imitate; the rest can at best list what they have (`/v2/_catalog`).

use std::sync::Arc;

use anyhow::Result;
use serde::Deserialize;
use ureq::http::Method;

use super::accounts::Accounts;
use super::endpoint::Endpoint;
use super::exchange::{Call, Patience, Session};
use super::fault::{Met, Trouble};
use super::guard::Guard;
use super::pull::{document, listing};
use super::quietly;
use super::transport::Transport;
use super::url::{Origin, Scheme, escape};
use crate::error::Failure;
use crate::settings::Settings;

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its name, with the registry in front unless that is docker.io.
    pub name: String,
    /// One line; empty where the registry knows none.
    #[serde(default, deserialize_with = "perhaps")]
    pub description: String,
    /// How many like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// One of Docker's official images.
    #[serde(default, rename = "is_official")]
    pub official: bool,
    /// Built by docker.io itself, in former times.
    #[serde(default, rename = "is_automated")]
    pub automated: bool,
}

/// Text that may be `null`.
fn perhaps<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

/// Looks for `term`, `word` on docker.io or `host/word` on another registry. At most `limit`.
///
/// # Errors
/// The registry cannot be talked to, or has neither search nor catalogue.
pub fn search(settings: &Settings, accounts: &Accounts, term: &str, limit: usize) -> Result<Vec<Found>> {
    let transport = Arc::new(Transport::new(settings));
    let patience = Patience::new(2, settings.first_pause);
    let is_host = |first: &str| first == "localhost" || first.contains(['.', ':']);
    let (domain, word) = match term.split_once('/') {
        Some((first, word)) if is_host(first) && first != "docker.io" => (first, word),
        Some(("docker.io", word)) => ("docker.io", word),
        _ => ("docker.io", term),
    };
    if domain == "docker.io" {
        let origin = Origin::new(Scheme::Https, "index.docker.io")?;
        let session = Session::new(Arc::clone(&transport), origin.clone(), Guard::new(origin, None, None, domain));
        return ask(&session, word, limit, patience).map_err(|trouble| trouble.error);
    }
    let endpoint = Endpoint::registry(&transport, accounts, domain, None)?;
    let look = || {
        let session = endpoint.session()?;
        match ask(&session, word, limit, patience.clone()) {
            Err(Trouble { met: Met::Server, .. }) => {}
            Ok(found) if found.is_empty() => {}
            result => return result,
        }
        // What tokens of the catalogue are called (distribution, registry/auth).
        session.guard.widen("registry:catalog:*".to_owned());
        let names = listing(&session, endpoint.url(&session, "_catalog?n=1000"), patience.clone(), "repositories")?;
        let plain =
            |name: String| Found { name, description: String::new(), stars: 0, official: false, automated: false };
        Ok(names.into_iter().filter(|name| name.contains(word)).take(limit).map(plain).collect())
    };
    let found: Vec<Found> = look().map_err(|trouble: Trouble| match trouble.met {
        Met::Server if !trouble.is_refusal() => {
            Failure::engine(format!("registry {domain} offers neither search nor catalogue: {}", trouble.reason()))
                .into()
        }
        _ => trouble.error,
    })?;
    let named = |found: Found| Found { name: format!("{domain}/{}", found.name), ..found };
    Ok(found.into_iter().map(named).collect())
}

/// `/v1/search`.
fn ask(session: &Session, word: &str, limit: usize, patience: Patience) -> Result<Vec<Found>, Trouble> {
    let url = session.origin.url(format!("/v1/search?q={}&n={limit}", escape(word)));
    let response = session.call(&Call::new(Method::GET, url), patience, &quietly)?;
    let bytes = document(&session.origin, response)?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| Trouble {
        met: Met::Server,
        ..Failure::engine(format!("registry {} gives something else than search results", session.origin)).into()
    })?;
    Ok(answer.results.into_iter().take(limit).collect())
}
