//! What nothing uses any more: found by walking from the images, freed at once or on `prune`.
//!
//! An image is its config. A manifest lives as long as the config it names, a layer as long as a config, a
//! container or a lease names it, a compressed layer as long as the layer it unpacks to. Everything else is
//! an orphan, whoever left it: a kill, a full disk, an image that was removed.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Store;
use super::layers::{TEMPORARY, Temporary};
use super::maker::is_dead;
use crate::image::oci::config::layers_of;
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::Document;
use crate::sys::tree;

/// Something in the store that no image, no container and nothing under way has any use for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What it is.
    pub kind: OrphanKind,
    /// Its digest, or the name of a temporary.
    pub name: String,
    /// Where it lies, or lay.
    pub path: PathBuf,
    /// Bytes it occupies on disk.
    pub bytes: u64,
}

/// Kinds of orphans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrphanKind {
    /// An unpacked layer.
    Layer,
    /// A compressed layer.
    Blob,
    /// A manifest.
    Manifest,
    /// What somebody was making when he was killed.
    Temporary,
}

impl OrphanKind {
    /// One word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            OrphanKind::Layer => "layer",
            OrphanKind::Blob => "blob",
            OrphanKind::Manifest => "manifest",
            OrphanKind::Temporary => "temporary",
        }
    }
}

/// Which layers containers have (diff ids, `sha256:…`).
pub(super) type UsedLayers<'a> = &'a mut dyn FnMut() -> Result<BTreeSet<String>>;

impl Store {
    /// What nothing uses. `used_layers` is asked after the images were read, so a container that is being made
    /// from one of them is not missed.
    pub fn orphans(&self, used_layers: UsedLayers<'_>) -> Result<Vec<Orphan>> {
        let mut orphans = {
            let _lock = self.lock()?;
            self.find_orphans(used_layers)?
        };
        for orphan in &mut orphans {
            orphan.bytes = disk_usage(&orphan.path)?;
        }
        Ok(orphans)
    }

    /// Frees what nothing uses, and what dead makers left half done. Gives what it was.
    pub fn sweep(&self, used_layers: UsedLayers<'_>) -> Result<Vec<Orphan>> {
        let layers = self.layout.layers();
        let mut taken = Vec::new();
        let mut orphans = {
            let _lock = self.lock()?;
            let images: BTreeSet<String> = self.ids()?.iter().map(Digest::to_string).collect();
            // A name for an image that is not there any more.
            self.change(|repositories| {
                repositories.references.retain(|_, id| images.contains(id));
                repositories.digests.retain(|_, id| images.contains(id));
            })?;
            let mut orphans = self.find_orphans(used_layers)?;
            self.forget_marks(&self.layer_ids()?.into_iter().collect())?;
            for orphan in &mut orphans {
                let is_directory = fs::symlink_metadata(&orphan.path).is_ok_and(|metadata| metadata.is_dir());
                if is_directory {
                    // Out of sight under the lock, out of the world after it. Taken by renaming, so that two
                    // sweepers do not work in one tree; what one of them leaves when it dies bears its name and
                    // is swept in turn.
                    taken.push((Temporary::take(&layers, &orphan.path)?, orphan.name.clone()));
                    if let Some(digest) = Digest::from_hex(orphan.name.trim_start_matches("sha256:")) {
                        self.forget_mark(&digest);
                    }
                } else {
                    orphan.bytes = disk_usage(&orphan.path)?;
                    remove_file(&orphan.path)?;
                }
            }
            self.sweep_making()?;
            orphans
        };
        for (directory, name) in taken {
            let Some(directory) = directory else { continue };
            let bytes = disk_usage(&directory.directory)?;
            directory.remove()?;
            orphans.iter_mut().filter(|orphan| orphan.name == name).for_each(|orphan| orphan.bytes = bytes);
        }
        Ok(orphans)
    }

    /// What keeps layers and blobs: images, containers and leases. The caller holds the store's lock.
    pub(super) fn live(&self, used_layers: UsedLayers<'_>) -> Result<BTreeSet<Digest>> {
        let mut live = self.leased()?;
        for id in self.ids()? {
            // Even a damaged config may tell its layers; one that does not keeps nothing, and has to be
            // fetched again with them.
            let bytes = fs::read(self.configs().path(&id)).unwrap_or_default();
            live.extend(layers_of(&bytes));
        }
        live.extend(used_layers()?.iter().filter_map(|layer| Digest::parse(layer).ok()));
        Ok(live)
    }

    /// Orphans, not measured yet. The caller holds the store's lock.
    pub(super) fn find_orphans(&self, used_layers: UsedLayers<'_>) -> Result<Vec<Orphan>> {
        let images: BTreeSet<Digest> = self.ids()?.into_iter().collect();
        let mut live = self.live(used_layers)?;
        let mut orphans = Vec::new();
        let mut orphan = |kind, name: String, path: PathBuf| orphans.push(Orphan { kind, name, path, bytes: 0 });
        for digest in self.layer_ids()? {
            let directory = self.layer_directory(&digest);
            if live.contains(&digest) {
                let forms = self.layer_record(&digest).map(|record| record.blobs).unwrap_or_default();
                live.extend(forms.into_iter().map(|form| form.digest));
                for path in torn_writes(&directory)? {
                    orphan(OrphanKind::Temporary, file_name(&path), path);
                }
                continue;
            }
            orphan(OrphanKind::Layer, digest.to_string(), directory);
        }
        for digest in self.manifests().list()? {
            let bytes = self.manifests().read(&digest).ok().flatten().unwrap_or_default();
            let used = match Document::parse(&bytes, "") {
                Ok(Document::Manifest(manifest)) => images.contains(&manifest.config.digest),
                _ => false,
            };
            if !used && !live.contains(&digest) {
                orphan(OrphanKind::Manifest, digest.to_string(), self.manifests().path(&digest));
            }
        }
        for digest in self.blobs().list()? {
            if !live.contains(&digest) {
                orphan(OrphanKind::Blob, digest.to_string(), self.blobs().path(&digest));
            }
        }
        for path in self.temporaries()? {
            orphan(OrphanKind::Temporary, file_name(&path), path);
        }
        Ok(orphans)
    }

    /// Diff ids of all unpacked layers.
    pub(super) fn layer_ids(&self) -> Result<Vec<Digest>> {
        let names = names(&self.layout.layers())?;
        Ok(names.iter().filter_map(|path| Digest::from_hex(&file_name(path))).collect())
    }

    /// What the dead were making. The caller holds the store's lock: all documents are written under it, so
    /// whoever began one that has no name yet did not live to give it one.
    fn temporaries(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for path in names(&self.layout.layers())? {
            let maker = file_name(&path).strip_prefix(TEMPORARY).map(is_dead);
            found.extend(maker.filter(|dead| *dead).map(|_| path));
        }
        let image = self.layout.image();
        for directory in [image.clone(), image.join("configs/sha256"), image.join("manifests/sha256")] {
            found.extend(torn_writes(&directory)?);
        }
        Ok(found)
    }

    /// Removes the locks of makers that are gone. One that is being taken at this moment is found to be gone by
    /// who takes it, and made anew.
    fn sweep_making(&self) -> Result<()> {
        for path in names(&self.layout.image().join("making"))? {
            let Ok(file) = File::open(&path) else { continue };
            match file.try_lock() {
                Ok(()) => remove_file(&path)?,
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
            }
        }
        Ok(())
    }
}

/// Files in `directory` that [`crate::store`] began to write and did not name.
fn torn_writes(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = names(directory)?;
    found.retain(|path| {
        let name = file_name(path);
        name.starts_with('.') && name.ends_with(".tmp") && path.symlink_metadata().is_ok_and(|it| it.is_file())
    });
    Ok(found)
}

/// Everything in a directory; nothing when there is none.
pub(in crate::image) fn names(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let path = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.path());
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(path).collect();
    paths.with_context(|| format!("read {}", directory.display()))
}

/// The last part of a path, for people.
pub(in crate::image) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Bytes that a file or a tree occupies; 0 when it is gone.
pub(super) fn disk_usage(path: &Path) -> Result<u64> {
    Ok(tree::usage(path).with_context(|| format!("add up {}", path.display()))?.disk)
}

/// Bytes that a directory itself occupies, without what is in it.
pub(super) fn own_usage(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}
