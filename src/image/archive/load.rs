//! `load`: images from an archive into the store.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};

use super::index::Archive;
use super::sources::{LayerSource, Source, sources};
use super::{Choice, Loaded, is_image};
use crate::error::Failure;
use crate::image::Store;
use crate::image::layer::parallel;
use crate::image::layer::unpack::Keep;
use crate::image::oci::config::ConfigFile;
use crate::image::oci::digest::Digest;
use crate::image::oci::reference::Reference;
use crate::image::store::layers::Wanted;
use crate::image::store::lease::Lease;
use crate::image::store::tags::Arrival;

/// Layers that are unpacked at once. More do not help: one is digested while the other is written.
const PARALLEL: usize = 2;

/// An image whose config has been read and whose layers have not.
struct Expected<'a> {
    id: Digest,
    config: Vec<u8>,
    diff_ids: Vec<Digest>,
    source: &'a Source,
}

impl Store {
    /// Loads the images in an archive that comes as a stream. References move only when all images are in.
    ///
    /// # Errors
    /// An archive that is not one of images, is truncated or malformed, or whose digests do not hold.
    /// Layers of an image that cannot be loaded are left to a sweep.
    pub fn load(&self, input: &mut dyn Read, choice: &Choice) -> Result<Vec<Loaded>> {
        let archive = Archive::spool(input, &self.layout.image()).context("load image")?;
        self.load_from(&archive, choice)
    }

    /// The same from a file, which is read in place unless it is compressed.
    pub fn load_file(&self, file: File, choice: &Choice) -> Result<Vec<Loaded>> {
        let archive = Archive::open(file, &self.layout.image()).context("load image")?;
        self.load_from(&archive, choice)
    }

    fn load_from(&self, archive: &Archive, choice: &Choice) -> Result<Vec<Loaded>> {
        if !is_image(archive) {
            return Err(Failure::engine("load image: the archive has neither manifest.json nor index.json")
                .with_hint(
                    "expected is an archive of images as `docker save` writes it, or a tar of an OCI layout; \
                     the plain tar of a root file system is taken in with `import`",
                )
                .into());
        }
        self.load_archive(archive, choice).context("load image")
    }

    pub(super) fn load_archive(&self, archive: &Archive, choice: &Choice) -> Result<Vec<Loaded>> {
        let sources = sources(archive, choice)?;
        let mut expected = Vec::new();
        for source in &sources {
            expected.extend(read_config(archive, source, choice)?);
        }
        if expected.is_empty() {
            let platform = choice.platform();
            return Err(Failure::not_found(format!("the archive has no image for the platform {platform}")).into());
        }
        let lease = self.lease()?;
        let layers = expected.iter().flat_map(|image| image.source.layers.iter().zip(&image.diff_ids));
        self.obtain_layers(archive, &lease, &layers.collect::<Vec<_>>())?;
        expected.iter().map(|image| self.name(image)).collect()
    }

    /// Has all layers in the store, several at a time.
    fn obtain_layers(&self, archive: &Archive, lease: &Lease, layers: &[(&LayerSource, &Digest)]) -> Result<()> {
        parallel::each(layers, PARALLEL, &AtomicBool::new(false), |(layer, diff_id)| {
            self.obtain_layer(archive, lease, layer, diff_id)
        })
    }

    fn obtain_layer(&self, archive: &Archive, lease: &Lease, layer: &LayerSource, diff_id: &Digest) -> Result<()> {
        let (section, _) = archive.member(&layer.member)?;
        let wanted = Wanted { diff_id: Some(diff_id), blob: layer.blob.as_ref(), keep: Keep::Blob };
        self.obtain(lease, wanted, || Ok(Box::new(section)), || {}).with_context(|| format!("layer {diff_id}"))?;
        Ok(())
    }

    fn name(&self, image: &Expected<'_>) -> Result<Loaded> {
        let references = &image.source.references;
        let before = self.repositories()?;
        let mut displaced = Vec::new();
        for reference in references {
            let old = before.references.get(&reference.canonical());
            displaced
                .extend(old.filter(|old| **old != image.id.to_string()).map(|old| (reference.familiar(), old.clone())));
        }
        let manifest = image.source.manifest.as_deref();
        let id = self.record(&Arrival { config: &image.config, manifest, references, digests: &[] })?;
        Ok(Loaded { id: id.to_string(), references: references.iter().map(Reference::familiar).collect(), displaced })
    }
}

/// Reads and checks an image's config; `None` when it is for a platform that was not asked for.
fn read_config<'a>(archive: &Archive, source: &'a Source, choice: &Choice) -> Result<Option<Expected<'a>>> {
    let bytes = archive.document(&source.config)?;
    let id = Digest::of(&bytes);
    if let Some(expected) = &source.config_digest
        && *expected != id
    {
        bail!("image config {expected} has the digest {id}: it is damaged");
    }
    let config = ConfigFile::parse(&bytes)?;
    if let (Choice::For(wanted), Some(offered)) = (choice, config.platform())
        && !wanted.accepts(&offered)
    {
        return Ok(None);
    }
    let diff_ids = config.diff_ids()?;
    if diff_ids.len() != source.layers.len() {
        let (expected, found) = (diff_ids.len(), source.layers.len());
        bail!("invalid manifest, layers length mismatch: expected {expected}, got {found}");
    }
    Ok(Some(Expected { id, config: bytes, diff_ids, source }))
}
