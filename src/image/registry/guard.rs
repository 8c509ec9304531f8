//! Who we are at one origin: credentials, and the tokens they are exchanged for (Docker's token
//! specification: distribution/docs/spec/auth/{token,oauth}.md).
//!
//! A [`Guard`] answers for one origin only. Its header is given to requests to that origin and to no
//! other, and only that origin's challenges are answered (CVE-2020-15157: a server to which a client was
//! merely sent asks for, and gets, the password of the one that sent it there).

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::{HeaderMap, Method, Request};

use super::accounts::Credential;
use super::challenge::{self, Challenge};
use super::fault::{self, Known, Met, Trouble};
use super::transport::{Kind, Transport};
use super::url::{Origin, Scheme, Url, escape};
use crate::error::Failure;

/// A token server's answer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// A token, in bytes: it must fit into a header.
const MAX_TOKEN: usize = 48 * 1024;
/// What a token is good for when its server does not say (token.md).
const LIFETIME: u64 = 60;
/// A token is renewed this long before it ends, so that no request meets its end.
const MARGIN: Duration = Duration::from_secs(5);

/// Who we are at one origin.
pub(super) struct Guard {
    origin: Origin,
    credential: Option<Credential>,
    /// The name under which one logs in.
    account: String,
    state: Mutex<State>,
    /// The generation under which a request was let through last.
    worked: AtomicU64,
}

/// What became of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// There is nothing to answer with.
    Not,
    /// Another request has answered it meanwhile.
    ByAnother,
    /// There is a new header.
    Anew,
}

struct State {
    /// Counts changes: who was refused under an older one tries the present one first.
    generation: u64,
    /// Ready for the header `Authorization`.
    header: Option<String>,
    /// When `header` is to be renewed, and through which challenge.
    renewal: Option<(Instant, Challenge)>,
    /// What tokens are asked for.
    scopes: BTreeSet<String>,
}

impl Guard {
    /// For `origin`, with what its account holds.
    pub(super) fn new(origin: Origin, credential: Option<Credential>, scope: Option<String>, account: &str) -> Guard {
        let header = match &credential {
            Some(Credential::Bearer(token)) => Some(format!("Bearer {token}")),
            _ => None,
        };
        let state = State { generation: 0, header, renewal: None, scopes: scope.into_iter().collect() };
        Guard { origin, credential, account: account.to_owned(), state: Mutex::new(state), worked: AtomicU64::new(0) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Each change is one assignment: a thread that panicked has left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for this scope as well from now on.
    pub(super) fn widen(&self, scope: String) {
        let mut state = self.lock();
        if state.scopes.insert(scope) && state.renewal.take().is_some() {
            state.header = None;
            state.generation += 1;
        }
    }

    /// Asks for this scope no more: a token server that refuses it may refuse all that is asked for with it.
    pub(super) fn narrow(&self, scope: &str) {
        let mut state = self.lock();
        if state.scopes.remove(scope) && state.renewal.take().is_some() {
            state.header = None;
            state.generation += 1;
        }
    }

    /// What `Authorization` says in a request to `origin`, and which generation it is of. A token that has
    /// come to its end is renewed first.
    pub(super) fn header(&self, transport: &Transport, origin: &Origin) -> Result<(Option<String>, u64), Trouble> {
        if *origin != self.origin {
            return Ok((None, 0));
        }
        let mut state = self.lock();
        if let Some((_, challenge)) = state.renewal.clone().filter(|(until, _)| Instant::now() >= *until) {
            self.fetch(transport, &mut state, challenge)?;
        }
        Ok((state.header.clone(), state.generation))
    }

    /// Remembers that a request of `generation` was let through.
    pub(super) fn worked(&self, generation: u64) {
        self.worked.fetch_max(generation, Ordering::Relaxed);
    }

    /// Answers the challenges of a response with status 401 to a request of `generation`. `again` when the header of
    /// that generation is the answer to such a response: it is worth another one only if it worked for others, who
    /// then may have used it up.
    pub(super) fn answer(
        &self,
        transport: &Transport,
        headers: &HeaderMap,
        generation: u64,
        again: bool,
    ) -> Result<Answered, Trouble> {
        let mut state = self.lock();
        if state.generation != generation {
            return Ok(Answered::ByAnother);
        }
        if again && self.worked.load(Ordering::Relaxed) < generation {
            return Ok(Answered::Not);
        }
        let challenges: Vec<Challenge> = headers
            .get_all("www-authenticate")
            .iter()
            .take(8)
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        if matches!(self.credential, Some(Credential::Bearer(_))) {
            return Ok(Answered::Not);
        }
        if let Some(bearer) = of("bearer") {
            self.fetch(transport, &mut state, bearer.clone())?;
            return Ok(Answered::Anew);
        }
        match (&self.credential, of("basic")) {
            (Some(Credential::Password { user, secret }), Some(_)) if state.header.is_none() => {
                state.header = Some(basic(user, secret));
                state.generation += 1;
                Ok(Answered::Anew)
            }
            (None, Some(_)) => Err(Trouble {
                status: Some(401),
                met: Met::Server,
                ..Failure::engine("no basic auth credentials")
                    .with_hint(format!("log in first: mydocker login {}", self.account))
                    .into()
            }),
            _ => Ok(Answered::Not),
        }
    }

    fn fetch(&self, transport: &Transport, state: &mut State, challenge: Challenge) -> Result<(), Trouble> {
        let realm = challenge.get("realm").unwrap_or_default();
        let realm = Url::parse(realm)?;
        // Whoever may listen on the way to the registry may listen on the way to its token server; no more.
        if realm.origin.scheme == Scheme::Http && self.origin.scheme == Scheme::Https {
            return Err(Failure::engine(format!(
                "registry {} wants credentials sent to {}, which is not encrypted",
                self.origin,
                realm.shown()
            ))
            .with_hint("tell whoever runs the registry: the realm must be https")
            .into());
        }
        let mut scopes = state.scopes.clone();
        scopes.extend(challenge.get("scope").into_iter().flat_map(str::split_whitespace).map(str::to_owned));
        let answer = self.ask(transport, &realm, challenge.get("service"), &scopes)?;
        let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(LIFETIME).clamp(1, 24 * 3600));
        let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token).unwrap_or_default();
        if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::engine(format!("{} gave no token that can be used", realm.shown())).into());
        }
        state.header = Some(format!("Bearer {token}"));
        // A short-lived one is used for at least half its time, or each request would fetch its own.
        state.renewal = Some((Instant::now() + lifetime.saturating_sub(MARGIN).max(lifetime / 2), challenge));
        state.generation += 1;
        Ok(())
    }

    fn ask(
        &self,
        transport: &Transport,
        realm: &Url,
        service: Option<&str>,
        scopes: &BTreeSet<String>,
    ) -> Result<Answer, Trouble> {
        let (url, authorization, form) = match &self.credential {
            Some(Credential::Identity(token)) => {
                let scope = scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("service", service.unwrap_or_default()),
                    ("scope", &scope),
                    ("client_id", "mydocker"),
                    ("refresh_token", token),
                ];
                let fields = fields.map(|(name, value)| format!("{name}={}", escape(value)));
                (realm.clone(), None, Some(fields.join("&")))
            }
            credential => {
                let mut url = realm.clone();
                if let Some(service) = service {
                    url = url.with("service", service);
                }
                for scope in scopes {
                    url = url.with("scope", scope);
                }
                match credential {
                    Some(Credential::Password { user, secret }) => {
                        (url.with("account", user), Some(basic(user, secret)), None)
                    }
                    _ => (url, None, None),
                }
            }
        };
        let mut request = Request::builder().uri(url.to_string()).header("accept", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let wire = |error| fault::of_wire(&realm.origin, Known::Never, error);
        // No redirect is followed: whoever a token server sends us to has no claim to the password.
        let response = match form {
            Some(form) => {
                let request = request.method(Method::POST).header("content-type", "application/x-www-form-urlencoded");
                transport.send(&realm.origin, request.body(form).map_err(anyhow::Error::from)?, Kind::Document)
            }
            None => transport.send(&realm.origin, request.body(()).map_err(anyhow::Error::from)?, Kind::Document),
        };
        let response = response.map_err(wire)?;
        if !response.status().is_success() {
            return Err(fault::of_response(&realm.origin, response));
        }
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(MAX_ANSWER).read_to_end(&mut bytes);
        read.map_err(|error| fault::of_wire(&realm.origin, Known::Reached, ureq::Error::Io(error).into()))?;
        // serde's message would quote what may be a token.
        serde_json::from_slice(&bytes)
            .map_err(|_| Failure::engine(format!("{} gave an answer that is no token", realm.shown())).into())
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))
}
