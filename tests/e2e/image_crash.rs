//! kill -9 of `rmi` and the prunes at each step: what is left is usable, and a prune brings it to nothing.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::ours_only;
use crate::support::archive::{Image, Layer, save, save_all};
use crate::support::injection::{each, killed_at};
use crate::support::peers::host;
use crate::support::{Sandbox, eventually};

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

/// Made before the machine went down, started after: nobody has looked at its layers in between.
#[test]
fn a_start_meets_what_a_power_cut_tore() {
    ours_only!("looks into our data root");
    let s = Sandbox::new();
    let file = s.host("torn.tar");
    let layers = [Layer::busybox(), Layer::default().file("f", 0o644, "whole")];
    save(Path::new(&file), "torn:1", &json!({"Cmd": ["cat", "/f"]}), &layers);
    s.ok(["load", "-q", "-i", &file]);
    s.ok(["create", "--name", "c1", "torn:1"]);
    let unsettled = s.root().join("image/unsettled");
    let marks = || fs::read_dir(&unsettled).unwrap().count();
    eventually("the layers are flushed", || marks() == 0);
    let tear = || {
        for layer in fs::read_dir(s.root().join("overlay2/layers")).unwrap() {
            let layer = layer.unwrap();
            fs::write(unsettled.join(layer.file_name()), "an earlier boot").unwrap();
            if let Ok(f) = fs::OpenOptions::new().write(true).open(layer.path().join("diff/f")) {
                f.set_len(2).unwrap();
            }
        }
    };
    tear();
    s.fails(1, ["start", "-a", "c1"]).says("was torn when the machine went down").says("pull or load the image again");
    s.ok(["load", "-q", "-i", &file]);
    assert_eq!(s.ok(["start", "-a", "c1"]), "whole");
    // What it came as was kept: nobody has to bring it again.
    s.ok(["rm", "c1"]);
    s.ok(["rmi", "torn:1"]);
    let (directory, packed) = (s.host_dir("unpacked"), s.host("packed.tar"));
    host("tar", ["-C", &directory, "-xf", &file]);
    host("sh", ["-c", "for f in \"$1\"/*/layer.tar; do gzip -n \"$f\" && mv \"$f.gz\" \"$f\"; done", "sh", &directory]);
    host("tar", ["-C", &directory, "-cf", &packed, "."]);
    s.ok(["load", "-q", "-i", &packed]);
    s.ok(["create", "--name", "c1", "torn:1"]);
    eventually("the layers are flushed", || marks() == 0);
    tear();
    assert_eq!(s.ok(["start", "-a", "c1"]), "whole");
}
