//! From a layer as it comes, compressed or not, to everything the store keeps of it.
//!
//! ```text
//! <staging>/diff      the unpacked contents, in overlayfs's form
//! <staging>/recipe    how the exact tar is told again from them (see `recipe`)
//! <staging>/blob      the compressed bytes as they came, where they are to be kept
//! ```

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::layer::{self, Limits};
use super::stream;

/// How a layer was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

/// Whether the compressed bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// As `blob` in the staging directory, unless the layer came uncompressed.
    Blob,
    /// No.
    Nothing,
}

/// Whether the layer's tar can be told again from its contents and its recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retold {
    /// Byte for byte: `recipe` is there.
    Exact,
    /// No, because members undo each other: there is no `recipe`, and `blob` holds the bytes as they came,
    /// compressed or not, whatever was asked.
    Not,
}

/// What was unpacked, all of it digested on the way.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Digest of the uncompressed tar.
    pub(super) diff_id: Digest,
    /// Bytes of all files together.
    pub(super) size: u64,
    /// Whether the archive has its end mark; without one it may have been cut between two members.
    pub(super) has_end: bool,
    /// Digest of the bytes as they came.
    pub(super) digest: Digest,
    /// Number of the bytes as they came.
    pub(super) length: u64,
    /// How they were compressed.
    pub(super) compression: Compression,
    /// Whether the tar can be told again.
    pub(super) retold: Retold,
}

/// Unpacks `input` into the empty directory `staging`.
///
/// # Errors
/// A compression that is not known, and whatever [`layer::apply`] refuses. What was written until then is
/// left for the caller to remove.
pub(super) fn unpack(input: impl Read + Send, staging: &Path, keep: Keep, limits: &Limits) -> Result<Unpacked> {
    let diff = staging.join("diff");
    DirBuilder::new().create(&diff).context("create layer")?;
    // The umask has no say in what an image looks like.
    std::fs::set_permissions(&diff, Permissions::from_mode(0o755)).context("create layer")?;
    let root = File::open(&diff).context("open layer")?;
    let mut input = io::BufReader::with_capacity(64 << 10, input);
    let compression = stream::compression(io::BufRead::fill_buf(&mut input).context("read archive")?);
    let mut blob = match (keep, compression) {
        (Keep::Nothing, _) | (_, Compression::None) => None,
        (Keep::Blob, _) => Some(File::create_new(staging.join("blob")).context("create blob")?),
    };
    let (mut hasher, mut length) = (Sha256::new(), 0);
    let mut raw = Tee {
        input,
        each: |bytes: &[u8]| {
            hasher.update(bytes);
            length += bytes.len() as u64;
            blob.as_mut().map_or(Ok(()), |blob| blob.write_all(bytes))
        },
    };
    let mut recipe = File::create_new(staging.join("recipe")).context("create recipe")?;
    let told = Tee { input: stream::decompress(&mut raw)?, each: |bytes: &[u8]| recipe.write_all(bytes) };
    let applied = layer::apply(told, root.as_fd(), limits)?;
    io::copy(&mut raw, &mut io::sink()).context("read archive")?;
    Ok(Unpacked {
        digest: Digest::finish(hasher),
        length,
        compression,
        diff_id: applied.diff_id,
        size: applied.size,
        has_end: applied.has_end,
        retold: Retold::Exact,
    })
}

/// A stream of which somebody else sees every byte too.
struct Tee<R, F> {
    input: R,
    each: F,
}

impl<R: Read, F: FnMut(&[u8]) -> io::Result<()>> Read for Tee<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        (self.each)(&buffer[..count])?;
        Ok(count)
    }
}
