//! A blob on its way to a registry: whole when small, in pieces when large, resumed where the registry
//! says it has got to (OCI distribution spec, "Pushing blobs").

use std::io::{self, Read};
use std::sync::Arc;

use anyhow::Result;
use ureq::Body;
use ureq::http::{Method, Response};

use super::Registry;
use super::body::drain;
use super::exchange::{Call, Patience, Payload, Session};
use super::fault::{Again, Trouble};
use super::pull::content_digest;
use super::transport::Kind;
use super::url::Url;
use crate::error::Failure;
use crate::image::oci::manifest::Descriptor;

/// Up to this many bytes a blob goes in one request; what breaks is sent again from the start.
const SMALL: u64 = 4 << 20;
/// One piece of a larger one. Front ends of registries refuse bodies of more than 100 MB; a registry pays
/// for each piece with a look at its state.
const PIECE: u64 = 64 << 20;

/// The content from an offset on.
type Open<'a> = &'a dyn Fn(u64) -> Result<Box<dyn Read + Send>>;

impl Registry {
    /// Uploads a blob. `open` opens the content from an offset on, again for each retry; `sent` is told how
    /// many bytes are through in all (it goes back where something has to be sent again); `retrying` of each
    /// pause. The content must have the descriptor's size and digest: the registry checks the latter.
    ///
    /// # Errors
    /// The registry refuses it (`denied: …`), or the connection broke too often.
    pub fn upload(
        &self,
        descriptor: &Descriptor,
        open: &dyn Fn(u64) -> Result<Box<dyn Read + Send>>,
        sent: &dyn Fn(u64),
        retrying: &dyn Fn(u64, &str),
    ) -> Result<()> {
        let run = || {
            let (endpoint, session) = self.itself()?;
            let start = endpoint.url(&session, &format!("{}/blobs/uploads/", self.path));
            let upload = Upload { session, start, descriptor, open, sent };
            upload.run(self.patience(), retrying)
        };
        run().map_err(|trouble| self.explain_push(trouble))
    }
}

struct Upload<'a> {
    session: Arc<Session>,
    /// Where an upload is begun.
    start: Url,
    descriptor: &'a Descriptor,
    open: Open<'a>,
    sent: &'a dyn Fn(u64),
}

/// Where an upload stands.
struct Standing {
    /// Where its next piece goes.
    location: Url,
    /// Bytes the registry has.
    offset: u64,
}

impl Upload<'_> {
    fn run(&self, mut patience: Patience, retrying: &dyn Fn(u64, &str)) -> Result<(), Trouble> {
        let mut standing: Option<Standing> = None;
        let mut best = 0;
        loop {
            let trouble = match self.go_on(&mut standing) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            let offset = standing.as_ref().map_or(0, |standing| standing.offset);
            if offset > best {
                // A piece came through since the last failure.
                patience.renew();
                best = offset;
            }
            // The registry has another idea of how far it is, or forgot the upload: asked below, or anew.
            let displaced = matches!(trouble.status, Some(404 | 416)) && standing.is_some();
            let trouble = if displaced { Trouble { again: Again::Perhaps, ..trouble } } else { trouble };
            patience.after(trouble, retrying)?;
            standing = match standing {
                Some(before) if self.descriptor.size > SMALL => self.ask(&before.location),
                _ => None,
            };
            (self.sent)(standing.as_ref().map_or(0, |standing| standing.offset));
        }
    }

    /// Sends what is left, and seals it.
    fn go_on(&self, standing: &mut Option<Standing>) -> Result<(), Trouble> {
        let size = self.descriptor.size;
        let mut at = match standing.take() {
            Some(at) => at,
            None => self.begin()?,
        };
        if size <= SMALL {
            return self.seal(&at.location, 0..size);
        }
        while at.offset < size {
            let end = size.min(at.offset + PIECE);
            let result = self.piece(&at, end);
            match result {
                Ok(next) => at = next,
                Err(trouble) => {
                    *standing = Some(at);
                    return Err(trouble);
                }
            }
        }
        let result = self.seal(&at.location, size..size);
        if result.is_err() {
            *standing = Some(at);
        }
        result
    }

    fn begin(&self) -> Result<Standing, Trouble> {
        let response = self.session.once(&Call::new(Method::POST, self.start.clone()))?;
        let location = location(&self.start, &response)?;
        drain(response);
        Ok(Standing { location, offset: 0 })
    }

    /// Sends the bytes from where it stands up to `end`.
    fn piece(&self, at: &Standing, end: u64) -> Result<Standing, Trouble> {
        let open = || self.content(at.offset, end);
        let mut call = Call::new(Method::PATCH, at.location.clone())
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{}-{}", at.offset, end - 1));
        call.payload = Payload::Stream(&open, end - at.offset);
        call.kind = Kind::Upload;
        let response = self.session.once(&call)?;
        let location = location(&at.location, &response)?;
        let offset = received(&response).unwrap_or(end);
        drain(response);
        // No progress at all would be repeated for ever.
        if offset > end || offset <= at.offset {
            return Err(Failure::engine(format!(
                "registry {} says that it has {offset} bytes of {}, of which {end} were sent",
                self.session.origin, self.descriptor.digest
            ))
            .into());
        }
        Ok(Standing { location, offset })
    }

    /// Ends the upload, with the last bytes if any: from here on the blob is there under its digest.
    fn seal(&self, location: &Url, rest: std::ops::Range<u64>) -> Result<(), Trouble> {
        let digest = &self.descriptor.digest;
        let open = || self.content(rest.start, rest.end);
        let mut call = Call::new(Method::PUT, location.clone().with("digest", &digest.to_string()))
            .header("content-type", "application/octet-stream");
        call.payload = if rest.is_empty() { Payload::Nothing } else { Payload::Stream(&open, rest.end - rest.start) };
        call.kind = Kind::Upload;
        let response = self.session.once(&call)?;
        let confirmed = content_digest(&response);
        drain(response);
        match confirmed {
            Some(other) if other != *digest => {
                Err(Failure::engine(format!("registry {} confirms {other} instead of {digest}", self.session.origin))
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// Where the upload stands after a break; `None` when the registry knows nothing of it any more.
    fn ask(&self, place: &Url) -> Option<Standing> {
        let response = self.session.once(&Call::new(Method::GET, place.clone())).ok()?;
        let location = location(place, &response).unwrap_or_else(|_| place.clone());
        let offset = received(&response).unwrap_or(0);
        drain(response);
        (offset <= self.descriptor.size).then_some(Standing { location, offset })
    }

    fn content(&self, from: u64, end: u64) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(Counted { inner: (self.open)(from)?.take(end - from), position: from, end, sent: self.sent }))
    }
}

/// Content that tells how much of it is through.
struct Counted<'a, R> {
    inner: R,
    position: u64,
    end: u64,
    sent: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position += count as u64;
        if count > 0 {
            (self.sent)(self.position);
        } else if self.position < self.end && !buffer.is_empty() {
            // Not a broken line: sending it again would not make it longer.
            return Err(io::Error::other(Failure::engine("the content to upload is shorter than announced")));
        }
        Ok(count)
    }
}

/// Where the registry wants the next request of an upload.
fn location(asked: &Url, response: &Response<Body>) -> Result<Url, Trouble> {
    let value = response.headers().get("location").and_then(|value| value.to_str().ok());
    match value {
        Some(value) => Ok(asked.join(value)?),
        None => Err(Failure::engine(format!("{} does not say where to upload to", asked.shown())).into()),
    }
}

/// `Range: 0-N`: how many bytes of an upload the registry has. Some write `bytes=0-N`; an empty upload is
/// `0-0` in some, as is one of a single byte, which is sent again then.
fn received(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get("range")?.to_str().ok()?;
    let value = value.strip_prefix("bytes=").unwrap_or(value);
    let (start, last) = value.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (start.trim() == "0").then(|| if last == 0 { 0 } else { last.saturating_add(1) })
}
