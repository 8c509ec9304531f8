//! The engine: the only layer that knows all mechanisms. One file per thing it does.
//!
//! Front ends hold an [`Engine`] and hand it the plain structs of [`request`]; what comes back are
//! typed values for them to render. The engine prints nothing and knows no command line.

mod absolute;
pub mod create;
mod detach;
pub mod devices;
pub mod doctor;
pub mod events;
pub mod exec;
mod files;
mod health;
pub mod images;
pub mod lifecycle;
pub mod logs;
mod lower;
mod lower_resources;
pub mod network;
mod pattern;
mod pause;
mod pipes;
pub mod prune;
pub mod query;
mod recover;
pub mod registry;
pub mod request;
mod resources;
mod shim;
mod streams;
pub mod supervise;
mod update;
pub mod usage;
mod wire;
pub mod wording;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::layout::Layout;

/// A container engine over one data root. Cheap to open: no process stands behind it.
#[derive(Debug, Clone)]
pub struct Engine {
    layout: Layout,
}

/// What became of a foreground client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The container runs and nobody is attached.
    Started,
    /// The client was attached and the container ended with this code.
    Exited(i32),
    /// The client let go (detach keys); the container goes on.
    Detached,
}

impl Engine {
    /// Opens the data root (`None`: the system-wide one), making its directories when missing.
    pub fn open(root: Option<PathBuf>) -> Result<Engine> {
        let layout = Layout::new(root);
        // 0711 as Docker: containers' files are reached through descriptors, never through here
        // (CVE-2021-41091), yet a process of another user may have its working directory below.
        for (path, mode) in [
            (layout.root().to_path_buf(), 0o711),
            (layout.containers(), 0o700),
            (layout.names(), 0o700),
            (layout.overlay(), 0o710),
            (layout.layers(), 0o710),
            (layout.image(), 0o700),
            (layout.volumes(), 0o711),
            (layout.trash(), 0o700),
            (layout.run().to_path_buf(), 0o700),
        ] {
            if !path.is_dir() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(mode)
                    .create(&path)
                    .with_context(|| format!("create {}", path.display()))?;
            }
        }
        Ok(Engine { layout })
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}
