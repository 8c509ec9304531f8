//! A blob on its way to us: streamed, resumed where it broke, verified at its end.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use anyhow::Result;
use sha2::{Digest as _, Sha256};
use ureq::BodyReader;
use ureq::http::{Method, Response};

use super::Registry;
use super::body::ureq_error;
use super::endpoint::Role;
use super::exchange::{Call, Patience};
use super::fault::{self, Again, Known, Met, Trouble};
use super::transport::Kind;
use super::url::Origin;
use crate::error::Failure;
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::Descriptor;

/// So much has to come before failures are forgotten: what trickles does not go on for ever.
const PROGRESS: u64 = 1 << 20;
/// So much has to come in each span of the idle limit, in bytes: slower is as good as nothing.
const TRICKLE: u64 = 16 * 1024;
/// What is skipped at once where a server knows no ranges, in bytes.
const SKIP: usize = 128 * 1024;

/// Who holds a blob against its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// Its reader, at its end.
    Here,
    /// Whoever reads it.
    ByReader,
}

/// Who is told of pauses: their seconds, and why.
pub(super) type Retrying<'a> = Box<dyn Fn(u64, &str) + Send + 'a>;

/// Reads a blob; see [`Registry::blob`].
pub(super) struct BlobReader<'a> {
    registry: &'a Registry,
    descriptor: Descriptor,
    retrying: Retrying<'a>,
    patience: Patience,
    /// Which endpoint is asked.
    endpoint: usize,
    body: Option<(BodyReader<'static>, Origin)>,
    /// `None` when whoever reads digests what comes.
    hasher: Option<Sha256>,
    position: u64,
    /// Where failures were last forgotten.
    renewed: u64,
    /// How long has been waited for bytes since this position.
    waited: (Duration, u64),
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Ahead,
    Verified,
    Failed(Failure),
}

impl fmt::Debug for BlobReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

impl<'a> BlobReader<'a> {
    /// Asks for the blob; the response has begun when this returns.
    pub(super) fn open(
        registry: &'a Registry,
        descriptor: &Descriptor,
        verification: Verification,
        retrying: Retrying<'a>,
    ) -> Result<Self, Trouble> {
        let mut reader = BlobReader {
            registry,
            descriptor: descriptor.clone(),
            retrying,
            patience: patience_with(registry, 0),
            endpoint: 0,
            body: None,
            hasher: (verification == Verification::Here).then(Sha256::new),
            position: 0,
            renewed: 0,
            waited: (Duration::ZERO, 0),
            end: End::Ahead,
        };
        // Nothing to fetch, so nothing is asked: the digest is checked all the same.
        if descriptor.size > 0 {
            reader.connect()?;
        }
        Ok(reader)
    }

    /// Gets a body that continues at `position`, from the first endpoint that gives one.
    fn connect(&mut self) -> Result<(), Trouble> {
        loop {
            let Err(trouble) = self.request() else { return Ok(()) };
            let is_last = self.endpoint + 1 == self.registry.endpoints.len();
            if is_last {
                self.patience.after(trouble, &self.retrying)?;
            } else {
                // A mirror has one try: the next endpoint may have it at once.
                self.next_endpoint(&trouble);
            }
        }
    }

    fn next_endpoint(&mut self, trouble: &Trouble) {
        self.registry.endpoints[self.endpoint].leave(trouble);
        self.endpoint += 1;
        self.patience = patience_with(self.registry, self.endpoint);
    }

    fn request(&mut self) -> Result<(), Trouble> {
        let endpoint = &self.registry.endpoints[self.endpoint];
        if endpoint.is_down() {
            return Err(Failure::engine("the mirror is out of order").into());
        }
        let session = endpoint.session()?;
        let path = format!("{}/blobs/{}", self.registry.path, self.descriptor.digest);
        let mut call = Call::new(Method::GET, endpoint.url(&session, &path));
        call.kind = Kind::Download;
        if self.position > 0 {
            call = call.header("range", format!("bytes={}-", self.position));
        }
        let response = match session.once(&call) {
            // Whoever does not like the range may still give all of it.
            Err(Trouble { status: Some(400 | 416 | 501), .. }) if self.position > 0 => {
                call.headers.clear();
                session.once(&call)?
            }
            result => result?,
        };
        let start = self.start(&response)?;
        let mut body = response.into_body().into_reader();
        // A server that knows no ranges begins at the beginning again.
        skip(&mut body, self.position - start)
            .map_err(|error| fault::of_wire(&session.origin, Known::Reached, ureq::Error::Io(error).into()))?;
        self.body = Some((body, session.origin.clone()));
        self.waited = (Duration::ZERO, self.position);
        endpoint.has_served();
        Ok(())
    }

    /// At which byte of the blob this response begins; lengths that cannot be right are refused at once.
    fn start(&self, response: &Response<ureq::Body>) -> Result<u64, Trouble> {
        let wrong = |what: String| -> Trouble {
            let text = format!("registry answers for {} with {what}", self.descriptor.digest);
            Trouble { met: Met::Server, ..Failure::engine(text).into() }
        };
        let size = self.descriptor.size;
        let start = if response.status().as_u16() == 206 {
            let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
            let start = range
                .and_then(|range| range.strip_prefix("bytes "))
                .and_then(|range| range.split('-').next())
                .and_then(|start| start.trim().parse::<u64>().ok());
            match start {
                Some(start) if start == self.position => start,
                _ => return Err(wrong("another range than was asked for".into())),
            }
        } else {
            0
        };
        match response.body().content_length() {
            Some(length) if length != size - start => {
                Err(wrong(format!("{} bytes where {size} were announced", start.saturating_add(length))))
            }
            _ => Ok(start),
        }
    }

    /// Takes a break of the line: waits and connects again, or fails for good.
    fn broken(&mut self, error: Option<io::Error>) -> Result<(), Trouble> {
        let Some((_, origin)) = self.body.take() else { return self.connect() };
        if self.position - self.renewed >= PROGRESS {
            self.patience.renew();
            self.renewed = self.position;
        }
        let trouble = match error {
            Some(error) => {
                let trouble = fault::of_wire(&origin, Known::Reached, ureq_error(error).into());
                // Whatever breaks within a body may be whole the next time, malformed chunks included.
                Trouble { again: Again::Perhaps, ..trouble }
            }
            None => {
                let text = format!(
                    "the connection to {origin} ended after {} of {} bytes",
                    self.position, self.descriptor.size
                );
                Trouble { again: Again::Perhaps, ..Failure::engine(text).into() }
            }
        };
        match self.patience.after(trouble, &self.retrying) {
            Err(trouble) if self.endpoint + 1 < self.registry.endpoints.len() => self.next_endpoint(&trouble),
            result => result?,
        }
        self.connect()
    }

    /// Checks what came, once all of it came.
    fn verify(&mut self) -> Result<(), Failure> {
        let (body, digest) = (self.body.take(), self.hasher.take().map(Digest::finish));
        let is_config =
            self.descriptor.media_type.contains(".config.") || self.descriptor.media_type.contains(".container.image.");
        let what = if is_config { "image config" } else { "filesystem layer" };
        if let Some(digest) = digest.filter(|digest| *digest != self.descriptor.digest) {
            return Err(Failure::engine(format!(
                "{what} verification failed for digest {}: the registry sent {digest}",
                self.descriptor.digest
            ))
            .with_hint("the registry or something on the way to it is broken or lies; nothing of it was kept"));
        }
        // To the end of the body, which gives the connection back; more than was announced is a lie.
        let mut more = [0];
        match body.map(|(mut body, _)| body.read(&mut more)) {
            Some(Ok(1..)) => Err(Failure::engine(format!(
                "{what} verification failed for digest {}: the registry sends more than the {} bytes announced",
                self.descriptor.digest, self.descriptor.size
            ))),
            _ => Ok(()),
        }
    }

    /// Whether less came in the last span of waiting than what counts as alive. Only waiting counts: a
    /// consumer may take its time.
    fn trickles(&mut self, waited: Duration) -> bool {
        let (before, from) = self.waited;
        if self.position - from >= TRICKLE {
            self.waited = (Duration::ZERO, self.position);
            return false;
        }
        self.waited.0 = before + waited;
        self.waited.0 > self.registry.transport.idle()
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let left = self.descriptor.size - self.position;
        if left == 0 {
            self.verify()?;
            return Ok(0);
        }
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        loop {
            let Some((body, _)) = &mut self.body else {
                self.connect().map_err(Failure::from)?;
                continue;
            };
            let began = Instant::now();
            match body.read(&mut buffer[..wanted]) {
                Ok(0) => self.broken(None).map_err(Failure::from)?,
                Ok(count) => {
                    let waited = began.elapsed();
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&buffer[..count]);
                    }
                    self.position += count as u64;
                    if self.trickles(waited) {
                        let slow = io::Error::new(io::ErrorKind::TimedOut, "it sends too slowly");
                        self.broken(Some(slow)).map_err(Failure::from)?;
                    }
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.broken(Some(error)).map_err(Failure::from)?,
            }
        }
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match &self.end {
            End::Ahead => {}
            End::Verified => return Ok(0),
            End::Failed(failure) => return Err(io::Error::other(failure.clone())),
        }
        match self.next(buffer) {
            Ok(count) => {
                if count == 0 {
                    self.end = End::Verified;
                }
                Ok(count)
            }
            Err(failure) => {
                // Told again to whoever asks again: a failed blob never looks like one that ended.
                self.end = End::Failed(failure.clone());
                self.body = None;
                Err(io::Error::other(failure))
            }
        }
    }
}

/// How often in a row a transfer may break: a mirror has less time to waste than the registry itself.
fn patience_with(registry: &Registry, endpoint: usize) -> Patience {
    match registry.endpoints[endpoint].role() {
        Role::Mirror => Patience::new(2.min(registry.attempts), registry.first_pause),
        Role::Registry => registry.patience(),
    }
}

fn skip(body: &mut BodyReader<'static>, mut count: u64) -> io::Result<()> {
    let mut buffer = vec![0; SKIP.min(usize::try_from(count).unwrap_or(SKIP))];
    while count > 0 {
        let wanted = buffer.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        match body.read(&mut buffer[..wanted])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => count -= read as u64,
        }
    }
    Ok(())
}
