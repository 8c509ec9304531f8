//! Images: load and list.

use std::io::Read;

use anyhow::Result;

use super::Engine;
use crate::image::Store;
pub use crate::image::Summary as ImageSummary;

impl Engine {
    /// Loads the images in an archive (`docker save`, OCI layout). Gives one line for each reference, or
    /// for the id of an image that has none, in Docker's wording.
    ///
    /// # Errors
    /// See [`Store::load`].
    pub fn load(&self, input: &mut dyn Read) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for image in Store::open(&self.layout).load(input)? {
            if image.references.is_empty() {
                lines.push(format!("Loaded image ID: {}", image.id));
            }
            lines.extend(image.references.iter().map(|reference| format!("Loaded image: {reference}")));
        }
        Ok(lines)
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// See [`Store::list`].
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        Store::open(&self.layout).list()
    }
}
