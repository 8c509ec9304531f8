//! Bodies of responses: what is left of them, and what their readers' errors mean.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::Response;

/// The remainder of a body that is read so that its connection can be used again, in bytes.
const WORTH_DRAINING: usize = 64 * 1024;
/// The same in time.
const WORTH_WAITING: Duration = Duration::from_secs(20);

/// Reads a short remainder, which gives the connection back.
pub(super) fn drain(response: Response<Body>) {
    drop(remainder(response.into_body(), WORTH_DRAINING));
}

/// At most `limit` bytes of a body that nobody asked for, and for no longer than it is worth: what cannot be
/// read of it is not missed.
pub(super) fn remainder(body: Body, limit: usize) -> Vec<u8> {
    let (began, mut reader) = (Instant::now(), body.into_reader());
    let (mut bytes, mut filled) = (vec![0; limit], 0);
    while filled < limit && began.elapsed() < WORTH_WAITING {
        match reader.read(&mut bytes[filled..]) {
            Ok(count) if count > 0 => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    bytes.truncate(filled);
    bytes
}

/// The error that a body's reader wrapped.
pub(super) fn ureq_error(error: io::Error) -> ureq::Error {
    match error.downcast::<ureq::Error>() {
        Ok(error) => error,
        Err(error) => ureq::Error::Io(error),
    }
}
