//! Leases: what a running pull, load or commit needs, so that nobody sweeps it away.
//!
//! ```text
//! image/leases/<pid>-<start>-<n>    one hexadecimal digest a line; locked (flock) by the process it serves
//! ```
//! A layer is of use only once an image names it, and the image is recorded last. Until then the lease
//! speaks for it. Its lock dies with its holder, and then it counts for nothing.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Store;
use super::maker::own_name;
use crate::image::oci::digest::Digest;

/// Keeps layers and blobs from being swept while it lives.
#[derive(Debug)]
pub(in crate::image) struct Lease {
    file: File,
    path: PathBuf,
}

impl Store {
    fn leases(&self) -> PathBuf {
        self.layout.image().join("leases")
    }

    /// A lease on nothing yet.
    pub(in crate::image) fn lease(&self) -> Result<Lease> {
        let directory = self.leases();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let path = directory.join(own_name());
        // A lease that nobody holds yet is taken for a dead one: not while a sweep may be looking.
        let _lock = self.lock()?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        file.lock().with_context(|| format!("lock {}", path.display()))?;
        Ok(Lease { file, path })
    }

    /// Everything that is leased. The caller holds the store's lock; leases of the dead are removed.
    pub(in crate::image) fn leased(&self) -> Result<BTreeSet<Digest>> {
        let directory = self.leases();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
        };
        let mut leased = BTreeSet::new();
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
            leased.extend(read_living(&path).with_context(|| format!("read {}", path.display()))?);
        }
        Ok(leased)
    }
}

fn read_living(path: &Path) -> std::io::Result<Vec<Digest>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {
            let _ = fs::remove_file(path);
            Ok(Vec::new())
        }
        Err(TryLockError::WouldBlock) => {
            Ok(std::io::read_to_string(file)?.lines().filter_map(Digest::from_hex).collect())
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Lease {
    /// Keeps whatever has this digest, be it there or about to come. Returns when no sweep can be under
    /// way that has not seen it: what is found after this call stays.
    pub(in crate::image) fn hold(&self, store: &Store, digest: &Digest) -> Result<()> {
        let _lock = store.lock()?;
        let mut file = &self.file;
        writeln!(file, "{}", digest.hex()).with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
