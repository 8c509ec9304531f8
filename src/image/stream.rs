//! Byte streams of layers and archives: decompression, and a meter that hashes, counts and bounds
//! whatever the tar reader takes, since the reader itself would keep a name of any length in memory.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::unpack::Compression;
use crate::error::Failure;

/// Buffer size of every stream here, in bytes.
const BUFFER: usize = 64 * 1024;
/// The largest window a zstd stream may ask for, in bits: 32 MiB, which `zstd -19` stays below.
const MAX_WINDOW_LOG: u32 = 25;

/// What the first bytes of a stream say of its compression.
pub(super) fn compression(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Whether these first bytes are those of no compression that is known by name, supported or not.
pub(super) fn is_plain(start: &[u8]) -> bool {
    let named = matches!(start, [0xfd, b'7', b'z', b'X', b'Z', 0, ..] | [b'B', b'Z', b'h', ..]);
    !named && compression(start) == Compression::None
}

/// The stream without its compression, which its first bytes tell: none, gzip or zstd.
pub(super) fn decompress<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(BUFFER, Filled(input));
    let start = input.fill_buf().context("read archive")?;
    let unsupported = match start {
        [0x1f, 0x8b, ..] => return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(input)))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            return Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)));
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [b'B', b'Z', b'h', ..] => "bzip2",
        _ => return Ok(Box::new(input)),
    };
    Err(Failure::engine(format!("read archive: {unsupported} compression is not supported"))
        .with_hint(format!("decompress it first ({unsupported} -d), or compress with gzip"))
        .into())
}

/// Fills buffers completely where the stream has as much: a pipe may give its first byte alone.
struct Filled<R>(R);

impl<R: Read> Read for Filled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What came before the error is handed out first; the next call meets it again.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A part of a file, read without moving the file's offset.
pub(super) struct Section<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl<'a> Section<'a> {
    pub(super) fn new(file: &'a File, offset: u64, length: u64) -> Self {
        Section { file, position: offset, end: offset.saturating_add(length) }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.position)?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive is truncated"));
        }
        self.position += count as u64;
        Ok(count)
    }
}

/// What is known of a stream while a tar reader, who owns the stream, reads it.
pub(super) struct Meter {
    hasher: RefCell<Sha256>,
    position: Cell<u64>,
    /// How many bytes may still be taken; see [`Meter::headers`].
    allowance: Cell<u64>,
    /// What was read since [`Meter::headers`], and from which position on.
    captured: RefCell<Vec<u8>>,
    captured_from: Cell<u64>,
    capturing: Cell<bool>,
    ended: Cell<bool>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Meter {
            hasher: RefCell::new(Sha256::new()),
            position: Cell::new(0),
            allowance: Cell::new(0),
            captured: RefCell::default(),
            captured_from: Cell::new(0),
            capturing: Cell::new(false),
            ended: Cell::new(false),
        }
    }

    /// Now come a member's headers: keep them, and let them take no more than `limit` bytes.
    pub(super) fn headers(&self, limit: u64) {
        self.captured.borrow_mut().clear();
        self.captured_from.set(self.position.get());
        self.capturing.set(true);
        self.allowance.set(limit);
    }

    /// Now comes content, of no more than `limit` bytes.
    pub(super) fn content(&self, limit: u64) {
        self.capturing.set(false);
        self.allowance.set(limit);
    }

    /// Whether the stream has ended.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Hands `visit` the tar blocks read since [`Meter::headers`], without the padding before them.
    pub(super) fn with_blocks<T>(&self, visit: impl FnOnce(&[u8]) -> T) -> T {
        let captured = self.captured.borrow();
        let padding = usize::try_from(self.captured_from.get().wrapping_neg() % 512).unwrap_or_default();
        visit(captured.get(padding..).unwrap_or_default())
    }

    /// The digest of everything read.
    pub(super) fn digest(self) -> Digest {
        Digest::finish(self.hasher.into_inner())
    }
}

/// A stream under a [`Meter`].
pub(super) struct Metered<'a, R> {
    inner: R,
    meter: &'a Meter,
}

impl<'a, R: Read> Metered<'a, R> {
    pub(super) fn new(inner: R, meter: &'a Meter) -> Self {
        Metered { inner, meter }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowance = self.meter.allowance.get();
        let wanted = buffer.len().min(usize::try_from(allowance).unwrap_or(usize::MAX));
        if wanted == 0 && !buffer.is_empty() {
            let what = if self.meter.capturing.get() { "headers of one member exceed" } else { "contents exceed" };
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{what} the limit")));
        }
        let count = self.inner.read(&mut buffer[..wanted])?;
        self.meter.ended.set(count == 0 && wanted > 0);
        let bytes = &buffer[..count];
        self.meter.hasher.borrow_mut().update(bytes);
        self.meter.position.set(self.meter.position.get() + count as u64);
        self.meter.allowance.set(allowance - count as u64);
        if self.meter.capturing.get() {
            self.meter.captured.borrow_mut().extend_from_slice(bytes);
        }
        Ok(count)
    }
}

/// Digest of everything that `input` still has.
pub(super) fn digest_of(mut input: impl Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(Digest::finish(hasher)),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
