//! `image prune`: images that nothing uses, and whatever else lies in the store without a use.

use anyhow::Result;

use super::Deletion;
use crate::engine::Engine;
use crate::engine::events::Kind;
use crate::engine::prune::{PruneFilter, Pruned, selects};
use crate::image::{Store, Tags};

/// What is to be pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePruneRequest {
    /// Whether a tag saves an image.
    pub tags: Tags,
    /// What images must be like.
    pub filters: Vec<PruneFilter>,
}

impl Engine {
    /// Removes images that no container has been made from, those without a tag or all of them, and frees what
    /// killed pulls, loads and commits have left. Bytes are those that were freed on disk.
    pub fn image_prune(&self, request: &ImagePruneRequest) -> Result<Pruned<Deletion>> {
        let store = Store::open(&self.layout);
        let mut pruned = Pruned::default();
        for image in store.list()? {
            if !selects(&request.filters, image.created, &image.labels) {
                continue;
            }
            match store.remove_unused(&image.id, request.tags, &mut || self.image_users()) {
                Ok(Some(removed)) => {
                    pruned.removed.extend(self.tell_removed(&removed, &image.labels));
                    pruned.bytes += removed.deleted.map_or(0, |freed| freed.bytes);
                }
                Ok(None) => {}
                Err(error) => pruned.problems.push(error),
            }
        }
        let freed = store.sweep(&mut || self.used_layers())?;
        pruned.bytes += freed.iter().map(|orphan| orphan.bytes).sum::<u64>();
        self.note_object(Kind::Image, "", "prune", &[("reclaimed", pruned.bytes.to_string())]);
        Ok(pruned)
    }
}
