//! Images: what the engine does with them, one file per thing.

pub mod archives;
pub mod commit;
pub mod export;
mod glob;
mod history;
mod inspect;
mod list;
mod prune;
mod remove;
mod settle;
mod tag;
pub mod transfer;
mod users;

use anyhow::Result;

use super::Engine;
use crate::error::Failure;
use crate::image::Store;
pub use crate::image::Summary as ImageSummary;
use crate::image::oci::platform::Platform;
use crate::image::oci::reference::Reference;
pub use history::HistoryEntry;
pub use inspect::ImageView;
pub use list::{ImageFilter, ImageListRequest, LayerUse, ListedImage, SharedUse};
pub use prune::ImagePruneRequest;
pub use remove::Deletion;

impl Engine {
    /// All images, newest first.
    ///
    /// # Errors
    /// See [`Store::list`].
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        Store::open(&self.layout).list()
    }
}

/// Docker's words: a name is told with the tag that was meant.
fn no_such_image(text: &str) -> anyhow::Error {
    let name = text.parse::<Reference>().map_or_else(|_| text.to_owned(), |reference| reference.familiar());
    Failure::not_found(format!("No such image: {name}")).into()
}

/// Refuses an image that is for another platform than the one asked for.
fn check_platform(reference: &str, config: &serde_json::Value, wanted: Option<&Platform>) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let field = |name: &str| config.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let variant = Some(field("variant")).filter(|variant| !variant.is_empty());
    let found = Platform { os: field("os"), architecture: field("architecture"), variant };
    if wanted.accepts(&found) {
        return Ok(());
    }
    let message = format!(
        "image with reference {reference} was found but its platform ({found}) does not match the specified \
         platform ({wanted})"
    );
    Err(Failure::not_found(message).into())
}
