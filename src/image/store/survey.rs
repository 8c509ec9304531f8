//! What the store occupies, piece by piece: `system df` adds it up.
//!
//! Every name below `image/` and `overlay2/layers` comes to exactly one owner, so that the pieces make what
//! du(1) says of the two.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Store;
use super::layers::TEMPORARY;
use super::sweep::{Orphan, UsedLayers, disk_usage, file_name, names, own_usage};
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::Document;

/// Who something in the store belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Config or manifest of the image with this id.
    Image(String),
    /// The layer with this diff id: unpacked, or in a compressed form.
    Layer(String),
    /// The store: names, locks, directories, what is being made, archives that came with the program.
    Store,
}

/// A file or a tree in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Who it belongs to.
    pub owner: Owner,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Everything in the store.
#[derive(Debug, Default)]
pub struct Survey {
    /// What is of use.
    pub pieces: Vec<Piece>,
    /// What nothing uses.
    pub orphans: Vec<Orphan>,
    /// What nobody here has made, with its bytes.
    pub unknown: Vec<(PathBuf, u64)>,
}

/// Names in `image/` that are the store's own, whatever is below.
const OWN: [&str; 5] = ["lock", "repositories.json", "leases", "making", "unsettled"];
/// Directories of documents by digest.
const CONTENTS: [&str; 3] = ["configs", "manifests", "blobs"];

impl Store {
    /// What there is and what it occupies. Takes as long as there are files.
    pub fn survey(&self, used_layers: UsedLayers<'_>) -> Result<Survey> {
        let mut pieces = Vec::new();
        let mut unknown = Vec::new();
        let orphans = {
            let _lock = self.lock()?;
            let orphans = self.find_orphans(used_layers)?;
            let lost: BTreeSet<&Path> = orphans.iter().map(|orphan| orphan.path.as_path()).collect();
            let owners = self.owners()?;
            let mut sort = |path: PathBuf, owner: Option<Owner>| match owner {
                _ if lost.contains(path.as_path()) => {}
                Some(owner) => pieces.push((owner, path)),
                None => unknown.push(path),
            };
            for path in names(&self.layout.layers())? {
                let name = file_name(&path);
                let owner = match Digest::from_hex(&name) {
                    Some(digest) => Some(Owner::Layer(digest.to_string())),
                    None => name.starts_with(TEMPORARY).then_some(Owner::Store),
                };
                sort(path, owner);
            }
            let image = self.layout.image();
            for path in names(&image)? {
                let name = file_name(&path);
                if !CONTENTS.contains(&name.as_str()) {
                    // `NAME.tar` is a bundled image.
                    let own = OWN.contains(&name.as_str()) || name.ends_with(".tar") || name.ends_with(".tmp");
                    sort(path, own.then_some(Owner::Store));
                    continue;
                }
                for path in names(&path)? {
                    if file_name(&path) != "sha256" {
                        sort(path, None);
                        continue;
                    }
                    for path in names(&path)? {
                        let name = file_name(&path);
                        let known = Digest::from_hex(&name).and_then(|digest| owners.get(&digest).cloned());
                        let under_way = || (name.ends_with(".tmp") || name.len() == 64).then_some(Owner::Store);
                        sort(path, known.or_else(under_way));
                    }
                }
            }
            drop(lost);
            orphans
        };
        let mut survey = Survey { orphans, ..Survey::default() };
        for orphan in &mut survey.orphans {
            orphan.bytes = disk_usage(&orphan.path)?;
        }
        // A temporary in a layer's directory is an orphan and must not count with the layer as well.
        let within = |path: &Path| -> u64 {
            survey.orphans.iter().filter(|orphan| orphan.path.parent() == Some(path)).map(|orphan| orphan.bytes).sum()
        };
        for (owner, path) in pieces {
            let bytes = disk_usage(&path)?.saturating_sub(within(&path));
            survey.pieces.push(Piece { owner, bytes });
        }
        for path in unknown {
            let bytes = disk_usage(&path)?;
            survey.unknown.push((path, bytes));
        }
        let bytes = self.directories().iter().map(|path| own_usage(path)).sum();
        survey.pieces.push(Piece { owner: Owner::Store, bytes });
        Ok(survey)
    }

    /// The directories that everything lies in.
    fn directories(&self) -> Vec<PathBuf> {
        let image = self.layout.image();
        let contents = CONTENTS.iter().flat_map(|name| [image.join(name), image.join(name).join("sha256")]);
        contents.chain([image.clone(), self.layout.layers()]).collect()
    }

    /// Who each document and each compressed layer belongs to.
    fn owners(&self) -> Result<BTreeMap<Digest, Owner>> {
        let mut owners = BTreeMap::new();
        for layer in self.layer_ids()? {
            for form in self.layer_record(&layer).map(|record| record.blobs).unwrap_or_default() {
                owners.insert(form.digest, Owner::Layer(layer.to_string()));
            }
        }
        let ids: BTreeSet<Digest> = self.ids()?.into_iter().collect();
        for digest in self.manifests().list()? {
            let Ok(Some(bytes)) = self.manifests().read(&digest) else { continue };
            if let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, "")
                && ids.contains(&manifest.config.digest)
            {
                owners.insert(digest, Owner::Image(manifest.config.digest.to_string()));
            }
        }
        owners.extend(ids.into_iter().map(|id| (id.clone(), Owner::Image(id.to_string()))));
        Ok(owners)
    }
}
