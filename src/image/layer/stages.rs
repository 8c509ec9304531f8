//! The stages of unpacking and what connects them: chunks of bytes that go forward through a bounded channel
//! and come back empty, so that there are never more than a few.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::stream::{self, Compression, Filled};
use crate::image::oci::digest::Digest;

/// Size of a chunk in bytes.
pub(super) const CHUNK: usize = 128 << 10;
/// Chunks that may wait between two stages.
const WAITING: usize = 4;
/// Chunks that go round: those that wait, twice where a stage hashes in passing, and those being worked on.
const CHUNKS: usize = 2 * WAITING + 3;

/// Where a stage puts its chunks.
pub(super) struct Outlet {
    forward: SyncSender<io::Result<Vec<u8>>>,
    back: Receiver<Vec<u8>>,
    made: usize,
}

/// Where a stage gets its chunks. The end of the channel is the end of the stream.
pub(super) struct Inlet {
    forward: Receiver<io::Result<Vec<u8>>>,
    back: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

/// The way past a stage that only looks at chunks.
pub(super) struct Relay(SyncSender<io::Result<Vec<u8>>>);

/// Connects two stages.
pub(in crate::image) fn link() -> (Outlet, Inlet) {
    let (forward, chunks) = sync_channel(WAITING);
    let (empty, back) = channel();
    (Outlet { forward, back, made: 0 }, Inlet { forward: chunks, back: empty, chunk: Vec::new(), at: 0 })
}

/// Connects a further stage behind `inlet`; chunks go back to where `inlet`'s came from.
pub(super) fn relay(inlet: &Inlet) -> (Relay, Inlet) {
    let (forward, chunks) = sync_channel(WAITING);
    (Relay(forward), Inlet { forward: chunks, back: inlet.back.clone(), chunk: Vec::new(), at: 0 })
}

impl Outlet {
    /// A chunk to be filled; `None` when nobody wants more.
    fn empty(&mut self) -> Option<Vec<u8>> {
        if let Ok(chunk) = self.back.try_recv() {
            return Some(chunk);
        }
        if self.made < CHUNKS {
            self.made += 1;
            return Some(vec![0; CHUNK]);
        }
        self.back.recv().ok()
    }
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Inlet {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            if !self.chunk.is_empty() {
                // Nobody there any more: then nobody needs it.
                let _ = self.back.send(std::mem::take(&mut self.chunk));
            }
            self.at = 0;
            match self.forward.recv() {
                Ok(chunk) => self.chunk = chunk?,
                Err(_) => self.chunk = Vec::new(),
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

/// The bytes of a layer as they came: hashed, counted, and kept if they are to be.
pub(super) struct Taken {
    hasher: Sha256,
    length: u64,
    blob: Option<File>,
}

impl Taken {
    pub(in crate::image) fn new(blob: Option<File>) -> Taken {
        Taken { hasher: Sha256::new(), length: 0, blob }
    }

    pub(in crate::image) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        match &mut self.blob {
            Some(blob) => blob.write_all(bytes).context("keep archive"),
            None => Ok(()),
        }
    }

    /// Digest and number of the bytes.
    pub(in crate::image) fn finish(self) -> (Digest, u64) {
        (Digest::finish(self.hasher), self.length)
    }
}

/// Reads `input`, of which `first` came already, to its end or until nobody wants more.
///
/// # Errors
/// Bytes that cannot be kept. Those of reading go to the next stage.
pub(in crate::image) fn read(
    first: Vec<u8>,
    mut input: Filled<impl Read>,
    taken: &mut Taken,
    mut to: Outlet,
) -> Result<()> {
    to.made += 1;
    let mut chunk = first;
    loop {
        if let Err(error) = taken.take(&chunk) {
            // To the next stage the stream must not seem complete.
            let _ = to.forward.send(Err(io::Error::other("the archive could not be kept")));
            return Err(error);
        }
        if to.forward.send(Ok(chunk)).is_err() {
            return Ok(());
        }
        let Some(empty) = to.empty() else { return Ok(()) };
        chunk = empty;
        if !fill(&mut chunk, &mut input, &to.forward) {
            return Ok(());
        }
    }
}

/// Fills a chunk from `input`; `false` when there is no more. An error is passed on.
fn fill(chunk: &mut Vec<u8>, input: &mut impl Read, errors: &SyncSender<io::Result<Vec<u8>>>) -> bool {
    chunk.resize(CHUNK, 0);
    match input.read(chunk) {
        Ok(count) => {
            chunk.truncate(count);
            count > 0
        }
        Err(error) => {
            // Nobody there: then somebody failed before.
            let _ = errors.send(Err(error));
            false
        }
    }
}

/// Decompresses what comes.
pub(in crate::image) fn decompress(mut from: Inlet, compression: Compression, mut to: Outlet) {
    let decoder = match stream::decoder(compression, &mut from) {
        Ok(decoder) => decoder,
        Err(error) => {
            let _ = to.forward.send(Err(io::Error::other(error)));
            return;
        }
    };
    let mut decoder = Filled::new(decoder);
    while let Some(mut chunk) = to.empty() {
        if !fill(&mut chunk, &mut decoder, &to.forward) {
            break;
        }
        if to.forward.send(Ok(chunk)).is_err() {
            return;
        }
    }
    drop(decoder);
    // The stage before hashes all there is; should this decoder leave something, that must not go unseen.
    if matches!(from.fill_buf(), Ok(rest) if !rest.is_empty()) {
        let _ = to.forward.send(Err(io::Error::new(io::ErrorKind::InvalidData, "garbage follows the compressed data")));
    }
}

/// Hashes what passes.
pub(super) fn hash(from: Inlet, to: Relay) -> Digest {
    let mut hasher = Sha256::new();
    for chunk in from.forward {
        if let Ok(bytes) = &chunk {
            hasher.update(bytes);
        }
        if to.0.send(chunk).is_err() {
            break;
        }
    }
    Digest::finish(hasher)
}
