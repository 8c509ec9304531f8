//! Byte streams of layers and archives: decompression, digests, parts of files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::error::Failure;
use crate::image::oci::digest::Digest;

/// How a layer was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

/// Buffer size of every stream here, in bytes.
const BUFFER: usize = 64 * 1024;
/// The largest window a zstd stream may ask for, in bits: 32 MiB, which `zstd -19` stays below.
const MAX_WINDOW_LOG: u32 = 25;

/// How the first bytes of a stream say that it is compressed.
///
/// # Errors
/// A compression that is known but not supported.
pub(in crate::image) fn compression(start: &[u8]) -> Result<Compression> {
    let unsupported = match start {
        [0x1f, 0x8b, ..] => return Ok(Compression::Gzip),
        // zstd's skippable frames may come first (RFC 8878, section 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => return Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [b'B', b'Z', b'h', ..] => "bzip2",
        _ => return Ok(Compression::None),
    };
    Err(Failure::engine(format!("read archive: {unsupported} compression is not supported"))
        .with_hint(format!("decompress it first ({unsupported} -d), or compress with gzip or zstd"))
        .into())
}

/// Whether these first bytes are those of no compression that is known by name, supported or not.
pub(in crate::image) fn is_plain(start: &[u8]) -> bool {
    let named = matches!(start, [0xfd, b'7', b'z', b'X', b'Z', 0, ..] | [b'B', b'Z', b'h', ..]);
    !named && matches!(compression(start), Ok(Compression::None))
}

/// The stream without its compression, which its first bytes tell: none, gzip or zstd.
pub(in crate::image) fn decompress<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(BUFFER, Filled::new(input));
    let compression = compression(input.fill_buf().context("read archive")?)?;
    let decoder = decoder(compression, input)?;
    Ok(if compression == Compression::None { decoder } else { Box::new(BufReader::with_capacity(BUFFER, decoder)) })
}

/// Decompresses `input`, all its gzip members or zstd frames. What follows them and is neither is an error, as
/// it is to Go's readers and so to Docker; gzip(1) would ignore it.
pub(super) fn decoder<'a>(compression: Compression, input: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).context("read archive")?;
            decoder.window_log_max(MAX_WINDOW_LOG).context("read archive")?;
            Box::new(Windowed(decoder))
        }
    })
}

/// A zstd stream that says clearly why it is refused.
struct Windowed<R>(R);

impl<R: Read> Read for Windowed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            // The library passes on what zstd_errors.h has for the code, in no other form.
            if error.to_string().contains("too much memory") {
                let limit = 1 << (MAX_WINDOW_LOG - 20);
                io::Error::other(format!("it was compressed with a window of more than {limit} MiB (zstd --long)"))
            } else {
                error
            }
        })
    }
}

/// Fills buffers completely where the stream has as much: a pipe may give its first byte alone.
pub(super) struct Filled<R> {
    input: R,
    /// Met when something had been read already: told the next time.
    error: Option<io::Error>,
}

impl<R> Filled<R> {
    pub(in crate::image) fn new(input: R) -> Filled<R> {
        Filled { input, error: None }
    }
}

impl<R: Read> Read for Filled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled > 0 => {
                    // Not asked again: a stream that broke may well say that it has ended.
                    self.error = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A part of a file, read without moving the file's offset.
pub(in crate::image) struct Section<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl<'a> Section<'a> {
    pub(in crate::image) fn new(file: &'a File, offset: u64, length: u64) -> Self {
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
