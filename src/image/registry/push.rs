//! What a push asks of a repository.

use std::io::Read;

use anyhow::{Result, bail};

use super::{Registry, Target};
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::reference::Reference;

impl Registry {
    /// Whether the repository has this blob.
    pub fn has_blob(&self, _digest: &Digest) -> Result<bool> {
        bail!("not there yet")
    }

    /// Takes a blob over from another repository of the same registry; `false` when the registry wants it
    /// uploaded.
    pub fn mount(&self, _digest: &Digest, _from: &Reference) -> Result<bool> {
        bail!("not there yet")
    }

    /// Uploads a blob. `open` opens the content from an offset on, again for each retry; `sent` is told how
    /// many bytes are through in all (it may go back after a retry); `retrying` of each pause.
    pub fn upload(
        &self,
        _descriptor: &Descriptor,
        _open: &dyn Fn(u64) -> Result<Box<dyn Read + Send>>,
        _sent: &dyn Fn(u64),
        _retrying: &dyn Fn(u64, &str),
    ) -> Result<()> {
        bail!("not there yet")
    }

    /// Puts a manifest under a tag or its digest; gives its digest.
    pub fn put_manifest(&self, _target: Target<'_>, _media_type: &str, _bytes: &[u8]) -> Result<Digest> {
        bail!("not there yet")
    }
}
