//! Images and what they are called: `image/configs`, `image/manifests` and `image/repositories.json`.
//!
//! A config is written after its layers and its manifest, and a reference after its config, so whatever
//! can be found is complete. References survive a power cut; documents that one tears are met by their
//! digest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::contents::Contents;
use crate::error::{Class, Failure};
use crate::image::oci::config::ConfigFile;
use crate::image::oci::digest::{Digest, is_hex};
use crate::image::oci::manifest::{Document, Manifest};
use crate::image::oci::reference::Reference;
use crate::image::{Image, Store};
use crate::store::{self, Durability, Lock};

/// `repositories.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::image) struct Repositories {
    version: u32,
    /// Canonical reference to image id (`sha256:…`).
    pub(in crate::image) references: BTreeMap<String, String>,
    /// Canonical `repository@digest`, by which registries know an image, to image id.
    #[serde(default)]
    pub(in crate::image) digests: BTreeMap<String, String>,
}

impl Default for Repositories {
    fn default() -> Self {
        Repositories { version: 1, references: BTreeMap::new(), digests: BTreeMap::new() }
    }
}

/// An image that is complete but for its record: every layer is there and leased.
#[derive(Debug)]
pub(in crate::image) struct Arrival<'a> {
    /// Bytes of the config.
    pub(in crate::image) config: &'a [u8],
    /// Bytes of the manifest that it came with.
    pub(in crate::image) manifest: Option<&'a [u8]>,
    /// What it is called from now on; whatever was called so before is not any more.
    pub(in crate::image) references: &'a [Reference],
    /// Names with a digest that it can be had by.
    pub(in crate::image) digests: &'a [Reference],
}

impl Store {
    /// Image configs; the digest of one is the image's id.
    pub(in crate::image) fn configs(&self) -> Contents {
        Contents::new(self.layout.image().join("configs/sha256"))
    }

    /// Image manifests, as they came or as they were made for a registry.
    pub(in crate::image) fn manifests(&self) -> Contents {
        Contents::new(self.layout.image().join("manifests/sha256"))
    }

    /// Compressed layers, as they came.
    pub(in crate::image) fn blobs(&self) -> Contents {
        Contents::new(self.layout.image().join("blobs/sha256"))
    }

    /// The lock of everything that names, records or sweeps. Held for moments, never while bytes come.
    pub(in crate::image) fn lock(&self) -> Result<Lock> {
        Lock::acquire(&self.layout.image().join("lock"))?
            .ok_or_else(|| Failure::engine(format!("{} was removed", self.layout.image().display())).into())
    }

    fn repositories_file(&self) -> PathBuf {
        self.layout.image().join("repositories.json")
    }

    /// What is tagged.
    pub(in crate::image) fn repositories(&self) -> Result<Repositories> {
        Ok(store::read_json(&self.repositories_file())?.unwrap_or_default())
    }

    /// The id that `text` means: reference, id, or unambiguous prefix of an id, in this order.
    pub(in crate::image) fn resolve(&self, text: &str) -> Result<Option<Digest>> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let may_be_id = !digits.is_empty() && digits.len() <= 64 && is_hex(digits);
        let explicit = text.len() != digits.len();
        if !explicit && digits.len() < 64 || !may_be_id {
            let found = match text.parse::<Reference>() {
                Ok(reference) => self.resolve_reference(&reference)?,
                Err(error) if !may_be_id => return Err(error),
                Err(_) => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        if !may_be_id {
            return Ok(None);
        }
        if let Some(digest) = Digest::from_hex(digits) {
            return Ok(self.configs().contains(&digest).then_some(digest));
        }
        let mut matches: Vec<Digest> = self.ids()?.into_iter().filter(|id| id.hex().starts_with(digits)).collect();
        if matches.len() > 1 {
            matches.sort();
            return Err(ambiguous(text, &matches).into());
        }
        Ok(matches.pop())
    }

    /// Whether `text` means the image `id` (`sha256:…`) now.
    pub fn means(&self, text: &str, id: &str) -> bool {
        matches!(self.resolve(text), Ok(Some(found)) if found.to_string() == id)
    }

    pub(in crate::image) fn resolve_reference(&self, reference: &Reference) -> Result<Option<Digest>> {
        let repositories = self.repositories()?;
        let canonical = reference.canonical();
        if let Some(id) = repositories.references.get(&canonical).or_else(|| repositories.digests.get(&canonical)) {
            return Digest::parse(id).context("repositories.json is damaged").map(Some);
        }
        // `name@digest` also means an image of that name by its own id.
        let Some(digest) = reference.digest() else { return Ok(None) };
        let repository = reference.repository();
        let id = digest.to_string();
        let named = |text: &str| text.strip_prefix(&repository).is_some_and(|rest| rest.starts_with([':', '@']));
        Ok(repositories.references.iter().any(|(name, of)| *of == id && named(name)).then(|| digest.clone()))
    }

    /// Ids of all images.
    pub(in crate::image) fn ids(&self) -> Result<Vec<Digest>> {
        self.configs().list()
    }

    /// The config of an image, verified; `None` when there is none.
    pub(in crate::image) fn config(&self, id: &Digest) -> Result<Option<ConfigFile>> {
        let Some(bytes) = self.configs().read(id)? else { return Ok(None) };
        ConfigFile::parse(&bytes).with_context(|| self.configs().path(id).display().to_string()).map(Some)
    }

    /// Whether there is an image with this id (`sha256:…`).
    pub fn has(&self, id: &str) -> bool {
        Digest::parse(id).is_ok_and(|id| self.configs().contains(&id))
    }

    /// The image with this id.
    pub(in crate::image) fn image(&self, id: &Digest) -> Result<Option<Image>> {
        Ok(self.config(id)?.map(|config| config.into_image(id)))
    }

    /// Manifests of the image `id` that the store has, each with its digest. Damaged ones are left out.
    pub(in crate::image) fn manifests_of(&self, id: &Digest) -> Result<Vec<(Digest, Manifest)>> {
        let mut found = Vec::new();
        for digest in self.manifests().list()? {
            let Ok(Some(bytes)) = self.manifests().read(&digest) else { continue };
            if let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, "")
                && manifest.config.digest == *id
            {
                found.push((digest, manifest));
            }
        }
        Ok(found)
    }

    /// Records an image whose layers are there, and names it; gives its id.
    pub(in crate::image) fn record(&self, arrival: &Arrival<'_>) -> Result<Digest> {
        arrival.references.iter().try_for_each(Reference::check_name)?;
        let _lock = self.lock()?;
        if let Some(manifest) = arrival.manifest {
            self.manifests().put(manifest, Durability::ProcessCrash)?;
        }
        let id = self.configs().put(arrival.config, Durability::ProcessCrash)?;
        self.change(|repositories| {
            let text = id.to_string();
            for reference in arrival.references {
                repositories.references.insert(reference.canonical(), text.clone());
            }
            for reference in arrival.digests {
                repositories.digests.insert(reference.canonical(), text.clone());
            }
        })?;
        Ok(id)
    }

    /// Lets `references` mean the image `id`, whatever they meant before.
    ///
    /// # Errors
    /// A name that none may have ([`Reference::check_name`]); the image was removed meanwhile.
    pub fn tag(&self, references: &[Reference], id: &Digest) -> Result<()> {
        references.iter().try_for_each(Reference::check_name)?;
        let _lock = self.lock()?;
        if !self.configs().contains(id) {
            return Err(Failure::not_found(format!("No such image: {id}")).into());
        }
        self.change(|repositories| {
            for reference in references {
                repositories.references.insert(reference.canonical(), id.to_string());
            }
        })
    }

    /// Changes `repositories.json`, when there is anything to change. The caller holds the lock.
    pub(in crate::image) fn change(&self, edit: impl FnOnce(&mut Repositories)) -> Result<()> {
        let mut repositories = self.repositories()?;
        let before = (repositories.references.clone(), repositories.digests.clone());
        edit(&mut repositories);
        if before == (repositories.references.clone(), repositories.digests.clone()) {
            return Ok(());
        }
        store::write_json(&self.repositories_file(), &repositories, Durability::PowerCut)
    }
}

fn ambiguous(text: &str, matches: &[Digest]) -> Failure {
    const SHOWN: usize = 10;
    let mut ids: Vec<String> = matches.iter().take(SHOWN).map(Digest::to_string).collect();
    if matches.len() > SHOWN {
        ids.push(format!("and {} more", matches.len() - SHOWN));
    }
    Failure::new(Class::Conflict, format!("multiple IDs found with provided prefix: {text}: {}", ids.join(", ")))
        .with_hint("give more digits")
}
