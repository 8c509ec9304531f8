//! `image inspect`: all that is known of an image, under Docker's names.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{check_platform, no_such_image};
use crate::engine::Engine;
use crate::image::Store;
use crate::image::oci::platform::Platform;

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageView {
    /// `sha256:…`.
    pub id: String,
    /// Its names with a tag.
    pub repo_tags: Vec<String>,
    /// Its names with a digest.
    pub repo_digests: Vec<String>,
    /// The image it was built on, where a builder of old has noted that.
    pub parent: String,
    /// What was said about it.
    pub comment: String,
    /// When it was built, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The builder's version.
    pub docker_version: String,
    /// Who made it.
    pub author: String,
    /// What containers inherit.
    pub config: ImageConfigView,
    /// `amd64`, `arm64`, ….
    pub architecture: String,
    /// `v8`, ….
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Bytes of its unpacked layers.
    pub size: u64,
    /// The same, under its older name.
    pub virtual_size: u64,
    /// Where it lies.
    pub graph_driver: GraphDriverView,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFsView,
    /// What only this store knows of it.
    pub metadata: MetadataView,
}

/// What containers inherit. Docker's form has more fields, all of them of containers only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfigView {
    /// Of old.
    pub hostname: Option<String>,
    /// Of old.
    pub domainname: Option<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Always false.
    pub attach_stdin: Option<bool>,
    /// Always false.
    pub attach_stdout: Option<bool>,
    /// Always false.
    pub attach_stderr: Option<bool>,
    /// `80/tcp` and an empty object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    /// Always false.
    pub tty: Option<bool>,
    /// Always false.
    pub open_stdin: Option<bool>,
    /// Always false.
    pub stdin_once: Option<bool>,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Command.
    pub cmd: Option<Vec<String>>,
    /// How its health is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// The image it was built on.
    pub image: Option<String>,
    /// Paths and empty objects.
    pub volumes: Option<BTreeMap<String, Value>>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Instructions for builds on it.
    pub on_build: Option<Vec<String>>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Signal that `stop` sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Shell of `RUN`, `CMD` and `ENTRYPOINT` in their shell form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// Where an image lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriverView {
    /// Directories of its layers, as overlayfs takes them.
    pub data: BTreeMap<&'static str, String>,
    /// `overlay2`.
    pub name: &'static str,
}

/// Layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFsView {
    /// `layers`.
    #[serde(rename = "Type")]
    pub kind: &'static str,
    /// Diff ids, lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// What only this store knows of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MetadataView {
    /// When it was last tagged; not recorded here, so Go's zero time.
    pub last_tag_time: &'static str,
}

impl Engine {
    /// All that is known of an image.
    ///
    /// # Errors
    /// No such image; one for another platform than `platform`; a damaged config.
    pub fn image_inspect(&self, reference: &str, platform: Option<&Platform>) -> Result<ImageView> {
        let store = Store::open(&self.layout);
        let image = store.summary(reference)?.ok_or_else(|| no_such_image(reference))?;
        let document = store.config_document(&image.id)?.ok_or_else(|| no_such_image(reference))?;
        check_platform(reference, &document, platform)?;
        let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut config: ImageConfigView =
            document.get("config").cloned().and_then(|config| serde_json::from_value(config).ok()).unwrap_or_default();
        config.complete();
        let last = document.get("history").and_then(Value::as_array).and_then(|history| history.last());
        let said = last.and_then(|entry| entry.get("comment")).and_then(Value::as_str).unwrap_or_default();
        let comment = Some(text("comment")).filter(|own| !own.is_empty()).unwrap_or_else(|| said.to_owned());
        let created = Some(text("created")).filter(|created| !created.is_empty());
        let directory = |layer: &String| store.layer(layer).display().to_string();
        let mut directories: Vec<String> = image.layers.iter().rev().map(directory).collect();
        let mut data = BTreeMap::new();
        if !directories.is_empty() {
            data.insert("UpperDir", directories.remove(0));
        }
        if !directories.is_empty() {
            data.insert("LowerDir", directories.join(":"));
        }
        Ok(ImageView {
            repo_tags: image.references,
            repo_digests: image.digests,
            parent: text("parent"),
            comment,
            created: image.created.map(|time| time.to_string()).or(created),
            docker_version: text("docker_version"),
            author: text("author"),
            config,
            architecture: text("architecture"),
            variant: text("variant"),
            os: Some(text("os")).filter(|os| !os.is_empty()).unwrap_or_else(|| "linux".to_owned()),
            size: image.size,
            virtual_size: image.size,
            graph_driver: GraphDriverView { data, name: "overlay2" },
            root_fs: RootFsView { kind: "layers", layers: image.layers },
            metadata: MetadataView { last_tag_time: "0001-01-01T00:00:00Z" },
            id: image.id,
        })
    }
}

impl ImageConfigView {
    /// Docker shows texts and switches whether they were written down or not.
    fn complete(&mut self) {
        for text in [&mut self.hostname, &mut self.domainname, &mut self.user, &mut self.image, &mut self.working_dir] {
            text.get_or_insert_default();
        }
        for switch in [
            &mut self.attach_stdin,
            &mut self.attach_stdout,
            &mut self.attach_stderr,
            &mut self.tty,
            &mut self.open_stdin,
            &mut self.stdin_once,
        ] {
            switch.get_or_insert_default();
        }
        self.stop_signal.take_if(|signal| signal.is_empty());
    }
}
