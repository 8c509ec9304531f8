//! Images that come with the program: `NAME.tar` beside it, imported when first asked for.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::index::Archive;
use super::{Choice, is_image};
use crate::image::layer::apply;
use crate::image::layer::unpack::Keep;
use crate::image::oci::config::{Shell, synthesise};
use crate::image::oci::reference::Reference;
use crate::image::store::layers::Wanted;
use crate::image::store::tags::Arrival;
use crate::image::{Image, Store};

impl Store {
    pub(in crate::image) fn import_bundled(&self, text: &str) -> Result<Option<Image>> {
        let reference: Reference = text.parse()?;
        let Some(name) = reference.plain_name() else { return Ok(None) };
        let Some((path, file)) = self.find_bundled(name) else { return Ok(None) };
        self.import_file(&reference, &path, file).with_context(|| format!("import {}", path.display())).map(Some)
    }

    fn import_file(&self, reference: &Reference, path: &Path, file: File) -> Result<Image> {
        let modified = file.metadata().context("inspect archive")?.mtime();
        let archive = Archive::open(file, &self.layout.image())?;
        let id = if is_image(&archive) {
            let loaded = self.load_archive(&archive, &Choice::Usual)?;
            let first = loaded.first().context("the archive names no image")?;
            crate::image::oci::digest::Digest::parse(&first.id)?
        } else {
            let lease = self.lease()?;
            let wanted = Wanted { diff_id: None, blob: None, keep: Keep::Nothing };
            let (diff_id, _) = self.obtain(&lease, wanted, || Ok(Box::new(archive.stream()?)), || {})?;
            let root = File::open(self.layer(&diff_id.to_string())).context("open layer")?;
            let shell = match apply::exists(root.as_fd(), b"bin/sh")? {
                true => Shell::Present,
                false => Shell::Absent,
            };
            let created = jiff::Timestamp::from_second(modified).unwrap_or_default();
            let source = path.file_name().unwrap_or_default().to_string_lossy();
            let config = synthesise(&diff_id, created, shell, &source)?;
            self.record(&Arrival { config: &config, manifest: None, references: &[], digests: &[] })?
        };
        self.tag(std::slice::from_ref(reference), &id)?;
        self.image(&id)?.context("the image was removed meanwhile")
    }

    /// The first `NAME.tar` of the places where bundled images lie. The name is a valid repository name:
    /// it has no slash and does not begin with a dot.
    fn find_bundled(&self, name: &str) -> Option<(PathBuf, File)> {
        let file = format!("{name}.tar");
        let own = self.layout.image().join(&file);
        let executable = std::env::current_exe().unwrap_or_default();
        let checkout = executable.ancestors().skip(1).filter(|directory| directory.join("Cargo.toml").is_file());
        let places = std::iter::once(own)
            .chain(checkout.map(|directory| directory.join("images").join(&file)))
            .chain([Path::new("/usr/share/mydocker/images").join(&file)]);
        places.filter(|path| path.is_file()).find_map(|path| File::open(&path).ok().map(|file| (path, file)))
    }
}
