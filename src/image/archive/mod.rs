//! Archives of images: what `docker save` writes, and OCI image layouts (OCI image spec, image-layout.md).

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Failure;
use crate::image::Store;
use crate::image::config::ConfigFile;
use crate::image::digest::Digest;
use crate::image::index::Archive;
use crate::image::layers::Wanted;
use crate::image::manifest::Descriptor;
use crate::image::reference::Reference;
use crate::image::tags::Arrival;
use crate::image::unpack::Keep;

/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 4;

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// `sha256:…`.
    pub id: String,
    /// The references the archive gave it, in familiar form.
    pub references: Vec<String>,
}

/// An image as an archive describes it: names of members, not yet believed.
struct Source {
    config: String,
    config_digest: Option<Digest>,
    layers: Vec<LayerSource>,
    references: Vec<Reference>,
}

struct LayerSource {
    member: String,
    /// Digest of the member as it stands, compressed or not.
    digest: Option<Digest>,
}

impl Store {
    /// Loads the images in an archive. References move only when all images are in.
    ///
    /// # Errors
    /// An archive that is not one of images, is truncated or malformed, or whose digests do not hold.
    /// Layers of an image that cannot be loaded do not stay.
    pub fn load(&self, input: &mut dyn Read) -> Result<Vec<Loaded>> {
        let archive = Archive::spool(input, &self.layout.image()).context("load image")?;
        if !is_image(&archive) {
            return Err(Failure::engine("load image: the archive has neither manifest.json nor index.json")
                .with_hint(
                    "expected is an archive of images as `docker save` writes it, or a tar of an OCI layout; \
                     this may be the plain tar of a root file system",
                )
                .into());
        }
        self.load_archive(&archive).context("load image")
    }

    pub(in crate::image) fn load_archive(&self, archive: &Archive) -> Result<Vec<Loaded>> {
        let sources = if archive.contains("manifest.json") { docker(archive)? } else { oci(archive)? };
        let mut tagged = Vec::new();
        for source in sources {
            let id = self.load_source(archive, &source)?;
            tagged.push((id, source.references));
        }
        let mut loaded = Vec::new();
        for (id, references) in tagged {
            self.tag(&references, &id)?;
            loaded
                .push(Loaded { id: id.to_string(), references: references.iter().map(Reference::familiar).collect() });
        }
        Ok(loaded)
    }

    fn load_source(&self, archive: &Archive, source: &Source) -> Result<Digest> {
        let bytes = archive.document(&source.config)?;
        let id = Digest::of(&bytes);
        if let Some(expected) = &source.config_digest
            && *expected != id
        {
            bail!("image config {expected} has the digest {id}: it is damaged");
        }
        let diff_ids = ConfigFile::parse(&bytes)?.diff_ids()?;
        if diff_ids.len() != source.layers.len() {
            let (expected, found) = (diff_ids.len(), source.layers.len());
            bail!("invalid manifest, layers length mismatch: expected {expected}, got {found}");
        }
        let lease = self.lease()?;
        for (layer, diff_id) in source.layers.iter().zip(&diff_ids) {
            let (section, size) = archive.member(&layer.member)?;
            let blob = layer.digest.as_ref().map(|digest| Descriptor::new("", digest.clone(), size));
            let wanted = Wanted { diff_id: Some(diff_id), blob: blob.as_ref(), keep: Keep::Blob };
            self.obtain(&lease, wanted, || Ok(Box::new(section)), || {}).with_context(|| format!("layer {diff_id}"))?;
        }
        self.record(&Arrival { config: &bytes, manifest: None, references: &[], digests: &[] })
    }
}

/// Whether the archive says that it is one of images.
pub(in crate::image) fn is_image(archive: &Archive) -> bool {
    archive.contains("manifest.json") || (archive.contains("index.json") && archive.contains("oci-layout"))
}

fn document<T: DeserializeOwned>(archive: &Archive, name: &str) -> Result<T> {
    serde_json::from_slice(&archive.document(name)?).with_context(|| format!("parse {name}"))
}

/// An image in the `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

fn docker(archive: &Archive) -> Result<Vec<Source>> {
    let manifests: Vec<DockerManifest> = document(archive, "manifest.json")?;
    if manifests.is_empty() {
        bail!("manifest.json names no image");
    }
    let source = |manifest: DockerManifest| {
        let tags = manifest.repo_tags.unwrap_or_default();
        let references = tags.iter().map(|tag| tag.parse().with_context(|| format!("parse tag {tag:?}")));
        let layers = manifest.layers.unwrap_or_default().into_iter();
        Ok(Source {
            config_digest: promised(&manifest.config),
            config: manifest.config,
            layers: layers.map(|member| LayerSource { digest: blob(&member), member }).collect(),
            references: references.collect::<Result<_>>()?,
        })
    };
    manifests.into_iter().map(source).collect()
}

/// The digest in a blob's name.
fn blob(member: &str) -> Option<Digest> {
    Digest::from_hex(member.strip_prefix("blobs/sha256/")?)
}

/// The digest in a config's name: `blobs/sha256/<hex>`, or `<hex>.json` before Docker 25.
fn promised(member: &str) -> Option<Digest> {
    blob(member).or_else(|| Digest::from_hex(member.strip_suffix(".json")?))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchiveDescriptor {
    digest: String,
    size: u64,
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An index or a manifest. Whoever has the fields of both is neither (CVE-2021-41190).
#[derive(Debug, Deserialize)]
struct Document {
    manifests: Option<Vec<ArchiveDescriptor>>,
    config: Option<ArchiveDescriptor>,
    layers: Option<Vec<ArchiveDescriptor>>,
}

fn oci(archive: &Archive) -> Result<Vec<Source>> {
    let index: Document = document(archive, "index.json")?;
    let (Some(manifests), None, None) = (index.manifests, index.config, index.layers) else {
        bail!("index.json is not an image index");
    };
    let mut sources = Vec::new();
    for descriptor in manifests.into_iter().filter(for_this_machine) {
        let references = references(&descriptor);
        sources.push(oci_image(archive, &descriptor, references, 0)?);
    }
    if sources.is_empty() {
        bail!("index.json names no image for this machine");
    }
    Ok(sources)
}

fn oci_image(
    archive: &Archive,
    descriptor: &ArchiveDescriptor,
    references: Vec<Reference>,
    depth: usize,
) -> Result<Source> {
    let (member, digest) = oci_blob(archive, descriptor)?;
    archive.verify(&member, &digest)?;
    let document: Document = document(archive, &member)?;
    match (document.manifests, document.config, document.layers) {
        (Some(manifests), None, None) if depth < MAX_DEPTH => {
            let chosen = manifests.iter().find(|descriptor| for_this_machine(descriptor));
            let chosen = chosen.with_context(|| format!("{member} names no image for this machine"))?;
            oci_image(archive, chosen, references, depth + 1)
        }
        (Some(_), None, None) => bail!("indexes are nested more than {MAX_DEPTH} deep"),
        (None, Some(config), Some(layers)) => {
            let (config, config_digest) = oci_blob(archive, &config)?;
            let layer = |descriptor: &ArchiveDescriptor| {
                let (member, digest) = oci_blob(archive, descriptor)?;
                Ok(LayerSource { member, digest: Some(digest) })
            };
            let layers = layers.iter().map(layer).collect::<Result<_>>()?;
            Ok(Source { config, config_digest: Some(config_digest), layers, references })
        }
        _ => bail!("{member} is neither an image manifest nor an index"),
    }
}

/// The member that a descriptor means. Its digest is checked for form before it becomes a name.
fn oci_blob(archive: &Archive, descriptor: &ArchiveDescriptor) -> Result<(String, Digest)> {
    let digest = Digest::parse(&descriptor.digest)?;
    let member = format!("blobs/sha256/{}", digest.hex());
    let (_, size) = archive.member(&member)?;
    if size != descriptor.size {
        bail!("{member} has {size} bytes, not {} as its descriptor says", descriptor.size);
    }
    Ok((member, digest))
}

/// Attestations stand among the images, for the platform `unknown/unknown`.
fn for_this_machine(descriptor: &ArchiveDescriptor) -> bool {
    let architecture = crate::image::config::architecture();
    descriptor.platform.as_ref().is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
}

/// Complete references in a descriptor's annotations. `ref.name` may also be a bare tag, which names
/// nothing without a repository.
fn references(descriptor: &ArchiveDescriptor) -> Vec<Reference> {
    let annotation = |key: &str| descriptor.annotations.as_ref()?.get(key).cloned();
    let name = annotation("io.containerd.image.name")
        .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':'])));
    name.and_then(|name| name.parse().ok()).into_iter().collect()
}
