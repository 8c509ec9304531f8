//! From a layer as it comes, compressed or not, to everything the store keeps of it.
//!
//! ```text
//! <staging>/diff      the unpacked contents, in overlayfs's form
//! <staging>/recipe    how the exact tar is told again from them (see `recipe`)
//! <staging>/blob      the compressed bytes as they came, where they are to be kept
//! ```

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

pub(in crate::image) use super::apply::Retold;
use super::apply::{self, Applied, Bytes, Limits};
use super::stages::{self, CHUNK, Taken};
use super::stream::{self, Compression, Filled};
use crate::image::oci::digest::Digest;
use crate::store::create_private;
use crate::sys::process::unmask_thread;

/// Whether the compressed bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Keep {
    /// As `blob` in the staging directory, unless the layer came uncompressed.
    Blob,
    /// No.
    Nothing,
}

/// What was unpacked, all of it digested on the way.
#[derive(Debug)]
pub(in crate::image) struct Unpacked {
    /// Digest of the uncompressed tar.
    pub(in crate::image) diff_id: Digest,
    /// Bytes of all files together.
    pub(in crate::image) size: u64,
    /// Whether the archive has its end mark; without one it may have been cut between two members.
    pub(in crate::image) has_end: bool,
    /// Digest of the bytes as they came.
    pub(in crate::image) digest: Digest,
    /// Number of the bytes as they came.
    pub(in crate::image) length: u64,
    /// How they were compressed.
    pub(in crate::image) compression: Compression,
    /// Whether the tar can be told again.
    pub(in crate::image) retold: Retold,
}

/// Unpacks `input` into the empty directory `staging`.
///
/// A layer that is large is worked on in stages, each a thread: the bytes as they come are read, hashed and kept
/// (by the caller's own); decompressed; hashed as the tar that they are; unpacked. Between the stages a few
/// buffers go round, so memory does not grow with the layer.
///
/// # Errors
/// A compression that is not known or a stream that is damaged, and whatever [`apply::apply`] refuses. What was
/// written until then is left for the caller to remove.
pub(in crate::image) fn unpack(
    input: impl Read + Send,
    staging: &Path,
    keep: Keep,
    limits: &Limits,
) -> Result<Unpacked> {
    let diff = staging.join("diff");
    DirBuilder::new().create(&diff).context("create layer")?;
    // The umask has no say in what an image looks like.
    std::fs::set_permissions(&diff, Permissions::from_mode(0o755)).context("create layer")?;
    let root = File::open(&diff).context("open layer")?;

    let mut input = Filled::new(input);
    let mut first = vec![0; CHUNK];
    let length = input.read(&mut first).context("read archive")?;
    first.truncate(length);
    let mut next = [0];
    let complete = length < CHUNK && input.read(&mut next).context("read archive")? == 0;
    if length < CHUNK && !complete {
        first.push(next[0]);
    }
    let compression = stream::compression(&first)?;
    let blob = match (keep, compression) {
        (Keep::Nothing, _) | (_, Compression::None) => None,
        (Keep::Blob, _) => Some(create_private(&staging.join("blob")).context("create blob")?),
    };
    let bytes = if blob.is_some() { Bytes::Kept } else { Bytes::Passing };
    let apply = |input: &mut dyn BufRead| -> Result<Applied> {
        unmask_thread().context("empty umask")?;
        apply::apply(input, staging, root.as_fd(), bytes, limits)
    };
    let mut taken = Taken::new(blob);
    let (applied, diff_id) = if complete {
        taken.take(&first)?;
        at_once(&first, compression, apply)?
    } else {
        in_stages(first, input, &mut taken, compression, apply)?
    };
    let (digest, length) = taken.finish();
    Ok(Unpacked {
        diff_id: diff_id.unwrap_or_else(|| digest.clone()),
        size: applied.size,
        has_end: applied.has_end,
        digest,
        length,
        compression,
        retold: applied.retold,
    })
}

/// What was applied, and the diff id where it is not the digest of the bytes as they came.
type Outcome = Result<(Applied, Option<Digest>)>;

/// A layer that is here already: more threads would cost more than they bring. Only applying has one, for the
/// umask's sake.
fn at_once(
    bytes: &[u8],
    compression: Compression,
    apply: impl FnOnce(&mut dyn BufRead) -> Result<Applied> + Send,
) -> Outcome {
    let work = || {
        let mut hasher = Sha256::new();
        let decoder = stream::decoder(compression, bytes)?;
        let mut input = BufReader::with_capacity(CHUNK, Hashed { input: decoder, hasher: &mut hasher });
        let applied = apply(&mut input)?;
        Ok((applied, Some(Digest::finish(hasher))))
    };
    thread::scope(|scope| joined(scope.spawn(work)))
}

fn in_stages(
    first: Vec<u8>,
    input: Filled<impl Read>,
    taken: &mut Taken,
    compression: Compression,
    apply: impl FnOnce(&mut dyn BufRead) -> Result<Applied> + Send,
) -> Outcome {
    thread::scope(|scope| {
        let (raw, mut came) = stages::link();
        let diff_id = (compression != Compression::None).then(|| {
            let (plain, decompressed) = stages::link();
            let (hashed, out) = stages::relay(&decompressed);
            let compressed = std::mem::replace(&mut came, out);
            scope.spawn(move || stages::decompress(compressed, compression, plain));
            scope.spawn(move || stages::hash(decompressed, hashed))
        });
        let applying = scope.spawn(move || apply(&mut came));
        let read = stages::read(first, input, taken, raw);
        // Why there is no more to read is said by who stopped taking it.
        let applied = joined(applying)?;
        read?;
        Ok((applied, diff_id.map(joined)))
    })
}

/// The result of a thread, whose panic goes on in this one.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A stream that is hashed as it is read.
struct Hashed<'a, R> {
    input: R,
    hasher: &'a mut Sha256,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
