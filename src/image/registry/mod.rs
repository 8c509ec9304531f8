//! Registries: the client of the OCI distribution specification and of Docker's token specification.
//!
//! Blocking, without a runtime: layers are fetched by threads that share one [`Registry`].

mod accounts;

use std::io::Read;

use anyhow::{Result, bail};

pub use accounts::{Accounts, Credential};

use super::digest::Digest;
use super::manifest::Descriptor;
use super::reference::Reference;
use crate::settings::Settings;

/// Which actions a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `pull`.
    Pull,
    /// `pull,push`.
    Push,
}

/// What names a manifest in its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A tag.
    Tag(&'a str),
    /// A digest; what comes is checked against it.
    Digest(&'a Digest),
}

impl<'a> Target<'a> {
    /// What `reference` pins: its digest if it has one, else its tag.
    pub fn of(reference: &'a Reference) -> Target<'a> {
        match reference.digest() {
            Some(digest) => Target::Digest(digest),
            None => Target::Tag(reference.tag().unwrap_or("latest")),
        }
    }
}

/// A manifest or index, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The document.
    pub bytes: Vec<u8>,
    /// Its media type as the registry told it; empty when it did not.
    pub media_type: String,
    /// Its digest, computed from the bytes.
    pub digest: Digest,
}

/// A client for one repository on one registry. Shared by threads.
#[derive(Debug)]
pub struct Registry {}

impl Registry {
    /// A client for the repository of `reference`. Nothing is sent yet.
    ///
    /// # Errors
    /// Settings, certificates or credentials that cannot be used.
    pub fn open(
        _settings: &Settings,
        _accounts: &Accounts,
        _reference: &Reference,
        _access: Access,
    ) -> Result<Registry> {
        bail!("not there yet")
    }

    /// Fetches a manifest or index, with its digest verified.
    pub fn manifest(&self, _target: Target<'_>) -> Result<Fetched> {
        bail!("not there yet")
    }

    /// The digest of a manifest without fetching it, where the registry tells; `None` when there is no such
    /// manifest.
    pub fn manifest_digest(&self, _target: Target<'_>) -> Result<Option<Digest>> {
        bail!("not there yet")
    }

    /// Streams a blob: exactly `descriptor.size` bytes, resumed after a broken connection. The reader fails
    /// at the end when size or digest differ, so whoever reads to the end needs no hash of its own.
    /// `retrying` is told of each pause: its seconds and why.
    pub fn blob<'a>(
        &'a self,
        _descriptor: &Descriptor,
        _retrying: impl Fn(u64, &str) + Send + 'a,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        bail!("not there yet")
    }

    /// All tags of the repository.
    pub fn tags(&self) -> Result<Vec<String>> {
        bail!("not there yet")
    }

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
