//! `tag`: another name for an image.

use anyhow::Result;

use super::no_such_image;
use crate::engine::Engine;
use crate::engine::events::Kind;
use crate::error::Failure;
use crate::image::Store;
use crate::image::oci::digest::Digest;
use crate::image::oci::reference::Reference;

impl Engine {
    /// Lets `target` mean the image that `source` means, by a name, an id or a digest. What `target` has meant
    /// before loses that name.
    ///
    /// # Errors
    /// No such image; a target that is no reference, or one with a digest.
    pub fn image_tag(&self, source: &str, target: &str) -> Result<()> {
        let store = Store::open(&self.layout);
        let invalid = |why: &str| {
            Failure::engine(format!("Error parsing reference: {target:?} is not a valid repository/tag: {why}"))
        };
        let reference: Reference = target.parse().map_err(|error: anyhow::Error| invalid(&error.to_string()))?;
        if reference.digest().is_some() {
            return Err(Failure::engine("refusing to create a tag with a digest reference").into());
        }
        let image = store.summary(source)?.ok_or_else(|| no_such_image(source))?;
        store.tag(std::slice::from_ref(&reference), &Digest::parse(&image.id)?)?;
        self.note_image(&image.id, "tag", &reference.familiar(), &image.labels);
        Ok(())
    }

    /// Tells that something happened to an image, with Docker's attributes: its labels, and a name.
    pub(in crate::engine) fn note_image(
        &self,
        id: &str,
        action: &str,
        name: &str,
        labels: &std::collections::BTreeMap<String, String>,
    ) {
        let mut attributes: Vec<(&str, String)> = labels.iter().map(|(key, value)| (&key[..], value.clone())).collect();
        attributes.push(("name", name.to_owned()));
        self.note_object(Kind::Image, id, action, &attributes);
    }
}
