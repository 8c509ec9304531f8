//! Where everything lies on disk: the one place that joins path names of the data root.
//!
//! ```text
//! <root>/                                /var/lib/mydocker, or --root / MYDOCKER_ROOT
//!   containers/<id>/{config.json, state.json, lock, <id>-json.log, hosts, resolv.conf, hostname}
//!   names/<name>                         a symbolic link whose text is the container's id
//!   overlay2/<id>/{upper,work,merged}    overlay2/layers/<diff id>/diff
//!   image/…                              the image store (see `image`)
//!   volumes/<name>/_data
//!   network/networks/<name>.json         what networks there are; network/lock
//!   network/ipam/<network id>/…          who has which address (see `net::ipam`)
//!   network/names/<network id>           which names lead where (see `net::names`)
//!   trash/<id>…                          renamed away, being deleted
//!   events.log, events.log.1             what happened (see `engine::events`)
//! <run>/<id>.sock                        the shim's socket; /run/mydocker, or <root>/run with --root
//! ```

use std::path::{Path, PathBuf};

use crate::id::ContainerId;

/// The data root of an installation without `--root`.
pub const DEFAULT_ROOT: &str = "/var/lib/mydocker";
/// Volatile state (sockets) of an installation without `--root`; gone after a reboot.
pub const DEFAULT_RUN: &str = "/run/mydocker";

/// Path names below one data root.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    run: PathBuf,
}

impl Layout {
    /// The layout below `root`; `None` means the system-wide default.
    pub fn new(root: Option<PathBuf>) -> Self {
        match root {
            Some(root) if root != Path::new(DEFAULT_ROOT) => Layout { run: root.join("run"), root },
            _ => Layout { root: DEFAULT_ROOT.into(), run: DEFAULT_RUN.into() },
        }
    }

    /// The data root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of sockets.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Directory with one directory per container.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// One container's directory.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// The container's log; rotated files append `.1`, `.2`, …
    pub fn log(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    /// Directory of name claims.
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Directory of overlays: working directories of containers, and `layers/`.
    pub fn overlay(&self) -> PathBuf {
        self.root.join("overlay2")
    }

    /// One container's `upper`, `work` and `merged`.
    pub fn container_overlay(&self, id: &ContainerId) -> PathBuf {
        self.overlay().join(id.as_str())
    }

    /// Unpacked layers, one directory per diff id (hex digits), contents below `diff`.
    pub fn layers(&self) -> PathBuf {
        self.overlay().join("layers")
    }

    /// The image store.
    pub fn image(&self) -> PathBuf {
        self.root.join("image")
    }

    /// Named and anonymous volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Everything about container networks; its directories are made on first use.
    pub fn network(&self) -> PathBuf {
        self.root.join("network")
    }

    /// Network records, one file each.
    pub fn networks(&self) -> PathBuf {
        self.network().join("networks")
    }

    /// Addresses taken, one directory per network id.
    pub fn ipam(&self) -> PathBuf {
        self.network().join("ipam")
    }

    /// Names that lead to addresses, one file per network id.
    pub fn network_names(&self) -> PathBuf {
        self.network().join("names")
    }

    /// The one lock for everything below [`Layout::network`]; never deleted.
    pub fn network_lock(&self) -> PathBuf {
        self.network().join("lock")
    }

    /// What has been removed and is being deleted.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// The log of events; the file before it has `.1` behind.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.log")
    }

    /// Eight hexadecimal digits that tell this data root from others on the same host, where names of
    /// the kernel's are shared: firewall rules.
    pub fn tag(&self) -> String {
        // FNV-1a: nothing rests on it but that two roots hardly ever have the same.
        let bytes = self.root.as_os_str().as_encoded_bytes();
        let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        format!("{hash:08x}")
    }

    /// The socket of the container's shim.
    pub fn socket(&self, id: &ContainerId) -> PathBuf {
        self.run.join(format!("{id}.sock"))
    }
}
