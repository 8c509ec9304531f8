//! Content-addressed files: configs, manifests and compressed layers, each called by its own digest.
//!
//! A file that has its name is complete: it was written under another and renamed. What is read whole
//! is digested again, so damage is met here and not in what believes the content.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::error::Failure;
use crate::image::oci::config::MAX_DOCUMENT;
use crate::image::oci::digest::Digest;
use crate::store::{self, Durability};

/// One directory of such files.
#[derive(Debug, Clone)]
pub(in crate::image) struct Contents {
    directory: PathBuf,
}

impl Contents {
    pub(in crate::image) fn new(directory: PathBuf) -> Contents {
        Contents { directory }
    }

    /// Where the content with this digest lies.
    pub(in crate::image) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// Whether it is there.
    pub(in crate::image) fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens it; `None` when it is not there.
    pub(in crate::image) fn open(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
        }
    }

    /// Reads a document, verified; `None` when it is not there.
    pub(in crate::image) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(digest)? else { return Ok(None) };
        let path = self.path(digest);
        let length = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_DOCUMENT);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
        if Digest::of(&bytes) != *digest {
            return Err(Failure::engine(format!("{} is damaged: its digest is another", path.display()))
                .with_hint("pull or load the image again")
                .into());
        }
        Ok(Some(bytes))
    }

    /// Keeps a document.
    pub(in crate::image) fn put(&self, bytes: &[u8], durability: Durability) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.make()?;
        store::write(&self.path(&digest), bytes, durability)?;
        Ok(digest)
    }

    /// Takes over a complete, verified file of the same file system.
    pub(in crate::image) fn adopt(&self, file: &Path, digest: &Digest) -> Result<()> {
        self.make()?;
        fs::rename(file, self.path(digest)).with_context(|| format!("keep {digest}"))
    }

    /// Removes it; that it is gone already is success.
    pub(in crate::image) fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Digests of all that is there.
    pub(in crate::image) fn list(&self) -> Result<Vec<Digest>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", self.directory.display())),
        };
        let mut digests = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| format!("read {}", self.directory.display()))?.file_name();
            // Others are temporaries of writes.
            digests.extend(name.to_str().and_then(Digest::from_hex));
        }
        Ok(digests)
    }

    fn make(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .with_context(|| format!("create {}", self.directory.display()))
    }
}
