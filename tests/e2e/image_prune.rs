//! `image prune`, `container prune`, `system prune`: what goes, what stays, and what is said of it.

use std::fs;

use serde_json::json;

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::{Image, Layer};

fn three(s: &Sandbox) {
    s.load_images(&[
        Image { references: &["used:1"], layers: &[Layer::busybox()], ..Image::default() },
        Image {
            references: &["free:1", "free:2"],
            created: "2022-01-01T00:00:00Z",
            config: json!({"Labels": {"keep": "me"}}),
            layers: &[Layer::busybox(), Layer::default().file("f", 0o644, vec![1; 200_000])],
            ..Image::default()
        },
        Image {
            created: "2020-01-01T00:00:00Z",
            layers: &[Layer::default().file("d", 0o644, vec![2; 300_000])],
            ..Image::default()
        },
    ]);
}

fn tags(s: &Sandbox) -> Vec<String> {
    s.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().map(str::to_owned).collect()
}

/// Bytes of the last line.
#[track_caller]
fn reclaimed(output: &str) -> f64 {
    let text = output.lines().last().unwrap().strip_prefix("Total reclaimed space: ").unwrap();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        other => panic!("{other}"),
    };
    digits.parse::<f64>().unwrap() * unit
}

#[test]
fn dangling_ones_go_and_all_unused_ones_when_asked() {
    ours_only!("prunes the whole store");
    let s = Sandbox::new();
    three(&s);
    s.ok(["create", "--name", &s.name("c"), "used:1", "sh"]);
    let stored = || s.du("image") + s.du("overlay2/layers");
    let before = stored();
    let dangling = s.ok(["images", "-q", "--no-trunc", "-f", "dangling=true"]);
    let output = s.ok(["image", "prune", "-f"]);
    assert!(output.starts_with(&format!("Deleted Images:\ndeleted: {dangling}\ndeleted: sha256:")), "{output}");
    assert!(output.contains("\n\nTotal reclaimed space: "), "{output}");
    let freed = (before - stored()) as f64;
    assert!((reclaimed(&output) - freed).abs() <= freed * 0.001, "{output}: {freed}");
    assert_eq!(tags(&s), ["used:1", "free:1", "free:2"]);
    let output = s.ok(["image", "prune", "-a", "-f"]);
    assert!(output.starts_with("Deleted Images:\nuntagged: free:1\nuntagged: free:2\ndeleted: sha256:"), "{output}");
    assert_eq!(tags(&s), ["used:1"]);
    assert_eq!(s.ok(["image", "prune", "-a", "-f"]), "Total reclaimed space: 0B");
}

#[test]
fn it_asks_first() {
    ours_only!("prunes the whole store");
    let s = Sandbox::new();
    three(&s);
    let asked = |args: &[&str], answer: &str| s.command(args).stdin(answer).run().code(0).out();
    let warning = "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] ";
    assert_eq!(asked(&["image", "prune"], "n\n"), warning);
    assert_eq!(asked(&["image", "prune"], ""), warning);
    assert_eq!(tags(&s).len(), 4);
    let all = "WARNING! This will remove all images without at least one container associated to them.\n";
    assert!(asked(&["image", "prune", "-a"], "no").starts_with(all));
    assert!(asked(&["container", "prune"], "n").starts_with("WARNING! This will remove all stopped containers.\n"));
    let system = asked(&["system", "prune", "--volumes", "--filter", "label=x"], "n");
    for line in [
        "WARNING! This will remove:",
        "  - all stopped containers",
        "  - all networks not used by at least one container",
        "  - all anonymous volumes not used by at least one container",
        "  - all dangling images",
        "  - label=x",
    ] {
        assert!(system.lines().any(|found| found == line), "{line:?} is not in {system}");
    }
    assert!(asked(&["image", "prune"], "y\n").contains("deleted: sha256:"));
    assert_eq!(tags(&s).len(), 3);
}

#[test]
fn filters_save_images() {
    ours_only!("prunes the whole store");
    let s = Sandbox::new();
    three(&s);
    let prune = |filter: &str| s.ok(["image", "prune", "-af", "--filter", filter]);
    assert_eq!(prune("until=2019-01-01"), "Total reclaimed space: 0B");
    assert_eq!(prune("label=keep=you"), "Total reclaimed space: 0B");
    assert!(prune("until=2021-01-01").contains("deleted: "));
    assert_eq!(tags(&s).len(), 3);
    // What has a tag dangles not.
    s.ok(["image", "prune", "-f", "--filter", "label!=keep", "--filter", "dangling=true"]);
    assert_eq!(tags(&s).len(), 3);
    s.ok(["image", "prune", "-f", "--filter", "label!=keep", "--filter", "dangling=false"]);
    assert_eq!(tags(&s), ["free:1", "free:2"]);
    s.fails(1, ["image", "prune", "-f", "--filter", "dangling=x"]).says("invalid filter 'dangling=x'");
    s.fails(1, ["image", "prune", "-f", "--filter", "nothing=1"]).says("invalid filter 'nothing'");
    s.fails(1, ["image", "prune", "-f", "--filter", "until=x"]).says("invalid filter 'until=x'");
    s.fails(1, ["system", "prune", "-f", "--volumes", "--filter", "until=1h"]).says("not supported with \"--volumes\"");
}

#[test]
fn stopped_containers_go_and_running_ones_stay() {
    ours_only!("prunes all containers");
    let s = Sandbox::new();
    let (running, ended, made) = (s.name("running"), s.name("ended"), s.name("made"));
    s.sleeper(&running, &[]);
    let first = s.ok(["create", "-l", "keep=1", "--name", &made, "busybox"]);
    s.run(["run", "--name", &ended, "busybox", "sh", "-c", "head -c 100000 /dev/zero > /f"]).code(0);
    let second = s.ok(["inspect", "-f", "{{.Id}}", &ended]);
    assert_eq!(s.ok(["container", "prune", "-f", "--filter", "until=1h"]), "Total reclaimed space: 0B");
    let output = s.ok(["container", "prune", "-f", "--filter", "label!=keep"]);
    assert!(output.starts_with(&format!("Deleted Containers:\n{second}\n\nTotal reclaimed space: ")), "{output}");
    assert!(reclaimed(&output) >= 100_000.0, "{output}");
    assert!(s.ok(["container", "prune", "-f"]).starts_with(&format!("Deleted Containers:\n{first}\n\n")));
    assert_eq!(s.ok(["ps", "-a", "--format", "{{.Names}}"]), running);
}

#[test]
fn the_system_is_swept_of_everything() {
    ours_only!("prunes everything");
    let s = Sandbox::new();
    three(&s);
    let name = s.name("c");
    s.ok(["network", "create", &s.name("net")]);
    s.ok(["create", "--name", &name, "-v", "/anonymous", "-v", "named:/named", "used:1", "sh"]);
    // What kills have left.
    let dead = s.root().join("overlay2/layers/.tmp-1-1-0/diff");
    fs::create_dir_all(&dead).unwrap();
    fs::write(dead.join("f"), vec![1; 50_000]).unwrap();
    let layer = s.root().join("overlay2/layers").join("a".repeat(64)).join("diff");
    fs::create_dir_all(&layer).unwrap();
    fs::write(s.root().join("image/configs/sha256/.x.1-0.tmp"), "half").unwrap();
    let overlay = s.root().join("overlay2").join("b".repeat(64));
    fs::create_dir_all(overlay.join("upper")).unwrap();
    let trash = s.root().join("trash").join(format!("{}.overlay.1-1", "c".repeat(64)));
    fs::create_dir_all(trash.join("upper")).unwrap();
    // What nobody here has made is nobody's to remove.
    let foreign = s.root().join("image/foreign");
    fs::write(&foreign, "x").unwrap();

    let output = s.ok(["system", "prune", "-a", "-f", "--volumes"]);
    for section in ["Deleted Containers:\n", "Deleted Networks:\n", "Deleted Volumes:\n", "Deleted Images:\n"] {
        assert!(output.contains(section), "{section}: {output}");
    }
    assert!(output.contains(&s.name("net")), "{output}");
    assert_eq!(s.ok(["images", "-aq"]) + &s.ok(["ps", "-aq"]), "");
    for gone in [dead.parent().unwrap(), layer.parent().unwrap(), &overlay, &trash] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    assert_eq!(fs::read_dir(s.root().join("overlay2/layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(s.root().join("image/configs/sha256")).unwrap().count(), 0);
    assert!(foreign.exists());
    let volumes: Vec<_> =
        fs::read_dir(s.root().join("volumes")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(volumes, ["named"]);
}
