//! How the exact tar of a layer is told again.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::digest::Digest;
use super::stream;

/// The exact uncompressed tar of the layer in `layer_directory`, which holds `diff` and `recipe`.
///
/// # Errors
/// A recipe that is missing or damaged; the stream fails where a file of the layer is not as it was.
pub(super) fn tar(layer_directory: &Path) -> Result<impl Read + Send + use<>> {
    File::open(layer_directory.join("recipe")).context("open recipe")
}

/// Number of bytes that [`tar`] gives, without telling it.
///
/// # Errors
/// A recipe that is missing or damaged.
pub(super) fn length(layer_directory: &Path) -> Result<u64> {
    let recipe = std::fs::metadata(layer_directory.join("recipe")).context("open recipe")?;
    Ok(recipe.len())
}

/// Tells the tar again and compares its digest with `diff_id`.
///
/// # Errors
/// See [`tar`]; a digest that is another.
pub(super) fn verify(layer_directory: &Path, diff_id: &Digest) -> Result<()> {
    let found = stream::digest_of(tar(layer_directory)?).context("read layer")?;
    if found != *diff_id {
        bail!("layer {diff_id} is damaged: its contents are those of {found}");
    }
    Ok(())
}
