//! How much a container has written.

use std::path::Path;

use anyhow::{Context, Result};

use crate::container::ContainerId;
use crate::container::handle;
use crate::engine::Engine;
use crate::image::Store;
use crate::sys::tree::usage;

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Of the writable layer.
    pub writable: u64,
    /// Of the writable layer and the image's layers.
    pub total: u64,
}

impl Engine {
    /// Adds up the files of a container's layers. Takes as long as there are files.
    pub fn size_of(&self, id: &ContainerId) -> Result<Size> {
        let record = handle::load(&self.layout, id)?;
        let writable = bytes(&self.layout.container_overlay(id).join("upper"))?;
        let store = Store::open(&self.layout);
        let mut total = writable;
        for layer in &record.config.image.layers {
            total = total.saturating_add(bytes(&store.layer(layer))?);
        }
        Ok(Size { writable, total })
    }
}

/// Bytes of all regular files below `root`; 0 when there is no such directory.
fn bytes(root: &Path) -> Result<u64> {
    usage(root).map(|usage| usage.content).with_context(|| format!("open {}", root.display()))
}
