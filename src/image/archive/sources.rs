//! What an archive says that it holds: names of members, none of them believed yet.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::index::{Archive, blob_name};
use super::{Choice, annotation, is_layout};
use crate::error::{Class, Failure};
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::{Descriptor, Document, choose, media, not_an_image};
use crate::image::oci::platform::Platform;
use crate::image::oci::reference::Reference;

/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 4;
/// The most images of one archive.
const MAX_IMAGES: usize = 10_000;

/// An image as an archive describes it.
pub(super) struct Source {
    /// Member that is its config.
    pub(super) config: String,
    /// The config's digest, where the archive tells it.
    pub(super) config_digest: Option<Digest>,
    /// Its layers, lowest first.
    pub(super) layers: Vec<LayerSource>,
    /// The manifest that it came with, verified.
    pub(super) manifest: Option<Vec<u8>>,
    /// What it is called.
    pub(super) references: Vec<Reference>,
}

/// A layer of it.
pub(super) struct LayerSource {
    /// Member that is the layer, compressed or not.
    pub(super) member: String,
    /// The member's digest, size and type as it stands, where the archive tells them.
    pub(super) blob: Option<Descriptor>,
}

/// The images in an archive.
///
/// # Errors
/// Documents that are malformed, damaged or contradict each other; no image that fits `choice`.
pub(super) fn sources(archive: &Archive, choice: &Choice) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut passed_over = None;
    if is_layout(archive) {
        // An archive that Docker reads may hold an index of nothing that is meant for this machine.
        match layout(archive, choice) {
            Ok(found) => sources = found,
            Err(error) if archive.contains("manifest.json") && is_not_found(&error) => passed_over = Some(error),
            Err(error) => return Err(error),
        }
    }
    if archive.contains("manifest.json") {
        for source in docker(archive)? {
            join(&mut sources, source);
        }
    }
    agree(&sources)?;
    match (sources.is_empty(), passed_over) {
        (false, _) => Ok(sources),
        (true, Some(error)) => Err(error),
        (true, None) => bail!("the archive names no image"),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.class == Class::NotFound)
}

/// Adds an image of `manifest.json` to those of the index; one that stands in both is one.
fn join(sources: &mut Vec<Source>, source: Source) {
    let same = |other: &&mut Source| source.config_digest.is_some() && other.config_digest == source.config_digest;
    match sources.iter_mut().find(same) {
        Some(known) => {
            let new = source.references.into_iter().filter(|name| !known.references.contains(name));
            let new: Vec<Reference> = new.collect();
            known.references.extend(new);
        }
        None => sources.push(source),
    }
}

/// Holds that no name means two images: which one is run would depend on who reads the archive.
fn agree(sources: &[Source]) -> Result<()> {
    let mut names: BTreeMap<&Reference, &str> = BTreeMap::new();
    for source in sources {
        for name in &source.references {
            if names.insert(name, &source.config).is_some_and(|other| other != source.config) {
                return Err(Failure::engine(format!("{name} is the name of two images in the archive"))
                    .with_hint("index.json and manifest.json contradict each other: do not trust this archive")
                    .into());
            }
        }
    }
    Ok(())
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
    let bytes = archive.document("manifest.json")?;
    let manifests: Vec<DockerManifest> = serde_json::from_slice(&bytes).context("parse manifest.json")?;
    if manifests.is_empty() {
        bail!("manifest.json names no image");
    }
    if manifests.len() > MAX_IMAGES {
        bail!("manifest.json names more than {MAX_IMAGES} images");
    }
    let source = |manifest: DockerManifest| {
        let tags = manifest.repo_tags.unwrap_or_default();
        let layer = |member: String| {
            let described = in_blob_name(&member).zip(archive.size(&member));
            LayerSource { blob: described.map(|(digest, size)| Descriptor::new("", digest, size)), member }
        };
        Ok(Source {
            config_digest: promised(&manifest.config),
            config: manifest.config,
            layers: manifest.layers.unwrap_or_default().into_iter().map(layer).collect(),
            manifest: None,
            references: tags.iter().map(|text| tag(text)).collect::<Result<_>>()?,
        })
    };
    manifests.into_iter().map(source).collect()
}

/// A name that an archive may give. One with a digest is for registries to give: what it leads to must be what the
/// digest says, and in an archive nothing vouches for that.
fn tag(text: &str) -> Result<Reference> {
    // Not the command line is at fault but the archive: another kind of failure.
    let refused = |reason: &str| Failure::engine(format!("invalid tag {text:?} in manifest.json{reason}"));
    let reference: Reference = text.parse().map_err(|error| refused(&format!(": {error}")))?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(refused(": an archive cannot name an image by a digest").into()),
    }
}

/// The digest in a blob's name.
fn in_blob_name(member: &str) -> Option<Digest> {
    Digest::from_hex(member.strip_prefix("blobs/sha256/")?)
}

/// The digest in a config's name: `blobs/sha256/<hex>`, or `<hex>.json` before Docker 25.
fn promised(member: &str) -> Option<Digest> {
    in_blob_name(member).or_else(|| Digest::from_hex(member.strip_suffix(".json")?))
}

fn layout(archive: &Archive, choice: &Choice) -> Result<Vec<Source>> {
    let bytes = archive.document("index.json")?;
    let index = match Document::parse(&bytes, media::OCI_INDEX).context("parse index.json")? {
        Document::Index(index) if index.is_empty() => bail!("index.json names no image"),
        Document::Index(index) => index,
        Document::Manifest(_) => bail!("index.json is not an image index"),
    };
    if index.len() > MAX_IMAGES {
        bail!("index.json names more than {MAX_IMAGES} images");
    }
    let platform = choice.platform();
    let mut sources = Vec::new();
    let mut other = None;
    for descriptor in index.iter().filter(|descriptor| fits(descriptor, &platform)) {
        match image(archive, descriptor, references(descriptor), &platform, 0)? {
            Found::Image(source) => sources.push(source),
            Found::Other(kind) => other = Some(kind),
        }
    }
    if sources.is_empty() {
        if let Some(kind) = other {
            return Err(Failure { class: Class::NotFound, ..not_an_image("the archive", &kind) }.into());
        }
        // Fails: nothing fits. Its words tell what there is.
        choose(&index, &platform)?;
    }
    Ok(sources)
}

fn fits(descriptor: &Descriptor, wanted: &Platform) -> bool {
    descriptor.platform.as_ref().is_none_or(|platform| wanted.accepts(platform))
}

/// What a descriptor leads to.
enum Found {
    Image(Source),
    /// An artifact, with the type of its config: layouts hold signatures beside what they sign.
    Other(String),
}

fn image(
    archive: &Archive,
    descriptor: &Descriptor,
    references: Vec<Reference>,
    platform: &Platform,
    depth: usize,
) -> Result<Found> {
    member(archive, descriptor)?;
    let bytes = archive.blob(&descriptor.digest)?;
    match Document::parse(&bytes, &descriptor.media_type)? {
        Document::Index(index) if depth < MAX_DEPTH => {
            image(archive, choose(&index, platform)?, references, platform, depth + 1)
        }
        Document::Index(_) => bail!("indexes are nested more than {MAX_DEPTH} deep"),
        Document::Manifest(manifest) => {
            if let Some(kind) = manifest.artifact() {
                return Ok(Found::Other(kind.to_owned()));
            }
            let layer =
                |blob: &Descriptor| Ok(LayerSource { member: member(archive, blob)?, blob: Some(blob.clone()) });
            Ok(Found::Image(Source {
                config: member(archive, &manifest.config)?,
                config_digest: Some(manifest.config.digest.clone()),
                layers: manifest.layers.iter().map(layer).collect::<Result<_>>()?,
                manifest: Some(bytes),
                references,
            }))
        }
    }
}

/// The member that a descriptor means; its size is held against the archive's.
fn member(archive: &Archive, descriptor: &Descriptor) -> Result<String> {
    let name = blob_name(&descriptor.digest);
    let (_, size) = archive.member(&name)?;
    if size != descriptor.size {
        bail!("{name} has {size} bytes, not {} as its descriptor says", descriptor.size);
    }
    Ok(name)
}

/// Complete references in a descriptor's annotations. `ref.name` may also be a bare tag, which names
/// nothing without a repository.
fn references(descriptor: &Descriptor) -> Vec<Reference> {
    let annotation = |key: &str| descriptor.annotations.as_ref()?.get(key).cloned();
    let name = annotation(annotation::IMAGE_NAME)
        .or_else(|| annotation(annotation::REF_NAME).filter(|name| name.contains(['/', ':'])));
    let name: Option<Reference> = name.and_then(|name| name.parse().ok());
    // A name with a digest is one that a registry gives.
    name.filter(|name| name.digest().is_none()).into_iter().collect()
}
