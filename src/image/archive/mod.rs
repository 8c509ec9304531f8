//! Archives of images: what `docker save` writes, and OCI image layouts (OCI image spec, image-layout.md).
//!
//! ```text
//! oci-layout, index.json      an OCI layout: index → manifest → config and layers
//! manifest.json               Docker's own: members that are config and layers, and their tags
//! blobs/sha256/<hex>          everything that either of them names, since Docker 25
//! <id>/layer.tar, <id>.json   the same before
//! ```
//! What Docker writes since version 25 is both at once, and so is what [`save`] writes.

mod bundled;
mod index;
mod load;
mod save;
mod sources;
mod write;

use super::oci::platform::Platform;
use index::Archive;

pub use save::{Form, SaveRequest, Saved};

/// Annotations by which an index names its images.
mod annotation {
    /// A complete reference, written by containerd and Docker.
    pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
    /// By the specification a tag or whatever the writer likes; tools write complete references as well.
    pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// `sha256:…`.
    pub id: String,
    /// The references the archive gave it, in familiar form.
    pub references: Vec<String>,
    /// Those of them that another image had before, with its id.
    pub displaced: Vec<(String, String)>,
}

/// Which of an archive's images are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// Every image; of those that come for several platforms the one for this machine.
    #[default]
    Usual,
    /// The images for this platform.
    For(Platform),
}

impl Choice {
    /// The platform that is looked for where there are several.
    fn platform(&self) -> Platform {
        match self {
            Choice::Usual => Platform::host(),
            Choice::For(platform) => platform.clone(),
        }
    }
}

/// Whether the archive says that it is one of images.
pub(super) fn is_image(archive: &Archive) -> bool {
    archive.contains("manifest.json") || is_layout(archive)
}

/// Whether it is an OCI layout.
fn is_layout(archive: &Archive) -> bool {
    archive.contains("index.json") && archive.contains("oci-layout")
}
