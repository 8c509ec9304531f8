//! Manifests and indexes, of the OCI (image spec, manifest.md, image-index.md) and of Docker (schema 2).
//!
//! Both come from strangers. They are kept byte for byte, because their digest is what others know them
//! by; what is read of them is checked for form, and a document that could be taken for both kinds is
//! refused (CVE-2021-41190).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::config::MAX_LAYERS;
use super::digest::Digest;
use super::platform::Platform;
use crate::error::Failure;

/// Media types: what a registry is told is wanted, and what generated documents say.
pub mod media {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, uncompressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker image manifest, version 2 schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// How the types of Docker's manifests of schema 1 begin, signed and not.
    pub const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, uncompressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// Names content by type, digest and size (OCI image spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type; empty where the document leaves it away.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
    /// Platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// A descriptor of nothing but type, digest and size.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor { media_type: media_type.to_owned(), digest, size, platform: None, annotations: None }
    }
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Media type, told by the document or else by whoever delivered it.
    pub media_type: String,
    /// The image's config.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a manifest's digest may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    /// Schema 1 has these.
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses a manifest or an index. `told` is the media type that came with it, empty when none did.
    ///
    /// # Errors
    /// Malformed JSON; a document that is neither or both; schema 1; a media type that contradicts what
    /// was delivered; more layers than can be stacked.
    pub fn parse(bytes: &[u8], told: &str) -> Result<Document> {
        let raw: Raw = serde_json::from_slice(bytes).context("parse image manifest")?;
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(schema_1().into());
        }
        let told = told.split(';').next().unwrap_or_default().trim();
        let known = |text: &str| {
            matches!(text, media::OCI_MANIFEST | media::OCI_INDEX | media::DOCKER_MANIFEST | media::DOCKER_INDEX)
        };
        if known(told) && !raw.media_type.is_empty() && raw.media_type != told {
            bail!("the manifest calls itself {:?} but was delivered as {told:?}", raw.media_type);
        }
        let media_type = if raw.media_type.is_empty() { told.to_owned() } else { raw.media_type };
        let is_index = matches!(media_type.as_str(), media::OCI_INDEX | media::DOCKER_INDEX);
        let is_manifest = matches!(media_type.as_str(), media::OCI_MANIFEST | media::DOCKER_MANIFEST);
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) if !is_manifest => Ok(Document::Index(manifests)),
            (None, Some(config), Some(layers)) if !is_index => {
                if layers.len() > MAX_LAYERS {
                    bail!("the image has more than {MAX_LAYERS} layers");
                }
                let media_type = if is_manifest {
                    media_type
                } else if config.media_type == media::DOCKER_CONFIG {
                    media::DOCKER_MANIFEST.to_owned()
                } else {
                    media::OCI_MANIFEST.to_owned()
                };
                Ok(Document::Manifest(Manifest { media_type, config, layers }))
            }
            _ => bail!("the document is neither an image manifest nor an image index"),
        }
    }
}

/// Why a manifest of schema 1 is not read.
pub fn schema_1() -> Failure {
    Failure::engine("the image has a manifest of schema 1, which is no longer supported")
        .with_hint("push the image again with a current program")
}

/// The image in an index that `wanted` accepts: the first, as Docker chooses. Attestations, which stand
/// there for `unknown/unknown`, are never it. A variant that was not asked for is what not every processor of
/// the architecture can run (`amd64/v3`); such an image is chosen only by name, but on `arm`, where all have one.
///
/// # Errors
/// None fits; the message tells what there is.
pub fn choose<'a>(index: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    let runs = |platform: &Platform| wanted.accepts(platform) && wanted.is_met_by(platform);
    let fits = |descriptor: &&Descriptor| descriptor.platform.as_ref().is_some_and(runs);
    // An index may hold a single image without saying what it is for.
    let unsaid = |descriptor: &&Descriptor| descriptor.platform.is_none();
    index.iter().find(fits).or_else(|| index.iter().find(unsaid)).ok_or_else(|| {
        let offered: Vec<String> = index
            .iter()
            .filter_map(|descriptor| descriptor.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(Platform::to_string)
            .collect();
        let failure = Failure::not_found(format!("no matching manifest for {wanted} in the manifest list entries"));
        let failure = match offered.is_empty() {
            true => failure.with_hint("there is none for any platform"),
            false => failure.with_hint(format!("there is one for: {}; choose with --platform", offered.join(", "))),
        };
        failure.into()
    })
}

/// Refuses what is an artifact of another `kind` (see [`Manifest::artifact`]).
pub(in crate::image) fn not_an_image(what: &str, kind: &str) -> Failure {
    Failure::engine(format!("{what} is not a container image: its config is of type {kind:?}"))
        .with_hint("it is another kind of artifact; fetch it with the program that made it")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

impl Manifest {
    /// The same image as the OCI writes it: other media types, the same config and layers (OCI image spec,
    /// media-types.md, "Compatibility Matrix").
    pub fn into_oci(self) -> Manifest {
        let layer = |mut layer: Descriptor| {
            match layer.media_type.as_str() {
                media::DOCKER_LAYER_GZIP => layer.media_type = media::OCI_LAYER_GZIP.into(),
                media::DOCKER_LAYER => layer.media_type = media::OCI_LAYER.into(),
                media::DOCKER_LAYER_ZSTD => layer.media_type = media::OCI_LAYER_ZSTD.into(),
                _ => {}
            }
            layer
        };
        let mut config = self.config;
        if config.media_type == media::DOCKER_CONFIG {
            config.media_type = media::OCI_CONFIG.into();
        }
        let layers = self.layers.into_iter().map(layer).collect();
        Manifest { media_type: media::OCI_MANIFEST.into(), config, layers }
    }

    /// The type of the config, where it says that this is no image: registries and layouts hold charts, signatures and
    /// modules too, whose manifests look alike.
    pub fn artifact(&self) -> Option<&str> {
        match self.config.media_type.as_str() {
            "" | media::OCI_CONFIG | media::DOCKER_CONFIG | "application/octet-stream" => None,
            other => Some(other),
        }
    }

    /// The manifest as a document. Its bytes are the same whenever its contents are.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let written =
            Written { schema_version: 2, media_type: &self.media_type, config: &self.config, layers: &self.layers };
        serde_json::to_vec(&written).context("encode image manifest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str, told: &str) -> Result<Document> {
        Document::parse(text.replace("$A", A).as_bytes(), told)
    }

    #[test]
    fn documents_are_told_apart() {
        let manifest = r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"$A","size":1},"layers":[]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"$A","size":1,
            "platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}"#;
        assert!(matches!(parse(manifest, "").unwrap(), Document::Manifest(_)));
        assert!(matches!(parse(index, media::OCI_INDEX).unwrap(), Document::Index(_)));
        assert!(parse(manifest, media::OCI_INDEX).is_err(), "a manifest delivered as an index");
        assert!(parse(index, media::DOCKER_MANIFEST).is_err(), "an index delivered as a manifest");
        for text in [
            "",
            "{}",
            "[]",
            r#"{"manifests":[],"layers":[]}"#,
            r#"{"manifests":[],"config":{"digest":"$A","size":1},"layers":[]}"#,
            r#"{"config":{"digest":"$A","size":1}}"#,
            r#"{"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#,
            r#"{"config":{"digest":"$A","size":-1},"layers":[]}"#,
            r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#,
        ] {
            assert!(parse(text, "").is_err(), "{text}");
        }
    }

    #[test]
    fn platforms_are_normalised_and_matched() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("Linux/ARM64/v8", "linux/arm64/v8"),
            ("armhf", "linux/arm/v7"),
        ] {
            assert_eq!(platform(text).to_string(), shown);
        }
        for text in ["", "a/b/c/d", "linux/", "../../x/y", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert!(platform("linux/arm64").accepts(&platform("linux/arm64/v8")));
        assert!(platform("linux/arm").accepts(&platform("linux/arm/v7")));
        assert!(!platform("linux/arm/v6").accepts(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").accepts(&platform("windows/amd64")));
    }
}
