//! Images that come out of archives and go into them.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::commit::{checked, name};
use crate::engine::Engine;
use crate::engine::events::Kind;
use crate::image::Store;
use crate::image::archive::{Choice, Loaded};
pub use crate::image::archive::{Form, SaveRequest};
use crate::image::edit::{Document, Step};
use crate::image::oci::platform::Platform;
use crate::image::oci::reference::Reference;

/// Where an archive comes from.
pub enum Source<'a> {
    /// A file, which is read in place where that is possible.
    File(File),
    /// A stream.
    Stream(&'a mut (dyn Read + Send)),
}

/// Makes an image of a file system's tar.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportRequest {
    /// Where it comes from, for the comment of who gives none.
    pub source: String,
    /// What the image is called; `None` for nothing.
    pub reference: Option<String>,
    /// A comment for its history; empty for the usual one.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// `--platform`; this machine's when there is none.
    pub platform: Option<String>,
}

impl Engine {
    /// Loads the images in an archive (`docker save`, OCI layout), those for `platform` where one is given. Gives one
    /// line for each reference, or for the id of an image that has none, in Docker's wording.
    ///
    /// # Errors
    /// See [`Store::load`]. What came before the error is swept away again.
    pub fn load(&self, source: Source<'_>, platform: Option<&str>) -> Result<Vec<String>> {
        let choice = match platform {
            None => Choice::Usual,
            Some(platform) => Choice::For(platform.parse()?),
        };
        let store = Store::open(&self.layout);
        let loaded = match source {
            Source::File(file) => store.load_file(file, &choice),
            Source::Stream(stream) => store.load(stream, &choice),
        };
        let mut lines = Vec::new();
        for image in loaded.inspect_err(|_| self.sweep_images())? {
            self.note_loaded(&image.id, &image.references);
            lines.extend(told(&image));
        }
        self.settle_later();
        Ok(lines)
    }

    /// Writes an archive of images to `out`.
    ///
    /// # Errors
    /// See [`Store::save`].
    pub fn save(&self, request: &SaveRequest, out: &mut dyn Write) -> Result<()> {
        for image in Store::open(&self.layout).save(request, out)? {
            let name = image.references.first().unwrap_or(&image.id).clone();
            self.note_object(Kind::Image, &image.id, "save", &[("name", name)]);
        }
        Ok(())
    }

    /// Makes an image of one layer from the tar of a file system. Gives its id.
    ///
    /// # Errors
    /// A malformed reference, change or platform, before anything is read; a tar that is truncated or malformed.
    pub fn import(&self, request: &ImportRequest, input: &mut (dyn Read + Send)) -> Result<String> {
        let reference = request.reference.as_deref().map(name).transpose()?;
        let changes = checked(&request.changes)?;
        let platform = request.platform.as_deref().map(str::parse).transpose()?.unwrap_or_else(Platform::host);
        let mut document = Document::empty(&platform);
        document.apply(&changes)?;
        let store = Store::open(&self.layout);
        let layer = store.take_tar(input).context("import").inspect_err(|_| self.sweep_images())?;
        let comment = match request.message.as_str() {
            "" => format!("Imported from {}", request.source),
            message => message.to_owned(),
        };
        let step =
            Step { created: Timestamp::now(), created_by: String::new(), author: String::new(), comment, layer: None };
        let id = store.derive(document, layer, step, reference.as_ref()).inspect_err(|_| self.sweep_images())?;
        if let Some(reference) = &reference {
            self.note_tagged(&id, reference);
        }
        self.note_object(Kind::Image, &id, "import", &[("name", id.clone())]);
        self.settle_later();
        Ok(id)
    }

    /// Frees what nothing uses: layers of an image that did not become one. That it fails changes nothing for
    /// whoever is told of the failure before it.
    pub(in crate::engine) fn sweep_images(&self) {
        if let Err(error) = Store::open(&self.layout).sweep(&mut || self.used_layers()) {
            tracing::debug!("sweep images: {error:#}");
        }
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

    /// Tells that an image has a name.
    pub(super) fn note_tagged(&self, id: &str, reference: &Reference) {
        self.note_object(Kind::Image, id, "tag", &[("name", reference.familiar())]);
    }
}

/// Docker's words.
fn told(image: &Loaded) -> Vec<String> {
    let displaced = image.displaced.iter().map(|(name, old)| {
        format!("The image {name} already exists, renaming the old one with ID {old} to empty string")
    });
    let mut lines: Vec<String> = displaced.collect();
    if image.references.is_empty() {
        lines.push(format!("Loaded image ID: {}", image.id));
    }
    lines.extend(image.references.iter().map(|reference| format!("Loaded image: {reference}")));
    lines
}
