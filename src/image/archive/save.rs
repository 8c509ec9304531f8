//! `save`: images from the store into an archive that every tool reads.
//!
//! An image goes out under the manifest that it came with, with its compressed layers, byte for byte, as long as
//! the store has them all. Otherwise a manifest is made for what there is: compressed layers where they were kept,
//! the exact uncompressed tar where not.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;

use super::annotation;
use super::index::blob_name;
use super::write::Members;
use crate::error::Failure;
use crate::image::Store;
use crate::image::layer::{recipe, stream};
use crate::image::oci::config::ConfigFile;
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::{Descriptor, Manifest, media};
use crate::image::oci::platform::Platform;
use crate::image::oci::reference::Reference;
use crate::image::store::lease::Lease;

/// What is to be saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveRequest {
    /// References, repositories (all their tags), ids and prefixes of ids.
    pub names: Vec<String>,
    /// The platform that the images must be for.
    pub platform: Option<Platform>,
    /// Form of the archive.
    pub form: Form,
}

/// Forms of archives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// What Docker writes since version 25: an OCI layout with a `manifest.json`.
    #[default]
    Docker,
    /// An OCI layout alone, in the OCI's media types.
    Oci,
}

/// An image that was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// `sha256:…`.
    pub id: String,
    /// The references that it was saved with, in familiar form.
    pub references: Vec<String>,
}

/// An image that was asked for.
struct Wanted {
    id: Digest,
    references: Vec<Reference>,
}

/// An image as it goes out.
struct Outgoing {
    wanted: Wanted,
    config: Vec<u8>,
    manifest: Vec<u8>,
    parsed: Manifest,
    diff_ids: Vec<Digest>,
}

impl Outgoing {
    /// In an archive that says it is the OCI's, so is the manifest: umoci, for one, reads no other.
    fn into_oci(mut self) -> Result<Outgoing> {
        if self.parsed.media_type == media::DOCKER_MANIFEST {
            self.parsed = self.parsed.into_oci();
            self.manifest = self.parsed.to_bytes()?;
        }
        Ok(self)
    }
}

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Store {
    /// Writes an archive of images to `out`. The same images in the same store always give the same bytes.
    ///
    /// # Errors
    /// A name that no image has, an image for another platform, a layer that is damaged, `out` that takes no more.
    pub fn save(&self, request: &SaveRequest, out: &mut dyn Write) -> Result<Vec<Saved>> {
        // Nothing is written before every name has been found.
        let lease = self.lease()?;
        let mut images = Vec::new();
        for wanted in self.wanted(&request.names)? {
            let image = self.outgoing(wanted, request.platform.as_ref(), &lease)?;
            images.push(if request.form == Form::Oci { image.into_oci()? } else { image });
        }
        let mut members = Members::new(out);
        // Names first and contents after them, so that a reader of the stream knows what comes.
        members.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        members.document("index.json", &index(&images)?)?;
        if request.form == Form::Docker {
            members.document("manifest.json", &docker_manifest(&images)?)?;
            let repositories = repositories(&images);
            if !repositories.is_empty() {
                members.document("repositories", &serde_json::to_vec(&repositories).context("encode repositories")?)?;
            }
        }
        members.directory("blobs/")?;
        members.directory("blobs/sha256/")?;
        for image in &images {
            members.blob(&image.manifest)?;
            members.blob(&image.config)?;
            for (layer, diff_id) in image.parsed.layers.iter().zip(&image.diff_ids) {
                members.layer(&layer.digest, layer.size, || self.open_layer(&layer.digest, diff_id))?;
            }
        }
        members.finish()?;
        let saved = |image: Outgoing| Saved {
            id: image.wanted.id.to_string(),
            references: image.wanted.references.iter().map(Reference::familiar).collect(),
        };
        Ok(images.into_iter().map(saved).collect())
    }

    /// The images that `names` mean, each once, in the order they are first named.
    fn wanted(&self, names: &[String]) -> Result<Vec<Wanted>> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut add = |id: Digest, reference: Option<Reference>| {
            let at = wanted.iter().position(|known| known.id == id).unwrap_or_else(|| {
                wanted.push(Wanted { id, references: Vec::new() });
                wanted.len() - 1
            });
            let references = &mut wanted[at].references;
            references.extend(reference.filter(|reference| !references.contains(reference)));
        };
        for name in names {
            let tags = self.tags_named(name)?;
            if !tags.is_empty() {
                tags.into_iter().for_each(|(reference, id)| add(id, Some(reference)));
                continue;
            }
            let Some(id) = self.resolve(name)? else {
                return Err(Failure::not_found(format!("No such image: {name}"))
                    .with_hint("see what is there: mydocker images")
                    .into());
            };
            // Named by its id, an image goes out without a name.
            let reference: Option<Reference> = name.parse().ok();
            let reference = reference.filter(|reference| {
                reference.digest().is_none()
                    && matches!(self.resolve_reference(reference), Ok(Some(found)) if found == id)
            });
            add(id, reference);
        }
        Ok(wanted)
    }

    /// All tags of the repository `name`; none when it has a tag or a digest, or is no repository.
    fn tags_named(&self, name: &str) -> Result<Vec<(Reference, Digest)>> {
        let Ok(reference) = name.parse::<Reference>() else { return Ok(Vec::new()) };
        let tagged = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        if tagged {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for (canonical, id) in self.repositories()?.references {
            let Ok(other) = canonical.parse::<Reference>() else { continue };
            if other.repository() == reference.repository() {
                found.push((other, Digest::parse(&id).context("repositories.json is damaged")?));
            }
        }
        Ok(found)
    }

    /// Reads what goes out of an image, and keeps it from being swept until it has gone.
    fn outgoing(&self, wanted: Wanted, platform: Option<&Platform>, lease: &Lease) -> Result<Outgoing> {
        let id = &wanted.id;
        let config = self.configs().read(id)?.with_context(|| format!("image {id} was removed"))?;
        let parsed = ConfigFile::parse(&config)?;
        let name = wanted.references.first().map_or_else(|| id.to_string(), Reference::familiar);
        parsed.expect_platform(platform, &name)?;
        let diff_ids = parsed.diff_ids()?;
        for diff_id in &diff_ids {
            lease.hold(self, diff_id)?;
        }
        let (manifest, parsed) = match self.original_manifest(id, &diff_ids)? {
            Some(original) => original,
            None => self.made_manifest(id, config.len() as u64, &diff_ids)?,
        };
        Ok(Outgoing { wanted, config, manifest, parsed, diff_ids })
    }

    /// The manifest that the image came with, where all its layers can be told as it names them.
    fn original_manifest(&self, id: &Digest, diff_ids: &[Digest]) -> Result<Option<(Vec<u8>, Manifest)>> {
        let mut manifests = self.manifests_of(id)?;
        // By digest, whatever the file system's order; the OCI's before Docker's, which fewer tools read.
        manifests.sort_by_key(|(digest, manifest)| (manifest.media_type != media::OCI_MANIFEST, digest.clone()));
        for (digest, manifest) in manifests {
            let complete = manifest.layers.len() == diff_ids.len()
                && manifest.layers.iter().zip(diff_ids).all(|(layer, diff_id)| self.has_bytes(&layer.digest, diff_id));
            if complete && let Some(bytes) = self.manifests().read(&digest)? {
                return Ok(Some((bytes, manifest)));
            }
        }
        Ok(None)
    }

    /// Whether a layer's bytes with this digest can be given out.
    fn has_bytes(&self, digest: &Digest, diff_id: &Digest) -> bool {
        self.blobs().contains(digest) || (digest == diff_id && self.has_layer(diff_id))
    }

    /// A manifest for what the store has of the image.
    fn made_manifest(&self, id: &Digest, size: u64, diff_ids: &[Digest]) -> Result<(Vec<u8>, Manifest)> {
        let config = Descriptor::new(media::OCI_CONFIG, id.clone(), size);
        let layers = diff_ids.iter().map(|diff_id| self.kept_form(diff_id)).collect::<Result<_>>()?;
        let manifest = Manifest { media_type: media::OCI_MANIFEST.to_owned(), config, layers };
        Ok((manifest.to_bytes()?, manifest))
    }

    /// The form in which a layer was kept: the compressed one that came last, else the plain tar.
    fn kept_form(&self, diff_id: &Digest) -> Result<Descriptor> {
        let forms = self.layer_record(diff_id)?.blobs;
        if let Some(form) = forms.iter().rev().find(|form| self.blobs().contains(&form.digest)) {
            let media_type = match form.media_type.as_str() {
                _ if form.digest == *diff_id => media::OCI_LAYER,
                text if text.ends_with("gzip") => media::OCI_LAYER_GZIP,
                text if text.ends_with("zstd") => media::OCI_LAYER_ZSTD,
                text => text,
            };
            return Ok(Descriptor::new(media_type, form.digest.clone(), form.size));
        }
        let length = recipe::length(&self.layer_directory(diff_id)).with_context(|| format!("layer {diff_id}"))?;
        Ok(Descriptor::new(media::OCI_LAYER, diff_id.clone(), length))
    }

    /// A layer's bytes in the form that has this digest.
    pub(in crate::image) fn open_layer(&self, digest: &Digest, diff_id: &Digest) -> Result<Box<dyn Read>> {
        if let Some(blob) = self.blobs().open(digest)? {
            return Ok(Box::new(blob));
        }
        let directory = self.layer_directory(diff_id);
        if directory.join("recipe").exists() {
            return Ok(Box::new(recipe::tar(&directory)?));
        }
        // One that cannot be told again was kept as it came, and that may be another form than this one.
        for form in self.layer_record(diff_id)?.blobs {
            if let Some(blob) = self.blobs().open(&form.digest)? {
                return stream::decompress(blob);
            }
        }
        bail!("layer {diff_id} has neither a recipe nor a blob")
    }
}

/// `index.json`: a descriptor for each name of each image.
fn index(images: &[Outgoing]) -> Result<Vec<u8>> {
    let mut manifests = Vec::new();
    for image in images {
        let plain = Descriptor::new(&image.parsed.media_type, Digest::of(&image.manifest), image.manifest.len() as u64);
        if image.wanted.references.is_empty() {
            manifests.push(plain.clone());
        }
        for reference in &image.wanted.references {
            let mut annotations = BTreeMap::from([(annotation::IMAGE_NAME.to_owned(), reference.canonical())]);
            annotations.extend(reference.tag().map(|tag| (annotation::REF_NAME.to_owned(), tag.to_owned())));
            manifests.push(Descriptor { annotations: Some(annotations), ..plain.clone() });
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
    serde_json::to_vec(&index).context("encode index.json")
}

fn docker_manifest(images: &[Outgoing]) -> Result<Vec<u8>> {
    let entry = |image: &Outgoing| DockerManifest {
        config: blob_name(&image.wanted.id),
        repo_tags: Some(image.wanted.references.iter().map(Reference::familiar).collect::<Vec<_>>())
            .filter(|tags| !tags.is_empty()),
        layers: image.parsed.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
    };
    serde_json::to_vec(&images.iter().map(entry).collect::<Vec<_>>()).context("encode manifest.json")
}

/// `repositories`: what Docker read before version 1.10, repository → tag → topmost layer.
fn repositories(images: &[Outgoing]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let Some(top) = image.parsed.layers.last() else { continue };
        for (reference, tag) in image.wanted.references.iter().filter_map(|name| Some((name, name.tag()?))) {
            let tags = repositories.entry(reference.familiar_name()).or_default();
            tags.insert(tag.to_owned(), top.digest.hex().to_owned());
        }
    }
    repositories
}
