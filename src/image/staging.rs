//! Layers on disk: made in a temporary directory, verified, and renamed into place when complete.
//!
//! ```text
//! overlay2/layers/<diff id>/diff           the unpacked layer
//! overlay2/layers/<diff id>/layer.json     its size
//! overlay2/layers/.tmp-<pid>-<start>-<n>/  one being made, by the process that the name tells
//! ```
//! A layer that has its name is complete. Whoever imports next removes what dead makers left.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Store;
use super::digest::Digest;
use super::layer::Limits;
use super::unpack::{self, Keep};
use crate::error::Failure;
use crate::store::{self, Durability};
use crate::sys::process::start_time;
use crate::sys::tree;

const TEMPORARY: &str = ".tmp-";

/// `layer.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Bytes of all files together.
    size: u64,
}

/// A layer that is complete and verified, in place or about to be.
pub(super) struct Staged {
    diff_id: Digest,
    root: File,
    /// Where it lies until it is published; `None` when it is in place.
    temporary: Option<Temporary>,
}

impl Staged {
    pub(super) fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// The directory of its contents.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Store {
    /// Unpacks the layer in `input` (tar, gzip or plain) into a temporary, unless `expected` is in place.
    ///
    /// # Errors
    /// See [`layer::apply`]; a diff id other than `expected`; without an expected one also an archive
    /// that lacks its end. Nothing stays behind.
    pub(super) fn stage_layer(&self, input: impl Read + Send, expected: Option<&Digest>) -> Result<Staged> {
        self.stage_layer_within(input, expected, &Limits::default())
    }

    fn stage_layer_within(
        &self,
        input: impl Read + Send,
        expected: Option<&Digest>,
        limits: &Limits,
    ) -> Result<Staged> {
        if let Some(digest) = expected
            && let Ok(root) = File::open(self.layer(&digest.to_string()))
        {
            return Ok(Staged { diff_id: digest.clone(), root, temporary: None });
        }
        sweep(&self.layout.layers())?;
        let temporary = Temporary::create(&self.layout.layers())?;
        let applied = unpack::unpack(input, &temporary.directory, Keep::Nothing, limits)?;
        let root = File::open(temporary.directory.join("diff")).context("open layer")?;
        match expected {
            Some(expected) if *expected != applied.diff_id => {
                let message = format!("the layer is {}, not {expected} as the image says", applied.diff_id);
                return Err(Failure::engine(message).with_hint("the archive is damaged or was tampered with").into());
            }
            None if !applied.has_end => return Err(Failure::engine("archive is truncated").into()),
            _ => {}
        }
        let record = Record { version: 1, size: applied.size };
        store::write_json(&temporary.directory.join("layer.json"), &record, Durability::ProcessCrash)?;
        Ok(Staged { diff_id: applied.diff_id, root, temporary: Some(temporary) })
    }

    /// Gives layers their names. Where another import was faster, its layer stays and ours is dropped.
    pub(super) fn publish_layers(&self, staged: Vec<Staged>) -> Result<()> {
        let layers = self.layout.layers();
        let Some(new) = staged.iter().find(|layer| layer.temporary.is_some()) else { return Ok(()) };
        // Everything, once: a layer that has its name must not lose its files to a power cut.
        rustix::fs::syncfs(&new.root).context("flush layer")?;
        for layer in &staged {
            let Some(temporary) = &layer.temporary else { continue };
            let place = layers.join(layer.diff_id.hex());
            match renameat_with(CWD, &temporary.directory, CWD, place, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).with_context(|| format!("publish layer {}", layer.diff_id)),
            }
        }
        File::open(&layers).and_then(|directory| directory.sync_all()).context("flush layers")
    }

    /// Size of a layer as recorded when it was unpacked, in bytes; 0 when that is not known.
    pub(super) fn layer_size(&self, diff_id: &str) -> u64 {
        let record = self.layer(diff_id).with_file_name("layer.json");
        store::read_json::<Record>(&record).ok().flatten().map_or(0, |record| record.size)
    }
}

/// A directory that goes with its owner unless published.
struct Temporary {
    directory: PathBuf,
}

impl Temporary {
    fn create(layers: &Path) -> Result<Temporary> {
        let directory = layers.join(own_name());
        DirBuilder::new().mode(0o710).create(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(Temporary { directory })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already when it was published. What cannot be removed now is swept later.
        let _ = remove(&self.directory);
    }
}

/// A name that tells who makes it; unique within the machine.
fn own_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let pid = std::process::id();
    let start = start_time(pid.cast_signed()).unwrap_or_default();
    format!("{TEMPORARY}{pid}-{start}-{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Removes temporaries whose maker is dead.
fn sweep(layers: &Path) -> Result<()> {
    for entry in fs::read_dir(layers).with_context(|| format!("read {}", layers.display()))? {
        let entry = entry.with_context(|| format!("read {}", layers.display()))?;
        let name = entry.file_name();
        let Some(maker) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)) else { continue };
        let mut parts = maker.split('-').map(|part| part.parse::<u64>().ok());
        let alive = match (parts.next().flatten(), parts.next().flatten()) {
            (Some(pid), Some(start)) => i32::try_from(pid).ok().and_then(start_time) == Some(start),
            _ => false,
        };
        if alive {
            continue;
        }
        // Taken by renaming, so that two sweepers do not work in one tree; what one of them leaves when
        // it dies bears its name and is swept in turn.
        let taken = layers.join(own_name());
        match fs::rename(entry.path(), &taken) {
            Ok(()) => remove(&taken).with_context(|| format!("remove {}", taken.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", entry.path().display())),
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else { return Ok(()) };
    Ok(tree::remove(File::open(parent)?.as_fd(), name.as_bytes())?)
}
