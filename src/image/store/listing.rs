//! What images there are, and what their configs say.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::Store;
use crate::image::oci::config::{ConfigFile, layers_of};
use crate::image::oci::digest::Digest;
use crate::image::oci::reference::Reference;

/// An image in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// `sha256:…`.
    pub id: String,
    /// References in their familiar form (`busybox:latest`), sorted; none for a dangling image.
    pub references: Vec<String>,
    /// Names with a digest that a registry knows it by (`busybox@sha256:…`), sorted.
    pub digests: Vec<String>,
    /// When it was built, as its config says.
    pub created: Option<Timestamp>,
    /// Bytes of its unpacked layers.
    pub size: u64,
    /// Diff ids (`sha256:…`) of its layers, lowest first.
    pub layers: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Store {
    /// All images, newest first. One whose config is damaged is listed by its id, with the layers that can
    /// still be made out.
    pub fn list(&self) -> Result<Vec<Summary>> {
        let repositories = self.repositories()?;
        let mut references = by_image(repositories.references);
        let mut digests = by_image(repositories.digests);
        let mut images = Vec::new();
        for id in self.ids()? {
            let Some(mut image) = self.describe(&id)? else { continue };
            image.references = references.remove(&image.id).unwrap_or_default();
            image.digests = digests.remove(&image.id).unwrap_or_default();
            images.push(image);
        }
        images.sort_by(|a, b| (b.created, &a.references, &a.id).cmp(&(a.created, &b.references, &b.id)));
        Ok(images)
    }

    /// The one image that `text` means, as [`Store::list`] shows it; `None` when there is none.
    ///
    /// # Errors
    /// See [`Store::get`].
    pub fn summary(&self, text: &str) -> Result<Option<Summary>> {
        let Some(id) = self.resolve(text)? else { return Ok(None) };
        let Some(mut image) = self.describe(&id)? else { return Ok(None) };
        let repositories = self.repositories()?;
        image.references = by_image(repositories.references).remove(&image.id).unwrap_or_default();
        image.digests = by_image(repositories.digests).remove(&image.id).unwrap_or_default();
        Ok(Some(image))
    }

    /// What the config tells; `None` when the image was removed meanwhile.
    fn describe(&self, id: &Digest) -> Result<Option<Summary>> {
        let mut image = Summary { id: id.to_string(), ..Summary::default() };
        match self.config(id) {
            Ok(Some(config)) => {
                image.created = config.created.as_deref().and_then(|text| text.parse().ok());
                let parsed = config.into_image(id);
                image.layers = parsed.layers;
                image.labels = parsed.defaults.labels;
            }
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!("{error:#}");
                let bytes = std::fs::read(self.configs().path(id)).unwrap_or_default();
                image.layers = layers_of(&bytes).iter().map(Digest::to_string).collect();
            }
        }
        image.size = image.layers.iter().map(|layer| self.layer_size(layer)).fold(0, u64::saturating_add);
        Ok(Some(image))
    }

    /// The config of the image `id` (`sha256:…`) as a document; `None` when there is no such image.
    ///
    /// # Errors
    /// A config whose digest is another, or that is no JSON.
    pub fn config_document(&self, id: &str) -> Result<Option<serde_json::Value>> {
        // Through the checked form first: what is not an image's config is nothing to show.
        let id = Digest::parse(id)?;
        let Some(bytes) = self.configs().read(&id)? else { return Ok(None) };
        let path = self.configs().path(&id);
        ConfigFile::parse(&bytes).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display())).map(Some)
    }

    /// Bytes of all files in a layer, as recorded when it was unpacked; 0 when that is not known.
    pub fn size_of_layer(&self, diff_id: &str) -> u64 {
        self.layer_size(diff_id)
    }
}

/// Names in their familiar form by the id of the image that they mean, sorted.
fn by_image(names: BTreeMap<String, String>) -> BTreeMap<String, Vec<String>> {
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, id) in names {
        let familiar = name.parse::<Reference>().map_or(name, |parsed| parsed.familiar());
        images.entry(id).or_default().push(familiar);
    }
    images.values_mut().for_each(|names| names.sort());
    images
}
