//! Where a repository is to be had: mirrors first when pulling from docker.io, then the registry itself;
//! and whether a registry that may do without encryption speaks TLS.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use ureq::http::Method;

use super::accounts::{Accounts, Credential};
use super::exchange::{Call, Session};
use super::fault::{Met, Trouble};
use super::guard::Guard;
use super::transport::Transport;
use super::url::{Origin, Scheme, Url};
use crate::error::Failure;

/// Whose place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Mirror,
    Registry,
}

/// One place.
#[derive(Debug)]
pub(super) struct Endpoint {
    place: Place,
    transport: Arc<Transport>,
    session: Mutex<Option<Arc<Session>>>,
    down: AtomicBool,
    /// Whether anything came from it.
    served: AtomicBool,
}

/// Where it is and who we are there.
#[derive(Debug)]
struct Place {
    role: Role,
    /// Candidates for the origin: the encrypted one first.
    origins: Vec<Origin>,
    /// What stands before `/v2/`; empty but for some mirrors.
    prefix: String,
    credential: Option<Credential>,
    /// Why the credential is not known.
    unread: Option<Failure>,
    /// The name under which one logs in.
    account: String,
    scope: Option<String>,
}

impl Endpoint {
    /// The registry of a reference's domain.
    pub(super) fn registry(
        transport: &Arc<Transport>,
        accounts: &Accounts,
        domain: &str,
        scope: Option<String>,
    ) -> Result<Endpoint> {
        // The name in references is not that of the machine (docker/distribution: reference, registry).
        let host = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        let mut origins = vec![Origin::new(Scheme::Https, host)?];
        if transport.insecure.covers(&origins[0]) {
            origins.push(Origin::new(Scheme::Http, host)?);
        }
        let (credential, unread) = kept(accounts, domain);
        let (prefix, account) = (String::new(), domain.to_owned());
        let place = Place { role: Role::Registry, origins, prefix, credential, unread, account, scope };
        Ok(Endpoint::new(transport, place))
    }

    /// A mirror given as URL (`https://mirror.example[/prefix]`). It gets its own account's credentials if
    /// there are any, never the registry's.
    pub(super) fn mirror(
        transport: &Arc<Transport>,
        accounts: &Accounts,
        url: &str,
        scope: Option<String>,
    ) -> Result<Endpoint> {
        let text = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let url = Url::parse(&text).context("registry-mirrors")?;
        let prefix = url.path().trim_end_matches('/').trim_end_matches("/v2").to_owned();
        let account = if url.origin.has_default_port() { url.origin.host.clone() } else { url.origin.host_and_port() };
        let (credential, unread) = kept(accounts, &account);
        let origins = vec![url.origin];
        let place = Place { role: Role::Mirror, origins, prefix, credential, unread, account, scope };
        Ok(Endpoint::new(transport, place))
    }

    fn new(transport: &Arc<Transport>, place: Place) -> Endpoint {
        let (session, transport) = (Mutex::new(None), Arc::clone(transport));
        Endpoint { place, transport, session, down: AtomicBool::new(false), served: AtomicBool::new(false) }
    }

    /// Whose place it is.
    pub(super) fn role(&self) -> Role {
        self.place.role
    }

    /// With another credential than the stored one: for a login that is being tried.
    pub(super) fn with_credential(mut self, credential: Option<Credential>) -> Endpoint {
        self.place.credential = credential;
        self
    }

    /// Whether it was found out of order.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Notes why it was of no use: one that cannot be talked to is not asked again, one that merely lacks
    /// something is.
    pub(super) fn leave(&self, trouble: &Trouble) {
        tracing::info!(reason = trouble.reason(), "mirror {} is of no use", self.place.account);
        if trouble.met != Met::Server {
            self.down.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that something came from it.
    pub(super) fn has_served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Asks it no more; whether anything of what came so far was its.
    pub(super) fn give_up(&self) -> bool {
        !self.down.swap(true, Ordering::Relaxed) && self.served.load(Ordering::Relaxed)
    }

    /// Why the credential that is kept for it is not known.
    pub(super) fn unread(&self) -> Option<&Failure> {
        self.place.unread.as_ref()
    }

    /// Whether a credential goes with requests.
    pub(super) fn has_credential(&self) -> bool {
        self.place.credential.is_some()
    }

    /// The conversation with it; its first use finds out whether it speaks TLS where it need not.
    pub(super) fn session(&self) -> Result<Arc<Session>, Trouble> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let found = Arc::new(self.connect()?);
        *session = Some(Arc::clone(&found));
        Ok(found)
    }

    fn connect(&self) -> Result<Session, Trouble> {
        let session = |origin: &Origin| {
            let guard = Guard::new(
                origin.clone(),
                self.place.credential.clone(),
                self.place.scope.clone(),
                &self.place.account,
            );
            Session::new(Arc::clone(&self.transport), origin.clone(), guard)
        };
        let [secure, plain] = &self.place.origins[..] else { return Ok(session(&self.place.origins[0])) };
        // As Docker does with registries that may be insecure: TLS first, then without. Any response at
        // all, also one that says no, is a response of a server that speaks it. No credential is sent.
        let probe = Session::new(
            Arc::clone(&self.transport),
            secure.clone(),
            Guard::new(secure.clone(), None, None, &self.place.account),
        );
        match probe.once(&Call::new(Method::GET, secure.url("/v2/"))) {
            Err(Trouble { met: Met::PerhapsPlain, .. }) => Ok(session(plain)),
            Err(trouble) if matches!(trouble.met, Met::Nobody | Met::Encrypted) => Err(trouble),
            _ => Ok(session(secure)),
        }
    }

    /// A URL below `/v2/`.
    pub(super) fn url(&self, session: &Session, path: &str) -> Url {
        session.origin.url(format!("{}/v2/{path}", self.place.prefix))
    }
}

/// The credential that is kept for a registry, or why it cannot be told: that matters to who needs one, not to who
/// fetches what everybody may have.
fn kept(accounts: &Accounts, domain: &str) -> (Option<Credential>, Option<Failure>) {
    match accounts.of(domain) {
        Ok(credential) => (credential, None),
        Err(error) => {
            let failure = Failure::from_error(&error);
            tracing::warn!(%failure, "go on without the credentials of {domain}");
            (None, Some(failure))
        }
    }
}
