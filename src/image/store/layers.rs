//! Layers on disk: made in a temporary directory, verified, and renamed into place when complete.
//!
//! ```text
//! overlay2/layers/<diff id>/diff           the unpacked layer
//! overlay2/layers/<diff id>/recipe         how its exact tar is told again (see `recipe`)
//! overlay2/layers/<diff id>/layer.json     its size, and the compressed forms that are known of it
//! overlay2/layers/.tmp-<pid>-<start>-<n>/  one being made, by the process that the name tells
//! image/blobs/sha256/<hex>                 compressed forms, kept as they came
//! image/making/<diff id>                   lock of whoever makes that layer; the others wait
//! ```
//! A layer that has its name is complete. Whoever makes the next one removes what dead makers left.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Store;
use super::lease::Lease;
use super::maker::{is_dead, own_name};
use crate::error::Failure;
use crate::image::layer::apply::Limits;
use crate::image::layer::stream::Compression;
use crate::image::layer::unpack::{self, Keep, Retold, Unpacked};
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::{Descriptor, media};
use crate::store::create_private;
use crate::store::{self, Durability, Lock};
use crate::sys::tree;

pub(super) const TEMPORARY: &str = ".tmp-";

/// `layer.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::image) struct Record {
    version: u32,
    /// Bytes of all files together.
    pub(in crate::image) size: u64,
    /// Compressed forms of this layer that the store has met, the latest last.
    #[serde(default)]
    pub(in crate::image) blobs: Vec<Descriptor>,
}

/// What is known of a layer before it comes.
#[derive(Debug, Clone, Copy)]
pub(in crate::image) struct Wanted<'a> {
    /// Digest of the uncompressed tar, where an image config tells it.
    pub(in crate::image) diff_id: Option<&'a Digest>,
    /// The bytes that will come, where a manifest describes them.
    pub(in crate::image) blob: Option<&'a Descriptor>,
    /// Whether compressed bytes are kept.
    pub(in crate::image) keep: Keep,
}

/// What had to be done for a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Obtained {
    /// It was there.
    Existing,
    /// It came.
    Made,
}

/// A layer's bytes.
pub(in crate::image) type Source<'a> = Box<dyn Read + Send + 'a>;

impl Store {
    /// Makes sure that a layer is in the store, and its compressed form where that is to be kept; `open` gives
    /// its bytes and is called only when they are needed. Several processes that want one layer do the work once:
    /// `waiting` is called when another does it. The lease keeps the layer until an image is recorded.
    ///
    /// # Errors
    /// See [`unpack::unpack`]; bytes that are not what was wanted; without a wanted diff id also an archive that
    /// lacks its end. Nothing stays behind.
    pub(in crate::image) fn obtain<'a>(
        &self,
        lease: &Lease,
        wanted: Wanted<'_>,
        open: impl FnOnce() -> Result<Source<'a>>,
        waiting: impl FnOnce(),
    ) -> Result<(Digest, Obtained)> {
        self.obtain_within(lease, wanted, open, waiting, &Limits::default())
    }

    pub(super) fn obtain_within<'a>(
        &self,
        lease: &Lease,
        wanted: Wanted<'_>,
        open: impl FnOnce() -> Result<Source<'a>>,
        waiting: impl FnOnce(),
        limits: &Limits,
    ) -> Result<(Digest, Obtained)> {
        let Some(diff_id) = wanted.diff_id else {
            let made = self.make_layer(lease, wanted, open()?, limits)?;
            return Ok((made, Obtained::Made));
        };
        lease.hold(self, diff_id)?;
        if let Some(blob) = wanted.blob {
            lease.hold(self, &blob.digest)?;
        }
        if self.has_layer(diff_id) && self.has_form(wanted) {
            return Ok((diff_id.clone(), Obtained::Existing));
        }
        let _making = self.making(diff_id, waiting)?;
        match self.has_layer(diff_id) {
            true if self.has_form(wanted) => return Ok((diff_id.clone(), Obtained::Existing)),
            true => self.keep_form(diff_id, wanted, open()?)?,
            false => {
                self.make_layer(lease, wanted, open()?, limits)?;
            }
        }
        Ok((diff_id.clone(), Obtained::Made))
    }

    /// Waits for the right to make a layer.
    pub(super) fn making(&self, diff_id: &Digest, waiting: impl FnOnce()) -> Result<Making> {
        Making::begin(&self.layout.image().join("making"), diff_id, waiting)
    }

    /// Whether the unpacked layer is there.
    pub(in crate::image) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_directory(diff_id).join("diff").exists()
    }

    /// Whether the compressed form is there, or need not be.
    pub(in crate::image) fn has_form(&self, wanted: Wanted<'_>) -> bool {
        match (wanted.blob, wanted.keep) {
            (Some(blob), Keep::Blob) => Some(&blob.digest) == wanted.diff_id || self.blobs().contains(&blob.digest),
            _ => true,
        }
    }

    pub(super) fn make_layer(
        &self,
        lease: &Lease,
        wanted: Wanted<'_>,
        input: Source<'_>,
        limits: &Limits,
    ) -> Result<Digest> {
        sweep_temporaries(&self.layout.layers())?;
        let temporary = Temporary::create(&self.layout.layers())?;
        let unpacked = unpack::unpack(input, &temporary.directory, wanted.keep, limits)?;
        check(&unpacked, wanted)?;
        let mut record = Record { version: 1, size: unpacked.size, blobs: Vec::new() };
        lease.hold(self, &unpacked.diff_id)?;
        let compressed = unpacked.compression != Compression::None;
        if compressed {
            let form = Descriptor::new(media_type(&unpacked, wanted), unpacked.digest.clone(), unpacked.length);
            record.blobs.push(form);
        }
        let blob = temporary.directory.join("blob");
        if blob.exists() {
            // A tar that cannot be told again is kept whatever was asked for: as it came where that was to be kept,
            // else without its compression.
            if unpacked.retold == Retold::Not && !(compressed && wanted.keep == Keep::Blob) {
                let length = blob.metadata().context("inspect the layer's tar")?.len();
                record.blobs.push(Descriptor::new(media::OCI_LAYER, unpacked.diff_id.clone(), length));
            }
            let kept = record.blobs.last().context("a blob of no form")?.digest.clone();
            lease.hold(self, &kept)?;
            self.blobs().adopt(&blob, &kept)?;
        }
        store::write_json(&temporary.directory.join("layer.json"), &record, Durability::ProcessCrash)?;
        // Together, so that no sweep takes the mark for one of a layer that never came.
        let _lock = self.lock()?;
        self.mark_unsettled(&unpacked.diff_id)?;
        let place = self.layer_directory(&unpacked.diff_id);
        match renameat_with(CWD, &temporary.directory, CWD, &place, RenameFlags::NOREPLACE) {
            // Where another was faster, its layer stays and ours is dropped.
            Ok(()) | Err(Errno::EXIST) => Ok(unpacked.diff_id),
            Err(error) => Err(error).with_context(|| format!("publish layer {}", unpacked.diff_id)),
        }
    }

    /// Keeps another compressed form of a layer that is there: an image that came with it goes out with it.
    fn keep_form(&self, diff_id: &Digest, wanted: Wanted<'_>, mut input: Source<'_>) -> Result<()> {
        let Some(blob) = wanted.blob else { return Ok(()) };
        let temporary = Temporary::create(&self.layout.layers())?;
        let path = temporary.directory.join("blob");
        let mut file = create_private(&path).with_context(|| format!("create {}", path.display()))?;
        let (mut hasher, mut buffer, mut length) = (Sha256::new(), vec![0; 128 << 10], 0_u64);
        loop {
            let count = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read layer"),
            };
            length += count as u64;
            if length > blob.size {
                bail!("the layer has more than {} bytes", blob.size);
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count]).context("keep layer")?;
        }
        let digest = Digest::finish(hasher);
        if digest != blob.digest {
            return Err(mismatch(&digest, &blob.digest).into());
        }
        self.blobs().adopt(&path, &digest)?;
        self.add_form(diff_id, blob)
    }

    /// Notes a compressed form of a layer.
    pub(in crate::image) fn add_form(&self, diff_id: &Digest, form: &Descriptor) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.layer_record(diff_id)?;
        record.blobs.retain(|known| known.digest != form.digest);
        record.blobs.push(Descriptor::new(&form.media_type, form.digest.clone(), form.size));
        store::write_json(&self.layer_directory(diff_id).join("layer.json"), &record, Durability::ProcessCrash)
    }

    /// What is recorded of a layer.
    pub(in crate::image) fn layer_record(&self, diff_id: &Digest) -> Result<Record> {
        let record = store::read_json(&self.layer_directory(diff_id).join("layer.json"))?;
        Ok(record.unwrap_or(Record { version: 1, size: 0, blobs: Vec::new() }))
    }

    /// Size of a layer as recorded when it was unpacked, in bytes; 0 when that is not known.
    pub(super) fn layer_size(&self, diff_id: &str) -> u64 {
        Digest::parse(diff_id).and_then(|digest| self.layer_record(&digest)).map_or(0, |record| record.size)
    }

    /// Where layers lie, and are made.
    pub(in crate::image) fn layers_directory(&self) -> PathBuf {
        self.layout.layers()
    }

    /// Directory of a layer: its contents, its recipe, its record.
    pub(in crate::image) fn layer_directory(&self, diff_id: &Digest) -> PathBuf {
        self.layout.layers().join(diff_id.hex())
    }
}

/// Holds what came against what was wanted.
fn check(unpacked: &Unpacked, wanted: Wanted<'_>) -> Result<()> {
    if let Some(blob) = wanted.blob
        && (unpacked.digest != blob.digest || unpacked.length != blob.size)
    {
        return Err(mismatch(&unpacked.digest, &blob.digest).into());
    }
    match wanted.diff_id {
        Some(expected) if *expected != unpacked.diff_id => {
            let message = format!("the layer is {}, not {expected} as the image says", unpacked.diff_id);
            Err(Failure::engine(message).with_hint("the archive is damaged or was tampered with").into())
        }
        None if !unpacked.has_end => Err(Failure::engine("archive is truncated").into()),
        _ => Ok(()),
    }
}

fn mismatch(found: &Digest, expected: &Digest) -> Failure {
    Failure::engine(format!("the layer's digest is {found}, not {expected} as the manifest says"))
        .with_hint("it was damaged on its way, or tampered with")
}

fn media_type<'a>(unpacked: &Unpacked, wanted: Wanted<'a>) -> &'a str {
    match (wanted.blob, unpacked.compression) {
        (Some(blob), _) if !blob.media_type.is_empty() => &blob.media_type,
        (_, Compression::None) => media::OCI_LAYER,
        (_, Compression::Gzip) => media::OCI_LAYER_GZIP,
        (_, Compression::Zstd) => media::OCI_LAYER_ZSTD,
    }
}

/// The right to make one layer. The file goes with the work, by whoever has the lock.
pub(super) struct Making {
    path: PathBuf,
    _lock: Lock,
}

impl Making {
    fn begin(directory: &Path, diff_id: &Digest, waiting: impl FnOnce()) -> Result<Making> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let path = directory.join(diff_id.hex());
        let contended = match OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path) {
            Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
            Err(error) => return Err(error).with_context(|| format!("create {}", path.display())),
        };
        if contended {
            waiting();
        }
        loop {
            // `None`: the one before us ended and took the file with it.
            if let Some(lock) = Lock::acquire(&path)? {
                return Ok(Making { path, _lock: lock });
            }
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A directory that goes with its owner unless published.
pub(in crate::image) struct Temporary {
    pub(in crate::image) directory: PathBuf,
}

impl Temporary {
    pub(in crate::image) fn create(layers: &Path) -> Result<Temporary> {
        let directory = layers.join(format!("{TEMPORARY}{}", own_name()));
        DirBuilder::new().mode(0o710).create(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(Temporary { directory })
    }

    /// Takes over a directory by renaming it: from now on it goes with us.
    pub(in crate::image) fn take(layers: &Path, directory: &Path) -> Result<Option<Temporary>> {
        let taken = layers.join(format!("{TEMPORARY}{}", own_name()));
        match fs::rename(directory, &taken) {
            Ok(()) => Ok(Some(Temporary { directory: taken })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("remove {}", directory.display())),
        }
    }

    /// Removes it now, and says when that fails.
    pub(in crate::image) fn remove(self) -> Result<()> {
        remove(&self.directory).with_context(|| format!("remove {}", self.directory.display()))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already when it was published. What cannot be removed now is swept later.
        let _ = remove(&self.directory);
    }
}

/// Removes temporaries whose maker is dead.
pub(super) fn sweep_temporaries(layers: &Path) -> Result<()> {
    for entry in fs::read_dir(layers).with_context(|| format!("read {}", layers.display()))? {
        let entry = entry.with_context(|| format!("read {}", layers.display()))?;
        let name = entry.file_name();
        let Some(maker) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)) else { continue };
        // Taken by renaming, so that two sweepers do not work in one tree; what one of them leaves when
        // it dies bears its name and is swept in turn.
        if is_dead(maker)
            && let Some(taken) = Temporary::take(layers, &entry.path())?
        {
            taken.remove()?;
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else { return Ok(()) };
    Ok(tree::remove(File::open(parent)?.as_fd(), name.as_bytes())?)
}
