//! The store: content-addressed configs, manifests and layers, and the references that name them.
//!
//! ```text
//! image/configs/sha256/<hex>         image configs; an image's id is the digest of its config
//! image/manifests/sha256/<hex>       manifests, byte for byte as they came
//! image/blobs/sha256/<hex>           compressed layers as they came
//! image/repositories.json            canonical reference → image id
//! image/lock                         held while references change
//! overlay2/layers/<diff id>/diff     unpacked layers, shared by all images that have them
//! ```
//! [`contents`] holds what is named by its digest, [`layers`] makes layers once whoever asks, [`tags`] names,
//! [`lease`] protects what is under way, [`sweep`] and [`removal`] take away, [`settle`] survives power cuts,
//! [`listing`] and [`survey`] tell.

pub(in crate::image) mod contents;
pub(in crate::image) mod layers;
pub(in crate::image) mod lease;
mod listing;
mod maker;
mod removal;
mod settle;
mod survey;
mod sweep;
pub(in crate::image) mod tags;

use anyhow::Result;

use super::Image;
use crate::layout::Layout;

pub use listing::Summary;
pub use removal::{Force, Freed, Removed, Tags, User};
pub use survey::{Owner, Piece, Survey};
pub use sweep::{Orphan, OrphanKind};

/// The store of images below one data root.
#[derive(Debug, Clone)]
pub struct Store {
    pub(in crate::image) layout: Layout,
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
