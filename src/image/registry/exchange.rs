//! One request and its response: authorisation, redirects, and trying again.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use ureq::http::{Method, Request, Response};
use ureq::{Body, SendBody};

use super::body::drain;
use super::fault::{self, Again, Known, Trouble};
use super::guard::{Answered, Guard};
use super::transport::{Kind, Transport};
use super::url::{Origin, Scheme, Url};
use crate::error::Failure;

/// Redirects followed one after the other.
const MAX_REDIRECTS: u32 = 10;
/// Challenges answered for one request.
const MAX_ANSWERS: u32 = 4;
/// Opens the content of a request from its first byte, again for each attempt.
pub(super) type Open<'c> = &'c dyn Fn() -> Result<Box<dyn Read + 'c>>;

/// What goes along with a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'c> {
    Nothing,
    Bytes(&'c [u8]),
    /// So many bytes of a reader.
    Stream(Open<'c>, u64),
}

/// A request.
pub(super) struct Call<'c> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload<'c>,
    pub(super) kind: Kind,
}

impl Call<'_> {
    /// A request without content.
    pub(super) fn new(method: Method, url: Url) -> Self {
        Call { method, url, headers: Vec::new(), payload: Payload::Nothing, kind: Kind::Document }
    }

    /// With one more header.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// How often something is tried, and how long the pauses are.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    attempts: u32,
    failed: u32,
    first: Duration,
}

impl Patience {
    /// `attempts` in all; `first` pause, each further one twice as long.
    pub(super) fn new(attempts: u32, first: Duration) -> Patience {
        Patience { attempts, failed: 0, first }
    }

    /// Forgets failures: something came through.
    pub(super) fn renew(&mut self) {
        self.failed = 0;
    }

    /// Takes a failure and waits, telling `retrying`, before the next attempt.
    ///
    /// # Errors
    /// The same failure when it is final.
    pub(super) fn after(&mut self, trouble: Trouble, retrying: &dyn Fn(u64, &str)) -> Result<(), Trouble> {
        self.failed += 1;
        let growing = self.first.saturating_mul(1 << (self.failed - 1).min(6));
        let pause = match trouble.again {
            Again::Never => return Err(trouble),
            _ if self.failed >= self.attempts => return Err(trouble),
            Again::After(asked) if asked > fault::MAX_PAUSE => return Err(trouble),
            Again::After(asked) => asked.max(growing.min(asked)),
            // Up to a quarter more, so that many clients that failed together do not come back together.
            Again::Perhaps => growing.min(fault::MAX_PAUSE) + growing.mul_f64(f64::from(random()) / 1024.0),
        };
        let reason = trouble.reason();
        tracing::info!(reason, ?pause, "try again");
        retrying(pause.as_secs_f64().ceil() as u64, &reason);
        std::thread::sleep(pause);
        Ok(())
    }
}

fn random() -> u8 {
    let mut byte = [0];
    // Without randomness there is no spreading; nothing else depends on it.
    let _ = crate::sys::random::fill(&mut byte);
    byte[0]
}

/// A conversation with one registry.
pub(super) struct Session {
    pub(super) transport: Arc<Transport>,
    pub(super) origin: Origin,
    pub(super) guard: Guard,
    reached: AtomicBool,
}

impl fmt::Debug for Session {
    /// Without what the guard holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(transport: Arc<Transport>, origin: Origin, guard: Guard) -> Session {
        Session { transport, origin, guard, reached: AtomicBool::new(false) }
    }

    /// Sends `call` until it succeeds, or fails for good. Only for calls that may be repeated.
    pub(super) fn call(
        &self,
        call: &Call<'_>,
        mut patience: Patience,
        retrying: &dyn Fn(u64, &str),
    ) -> Result<Response<Body>, Trouble> {
        loop {
            match self.once(call) {
                Ok(response) => return Ok(response),
                Err(trouble) => patience.after(trouble, retrying)?,
            }
        }
    }

    /// Sends `call`; the response's status is a success.
    pub(super) fn once(&self, call: &Call<'_>) -> Result<Response<Body>, Trouble> {
        let mut url = call.url.clone();
        let mut redirects = 0;
        let (mut answers, mut anew) = (0, false);
        loop {
            self.check_encryption(&url)?;
            let (authorization, generation) = self.guard.header(&self.transport, &url.origin)?;
            let response = self.send(call, &url, authorization)?;
            let status = response.status();
            if status.as_u16() == 401 && url.origin == self.origin && answers < MAX_ANSWERS {
                answers += 1;
                let answered = self.guard.answer(&self.transport, response.headers(), generation, anew)?;
                if answered != Answered::Not {
                    anew |= answered == Answered::Anew;
                    drain(response);
                    continue;
                }
            }
            if status.as_u16() < 400 {
                self.guard.worked(generation);
            }
            if let Some(location) = redirection(&call.method, &response) {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(Failure::engine(format!("{} redirects in circles", call.url.shown())).into());
                }
                url = url.join(&location)?;
                drain(response);
                continue;
            }
            if status.is_success() {
                return Ok(response);
            }
            return Err(fault::of_response(&url.origin, response));
        }
    }

    /// Never from an encrypted registry to a place that everybody on the way can read and change, unless
    /// that was allowed for the place.
    fn check_encryption(&self, url: &Url) -> Result<(), Trouble> {
        let downgraded = self.origin.scheme == Scheme::Https && url.origin.scheme == Scheme::Http;
        if downgraded && !self.transport.insecure.covers(&url.origin) {
            return Err(Failure::engine(format!(
                "registry {} leads to {}, which is not encrypted",
                self.origin, url.origin
            ))
            .with_hint(format!(
                "if that is intended, add \"{}\" to insecure-registries in /etc/mydocker/config.toml; a registry \
                     behind a proxy that ends TLS must be told so (X-Forwarded-Proto)",
                url.origin.host_and_port()
            ))
            .into());
        }
        Ok(())
    }

    fn send(&self, call: &Call<'_>, url: &Url, authorization: Option<String>) -> Result<Response<Body>, Trouble> {
        let mut request = Request::builder().method(call.method.clone()).uri(url.to_string());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let (transport, origin) = (&self.transport, &url.origin);
        tracing::debug!(method = %call.method, url = url.shown(), "registry");
        let result = match call.payload {
            Payload::Nothing if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => {
                transport.send(origin, request.body(&[][..]).map_err(anyhow::Error::from)?, call.kind)
            }
            Payload::Nothing => transport.send(origin, request.body(()).map_err(anyhow::Error::from)?, call.kind),
            Payload::Bytes(bytes) => {
                transport.send(origin, request.body(bytes).map_err(anyhow::Error::from)?, call.kind)
            }
            Payload::Stream(open, length) => {
                let mut content = open()?;
                let request = request.header("content-length", length.to_string());
                let body = SendBody::from_reader(&mut content);
                transport.send(origin, request.body(body).map_err(anyhow::Error::from)?, call.kind)
            }
        };
        let known = if self.reached.load(Ordering::Relaxed) { Known::Reached } else { Known::Never };
        let response = result.map_err(|error| fault::of_wire(origin, known, error))?;
        if *origin == self.origin {
            self.reached.store(true, Ordering::Relaxed);
        }
        Ok(response)
    }
}

/// Where a response leads; only questions follow, content is never sent on.
fn redirection(method: &Method, response: &Response<Body>) -> Option<String> {
    let follows = matches!(*method, Method::GET | Method::HEAD);
    let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get("location").filter(|_| follows && redirect)?;
    location.to_str().ok().map(str::to_owned)
}
