//! Images: what the engine does with them, one file per thing.

mod archives;

use anyhow::Result;

use super::Engine;
use crate::image::Store;
pub use crate::image::Summary as ImageSummary;

impl Engine {
    /// All images, newest first.
    ///
    /// # Errors
    /// See [`Store::list`].
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        Store::open(&self.layout).list()
    }
}
