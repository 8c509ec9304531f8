//! Images: load and list.

use anyhow::Result;

use super::Engine;

/// An image as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// `sha256:…` of the image config.
    pub id: String,
    /// References that lead to it (`busybox:latest`), in short form.
    pub references: Vec<String>,
    /// When it was made, if it says so.
    pub created: Option<jiff::Timestamp>,
    /// Bytes of its unpacked layers.
    pub size: u64,
}

impl Engine {
    /// Loads an archive; lines such as `Loaded image: busybox:latest`.
    pub fn load(&self, _input: &mut dyn std::io::Read) -> Result<Vec<String>> {
        anyhow::bail!("stub")
    }

    /// The images of the store, in no order.
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        anyhow::bail!("stub")
    }
}
