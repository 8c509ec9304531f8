//! Image archives in the form of `docker save`, made by hand.

use std::fs::File;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A layer in the making: a tar in memory.
#[derive(Default)]
pub struct Layer {
    tar: Vec<(Header, String, Vec<u8>)>,
}

impl Layer {
    fn entry(mut self, kind: EntryType, path: &str, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        // Written raw: the library refuses `..`, which attacks need.
        let name = &mut header.as_gnu_mut().unwrap().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.tar.push((header, path.to_owned(), data.to_vec()));
        self
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, mode, "", b"")
    }

    pub fn file(self, path: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path, mode, "", data.as_ref())
    }

    pub fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, path, 0o777, to, b"")
    }

    pub fn hardlink(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Link, path, 0o644, to, b"")
    }

    /// Removes `path` of the layers below.
    pub fn whiteout(self, path: &str) -> Self {
        let (directory, name) = path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
        let separator = if directory.is_empty() { "" } else { "/" };
        self.file(&format!("{directory}{separator}.wh.{name}"), 0o644, "")
    }

    /// The layer with which every image of ours begins: busybox as `/bin/sh` and its applets.
    pub fn busybox() -> Self {
        let program = std::fs::read("/bin/busybox").expect("busybox-static is installed by `make deps`");
        let mut layer = Layer::default().dir("bin/", 0o755).file("bin/busybox", 0o755, program);
        for applet in ["sh", "cat", "ls", "id", "pwd", "env", "sleep", "echo", "true", "touch", "grep", "mount"] {
            layer = layer.symlink(&format!("bin/{applet}"), "busybox");
        }
        layer.dir("etc/", 0o755).dir("tmp/", 0o1777).dir("root/", 0o700)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (header, _, data) in &self.tar {
            builder.append(header, data.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }
}

/// Writes an image of `layers` as `reference`; `config` is the image's `config` object
/// (`Env`, `Cmd`, `User`, …).
pub fn save(path: &Path, reference: &str, config: &Value, layers: &[Layer]) {
    let layers: Vec<Vec<u8>> = layers.iter().map(Layer::bytes).collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
    let document = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": layers.iter().map(|_| json!({ "created": "2024-01-01T00:00:00Z" })).collect::<Vec<_>>(),
    });
    let document = serde_json::to_vec(&document).unwrap();
    let config_name = format!("{}.json", hex(&document));
    let names: Vec<String> = layers.iter().map(|layer| format!("{}/layer.tar", hex(layer))).collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": [reference], "Layers": names }]);

    let mut builder = Builder::new(File::create(path).unwrap());
    let mut add = |name: &str, data: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, data).unwrap();
    };
    add(&config_name, &document);
    for (name, layer) in names.iter().zip(&layers) {
        add(name, layer);
    }
    add("manifest.json", &serde_json::to_vec(&manifest).unwrap());
    builder.finish().unwrap();
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
