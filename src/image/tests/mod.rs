//! Tests of the image store, on archives that are made here, member by member.

mod changes;
mod commit_random;
mod formats;
mod jail;
mod layer;
mod layer_forms;
mod layer_random;
mod load;
mod pack;
mod recipe;
mod removal;
mod save;
mod store;
mod tree;
mod unpack;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::Store;
use super::archive::{Choice, Loaded};
use super::layer::unpack::Keep;
use super::oci::digest::Digest;
use super::store::layers::{Obtained, Wanted};
use super::store::tags::Arrival;
use crate::layout::Layout;

/// A tar archive, with names that no decent writer would write.
struct Tar {
    builder: tar::Builder<Vec<u8>>,
}

/// One member. `link` and `content` are empty where the type has none.
struct Member<'a> {
    name: &'a [u8],
    kind: EntryType,
    mode: u32,
    link: &'a [u8],
    content: &'a [u8],
    owner: (u64, u64),
    device: (u32, u32),
}

impl Default for Member<'_> {
    fn default() -> Self {
        Member {
            name: b"",
            kind: EntryType::Regular,
            mode: 0o644,
            link: b"",
            content: b"",
            owner: (0, 0),
            device: (0, 0),
        }
    }
}

impl Tar {
    fn new() -> Tar {
        Tar { builder: tar::Builder::new(Vec::new()) }
    }

    fn add(mut self, member: Member<'_>) -> Tar {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..member.name.len()].copy_from_slice(member.name);
        header.as_old_mut().linkname[..member.link.len()].copy_from_slice(member.link);
        header.set_entry_type(member.kind);
        header.set_mode(member.mode);
        header.set_uid(member.owner.0);
        header.set_gid(member.owner.1);
        header.set_mtime(1_000_000_000);
        header.set_size(member.content.len() as u64);
        header.set_device_major(member.device.0).unwrap();
        header.set_device_minor(member.device.1).unwrap();
        header.set_cksum();
        self.builder.append(&header, member.content).unwrap();
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Tar {
        self.add(Member { name: name.as_bytes(), content, ..Member::default() })
    }

    fn directory(self, name: &str, mode: u32) -> Tar {
        self.add(Member { name: name.as_bytes(), kind: EntryType::Directory, mode, ..Member::default() })
    }

    fn symlink(self, name: &str, target: &str) -> Tar {
        let (name, link) = (name.as_bytes(), target.as_bytes());
        self.add(Member { name, link, kind: EntryType::Symlink, mode: 0o777, ..Member::default() })
    }

    fn hard_link(self, name: &str, target: &str) -> Tar {
        let (name, link) = (name.as_bytes(), target.as_bytes());
        self.add(Member { name, link, kind: EntryType::Link, ..Member::default() })
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Tar {
        self.builder.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.builder.into_inner().unwrap()
    }
}

/// A data root in a temporary directory.
struct Root {
    dir: tempfile::TempDir,
    store: Store,
}

impl Root {
    fn new() -> Root {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path().into()));
        fs::create_dir_all(layout.layers()).unwrap();
        fs::create_dir_all(layout.image()).unwrap();
        Root { store: Store::open(&layout), dir }
    }

    fn layers(&self) -> Vec<String> {
        names(&self.dir.path().join("overlay2/layers"))
    }

    /// Keeps a config without naming it.
    fn put_config(&self, config: &[u8]) -> Digest {
        self.store.record(&Arrival { config, manifest: None, references: &[], digests: &[] }).unwrap()
    }

    /// Has the uncompressed layer `tar` in the store; `expected` is the diff id asked for.
    fn obtain(&self, tar: &[u8], expected: Option<&Digest>) -> anyhow::Result<(Digest, Obtained)> {
        let lease = self.store.lease().unwrap();
        let wanted = Wanted { diff_id: expected, blob: None, keep: Keep::Blob };
        self.store.obtain(&lease, wanted, || Ok(Box::new(tar)), || {})
    }

    /// Loads an archive as it comes through a pipe.
    fn load(&self, archive: &[u8]) -> anyhow::Result<Vec<Loaded>> {
        self.store.load(&mut &*archive, &Choice::Usual)
    }

    /// After a sweep nothing is left: no layer, no blob, no config, no reference, no lease, no temporary.
    fn assert_empty(&self) {
        self.store.sweep(&mut || Ok(BTreeSet::new())).unwrap();
        assert_eq!(self.layers(), [""; 0]);
        let image = self.dir.path().join("image");
        for name in names(&image) {
            match fs::symlink_metadata(image.join(&name)).unwrap().is_dir() {
                true => assert_eq!(files(&image.join(&name)), [""; 0], "{name}"),
                false if name == "repositories.json" => {
                    let text = fs::read_to_string(image.join(name)).unwrap();
                    assert!(!text.contains("sha256"), "{text}");
                }
                false => assert_eq!(name, "lock"),
            }
        }
    }
}

/// Names of all files below `directory`.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(directory) {
        let path = directory.join(&name);
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(name),
        }
    }
    found
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A config with these layers.
fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    serde_json::to_vec(&serde_json::json!({
        "os": "linux", "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .unwrap()
}
