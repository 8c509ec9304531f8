//! Power cuts: which layers may not be on the disk yet.
//!
//! ```text
//! image/unsettled/<diff id>    the boot (`boot_id`) that made the layer; gone once it is flushed
//! ```
//! Nobody who waits for a pull waits for the disk: a layer is marked before it gets its name, and the mark
//! goes after a `syncfs` that nobody waits for. A mark of an earlier boot means that the machine went down
//! in between; then the layer is told again from its recipe, and what does not have its digest is made anew from the
//! bytes that it came as, where those were kept, or dropped.
//! File systems with a journal keep the order of the two names.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::layers::{Temporary, Wanted};
use super::lease::Lease;
use crate::error::Failure;
use crate::image::Store;
use crate::image::layer::apply::Limits;
use crate::image::layer::recipe;
use crate::image::layer::unpack::Keep;
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::Descriptor;
use crate::sys::process::boot_id;

/// A layer that may not be on the disk yet.
struct Mark {
    digest: Digest,
    /// Whether it was this boot that made the layer.
    current: bool,
    /// When it was made; tells one making from the next.
    made_at: Option<SystemTime>,
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

impl Store {
    fn unsettled_directory(&self) -> PathBuf {
        self.layout.image().join("unsettled")
    }

    /// Marks a layer that is about to get its name.
    pub(super) fn mark_unsettled(&self, diff_id: &Digest) -> Result<()> {
        let directory = self.unsettled_directory();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let path = directory.join(diff_id.hex());
        fs::write(&path, boot_id()).with_context(|| format!("write {}", path.display()))
    }

    /// Layers that are marked.
    fn unsettled(&self) -> Result<Vec<Mark>> {
        let directory = self.unsettled_directory();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
        };
        let mut marked = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", directory.display()))?;
            let Some(digest) = entry.file_name().to_str().and_then(Digest::from_hex) else { continue };
            // A mark that cannot be read is one that the power cut tore.
            let made_by = fs::read_to_string(entry.path()).unwrap_or_default();
            let made_at = modified(&entry.path());
            marked.push(Mark { digest, current: made_by == boot_id(), made_at });
        }
        Ok(marked)
    }

    /// Whether anything is marked.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled().is_ok_and(|marked| !marked.is_empty())
    }

    /// Flushes what this boot made, and takes the marks away. May take as long as the disk does.
    pub fn settle(&self) -> Result<()> {
        let marked: Vec<Mark> = self.unsettled()?.into_iter().filter(|mark| mark.current).collect();
        if marked.is_empty() {
            return Ok(());
        }
        for directory in [self.layout.layers(), self.layout.image()] {
            let directory = File::open(&directory).with_context(|| format!("open {}", directory.display()))?;
            rustix::fs::syncfs(&directory).context("flush layers")?;
        }
        self.forget_flushed(&marked);
        Ok(())
    }

    /// Takes marks away that are what they were before the flush: a layer that was removed and made again meanwhile
    /// was not part of it.
    fn forget_flushed(&self, marked: &[Mark]) {
        for mark in marked {
            if modified(&self.unsettled_directory().join(mark.digest.hex())) == mark.made_at {
                self.forget_mark(&mark.digest);
            }
        }
    }

    /// Takes a mark away.
    pub(super) fn forget_mark(&self, diff_id: &Digest) {
        let _ = fs::remove_file(self.unsettled_directory().join(diff_id.hex()));
    }

    /// Takes the marks of layers away that did not get their name: none of `present` is touched. The caller
    /// holds the store's lock, under which no layer is between its mark and its name.
    pub(super) fn forget_marks(&self, present: &BTreeSet<Digest>) -> Result<()> {
        let marked = self.unsettled()?.into_iter().map(|mark| mark.digest);
        marked.filter(|digest| !present.contains(digest)).for_each(|digest| self.forget_mark(&digest));
        Ok(())
    }

    /// Makes sure that none of these layers (diff ids) was torn by a power cut. Costs one look at an empty directory
    /// unless there was one.
    ///
    /// # Errors
    /// A layer that was: it is dropped, so that pulling or loading the image again brings it back.
    pub fn trust(&self, layers: &[String]) -> Result<()> {
        let suspects: BTreeSet<Digest> =
            self.unsettled()?.into_iter().filter(|mark| !mark.current).map(|mark| mark.digest).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        for layer in layers.iter().filter_map(|layer| Digest::parse(layer).ok()) {
            if suspects.contains(&layer) {
                self.vet(&layer).map_err(|error| {
                    error.context(
                        Failure::engine(format!("layer {layer} was torn when the machine went down"))
                            .with_hint("it was dropped; pull or load the image again"),
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Verifies a suspect. One that is not what its name says, or that cannot be told again, is made anew from what was
    /// kept of it as it came, and dropped where that was torn too.
    fn vet(&self, diff_id: &Digest) -> Result<()> {
        let Err(error) = recipe::verify(&self.layer_directory(diff_id), diff_id) else {
            self.forget_mark(diff_id);
            return Ok(());
        };
        let _making = self.making(diff_id, || {})?;
        if self.has_layer(diff_id) && !self.is_suspect(diff_id)? {
            // Another made it anew while we waited.
            return Ok(());
        }
        let forms = self.layer_record(diff_id).map(|record| record.blobs).unwrap_or_default();
        // While the layer is away nothing else speaks for what was kept of it.
        let lease = self.lease()?;
        forms.iter().try_for_each(|form| lease.hold(self, &form.digest))?;
        let taken = {
            let _lock = self.lock()?;
            Temporary::take(&self.layout.layers(), &self.layer_directory(diff_id))?
        };
        let remade = forms.iter().any(|form| match self.remake(&lease, diff_id, form) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!("make layer {diff_id} anew from {}: {error:#}", form.digest);
                false
            }
        });
        match remade {
            true => forms.iter().try_for_each(|form| self.add_form(diff_id, form))?,
            false => self.forget_mark(diff_id),
        }
        if let Some(taken) = taken {
            taken.remove()?;
        }
        if remade { Ok(()) } else { Err(error) }
    }

    /// Whether an earlier boot made the layer.
    fn is_suspect(&self, diff_id: &Digest) -> Result<bool> {
        Ok(self.unsettled()?.iter().any(|mark| mark.digest == *diff_id && !mark.current))
    }

    /// Makes a layer from a form of it that was kept, verified on the way. The caller has the right to make it.
    fn remake(&self, lease: &Lease, diff_id: &Digest, form: &Descriptor) -> Result<()> {
        let blob = self.blobs().open(&form.digest)?.context("it was not kept")?;
        let wanted = Wanted { diff_id: Some(diff_id), blob: Some(form), keep: Keep::Blob };
        self.make_layer(lease, wanted, Box::new(blob), &Limits::default()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layout::Layout;

    #[test]
    fn a_layer_that_is_made_again_during_a_flush_keeps_its_mark() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(&Layout::new(Some(directory.path().into())));
        let digest = Digest::of(b"layer");
        store.mark_unsettled(&digest).unwrap();
        let before = store.unsettled().unwrap();
        // Clocks of file systems tick every few milliseconds; this one is put on.
        store.mark_unsettled(&digest).unwrap();
        let again = File::open(store.unsettled_directory().join(digest.hex())).unwrap();
        again.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
        store.forget_flushed(&before);
        assert!(store.is_unsettled());
        store.forget_flushed(&store.unsettled().unwrap());
        assert!(!store.is_unsettled());
    }
}
