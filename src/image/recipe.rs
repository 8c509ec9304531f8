//! How a layer's exact tar is told again from what was unpacked.

use std::path::Path;

use anyhow::{Result, bail};

use super::digest::Digest;

/// Tells the layer in `directory` again and holds it against its digest.
pub(super) fn verify(directory: &Path, diff_id: &Digest) -> Result<()> {
    bail!("verify layer {diff_id} in {}: not yet", directory.display())
}
