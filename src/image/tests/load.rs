//! Archives of images, and bundled ones.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use super::{Member, Root, Tar, config, gzip, names};
use crate::error::{Class, Failure};
use crate::image::oci::digest::Digest;
use crate::image::oci::platform::architecture;

pub(super) fn two_layers() -> (Vec<u8>, Vec<u8>) {
    let lower = Tar::new().directory("bin", 0o755).file("bin/sh", b"shell").file("etc/old", b"1").bytes();
    let upper = Tar::new().file("etc/.wh.old", b"").file("etc/new", b"22").bytes();
    (lower, upper)
}

pub(super) fn json(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

pub(super) fn add_blob(tar: Tar, bytes: &[u8]) -> Tar {
    tar.file(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes)
}

pub(super) fn descriptor(bytes: &[u8]) -> Value {
    json!({"digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

/// As Docker before version 25 saves, members in an unusual order.
pub(super) fn saved(config: &[u8], layers: &[&[u8]], tags: &Value) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut members = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let name = format!("layer{i}/layer.tar");
        tar = tar.file(&name, layer);
        members.push(name);
    }
    let name = format!("{}.json", Digest::of(config).hex());
    let manifest = json(&json!([{"Config": name, "RepoTags": tags, "Layers": members}]));
    tar.file("manifest.json", &manifest).file(&name, config).bytes()
}

fn refused(root: &Root, archive: &[u8], reason: &str) {
    let error = root.load(archive).expect_err(reason);
    let text = format!("{error:#}");
    assert!(text.contains(reason), "{text}");
    root.assert_empty();
}

#[test]
pub(super) fn two_layers_and_two_tags() {
    let root = Root::new();
    let (lower, upper) = two_layers();
    let config = config(&[&lower, &upper]);
    // A compressed layer in a compressed archive.
    let archive = gzip(&saved(&config, &[&lower, &gzip(&upper)], &json!(["busybox:latest", "quay.io/a/b:1"])));
    let loaded = root.load(&archive).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].references, ["busybox:latest", "quay.io/a/b:1"]);
    assert_eq!(loaded[0].id, Digest::of(&config).to_string());
    let image = root.store.get("busybox").unwrap().unwrap();
    assert_eq!(image.layers, [Digest::of(&lower).to_string(), Digest::of(&upper).to_string()]);
    assert_eq!((image.defaults.command, image.defaults.env), (vec!["sh".to_owned()], vec!["A=b".to_owned()]));
    assert_eq!(fs::read(root.store.layer(&image.layers[0]).join("bin/sh")).unwrap(), b"shell");
    assert_eq!(names(&root.store.layer(&image.layers[1]).join("etc")), ["new", "old"]);
    let list = root.store.list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].size, 5 + 1 + 2);
    assert_eq!(list[0].created.unwrap().to_string(), "2024-01-02T03:04:05Z");
    assert_eq!(list[0].references, ["busybox:latest", "quay.io/a/b:1"]);

    // The same again changes nothing; a new image with the tag takes it over and shares the layer.
    assert_eq!(root.load(&archive).unwrap(), loaded);
    let inode = fs::metadata(root.store.layer(&image.layers[0])).unwrap().ino();
    let other = super::config(&[&lower]);
    root.load(&saved(&other, &[&lower], &json!(["busybox:latest"]))).unwrap();
    assert_eq!(root.store.get("busybox").unwrap().unwrap().id, Digest::of(&other).to_string());
    assert_eq!(fs::metadata(root.store.layer(&image.layers[0])).unwrap().ino(), inode);
    assert_eq!(root.layers().len(), 2);
}

#[test]
fn several_images_and_no_tag() {
    let root = Root::new();
    let (lower, upper) = two_layers();
    let (one, two) = (config(&[&lower]), config(&[&lower, &upper]));
    let layers = [&lower, &upper].map(|layer| format!("blobs/sha256/{}", Digest::of(layer).hex()));
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let manifest = json(&json!([
        {"Config": blob(&one), "RepoTags": ["one:1"], "Layers": [layers[0]]},
        {"Config": blob(&two), "RepoTags": null, "Layers": layers},
    ]));
    let mut tar = Tar::new().file("manifest.json", &manifest);
    for bytes in [&one, &two, &lower, &upper] {
        tar = add_blob(tar, bytes);
    }
    let loaded = root.load(&tar.bytes()).unwrap();
    assert_eq!(loaded[0].references, ["one:1"]);
    assert_eq!(loaded[1].references, [""; 0]);
    assert_eq!(root.store.get(&loaded[1].id).unwrap().unwrap().layers.len(), 2);
}

#[test]
fn an_oci_layout() {
    let root = Root::new();
    let (lower, upper) = two_layers();
    let config = config(&[&lower, &upper]);
    let compressed = gzip(&upper);
    let manifest = json(&json!({"schemaVersion": 2, "config": descriptor(&config),
        "layers": [descriptor(&lower), descriptor(&compressed)]}));
    let mut wanted = descriptor(&manifest);
    wanted["platform"] = json!({"os": "linux", "architecture": architecture()});
    let mut other = descriptor(b"absent");
    other["platform"] = json!({"os": "linux", "architecture": "pdp11"});
    let nested = json(&json!({"manifests": [other, wanted]}));
    let mut top = descriptor(&nested);
    top["annotations"] = json!({"org.opencontainers.image.ref.name": "a/b:2"});
    let mut tar = Tar::new().file("oci-layout", b"{}").file("index.json", &json(&json!({"manifests": [top]})));
    for bytes in [&config, &lower, &compressed, &manifest, &nested] {
        tar = add_blob(tar, bytes);
    }
    let loaded = root.load(&tar.bytes()).unwrap();
    assert_eq!(loaded[0].references, ["a/b:2"]);
    assert_eq!(root.store.get("a/b:2").unwrap().unwrap().id, Digest::of(&config).to_string());
}

#[test]
fn malformed_oci_layouts() {
    let root = Root::new();
    let layout = |index: &Value, blobs: &[&[u8]]| {
        let tar = Tar::new().file("oci-layout", b"{}").file("index.json", &json(index));
        blobs.iter().fold(tar, |tar, blob| add_blob(tar, blob)).bytes()
    };
    refused(&root, &layout(&json!({}), &[]), "neither an image manifest nor");
    refused(&root, &layout(&json!({"manifests": []}), &[]), "names no image");
    let path = json!({"digest": "sha256:../../../etc/passwd", "size": 1});
    refused(&root, &layout(&json!({"manifests": [path]}), &[]), "invalid digest");
    let both = json(&json!({"manifests": [], "layers": [], "config": descriptor(b"x")}));
    refused(&root, &layout(&json!({"manifests": [descriptor(&both)]}), &[&both]), "neither an image manifest nor");
    let mut size = descriptor(&both);
    size["size"] = json!(1);
    refused(&root, &layout(&json!({"manifests": [size]}), &[&both]), "as its descriptor says");
    // An index that holds itself cannot be (its digest), but a deep chain can.
    let mut chain = json(&json!({"manifests": []}));
    let mut blobs = vec![chain.clone()];
    for _ in 0..10 {
        chain = json(&json!({"manifests": [descriptor(&chain)]}));
        blobs.push(chain.clone());
    }
    let blobs: Vec<&[u8]> = blobs.iter().map(|blob| &blob[..]).collect();
    refused(&root, &layout(&json!({"manifests": [descriptor(&chain)]}), &blobs), "nested more than");
    // A blob that is not what its name says.
    let name = format!("blobs/sha256/{}", Digest::of(b"one").hex());
    let tar =
        Tar::new().file("oci-layout", b"{}").file("index.json", &json(&json!({"manifests": [descriptor(b"one")]})));
    refused(&root, &tar.file(&name, b"two").bytes(), "damaged");
}

#[test]
fn artifacts_are_no_images_and_stand_in_no_images_way() {
    let (lower, _) = two_layers();
    let (config, signature) = (config(&[&lower]), b"{}");
    let mut kind = descriptor(signature);
    kind["mediaType"] = json!("application/vnd.dev.cosign.config.v1+json");
    let image = json(&json!({"schemaVersion": 2, "config": descriptor(&config), "layers": [descriptor(&lower)]}));
    let artifact = json(&json!({"schemaVersion": 2, "config": kind, "layers": []}));
    let layout = |manifests: &[&[u8]]| {
        let descriptors: Vec<Value> = manifests.iter().map(|bytes| descriptor(bytes)).collect();
        let index = json(&json!({"manifests": descriptors}));
        let tar = Tar::new().file("oci-layout", b"{}").file("index.json", &index);
        let blobs = [&config, &lower, &signature[..], &image, &artifact];
        blobs.into_iter().fold(tar, add_blob).bytes()
    };
    let root = Root::new();
    refused(
        &root,
        &layout(&[&artifact]),
        "is not a container image: its config is of type \"application/vnd.dev.cosign",
    );
    let loaded = root.load(&layout(&[&artifact, &image])).unwrap();
    assert_eq!(loaded.iter().map(|image| &image.id[..]).collect::<Vec<_>>(), [Digest::of(&config).to_string()]);
}

/// `run busybox@sha256:…` is believed because a registry's answer was held against that digest.
#[test]
fn an_archive_cannot_name_an_image_by_a_digest() {
    let root = Root::new();
    let (lower, _) = two_layers();
    let config = config(&[&lower]);
    for digest in [Digest::of(b"of another image"), Digest::of(&config)] {
        for name in [format!("busybox@{digest}"), format!("busybox:1@{digest}")] {
            refused(&root, &saved(&config, &[&lower], &json!([name])), "cannot name an image by a digest");
        }
    }
}

#[test]
fn bad_archives_leave_nothing() {
    let root = Root::new();
    let (lower, upper) = two_layers();
    let good = config(&[&lower, &upper]);
    let tags = json!(["x:1"]);
    refused(&root, b"", "neither manifest.json nor index.json");
    refused(&root, b"not a tar at all", "read archive");
    refused(&root, &gzip(&[0; 100])[..20], "read archive");
    refused(&root, b"\xfd7zXZ\0....", "xz");
    // The second layer is wrong: nothing keeps the first.
    refused(&root, &saved(&good, &[&lower, &lower], &tags), "as the image says");
    refused(&root, &saved(&good, &[&lower, &upper[..700]], &tags), "truncated");
    refused(&root, &saved(&good, &[&lower, &gzip(&upper)[..60]], &tags), "read archive");
    refused(&root, &saved(&good, &[&lower], &tags), "layers length mismatch: expected 2, got 1");
    refused(&root, &saved(b"{\"rootfs\":", &[], &tags), "parse image config");
    let bad = saved(&good, &[&lower, &upper], &json!(["Bad:1"]));
    refused(&root, &bad, "must be lowercase");
    // Whoever gave the command line is not told how to.
    assert_eq!(Failure::from_error(&root.load(&bad).unwrap_err()).class, Class::Engine);
    let whole = saved(&good, &[&lower, &upper], &tags);
    for cut in (1..whole.len() - 1024).step_by(1500) {
        assert!(root.load(&whole[..cut]).is_err(), "cut at {cut}");
        root.assert_empty();
    }
    let manifest = |value: &Value| Tar::new().file("manifest.json", &json(value)).bytes();
    refused(&root, &manifest(&json!([])), "names no image");
    refused(&root, &manifest(&json!({})), "parse manifest.json");
    refused(&root, &manifest(&json!([{"Config": "../../etc/passwd", "Layers": []}])), "lacks");
    refused(&root, &manifest(&json!([{"Config": "/etc/passwd", "Layers": []}])), "lacks");
    // A config whose name promises another digest.
    let name = format!("{}.json", Digest::of(b"other").hex());
    let promise = json(&json!([{"Config": name, "Layers": []}]));
    refused(&root, &Tar::new().file("manifest.json", &promise).file(&name, &good).bytes(), "has the digest");
    // Members that are links.
    let link = json(&json!([{"Config": "c", "Layers": []}]));
    refused(&root, &Tar::new().file("manifest.json", &link).symlink("c", "/etc/passwd").bytes(), "not a regular file");
    refused(&root, &Tar::new().symlink("manifest.json", "/etc/passwd").bytes(), "not a regular file");
    let huge = Member { name: b"manifest.json", content: &vec![b' '; 9 << 20], ..Member::default() };
    refused(&root, &Tar::new().add(huge).bytes(), "more than 8388608 bytes");
}

#[test]
fn a_plain_root_file_system_is_not_loaded_but_hinted() {
    let root = Root::new();
    let error = root.load(&two_layers().0).unwrap_err();
    let failure = Failure::from_error(&error);
    assert!(failure.hint.unwrap().contains("docker save"));
    root.assert_empty();
}

#[test]
fn bundled_root_file_systems_and_archives() {
    for compress in [false, true] {
        let root = Root::new();
        let (lower, _) = two_layers();
        assert_eq!(root.store.get_bundled("tiny-rootfs").unwrap(), None);
        let bytes = if compress { gzip(&lower) } else { lower.clone() };
        fs::write(root.dir.path().join("image/tiny-rootfs.tar"), bytes).unwrap();
        let image = root.store.get_bundled("tiny-rootfs").unwrap().unwrap();
        assert_eq!(image.layers, [Digest::of(&lower).to_string()]);
        assert_eq!(image.defaults.command, ["sh"]);
        assert!(image.defaults.env[0].starts_with("PATH=/usr/local/sbin:"));
        assert_eq!(root.store.get("tiny-rootfs").unwrap(), Some(image.clone()));
        assert_eq!(root.store.get_bundled("docker.io/library/tiny-rootfs:latest").unwrap(), Some(image));
        for other in ["tiny-rootfs:1", "a/tiny-rootfs", "quay.io/tiny-rootfs"] {
            assert_eq!(root.store.get_bundled(other).unwrap(), None, "{other}");
        }
        assert!(root.store.get_bundled("../tiny-rootfs").is_err());
    }
    let root = Root::new();
    let (lower, upper) = two_layers();
    let config = config(&[&lower, &upper]);
    let archive = saved(&config, &[&lower, &upper], &json!(["other:1"]));
    fs::write(root.dir.path().join("image/tiny.tar"), &archive).unwrap();
    assert_eq!(root.store.get_bundled("tiny").unwrap().unwrap().id, Digest::of(&config).to_string());
    assert!(root.store.get("tiny").unwrap().is_some());
    fs::write(root.dir.path().join("image/torn.tar"), &lower[..lower.len() - 1024]).unwrap();
    let error = root.store.get_bundled("torn").unwrap_err();
    assert!(format!("{error:#}").ends_with("torn.tar: archive is truncated"), "{error:#}");
}
