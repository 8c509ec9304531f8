//! Image archives in the form of `docker save`, made by hand.

use std::collections::BTreeSet;
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

/// An image in the making.
pub struct Image<'a> {
    /// Its tags; none for a dangling one.
    pub references: &'a [&'a str],
    /// RFC 3339.
    pub created: &'a str,
    /// The image's `config` object (`Env`, `Cmd`, `User`, …).
    pub config: Value,
    /// The config's `history`; an entry for each layer when it is null.
    pub history: Value,
    /// Lowest first.
    pub layers: &'a [Layer],
}

impl Default for Image<'_> {
    fn default() -> Self {
        Image { references: &[], created: "2024-01-01T00:00:00Z", config: json!({}), history: Value::Null, layers: &[] }
    }
}

/// Writes an image of `layers` as `reference`; `config` is the image's `config` object
/// (`Env`, `Cmd`, `User`, …).
pub fn save(path: &Path, reference: &str, config: &Value, layers: &[Layer]) {
    save_all(path, &[Image { references: &[reference], config: config.clone(), layers, ..Image::default() }]);
}

/// Writes several images into one archive; layers that they share once.
pub fn save_all(path: &Path, images: &[Image<'_>]) {
    let mut builder = Builder::new(File::create(path).unwrap());
    let mut written = BTreeSet::new();
    let mut add = |name: &str, data: &[u8]| {
        if written.insert(name.to_owned()) {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data).unwrap();
        }
    };
    let mut manifest = Vec::new();
    for image in images {
        let layers: Vec<Vec<u8>> = image.layers.iter().map(Layer::bytes).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
        let history = match &image.history {
            Value::Null => layers.iter().map(|_| json!({ "created": image.created })).collect(),
            given => given.clone(),
        };
        let document = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "created": image.created,
            "config": image.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        });
        let document = serde_json::to_vec(&document).unwrap();
        let config_name = format!("{}.json", hex(&document));
        let names: Vec<String> = layers.iter().map(|layer| format!("{}/layer.tar", hex(layer))).collect();
        add(&config_name, &document);
        for (name, layer) in names.iter().zip(&layers) {
            add(name, layer);
        }
        manifest.push(json!({ "Config": config_name, "RepoTags": image.references, "Layers": names }));
    }
    add("manifest.json", &serde_json::to_vec(&manifest).unwrap());
    builder.finish().unwrap();
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
