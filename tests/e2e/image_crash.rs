//! kill -9 of `rmi` and the prunes at each step: what is left is usable, and a prune brings it to nothing.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::{Image, Layer, save_all};
use crate::support::injection::{each, killed_at};

/// Every way in which these commands change the file system, and how they wait for each other.
const CALLS: [(&str, u32); 6] =
    [("rename", 1), ("renameat2", 1), ("unlink", 1), ("unlinkat", 2), ("flock", 1), ("fsync", 1)];

fn archive(s: &Sandbox) -> String {
    let file = s.host("crash.tar");
    let layer =
        |name: &str| Layer::default().dir("d/", 0o755).file(&format!("d/{name}"), 0o644, name).file(name, 0o644, "");
    let images = [
        Image { references: &["a:1", "a:2"], layers: &[layer("x"), layer("y")], ..Image::default() },
        Image {
            references: &["b:1"],
            config: json!({"Cmd": ["b"]}),
            layers: &[layer("x"), layer("z")],
            ..Image::default()
        },
        Image { layers: &[layer("w")], ..Image::default() },
    ];
    save_all(Path::new(&file), &images);
    file
}

/// Everything below the store's directories that a prune of all should have taken.
fn left(s: &Sandbox) -> Vec<String> {
    let mut left = Vec::new();
    for directory in
        ["overlay2/layers", "image/configs/sha256", "image/manifests/sha256", "image/blobs/sha256", "image"]
    {
        for entry in fs::read_dir(s.root().join(directory)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if directory != "image" || name.ends_with(".tmp") {
                left.push(format!("{directory}/{name}"));
            }
        }
    }
    left
}

fn killed_at_each_step(args: &[&str], least: usize) {
    let s = Sandbox::new();
    let file = archive(&s);
    let kills = each(&CALLS, |call, nth| {
        s.ok(["load", "-q", "-i", &file]);
        let killed = killed_at(&s, call, nth, args);
        let what = format!("{args:?}, {call} #{nth}");
        // Whatever is listed is whole.
        for id in s.ok(["images", "-q", "--no-trunc"]).lines() {
            s.ok(["history", id]);
            for layer in s.ok(["image", "inspect", "-f", "{{range .RootFS.Layers}}{{println .}}{{end}}", id]).lines() {
                let path = s.root().join("overlay2/layers").join(layer.trim_start_matches("sha256:")).join("diff");
                assert!(layer.is_empty() || path.is_dir(), "{what}: {id} lacks {layer}");
            }
        }
        // The same once more ends what was begun, and loading brings all back.
        s.run(args);
        s.ok(["load", "-q", "-i", &file]);
        assert_eq!(s.ok(["images", "-q"]).lines().count(), 4, "{what}");
        s.ok(["image", "prune", "-af"]);
        assert_eq!(left(&s), [""; 0], "{what}");
        killed
    });
    assert!(kills >= least, "only {kills} kills: strace did not do its work");
}

#[test]
fn a_removal() {
    ours_only!("kills our own processes");
    killed_at_each_step(&["rmi", "-f", "a:1", "a:2", "b:1"], 15);
}

#[test]
fn a_prune() {
    ours_only!("kills our own processes");
    killed_at_each_step(&["image", "prune", "-af"], 15);
}

#[test]
fn a_prune_after_a_kill_frees_what_the_kill_left() {
    ours_only!("kills our own processes");
    let s = Sandbox::new();
    let file = archive(&s);
    let kills = each(&[("renameat2", 1), ("rename", 1), ("mkdir", 1), ("linkat", 1)], |call, nth| {
        let killed = killed_at(&s, call, nth, &["load", "-i", &file]);
        s.ok(["image", "prune", "-af"]);
        assert_eq!(left(&s), [""; 0], "load, {call} #{nth}");
        killed
    });
    assert!(kills >= 5, "only {kills} kills: strace did not do its work");
}
