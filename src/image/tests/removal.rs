//! Removing names and images, and what is counted.

use std::collections::BTreeSet;
use std::fs;

use super::{Root, Tar, config};
use crate::error::{Class, Failure};
use crate::image::oci::digest::Digest;
use crate::image::oci::reference::Reference;
use crate::image::store::tags::Arrival;
use crate::image::{Force, Owner, Tags, User};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// An image of one layer, with a manifest, by these names.
fn arrive(root: &Root, layer: &[u8], names: &[&str], digests: &[&str]) -> Digest {
    root.obtain(layer, None).unwrap();
    let config = config(&[layer]);
    let id = Digest::of(&config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{id}","size":{}}},"layers":[]}}"#,
        config.len()
    );
    let references: Vec<Reference> = names.iter().map(|name| reference(name)).collect();
    let digests: Vec<Reference> =
        digests.iter().map(|name| reference(&format!("{name}@{}", Digest::of(manifest.as_bytes())))).collect();
    let arrival =
        Arrival { config: &config, manifest: Some(manifest.as_bytes()), references: &references, digests: &digests };
    root.store.record(&arrival).unwrap()
}

fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, b"1").bytes()
}

fn user(id: &Digest, layers: &[&[u8]]) -> User {
    let layers = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    User { container: "c".repeat(64), image: id.to_string(), layers, runs: false }
}

#[test]
fn digests_are_names_as_well() {
    let root = Root::new();
    let id = arrive(&root, &layer("a"), &["a:1", "a:2"], &["a", "host:5000/b"]);
    let listed = root.store.list().unwrap();
    assert_eq!(listed[0].references, ["a:1", "a:2"]);
    let by_digest = listed[0].digests.clone();
    assert_eq!(by_digest.len(), 2);
    let none = &mut || Ok(Vec::new());
    assert_eq!(root.store.remove("a:1", Force::No, none).unwrap().untagged, ["a:1"]);
    // With the last tag of a repository its digest goes, and that of another stays.
    let removed = root.store.remove("a:2", Force::No, none).unwrap();
    assert_eq!(removed.untagged, ["a:2".to_owned(), by_digest[0].clone()]);
    assert!(removed.deleted.is_none());
    let removed = root.store.remove(&by_digest[1], Force::No, none).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted.unwrap().layers.len()), (1, 1));
    assert!(!root.store.has(&id.to_string()));
    root.assert_empty();
}

#[test]
fn an_image_known_by_digest_alone_is_dangling() {
    let root = Root::new();
    let id = arrive(&root, &layer("a"), &[], &["a"]).to_string();
    let none = &mut || Ok(Vec::new());
    let removed = root.store.remove_unused(&id, Tags::Count, none).unwrap().unwrap();
    assert_eq!(removed.untagged.len(), 1);
    assert!(removed.deleted.unwrap().bytes > 8192, "directory, file, config");
    assert!(root.store.remove_unused(&id, Tags::Count, none).unwrap().is_none(), "it is gone");
    root.assert_empty();
}

#[test]
fn what_is_used_or_tagged_is_not_unused() {
    let root = Root::new();
    let tar = layer("a");
    let id = arrive(&root, &tar, &["a:1"], &[]);
    let text = id.to_string();
    assert!(root.store.remove_unused(&text, Tags::Count, &mut || Ok(Vec::new())).unwrap().is_none());
    let mut used = || Ok(vec![user(&id, &[&tar])]);
    assert!(root.store.remove_unused(&text, Tags::CountForNothing, &mut used).unwrap().is_none());
    let removed = root.store.remove_unused(&text, Tags::CountForNothing, &mut || Ok(Vec::new())).unwrap();
    assert_eq!(removed.unwrap().untagged, ["a:1"]);
}

#[test]
fn a_container_that_appears_meanwhile_keeps_its_layers() {
    let root = Root::new();
    let (kept, gone) = (layer("kept"), layer("gone"));
    root.obtain(&kept, None).unwrap();
    root.obtain(&gone, None).unwrap();
    let id = root.put_config(&config(&[&kept, &gone]));
    let mut asked = 0;
    let mut users = || {
        asked += 1;
        // Recorded after it was looked whether the image may go, before it was looked what goes with it.
        Ok(if asked > 1 { vec![user(&id, &[&kept])] } else { Vec::new() })
    };
    let removed = root.store.remove(&id.to_string(), Force::No, &mut users).unwrap();
    assert_eq!(removed.deleted.unwrap().layers, [Digest::of(&gone).to_string()]);
    assert_eq!(root.layers(), [Digest::of(&kept).hex()]);
}

#[test]
fn a_refusal_changes_nothing() {
    let root = Root::new();
    let tar = layer("a");
    let id = arrive(&root, &tar, &["a:1"], &["a"]);
    let before = root.store.list().unwrap();
    let mut used = || Ok(vec![user(&id, &[&tar])]);
    for text in ["a:1", &id.to_string()] {
        let failure = Failure::from_error(&root.store.remove(text, Force::No, &mut used).unwrap_err());
        assert_eq!(failure.class, Class::Conflict, "{failure}");
    }
    let missing = Failure::from_error(&root.store.remove("b", Force::Yes, &mut used).unwrap_err());
    assert_eq!((missing.class, missing.message.as_str()), (Class::NotFound, "No such image: b:latest"));
    assert_eq!(root.store.list().unwrap(), before);
}

#[test]
fn names_without_an_image_go_with_a_sweep() {
    let root = Root::new();
    let id = arrive(&root, &layer("a"), &["a:1"], &["a"]);
    fs::remove_file(root.dir.path().join("image/configs/sha256").join(id.hex())).unwrap();
    assert!(root.store.get("a:1").unwrap().is_none());
    assert!(root.store.tag(&[reference("b:1")], &id).is_err(), "no new ones are given");
    root.store.sweep(&mut || Ok(BTreeSet::new())).unwrap();
    let text = fs::read_to_string(root.dir.path().join("image/repositories.json")).unwrap();
    assert!(!text.contains("a:1") && !text.contains('@'), "{text}");
}

#[test]
fn a_survey_counts_everything_once() {
    let root = Root::new();
    let (a, b) = (layer("a"), layer("b"));
    let id = arrive(&root, &a, &["a:1"], &[]);
    root.obtain(&b, None).unwrap();
    let survey = root.store.survey(&mut || Ok(BTreeSet::new())).unwrap();
    let of = |owner: &Owner| survey.pieces.iter().filter(|piece| piece.owner == *owner).count();
    assert_eq!(of(&Owner::Image(id.to_string())), 2, "config and manifest");
    assert_eq!(of(&Owner::Layer(Digest::of(&a).to_string())), 1);
    assert_eq!(survey.orphans.iter().map(|orphan| &orphan.name).collect::<Vec<_>>(), [&Digest::of(&b).to_string()]);
    let sum: u64 = survey.pieces.iter().map(|piece| piece.bytes).chain(survey.orphans.iter().map(|it| it.bytes)).sum();
    let disk = |name: &str| crate::sys::tree::usage(&root.dir.path().join(name)).unwrap().disk;
    assert_eq!(sum, disk("image") + disk("overlay2/layers"));
}
