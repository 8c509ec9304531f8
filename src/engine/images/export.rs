//! `export`: a container's file system as a tar; `diff`: what changed in it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use super::commit::{MOUNT_POINTS, layers};
use crate::container::handle::{self, Record};
use crate::engine::Engine;
use crate::engine::events::Action;
use crate::error::Failure;
use crate::image::Store;
pub use crate::image::changes::Change;
use crate::runtime::overlay;
use crate::sys::{mount, process};

impl Engine {
    /// Writes a container's file system to `out`, volumes and whatever else is mounted left out.
    ///
    /// # Errors
    /// A container that is not there or is removed meanwhile; `out` that takes no more.
    pub fn export(&self, container: &str, out: &mut dyn Write) -> Result<()> {
        let id = handle::find(self.layout(), container)?;
        let record = handle::load(self.layout(), &id)?;
        let root = self.whole(&record)?;
        Store::open(self.layout()).export(root.as_fd(), out).with_context(|| format!("export {container}"))?;
        if !self.layout().container_overlay(&id).exists() {
            return Err(Failure::conflict(format!("container {} was removed while it was read", id.short())).into());
        }
        self.note(&record.config, Action::Export);
        Ok(())
    }

    /// What a container has changed of its image: added, changed and deleted paths, sorted.
    pub fn diff(&self, container: &str) -> Result<Vec<(Change, Vec<u8>)>> {
        let id = handle::find(self.layout(), container)?;
        let record = handle::load(self.layout(), &id)?;
        let path = self.layout().container_overlay(&id).join("upper");
        let upper = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Store::open(self.layout()).changes(upper.as_fd(), &record.config.image.layers, &MOUNT_POINTS)
    }

    /// A container's file system, in one piece and without what is mounted in it. Of one that runs it is the mount
    /// that it writes to, so that nothing is read past the kernel's back; of one that does not, its layers are shown
    /// again. Neither is mounted anywhere.
    fn whole(&self, record: &Record) -> Result<OwnedFd> {
        if let Some(init) = record.live_init()
            && let Some(pidfd) = process::open_verified(init.pid, init.start_time)
            && let Ok(root) = mount::root_of(pidfd.as_fd())
        {
            return Ok(root);
        }
        overlay::read_only(&layers(self, record))
    }
}
