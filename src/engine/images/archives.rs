//! Images that come out of archives and go into them.

use std::io::Read;

use anyhow::Result;

use crate::engine::Engine;
use crate::engine::events::Kind;
use crate::image::Store;
use crate::image::archive::Choice;

impl Engine {
    /// Loads the images in an archive (`docker save`, OCI layout). Gives one line for each reference, or
    /// for the id of an image that has none, in Docker's wording.
    ///
    /// # Errors
    /// See [`Store::load`].
    pub fn load(&self, input: &mut dyn Read) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for image in Store::open(&self.layout).load(input, &Choice::Usual)? {
            self.note_loaded(&image.id, &image.references);
            if image.references.is_empty() {
                lines.push(format!("Loaded image ID: {}", image.id));
            }
            lines.extend(image.references.iter().map(|reference| format!("Loaded image: {reference}")));
        }
        Ok(lines)
    }

    /// Tells that an image came into the store and what it is called there, with Docker's attributes:
    /// its labels, and as `name` the id when it is loaded, the reference when it is tagged.
    pub(in crate::engine) fn note_loaded(&self, id: &str, references: &[String]) {
        let image = Store::open(&self.layout).get(id).ok().flatten();
        let labels = image.map(|image| image.defaults.labels).unwrap_or_default();
        let mut attributes: Vec<(&str, String)> =
            labels.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        attributes.push(("name", id.to_owned()));
        self.note_object(Kind::Image, id, "load", &attributes);
        for reference in references {
            attributes.pop();
            attributes.push(("name", reference.clone()));
            self.note_object(Kind::Image, id, "tag", &attributes);
        }
    }
}
