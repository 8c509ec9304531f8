//! `rmi`: names and images go.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::engine::Engine;
use crate::image::{Force, Removed, Store, Summary};

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// This name means the image no more.
    Untagged(String),
    /// The image or layer with this digest is gone.
    Deleted(String),
}

impl Engine {
    /// Removes what each reference names: the name, with its last name the image, by an id the image with all
    /// names. What became of each, in order; one that fails does not keep the others.
    pub fn image_remove(&self, references: &[String], force: Force) -> Vec<Result<Vec<Deletion>>> {
        references.iter().map(|reference| self.remove_image(reference, force)).collect()
    }

    fn remove_image(&self, reference: &str, force: Force) -> Result<Vec<Deletion>> {
        let store = Store::open(&self.layout);
        let labels = self.labels_of(reference);
        let removed = store.remove(reference, force, &mut || self.image_users())?;
        Ok(self.tell_removed(&removed, &labels))
    }

    /// An image's labels, for the events of its end.
    pub(super) fn labels_of(&self, reference: &str) -> BTreeMap<String, String> {
        let image: Option<Summary> = Store::open(&self.layout).summary(reference).ok().flatten();
        image.map(|image| image.labels).unwrap_or_default()
    }

    /// Tells what was removed, and puts it into lines.
    pub(super) fn tell_removed(&self, removed: &Removed, labels: &BTreeMap<String, String>) -> Vec<Deletion> {
        let mut lines = Vec::new();
        for name in &removed.untagged {
            self.note_image(&removed.id, "untag", &removed.id, labels);
            lines.push(Deletion::Untagged(name.clone()));
        }
        if let Some(freed) = &removed.deleted {
            self.note_image(&removed.id, "delete", &removed.id, labels);
            lines.push(Deletion::Deleted(removed.id.clone()));
            lines.extend(freed.layers.iter().cloned().map(Deletion::Deleted));
        }
        lines
    }
}
