//! What a pull asks of a repository.

use std::io::Read;

use anyhow::Result;
use ureq::Body;
use ureq::http::{Method, Response};

use super::blob::{BlobReader, Retrying, Verification};
use super::body::drain;
use super::body::ureq_error;
use super::endpoint::Endpoint;
use super::exchange::{Call, Patience, Session};
use super::fault::{self, Known, Met, Trouble};
use super::url::{Origin, Url};
use super::{Fetched, Registry, Target, quietly};
use crate::error::{Class, Failure};
use crate::image::oci::config::MAX_DOCUMENT;
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::{Descriptor, media, schema_1};

/// Tags asked for at once.
const PAGE: usize = 1000;
/// More pages than any repository has.
const MAX_PAGES: usize = 1000;

impl Target<'_> {
    pub(super) fn text(&self) -> String {
        match self {
            Target::Tag(tag) => (*tag).to_owned(),
            Target::Digest(digest) => digest.to_string(),
        }
    }
}

impl Registry {
    /// Fetches a manifest or index: by digest only what has that digest, by tag what the registry's own
    /// digest (`Docker-Content-Digest`) fits to. No more than 8 MiB.
    ///
    /// # Errors
    /// There is none (class not-found: `manifest for X not found: manifest unknown`); nobody may read it
    /// (`pull access denied for X`); the registry cannot be talked to; what came is not what was asked for.
    pub fn manifest(&self, target: Target<'_>) -> Result<Fetched> {
        self.anywhere(|endpoint, session, patience| {
            let call = self.manifest_call(Method::GET, target, endpoint, session);
            let response = session.call(&call, patience, &quietly)?;
            fetched(target, &session.origin, response)
        })
        .map_err(|trouble| self.explain_pull(trouble, target))
    }

    /// The digest of a manifest without fetching it, where the registry tells it in a header; otherwise by
    /// fetching. `None` when there is no such manifest.
    pub fn manifest_digest(&self, target: Target<'_>) -> Result<Option<Digest>> {
        let told = self.anywhere(|endpoint, session, patience| {
            let call = self.manifest_call(Method::HEAD, target, endpoint, session);
            let response = session.call(&call, patience, &quietly)?;
            Ok(content_digest(&response))
        });
        let missing = |trouble: &Trouble| trouble.status == Some(404);
        match told {
            Ok(Some(digest)) => Ok(Some(digest)),
            Err(trouble) if missing(&trouble) => Ok(None),
            // Some answer HEAD with 405 or with nothing of use; GET tells more, and says why not.
            Ok(None) | Err(Trouble { met: Met::Server, .. }) => match self.manifest(target) {
                Ok(fetched) => Ok(Some(fetched.digest)),
                Err(error) if Failure::from_error(&error).class == Class::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Err(trouble) => Err(self.explain_pull(trouble, target)),
        }
    }

    /// Streams a blob: exactly `descriptor.size` bytes, resumed after a broken connection. The reader hashes
    /// as it goes and fails at the end when size or digest differ: whoever reads up to `Ok(0)` needs no hash
    /// of its own, and whoever stops before has verified nothing. `retrying` is told of each pause: its
    /// seconds, rounded up, and why.
    ///
    /// Descriptors' `urls` (foreign layers) are never followed.
    ///
    /// # Errors
    /// As [`Registry::manifest`]. The reader's errors hold a [`Failure`] (see [`failure_of`]).
    pub fn blob<'a>(
        &'a self,
        descriptor: &Descriptor,
        retrying: impl Fn(u64, &str) + Send + 'a,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        self.stream(descriptor, Verification::Here, Box::new(retrying))
    }

    /// The same for who digests what comes anyway: the bytes are as many as announced, and whose they are is
    /// for the caller to find out.
    pub fn unverified_blob<'a>(
        &'a self,
        descriptor: &Descriptor,
        retrying: impl Fn(u64, &str) + Send + 'a,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        self.stream(descriptor, Verification::ByReader, Box::new(retrying))
    }

    fn stream<'a>(
        &'a self,
        descriptor: &Descriptor,
        verification: Verification,
        retrying: Retrying<'a>,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        match BlobReader::open(self, descriptor, verification, retrying) {
            Ok(reader) => Ok(Box::new(reader)),
            Err(trouble) => Err(self.explain_pull(trouble, Target::Digest(&descriptor.digest))),
        }
    }

    /// All tags of the repository, in the registry's order.
    pub fn tags(&self) -> Result<Vec<String>> {
        let listed = self.anywhere(|endpoint, session, patience| {
            let first = endpoint.url(session, &format!("{}/tags/list?n={PAGE}", self.path));
            listing(session, first, patience, "tags")
        });
        listed.map_err(|trouble| self.explain_pull(trouble, Target::Tag("latest")))
    }

    pub(super) fn manifest_call(
        &self,
        method: Method,
        target: Target<'_>,
        endpoint: &Endpoint,
        session: &Session,
    ) -> Call<'static> {
        let accept = [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST].join(", ");
        let url = endpoint.url(session, &format!("{}/manifests/{}", self.path, target.text()));
        Call::new(method, url).header("accept", accept)
    }

    /// A failed question in Docker's words.
    fn explain_pull(&self, trouble: Trouble, target: Target<'_>) -> anyhow::Error {
        let separator = if matches!(target, Target::Digest(_)) { '@' } else { ':' };
        let name = &self.familiar;
        if trouble.is_refusal() || trouble.has("NAME_UNKNOWN") {
            let message = format!(
                "pull access denied for {name}, repository does not exist or may require 'mydocker login': {}",
                trouble.reason()
            );
            let server = if self.domain == "docker.io" { String::new() } else { format!(" {}", self.domain) };
            let hint = match (self.endpoints.last().is_some_and(Endpoint::has_credential), self.unread()) {
                (_, Some(unread)) => unread,
                (true, None) => {
                    format!("check the name; the account that is logged in may lack access (mydocker login{server})")
                }
                (false, None) => format!("check the name, or log in: mydocker login{server}"),
            };
            return Failure::not_found(message).with_hint(hint).into();
        }
        if trouble.status == Some(404) {
            let reason = trouble.reason();
            let message = format!("manifest for {name}{separator}{} not found: {reason}", target.text());
            return Failure::not_found(message).with_hint("check the name and the tag").into();
        }
        trouble.error
    }
}

/// What a reader of [`Registry::blob`] failed with, with its hint; `None` for other errors.
pub fn failure_of(error: &std::io::Error) -> Option<&Failure> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// A document and its digest.
fn fetched(target: Target<'_>, origin: &Origin, response: Response<Body>) -> Result<Fetched, Trouble> {
    let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().to_owned();
    if media_type.starts_with(media::DOCKER_SCHEMA_1) {
        // The digest told of one is that of what it signs, not of the document.
        return Err(schema_1().into());
    }
    let told = content_digest(&response);
    let bytes = document(origin, response)?;
    let digest = Digest::of(&bytes);
    let expected = match target {
        Target::Digest(digest) => Some(digest.clone()),
        Target::Tag(_) => told,
    };
    match expected {
        Some(expected) if expected != digest => Err(Failure::engine(format!(
            "manifest verification failed for digest {expected}: the registry sent {digest}"
        ))
        .with_hint("the registry or something on the way to it is broken or lies; nothing of it was kept")
        .into()),
        _ => Ok(Fetched { bytes, media_type, digest }),
    }
}

/// The bytes of a document, which is bounded.
pub(super) fn document(origin: &Origin, response: Response<Body>) -> Result<Vec<u8>, Trouble> {
    let too_large = || Failure::engine(format!("registry {origin} sends a document of more than {MAX_DOCUMENT} bytes"));
    let announced = response.body().content_length();
    if announced.is_some_and(|length| length > MAX_DOCUMENT) {
        return Err(too_large().into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(announced.unwrap_or(0)).unwrap_or_default());
    let read = response.into_body().into_reader().take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
    read.map_err(|error| fault::of_wire(origin, Known::Reached, ureq_error(error).into()))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(too_large().into());
    }
    Ok(bytes)
}

/// `Docker-Content-Digest`, where it is of a kind that can be checked.
pub(super) fn content_digest(response: &Response<Body>) -> Option<Digest> {
    let value = response.headers().get("docker-content-digest")?;
    Digest::parse(value.to_str().ok()?).ok()
}

/// All pages of a listing: the strings of the array `key`, following `Link`.
pub(super) fn listing(session: &Session, first: Url, patience: Patience, key: &str) -> Result<Vec<String>, Trouble> {
    let mut found: Vec<String> = Vec::new();
    let mut bytes_left = MAX_DOCUMENT;
    let mut url = first;
    for _ in 0..MAX_PAGES {
        let response = session.call(&Call::new(Method::GET, url.clone()), patience.clone(), &quietly)?;
        let next = next_page(&url, &response)?;
        let bytes = document(&session.origin, response)?;
        bytes_left = bytes_left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            Failure::engine(format!("registry {} lists more than {MAX_DOCUMENT} bytes of {key}", session.origin))
        })?;
        let page: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|_| Failure::engine(format!("{} gives something else than a list of {key}", url.shown())))?;
        let page = page.get(key).and_then(serde_json::Value::as_array);
        found.extend(page.into_iter().flatten().filter_map(|item| item.as_str()).map(str::to_owned));
        match next {
            // A page that leads to itself, or to another origin, leads nowhere.
            Some(next) if next != url && next.origin == url.origin => url = next,
            _ => return Ok(found),
        }
    }
    Err(Failure::engine(format!("registry {} lists {key} without end", session.origin)).into())
}

/// `Link: </v2/…>; rel="next"` (RFC 8288).
fn next_page(url: &Url, response: &Response<Body>) -> Result<Option<Url>> {
    let Some(link) = response.headers().get("link").and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let next = link.split(',').find(|part| part.contains("rel=\"next\"") || part.contains("rel=next"));
    let target = next.and_then(|part| part.trim().strip_prefix('<')?.split_once('>').map(|(target, _)| target));
    target.map(|target| url.join(target)).transpose()
}

/// Asks whether something is known to be there.
pub(super) fn exists(session: &Session, url: Url, patience: Patience) -> Result<bool, Trouble> {
    match session.call(&Call::new(Method::HEAD, url), patience, &quietly) {
        Ok(response) => {
            drain(response);
            Ok(true)
        }
        // Some know no HEAD, and signed URLs that lead elsewhere are for GET alone: then it is not known, which does.
        Err(trouble) if matches!(trouble.status, Some(400 | 403..=405 | 501)) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}
