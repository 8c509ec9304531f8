//! The image store: content-addressed configs and layers, and the references that name them.
//!
//! ```text
//! image/configs/sha256/<hex>         image configs; an image's id is the digest of its config
//! image/repositories.json            canonical reference → image id
//! image/lock                         held while references change
//! overlay2/layers/<diff id>/diff     unpacked layers, shared by all images that have them
//! ```
//! Contents come through [`archive`] (`docker save` and OCI layouts) or [`bundled`] (images that lie
//! beside the program); [`layer`] unpacks, [`staging`] makes that atomic, [`tags`] names.

pub mod archive;
mod bundled;
pub mod changes;
mod config;
mod contents;
mod derive;
pub mod digest;
pub mod edit;
mod header;
mod index;
mod layer;
mod layers;
mod lease;
mod listing;
pub mod manifest;
mod mount_points;
mod pack;
mod parallel;
mod pax;
pub mod progress;
pub mod pull;
pub mod push;
mod recipe;
pub mod reference;
pub mod registry;
mod removal;
mod settle;
mod sparse;
mod stages;
mod stream;
mod survey;
mod sweep;
mod tags;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use manifest::Platform;

pub use listing::Summary;
pub use removal::{Force, Freed, Removed, Tags, User};
pub use survey::{Owner, Piece, Survey};
pub use sweep::{Orphan, OrphanKind};

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:…`, the digest of its config.
    pub id: String,
    /// Diff ids (`sha256:…`) of its layers, lowest first; each is unpacked below `overlay2/layers`.
    pub layers: Vec<String>,
    /// What it was built for, as far as its config says.
    pub platform: Option<Platform>,
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
    /// How to find out whether a container does what it is for.
    pub healthcheck: Option<Healthcheck>,
    /// What commands in shell form are given to; empty for `/bin/sh -c`.
    pub shell: Vec<String>,
}

/// The health check that an image brings along: Docker's extension of the image config, which OCI reserves
/// (image spec, config.md, "Healthcheck"). A number that is 0 was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and words, or `CMD-SHELL` and a line for the shell; empty as the image below has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    /// Between two checks, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one may take, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long the container may take to get ready, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks in that time, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
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

    /// Looks an image up by reference (`busybox`, `a/b:1`, `a@sha256:…`), id or id prefix.
    ///
    /// # Errors
    /// An invalid reference, a prefix that several ids have, a damaged store.
    pub fn get(&self, reference: &str) -> Result<Option<Image>> {
        match self.resolve(reference)? {
            Some(id) => self.image(&id),
            None => Ok(None),
        }
    }

    /// Looks among the bundled images and imports the one that has this name.
    ///
    /// Only a plain name (`busybox`, `busybox:latest`) can be bundled, as `NAME.tar` in `<data root>/image`,
    /// in `images/` of the checkout that the program was built in, or in `/usr/share/mydocker/images`.
    ///
    /// # Errors
    /// An invalid reference; a bundled archive that cannot be imported.
    pub fn get_bundled(&self, reference: &str) -> Result<Option<Image>> {
        self.import_bundled(reference)
    }

    /// Directory of an unpacked layer's contents.
    pub fn layer(&self, diff_id: &str) -> std::path::PathBuf {
        self.layout.layers().join(diff_id.trim_start_matches("sha256:")).join("diff")
    }
}
