//! Registries: the client of the OCI distribution specification and of Docker's token specification.
//!
//! ```text
//! mod  pull  push         what can be asked of a repository
//! login  search           what can be asked of a registry
//! blob  upload            contents on their way, resumed and verified
//! endpoint                mirrors and the registry itself, with or without TLS
//! exchange                one request: authorisation, redirects, trying again
//! guard  challenge        who we are at one origin; tokens
//! transport  trust proxy  connections
//! url  fault  accounts    origins; what goes wrong, in words; Docker's config.json
//! ```
//! Blocking, without a runtime: layers are fetched by threads that share one [`Registry`]. Three rules
//! hold throughout: a credential goes to the origin (scheme, host, port) that it is for and to no other;
//! what a digest names is handed out as whole only if it has that digest; everything is bounded, whatever
//! a server sends.

mod accounts;
mod blob;
mod body;
mod challenge;
mod endpoint;
mod exchange;
mod fault;
mod guard;
mod login;
mod proxy;
mod pull;
mod push;
mod search;
mod transport;
mod trust;
mod upload;
mod url;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use self::endpoint::{Endpoint, Role};
use self::exchange::{Patience, Session};
use self::fault::Trouble;
use self::transport::Transport;
use super::oci::digest::Digest;
use super::oci::reference::Reference;
use crate::error::Failure;
use crate::settings::Settings;

pub use self::accounts::{Accounts, Credential, Kept};
pub use self::login::{log_in, server_of};
pub use self::pull::failure_of;
pub use self::search::{Found, search};

/// Which actions a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `pull`.
    Pull,
    /// `pull,push`.
    Push,
}

/// What names a manifest in its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A tag.
    Tag(&'a str),
    /// A digest; what comes is checked against it.
    Digest(&'a Digest),
}

impl<'a> Target<'a> {
    /// What `reference` pins: its digest if it has one, else its tag.
    pub fn of(reference: &'a Reference) -> Target<'a> {
        match reference.digest() {
            Some(digest) => Target::Digest(digest),
            None => Target::Tag(reference.tag().unwrap_or("latest")),
        }
    }
}

/// A manifest or index, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The document.
    pub bytes: Vec<u8>,
    /// Its media type as the registry told it; empty when it did not.
    pub media_type: String,
    /// Its digest, computed from the bytes.
    pub digest: Digest,
}

/// A client for one repository on one registry. Shared by threads.
#[derive(Debug)]
pub struct Registry {
    transport: Arc<Transport>,
    /// Mirrors first, the registry itself last.
    endpoints: Vec<Endpoint>,
    /// The registry as references name it: `docker.io`.
    domain: String,
    /// The repository on it: `library/busybox`.
    path: String,
    /// The same as people name it: `busybox`.
    familiar: String,
    attempts: u32,
    first_pause: Duration,
}

impl Registry {
    /// A client for the repository of `reference`. Nothing is sent yet.
    ///
    /// # Errors
    /// Settings, certificates or credentials that cannot be used.
    pub fn open(settings: &Settings, accounts: &Accounts, reference: &Reference, access: Access) -> Result<Registry> {
        let transport = Arc::new(Transport::new(settings));
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let (domain, path) = (reference.domain(), reference.path());
        let scope = || Some(format!("repository:{path}:{actions}"));
        let mut endpoints = Vec::new();
        if domain == "docker.io" && access == Access::Pull {
            for mirror in &settings.registry_mirrors {
                endpoints.push(Endpoint::mirror(&transport, accounts, mirror, scope())?);
            }
        }
        endpoints.push(Endpoint::registry(&transport, accounts, domain, scope())?);
        Ok(Registry {
            transport,
            endpoints,
            domain: domain.to_owned(),
            path: path.to_owned(),
            familiar: reference.familiar_name(),
            attempts: settings.max_download_attempts.max(1),
            first_pause: settings.first_pause,
        })
    }

    fn patience(&self) -> Patience {
        Patience::new(self.attempts, self.first_pause)
    }

    /// Asks one endpoint after the other; a mirror has one try.
    fn anywhere<T>(&self, ask: impl Fn(&Endpoint, &Session, Patience) -> Result<T, Trouble>) -> Result<T, Trouble> {
        for endpoint in &self.endpoints {
            let patience = match endpoint.role() {
                Role::Mirror => Patience::new(1, self.first_pause),
                Role::Registry => self.patience(),
            };
            if endpoint.is_down() {
                continue;
            }
            let result = endpoint.session().and_then(|session| ask(endpoint, &session, patience));
            match result {
                Err(trouble) if endpoint.role() == Role::Mirror => endpoint.leave(&trouble),
                result => {
                    endpoint.has_served();
                    return result;
                }
            }
        }
        // The registry itself is always asked, and returns above.
        Err(Failure::engine("no registry to ask").into())
    }

    /// Asks no mirror any more; whether anything of what came so far was one's.
    pub fn leave_mirrors(&self) -> bool {
        let mirrors = self.endpoints.iter().filter(|endpoint| endpoint.role() == Role::Mirror);
        // All of them, not just up to the first.
        mirrors.filter(|mirror| mirror.give_up()).count() > 0
    }

    /// Why the credentials that are kept are not known, as a hint for who would have needed them.
    fn unread(&self) -> Option<String> {
        let failure = self.endpoints.last().and_then(Endpoint::unread)?;
        let hint = failure.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        Some(format!("the credentials that are kept for it cannot be read: {failure}{hint}"))
    }

    /// The registry itself, for what no mirror is asked.
    fn itself(&self) -> Result<(&Endpoint, Arc<Session>), Trouble> {
        match self.endpoints.last() {
            Some(endpoint) => Ok((endpoint, endpoint.session()?)),
            None => Err(Failure::engine("no registry to ask").into()),
        }
    }
}

/// Nobody waits for these retries by eye.
fn quietly(_seconds: u64, _reason: &str) {}
