//! Archives that go out, and come in again elsewhere.

use std::fs;
use std::io::Read;

use serde_json::{Value, json};

use super::load::{add_blob, descriptor, json, saved, two_layers};
use super::{Keep, Member, Root, Tar, Wanted, config, gzip};
use crate::error::Failure;
use crate::image::archive::{Choice, Form, SaveRequest};
use crate::image::oci::digest::Digest;

fn request(names: &[&str]) -> SaveRequest {
    SaveRequest { names: names.iter().map(|name| (*name).to_owned()).collect(), ..SaveRequest::default() }
}

fn save(root: &Root, names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    root.store.save(&request(names), &mut bytes).unwrap();
    bytes
}

/// Members of an archive in their order, with their contents.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn member(archive: &[u8], name: &str) -> Vec<u8> {
    members(archive).into_iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no {name}")).1
}

fn document(archive: &[u8], name: &str) -> Value {
    serde_json::from_slice(&member(archive, name)).unwrap()
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())
}

/// An OCI layout of one image, `x/y:1`, with a compressed and a plain layer and fields nobody knows.
fn layout() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (lower, upper) = two_layers();
    let config = config(&[&lower, &upper]);
    let compressed = gzip(&lower);
    let manifest = json(&json!({"schemaVersion": 2, "x": {"unknown": [1, 2]}, "config": descriptor(&config),
        "layers": [descriptor(&compressed), descriptor(&upper)], "annotations": {"a": "b"}}));
    let mut top = descriptor(&manifest);
    top["annotations"] = json!({"io.containerd.image.name": "docker.io/x/y:1"});
    let index = json(&json!({"schemaVersion": 2, "manifests": [top]}));
    let mut tar = Tar::new().file("oci-layout", b"{}").file("index.json", &index);
    for bytes in [&config, &compressed, &upper, &manifest] {
        tar = add_blob(tar, bytes);
    }
    (tar.bytes(), manifest, compressed)
}

#[test]
fn an_image_goes_out_under_the_manifest_it_came_with() {
    let root = Root::new();
    let (archive, manifest, compressed) = layout();
    let id = root.load(&archive).unwrap().remove(0).id;
    let saved = save(&root, &["x/y:1"]);
    let index = document(&saved, "index.json");
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(digest, Digest::of(&manifest).to_string());
    assert_eq!(member(&saved, &blob(digest)), manifest);
    assert_eq!(member(&saved, &blob(&Digest::of(&compressed).to_string())), compressed);
    assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "docker.io/x/y:1");
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1");
    let docker = document(&saved, "manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["x/y:1"]));
    assert_eq!(docker[0]["Config"], blob(&id));
    assert_eq!(document(&saved, "repositories")["x/y"]["1"], Digest::of(&two_layers().1).hex());
    // Elsewhere it is the same image, and goes out as the same bytes.
    let other = Root::new();
    assert_eq!(other.load(&saved).unwrap()[0].id, id);
    assert_eq!(other.layers(), root.layers());
    assert_eq!(save(&other, &["x/y:1"]), saved);
    assert_eq!(save(&root, &["x/y:1"]), saved);
}

#[test]
fn layers_without_a_compressed_form_go_out_as_they_are() {
    let root = Root::new();
    let (lower, upper) = two_layers();
    let config = config(&[&lower, &upper]);
    root.load(&saved(&config, &[&lower, &upper], &json!(["busybox:1", "busybox:2", "other:1"]))).unwrap();
    let archive = save(&root, &["busybox:1"]);
    let names: Vec<String> = members(&archive).into_iter().map(|(name, _)| name).collect();
    let docker = document(&archive, "manifest.json");
    let layers: Vec<String> = [&lower, &upper].map(|layer| blob(&Digest::of(layer).to_string())).to_vec();
    assert_eq!(docker[0]["Layers"], json!(layers));
    assert_eq!(member(&archive, &layers[0]), lower);
    assert_eq!(member(&archive, &layers[1]), upper);
    assert_eq!(names.iter().filter(|name| name.starts_with("blobs/sha256/")).count(), 1 + 4, "{names:?}");

    // A repository means all its tags; an id means no name; each blob stands there once.
    let archive = save(&root, &["busybox", "other:1"]);
    assert_eq!(document(&archive, "manifest.json")[0]["RepoTags"], json!(["busybox:1", "busybox:2", "other:1"]));
    assert_eq!(document(&archive, "index.json")["manifests"].as_array().unwrap().len(), 3);
    let id = Digest::of(&config);
    for name in [&id.to_string()[..], &id.hex()[..12]] {
        let archive = save(&root, &[name]);
        assert_eq!(document(&archive, "manifest.json")[0]["RepoTags"], Value::Null, "{name}");
        assert!(!members(&archive).iter().any(|(name, _)| name == "repositories"));
        assert_eq!(Root::new().load(&archive).unwrap()[0].references, [""; 0]);
    }
    let mut oci = Vec::new();
    root.store.save(&SaveRequest { form: Form::Oci, ..request(&["other:1"]) }, &mut oci).unwrap();
    assert!(!members(&oci).iter().any(|(name, _)| name == "manifest.json"));
    assert_eq!(Root::new().load(&oci).unwrap()[0].references, ["other:1"]);
}

#[test]
fn a_layer_that_cannot_be_told_again_is_told_from_what_was_kept() {
    let root = Root::new();
    // The second undoes the first: only the archive itself knows that there was one.
    let layer = Tar::new().file("f", b"first").file("f", b"second").bytes();
    let config = config(&[&layer]);
    root.load(&saved(&config, &[&gzip(&layer)], &json!(["x:1"]))).unwrap();
    let diff_id = Digest::of(&layer);
    assert!(!root.store.layer(&diff_id.to_string()).with_file_name("recipe").exists());
    let mut told = Vec::new();
    root.store.open_layer(&diff_id, &diff_id).unwrap().read_to_end(&mut told).unwrap();
    assert_eq!(told, layer);
    let other = Root::new();
    other.load(&save(&root, &["x:1"])).unwrap();
    assert_eq!(save(&other, &["x:1"]), save(&root, &["x:1"]));
}

#[test]
fn nor_does_it_matter_how_it_was_compressed_where_that_was_not_kept() {
    let layer = Tar::new().file("f", b"first").file("f", b"second").bytes();
    for came in [layer.clone(), gzip(&layer)] {
        let root = Root::new();
        let lease = root.store.lease().unwrap();
        let wanted = Wanted { diff_id: None, blob: None, keep: Keep::Nothing };
        root.store.obtain(&lease, wanted, || Ok(Box::new(&came[..])), || {}).unwrap();
        let id = root.put_config(&config(&[&layer])).to_string();
        drop(lease);
        root.store.sweep(&mut || Ok(std::collections::BTreeSet::new())).unwrap();
        let archive = save(&root, &[&id]);
        assert_eq!(member(&archive, &blob(&Digest::of(&layer).to_string())), layer);
        assert_eq!(Root::new().load(&archive).unwrap()[0].id, id);
    }
}

#[test]
fn what_cannot_be_saved() {
    let root = Root::new();
    let (lower, _) = two_layers();
    let mut config: Value = serde_json::from_slice(&config(&[&lower])).unwrap();
    config["architecture"] = json!("pdp11");
    let config = json(&config);
    root.load(&saved(&config, &[&lower], &json!(["x:1"]))).unwrap();
    let failed = |request: &SaveRequest| {
        let mut bytes = Vec::new();
        let error = root.store.save(request, &mut bytes).unwrap_err();
        assert!(bytes.is_empty(), "nothing is written before every name is found");
        Failure::from_error(&error).to_string()
    };
    assert_eq!(failed(&request(&["x:1", "absent"])), "No such image: absent");
    let arm = Some("linux/arm64".parse().unwrap());
    let text = failed(&SaveRequest { platform: arm, ..request(&["x:1"]) });
    assert!(text.contains("does not provide the specified platform (linux/arm64)"), "{text}");
    let same = Some("linux/pdp11".parse().unwrap());
    root.store.save(&SaveRequest { platform: same, ..request(&["x:1"]) }, &mut Vec::new()).unwrap();
    // A layer whose files are not as they were is an error, not an archive of something else.
    let layer = root.store.layer(&Digest::of(&lower).to_string());
    fs::write(layer.join("etc/old"), "2").unwrap();
    let recipe = layer.parent().unwrap().join("recipe");
    let mut told = fs::read(&recipe).unwrap();
    let at = told.len() / 2;
    told[at] ^= 1;
    fs::write(&recipe, told).unwrap();
    assert!(root.store.save(&request(&["x:1"]), &mut Vec::new()).is_err());
}

#[test]
fn platforms_are_chosen() {
    let (lower, _) = two_layers();
    let image = |architecture: &str| {
        let mut value: Value = serde_json::from_slice(&config(&[&lower])).unwrap();
        value["architecture"] = json!(architecture);
        let config = json(&value);
        let manifest =
            json(&json!({"schemaVersion": 2, "config": descriptor(&config), "layers": [descriptor(&lower)]}));
        let mut entry = descriptor(&manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "x:1"});
        (config, manifest, entry)
    };
    let (arm, host) = (image("arm64"), image("amd64"));
    let index = json(&json!({"schemaVersion": 2, "manifests": [arm.2, host.2]}));
    let tar = Tar::new().file("oci-layout", b"{}").file("index.json", &index);
    let tar = [&lower, &arm.0, &arm.1, &host.0, &host.1].into_iter().fold(tar, |tar, bytes| add_blob(tar, bytes));
    let archive = tar.bytes();
    let root = Root::new();
    for (platform, expected) in [("linux/arm64", &arm.0), ("linux/amd64", &host.0)] {
        let choice = Choice::For(platform.parse().unwrap());
        let loaded = root.store.load(&mut &archive[..], &choice).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].id, Digest::of(expected).to_string());
    }
    // The second took the name of the first.
    let again = root.store.load(&mut &archive[..], &Choice::For("linux/arm64".parse().unwrap())).unwrap();
    assert_eq!(again[0].displaced, [("x:1".to_owned(), Digest::of(&host.0).to_string())]);
    let error = root.store.load(&mut &archive[..], &Choice::For("linux/s390x".parse().unwrap())).unwrap_err();
    assert!(format!("{error:#}").contains("no matching manifest for linux/s390x"), "{error:#}");
    let old = saved(&host.0, &[&lower], &json!(["x:1"]));
    let error = root.store.load(&mut &old[..], &Choice::For("linux/s390x".parse().unwrap())).unwrap_err();
    assert!(format!("{error:#}").contains("no image for the platform linux/s390x"), "{error:#}");
}

#[test]
fn one_name_for_two_images_is_refused() {
    let root = Root::new();
    let (archive, ..) = layout();
    let (lower, _) = two_layers();
    let other = config(&[&lower]);
    let manifest = |tag: &str| {
        let entry = json!([{"Config": blob(&Digest::of(&other).to_string()), "RepoTags": [tag],
            "Layers": [blob(&Digest::of(&lower).to_string())]}]);
        let mut tar = Tar::new().file("manifest.json", &json(&entry));
        for (name, bytes) in members(&archive) {
            tar = tar.add(Member { name: name.as_bytes(), content: &bytes, ..Member::default() });
        }
        add_blob(add_blob(tar, &other), &lower).bytes()
    };
    let error = root.load(&manifest("x/y:1")).unwrap_err();
    assert!(format!("{error:#}").contains("is the name of two images"), "{error:#}");
    root.assert_empty();
    assert_eq!(root.load(&manifest("x/y:2")).unwrap().len(), 2);
}

#[test]
fn layers_that_occur_again_are_links() {
    let root = Root::new();
    let (lower, _) = two_layers();
    let config = config(&[&lower, &lower, &lower]);
    let archive = |symbolic: &str, hard: &str| {
        let manifest = json(&json!([{"Config": "c.json", "RepoTags": ["x:1"],
            "Layers": ["a/layer.tar", "b/layer.tar", "d/layer.tar"]}]));
        Tar::new()
            .file("c.json", &config)
            .file("a/layer.tar", &lower)
            .symlink("b/layer.tar", symbolic)
            .hard_link("d/layer.tar", hard)
            .file("manifest.json", &manifest)
            .bytes()
    };
    root.load(&archive("../a/layer.tar", "a/layer.tar")).unwrap();
    assert_eq!(root.layers().len(), 1);
    for (symbolic, hard) in [
        ("/etc/passwd", "a/layer.tar"),
        ("../../../../etc/passwd", "a/layer.tar"),
        ("../b/layer.tar", "a/layer.tar"),
        ("../d/layer.tar", "a/layer.tar"),
        ("../a/layer.tar", "/etc/passwd"),
        ("../a/layer.tar", "../a/layer.tar"),
        ("../a", "a/layer.tar"),
    ] {
        let root = Root::new();
        let error = root.load(&archive(symbolic, hard)).unwrap_err();
        assert!(format!("{error:#}").contains("not a regular file"), "{symbolic} {hard}: {error:#}");
        root.assert_empty();
    }
}

#[test]
fn a_file_is_read_in_place_and_a_compressed_one_is_not() {
    let (archive, ..) = layout();
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    for bytes in [archive.clone(), gzip(&archive), zstd] {
        let root = Root::new();
        let path = root.dir.path().join("archive");
        fs::write(&path, bytes).unwrap();
        let loaded = root.store.load_file(fs::File::open(&path).unwrap(), &Choice::Usual).unwrap();
        assert_eq!(loaded[0].references, ["x/y:1"]);
        // Offset by what somebody else read of it.
        let mut file = fs::File::open(&path).unwrap();
        std::io::Read::read_exact(&mut file, &mut [0; 7]).unwrap();
        assert!(root.store.load_file(file, &Choice::Usual).is_err());
    }
}
