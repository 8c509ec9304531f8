//! What nothing uses any more: found by walking from the images, freed at once or on `prune`.
//!
//! An image is its config. A manifest lives as long as the config it names, a layer as long as a config, a
//! container or a lease names it, a compressed layer as long as the layer it unpacks to. Everything else is
//! an orphan, whoever left it: a kill, a full disk, an image that was removed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use super::Store;
use super::config::layers_of;
use super::digest::Digest;
use super::layers::{Temporary, sweep_temporaries};
use super::manifest::Document;
use crate::sys::tree;

/// Something in the store that no image, no container and nothing under way has any use for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What it is.
    pub kind: OrphanKind,
    /// Its digest.
    pub digest: Digest,
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
}

impl Store {
    /// What nothing uses. `used_layers` tells which layers containers have (diff ids, `sha256:…`); it is asked
    /// after the images were read, so a container that is being made from one of them is not missed.
    pub fn orphans(&self, used_layers: &mut dyn FnMut() -> Result<BTreeSet<String>>) -> Result<Vec<Orphan>> {
        let _lock = self.lock()?;
        self.find_orphans(used_layers)
    }

    /// Frees what nothing uses, and what dead makers left half done. Gives what it was.
    pub fn sweep(&self, used_layers: &mut dyn FnMut() -> Result<BTreeSet<String>>) -> Result<Vec<Orphan>> {
        let layers = self.layout.layers();
        sweep_temporaries(&layers)?;
        let mut taken = Vec::new();
        let orphans = {
            let _lock = self.lock()?;
            let orphans = self.find_orphans(used_layers)?;
            self.forget_marks(&self.layer_ids()?.into_iter().collect())?;
            for orphan in &orphans {
                match orphan.kind {
                    // Out of sight under the lock, out of the world after it.
                    OrphanKind::Layer => {
                        taken.extend(Temporary::take(&layers, &self.layer_directory(&orphan.digest))?);
                        self.forget_mark(&orphan.digest);
                    }
                    OrphanKind::Blob => self.blobs().remove(&orphan.digest)?,
                    OrphanKind::Manifest => self.manifests().remove(&orphan.digest)?,
                }
            }
            orphans
        };
        for layer in taken {
            layer.remove()?;
        }
        Ok(orphans)
    }

    fn find_orphans(&self, used_layers: &mut dyn FnMut() -> Result<BTreeSet<String>>) -> Result<Vec<Orphan>> {
        let images: BTreeSet<Digest> = self.ids()?.into_iter().collect();
        let mut live = self.leased()?;
        for id in &images {
            // Even a damaged config may tell its layers; one that does not keeps nothing, and has to be
            // fetched again with them.
            let bytes = std::fs::read(self.configs().path(id)).unwrap_or_default();
            live.extend(layers_of(&bytes));
        }
        live.extend(used_layers()?.iter().filter_map(|layer| Digest::parse(layer).ok()));
        let mut orphans = Vec::new();
        for digest in self.layer_ids()? {
            if live.contains(&digest) {
                let forms = self.layer_record(&digest).map(|record| record.blobs).unwrap_or_default();
                live.extend(forms.into_iter().map(|form| form.digest));
                continue;
            }
            let bytes = disk_usage(&self.layer_directory(&digest))?;
            orphans.push(Orphan { kind: OrphanKind::Layer, digest, bytes });
        }
        for digest in self.manifests().list()? {
            let bytes = self.manifests().read(&digest).ok().flatten().unwrap_or_default();
            let used = match Document::parse(&bytes, "") {
                Ok(Document::Manifest(manifest)) => images.contains(&manifest.config.digest),
                _ => false,
            };
            if !used && !live.contains(&digest) {
                orphans.push(Orphan { kind: OrphanKind::Manifest, bytes: bytes.len() as u64, digest });
            }
        }
        for digest in self.blobs().list()? {
            if !live.contains(&digest) {
                let bytes = disk_usage(&self.blobs().path(&digest))?;
                orphans.push(Orphan { kind: OrphanKind::Blob, digest, bytes });
            }
        }
        Ok(orphans)
    }

    /// Diff ids of all unpacked layers.
    pub(super) fn layer_ids(&self) -> Result<Vec<Digest>> {
        let layers = self.layout.layers();
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&layers).with_context(|| format!("read {}", layers.display()))? {
            let name = entry.with_context(|| format!("read {}", layers.display()))?.file_name();
            ids.extend(name.to_str().and_then(Digest::from_hex));
        }
        Ok(ids)
    }
}

fn disk_usage(path: &Path) -> Result<u64> {
    Ok(tree::usage(path).with_context(|| format!("add up {}", path.display()))?.disk)
}
