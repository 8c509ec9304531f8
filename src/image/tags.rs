//! References and ids: `image/repositories.json` and `image/configs/sha256/<hex>`.
//!
//! A config is written after its layers and a reference after its config, so whatever can be found is
//! complete. Both survive a power cut.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::config::{ConfigFile, MAX_DOCUMENT};
use super::digest::{Digest, is_hex};
use super::reference::Reference;
use super::{Image, Store};
use crate::error::{Class, Failure};
use crate::store::{self, Durability, Lock};

/// `repositories.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Repositories {
    version: u32,
    /// Canonical reference to image id (`sha256:…`).
    pub(super) references: BTreeMap<String, String>,
}

impl Default for Repositories {
    fn default() -> Self {
        Repositories { version: 1, references: BTreeMap::new() }
    }
}

impl Store {
    fn configs(&self) -> PathBuf {
        self.layout.image().join("configs/sha256")
    }

    /// What is tagged.
    pub(super) fn repositories(&self) -> Result<Repositories> {
        Ok(store::read_json(&self.layout.image().join("repositories.json"))?.unwrap_or_default())
    }

    /// The id that `text` means: reference, id, or unambiguous prefix of an id, in this order.
    pub(super) fn resolve(&self, text: &str) -> Result<Option<Digest>> {
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
            return Ok(self.configs().join(digest.hex()).exists().then_some(digest));
        }
        let mut matches: Vec<Digest> = self.ids()?.into_iter().filter(|id| id.hex().starts_with(digits)).collect();
        if matches.len() > 1 {
            matches.sort();
            return Err(ambiguous(text, &matches).into());
        }
        Ok(matches.pop())
    }

    fn resolve_reference(&self, reference: &Reference) -> Result<Option<Digest>> {
        let repositories = self.repositories()?;
        if let Some(id) = repositories.references.get(&reference.canonical()) {
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
    pub(super) fn ids(&self) -> Result<Vec<Digest>> {
        let directory = self.configs();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| format!("read {}", directory.display()))?.file_name();
            // Others are temporaries of writes.
            ids.extend(name.to_str().and_then(Digest::from_hex));
        }
        Ok(ids)
    }

    /// The config of an image, verified; `None` when there is none.
    pub(super) fn config(&self, id: &Digest) -> Result<Option<ConfigFile>> {
        let path = self.configs().join(id.hex());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        let length = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_DOCUMENT);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
        if Digest::of(&bytes) != *id {
            return Err(Failure::engine(format!("{} is damaged: its digest is another", path.display()))
                .with_hint("load the image again")
                .into());
        }
        ConfigFile::parse(&bytes).with_context(|| path.display().to_string()).map(Some)
    }

    /// The image with this id.
    pub(super) fn image(&self, id: &Digest) -> Result<Option<Image>> {
        Ok(self.config(id)?.map(|config| config.into_image(id)))
    }

    /// Keeps a config whose layers are all there; gives the image's id.
    pub(super) fn put_config(&self, bytes: &[u8]) -> Result<Digest> {
        let id = Digest::of(bytes);
        let directory = self.configs();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        store::write(&directory.join(id.hex()), bytes, Durability::PowerCut)?;
        Ok(id)
    }

    /// Lets `references` mean the image `id`, whatever they meant before.
    pub(super) fn tag(&self, references: &[Reference], id: &Digest) -> Result<()> {
        if references.is_empty() {
            return Ok(());
        }
        let _lock = Lock::acquire(&self.layout.image().join("lock"))?
            .ok_or_else(|| Failure::engine(format!("{} was removed", self.layout.image().display())))?;
        let mut repositories = self.repositories()?;
        let mut changed = false;
        for reference in references {
            let before = repositories.references.insert(reference.canonical(), id.to_string());
            changed |= before.as_deref() != Some(&id.to_string());
        }
        if changed {
            store::write_json(&self.layout.image().join("repositories.json"), &repositories, Durability::PowerCut)?;
        }
        Ok(())
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
