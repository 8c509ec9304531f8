//! `system df`: it adds up to what du(1) says, and names what nobody uses.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::{Image, Layer};

/// Bytes, and reclaimable bytes, by type.
fn rows(s: &Sandbox) -> BTreeMap<String, (u64, u64)> {
    let text = s.ok(["system", "df", "--format", "json"]);
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let number = |name: &str| row[name].as_str().unwrap().parse().unwrap();
        (row["Type"].as_str().unwrap().to_owned(), (number("Bytes"), number("ReclaimableBytes")))
    };
    text.lines().map(row).collect()
}

#[track_caller]
fn adds_up(s: &Sandbox, what: &str) -> BTreeMap<String, (u64, u64)> {
    let rows = rows(s);
    let sum: u64 = rows.values().map(|(bytes, _)| bytes).sum();
    assert_eq!(sum, s.du(""), "{what}: {rows:?}");
    rows
}

fn images(s: &Sandbox) {
    let base = || Layer::busybox();
    let top = |name: &str, size| Layer::default().file(name, 0o644, vec![1; size]).hardlink("link", name);
    s.load_images(&[
        Image { references: &["a:1", "a:2"], layers: &[base(), top("a", 100_000)], ..Image::default() },
        Image {
            references: &["b:1"],
            config: json!({"Volumes": {"/v": {}}}),
            layers: &[base(), top("b", 200_000)],
            ..Image::default()
        },
    ]);
}

#[test]
fn the_rows_make_what_du_says() {
    ours_only!("Docker's rows do not");
    let s = Sandbox::new();
    s.ok(["images"]);
    let rows = adds_up(&s, "an empty root");
    assert_eq!((rows["Containers"], rows["Local Volumes"], rows["Build Cache"]), ((0, 0), (0, 0), (0, 0)));
    images(&s);
    let rows = adds_up(&s, "images");
    assert!(rows["Images"].1 > 2_000_000 && rows["Images"].1 <= rows["Images"].0, "{rows:?}");

    let (running, ended) = (s.name("running"), s.name("ended"));
    s.ok(["run", "-d", "--name", &running, "-v", "named:/n", "b:1", "sleep", "1000"]);
    s.ok(["run", "--name", &ended, "a:1", "sh", "-c", "echo log; cat /bin/busybox > /copy; cat /bin/busybox > /tmp/c"]);
    s.ok(["rmi", "-f", "a:1", "a:2"]);
    let rows = adds_up(&s, "containers, volumes, an image that only a container has");
    assert!(rows["Containers"].1 > 1_000_000 && rows["Containers"].1 < rows["Containers"].0, "{rows:?}");
    assert_eq!(rows["Images"].1, 0, "all is in use");
    assert_eq!(rows["Local Volumes"].1, 0, "both are in use");
    assert!(!rows.contains_key("Orphaned"), "{rows:?}");
    let text = s.ok(["system", "df"]);
    assert!(text.starts_with("TYPE            TOTAL     ACTIVE    SIZE "), "{text}");
    let line = |kind: &str| -> Vec<&str> {
        text.lines().find_map(|line| line.strip_prefix(kind)).unwrap().split_whitespace().collect()
    };
    assert_eq!(line("Images")[..2], ["2", "2"]);
    assert_eq!(line("Containers")[..2], ["2", "1"]);
    assert_eq!(line("Local Volumes")[..2], ["2", "2"]);
    s.ok(["rm", "-f", "-v", &running, &ended]);
    let rows = adds_up(&s, "after the containers");
    assert!(rows["Orphaned"].1 > 100_000, "the layer that the container had kept: {rows:?}");
}

#[test]
fn orphans_are_told_by_name() {
    ours_only!("Docker knows none");
    let s = Sandbox::new();
    images(&s);
    let layer = "a".repeat(64);
    let root = s.root();
    fs::create_dir_all(root.join("overlay2/layers").join(&layer).join("diff")).unwrap();
    fs::write(root.join("overlay2/layers").join(&layer).join("diff/f"), vec![1; 100_000]).unwrap();
    fs::create_dir_all(root.join("overlay2/layers/.tmp-1-1-0")).unwrap();
    fs::create_dir_all(root.join("image/blobs/sha256")).unwrap();
    fs::write(root.join("image/blobs/sha256").join("b".repeat(64)), vec![1; 10_000]).unwrap();
    fs::create_dir_all(root.join("image/manifests/sha256")).unwrap();
    fs::write(root.join("image/manifests/sha256").join("c".repeat(64)), "{}").unwrap();
    fs::create_dir(root.join("overlay2").join("d".repeat(64))).unwrap();
    fs::create_dir(root.join("trash").join(format!("{}.container.1-1", "e".repeat(64)))).unwrap();
    let foreign =
        ["stray", "image/stray", "volumes/stray", "overlay2/stray", "overlay2/layers/stray", "containers/stray"];
    for path in foreign {
        fs::write(root.join(path), vec![1; 5_000]).unwrap();
    }
    let rows = adds_up(&s, "orphans");
    let text = s.ok(["system", "df", "-v"]);
    let told: Value = serde_json::from_str(&s.ok(["system", "df", "-v", "--format", "json"])).unwrap();
    assert_eq!(told["TotalBytes"], s.du(""));
    for (kind, name) in [
        ("layer", format!("sha256:{layer}")),
        ("temporary", ".tmp-1-1-0".into()),
        ("blob", format!("sha256:{}", "b".repeat(64))),
        ("manifest", format!("sha256:{}", "c".repeat(64))),
        ("overlay", "d".repeat(64)),
        ("trash", format!("{}.container.1-1", "e".repeat(64))),
    ] {
        let orphan = told["Orphans"].as_array().unwrap().iter().find(|orphan| orphan["Name"] == name.as_str()).unwrap();
        assert_eq!((&orphan["Kind"], &orphan["Reclaimable"]), (&json!(kind), &json!("yes")), "{name}");
        assert!(text.contains(orphan["Path"].as_str().unwrap()), "{name}: {text}");
    }
    for path in foreign {
        let path = root.join(path).display().to_string();
        let orphan = told["Orphans"].as_array().unwrap().iter().find(|orphan| orphan["Path"] == path.as_str()).unwrap();
        assert_eq!((&orphan["Kind"], &orphan["Reclaimable"]), (&json!("unknown"), &json!("no")), "{path}");
    }
    assert!(rows["Orphaned"].1 < rows["Orphaned"].0, "{rows:?}");
    s.ok(["system", "prune", "-f"]);
    let rows = adds_up(&s, "after the prune");
    assert_eq!(rows["Orphaned"].1, 0, "{rows:?}");
    for path in foreign {
        fs::remove_file(root.join(path)).unwrap();
    }
    assert!(!adds_up(&s, "without strangers").contains_key("Orphaned"));
}

#[test]
fn images_tell_what_they_share() {
    ours_only!("Docker counts contents, not blocks");
    let s = Sandbox::new();
    images(&s);
    let name = s.name("c");
    s.ok(["create", "--name", &name, "-v", "data:/d", "b:1", "sh"]);
    let text = s.ok(["system", "df", "-v"]);
    for heading in [
        "Images space usage:",
        "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE      SHARED SIZE   UNIQUE SIZE   CONTAINERS",
        "Containers space usage:",
        "Local Volumes space usage:",
        "Build cache usage: 0B",
    ] {
        assert!(text.lines().any(|line| line == heading), "{heading:?} is not in {text}");
    }
    let row = |needle: &str| -> Vec<String> {
        text.lines().find(|line| line.starts_with(needle)).unwrap().split_whitespace().map(str::to_owned).collect()
    };
    let (a, b) = (row("a "), row("b "));
    assert_eq!((a.last().unwrap().as_str(), b.last().unwrap().as_str()), ("0", "1"));
    assert_eq!(a[a.len() - 3], b[b.len() - 3], "they share as much: {text}");
    assert_eq!(row("data")[1], "1");
    assert!(row(&s.ok(["ps", "-aq"])).contains(&name), "{text}");
    // For programs everything is told that Docker tells, in full.
    let told: Value = serde_json::from_str(&s.ok(["system", "df", "-v", "--format", "json"])).unwrap();
    let image = &told["Images"][0];
    for field in ["CreatedAt", "CreatedSince", "Digest", "Tag", "SharedSize", "UniqueSize", "VirtualSize"] {
        assert!(image[field].is_string(), "{field} is not in {image}");
    }
    assert_eq!(image["ID"].as_str().unwrap().len(), 71);
    let container = &told["Containers"][0];
    assert_eq!(container["ID"], json!(s.ok(["ps", "-aq", "--no-trunc"])));
    assert_eq!((&container["Command"], &container["State"]), (&json!("\"sh\""), &json!("created")));
    for field in ["CreatedAt", "RunningFor", "Labels", "LocalVolumes", "Mounts", "Networks", "Ports", "Status"] {
        assert!(container[field].is_string(), "{field} is not in {container}");
    }
    let named = told["Volumes"].as_array().unwrap().iter().find(|volume| volume["Name"] == "data").unwrap();
    assert_eq!((&named["Driver"], &named["Scope"]), (&json!("local"), &json!("local")));
    assert_eq!(named["Mountpoint"], json!(s.root().join("volumes/data/_data")));
    // What a prune of all frees is what was called reclaimable.
    let reclaimable = rows(&s)["Images"].1;
    let before = s.du("image") + s.du("overlay2/layers");
    s.ok(["image", "prune", "-af"]);
    assert_eq!(before - s.du("image") - s.du("overlay2/layers"), reclaimable);
}
