//! `rmi`: names, images, and what is in the way.

use std::fs;

use serde_json::json;

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::{Image, Layer};

fn base() -> Layer {
    Layer::busybox()
}

/// `a:1` of one layer, and `b:1` of that and another.
fn two(s: &Sandbox) -> [String; 2] {
    let top = || Layer::default().file("top", 0o644, vec![2; 5_000]);
    s.load_images(&[
        Image {
            references: &["a:1"],
            config: json!({"Cmd": ["sleep", "1000"]}),
            layers: &[base()],
            ..Image::default()
        },
        Image { references: &["b:1"], layers: &[base(), top()], ..Image::default() },
    ]);
    ["a:1", "b:1"].map(|name| id(s, name))
}

fn id(s: &Sandbox, name: &str) -> String {
    s.ok(["image", "inspect", "-f", "{{.Id}}", name])
}

fn layers(s: &Sandbox) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(s.root().join("overlay2/layers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_name_goes_and_with_the_last_one_the_image() {
    ours_only!("Docker prints chain ids of layers");
    let s = Sandbox::new();
    let ids = two(&s);
    s.ok(["tag", "b:1", "b:2"]);
    assert_eq!(s.ok(["rmi", "b:2"]), "Untagged: b:2");
    let top = s.ok(["image", "inspect", "-f", "{{index .RootFS.Layers 1}}", "b:1"]);
    let below = s.ok(["image", "inspect", "-f", "{{index .RootFS.Layers 0}}", "b:1"]);
    // The layer that another image has stays.
    assert_eq!(s.ok(["rmi", "b:1"]), format!("Untagged: b:1\nDeleted: {}\nDeleted: {top}", ids[1]));
    assert_eq!(layers(&s), [&below[7..]]);
    assert_eq!(s.ok(["run", "--rm", "a:1", "echo", "still"]), "still");
    // By the beginning of its id, with its name.
    assert_eq!(s.ok(["image", "rm", &ids[0][7..17]]), format!("Untagged: a:1\nDeleted: {}\nDeleted: {below}", ids[0]));
    assert_eq!(layers(&s), [""; 0]);
    assert_eq!(s.ok(["images", "-aq"]), "");
    let told =
        s.ok(["events", "--since", "1h", "--until", "0s", "-f", "type=image", "--format", "{{.Action}} {{.ID}}"]);
    let ends: Vec<&str> = told.lines().filter(|line| !line.starts_with("load") && !line.starts_with("tag")).collect();
    let [a, b] = &ids;
    let expected = [("untag", b), ("untag", b), ("delete", b), ("untag", a), ("delete", a)];
    assert_eq!(ends, expected.map(|(action, id)| format!("{action} {id}")));
}

#[test]
fn each_failure_is_told_and_the_others_go_on() {
    let s = Sandbox::new();
    let [a, b, missing] = ["a", "b", "missing"].map(|stem| format!("{}:1", s.name(stem)));
    s.load_images(&[
        Image { references: &[&a], ..Image::default() },
        Image { references: &[&b], created: "2020-01-01T00:00:00Z", ..Image::default() },
    ]);
    let output = s.fails(1, ["rmi", &a, &missing, "UPPER", &b]);
    assert!(output.out().contains(&format!("Untagged: {a}")) && output.out().contains(&format!("Untagged: {b}")));
    output.says(&format!("No such image: {missing}")).says("repository name");
    // By force, what is not there is told and is no failure.
    s.run(["rmi", "-f", &missing]).code(0).says("No such image");
}

#[test]
fn several_names_keep_an_id() {
    ours_only!("Docker prints chain ids of layers");
    let s = Sandbox::new();
    let ids = two(&s);
    s.ok(["tag", "a:1", "other/a:2"]);
    let text = format!(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        &ids[0][7..19]
    );
    s.fails(1, ["rmi", &ids[0]]).says(&text);
    let removed = s.ok(["rmi", "-f", &ids[0][..30]]);
    assert!(removed.starts_with(&format!("Untagged: a:1\nUntagged: other/a:2\nDeleted: {}", ids[0])), "{removed}");
}

#[test]
fn what_a_container_uses_is_refused() {
    ours_only!("the image is loaded without its layers' ids known");
    let s = Sandbox::new();
    let ids = two(&s);
    let short = &ids[0][7..19];
    let (running, stopped) = (s.name("running"), s.name("stopped"));
    let one = s.ok(["run", "-d", "--name", &running, "a:1"]);
    let refused = format!("(must force) - container {} is using its referenced image {short}", &one[..12]);
    s.fails(1, ["rmi", "a:1"]).says(&format!("conflict: unable to remove repository reference \"a:1\" {refused}"));
    for flags in [&["rmi"][..], &["rmi", "-f"]] {
        let text = format!("{short} (cannot be forced) - image is being used by running container {}", &one[..12]);
        s.fails(1, flags.iter().copied().chain([&ids[0][..]])).says(&text);
    }
    // By force a running container keeps the image, without its name.
    assert_eq!(s.ok(["rmi", "-f", "a:1"]), "Untagged: a:1");
    assert_eq!(s.ok(["images", "-q", "--no-trunc", "-f", "dangling=true"]), ids[0]);
    s.ok(["tag", &ids[0], "a:1"]);
    s.ok(["rm", "-f", &running]);

    let two = s.ok(["create", "--name", &stopped, "a:1", "echo", "kept"]);
    let text = format!("{short} (must be forced) - image is being used by stopped container {}", &two[..12]);
    s.fails(1, ["rmi", &ids[0]]).says(&text).says(&format!("mydocker rm {}", &two[..12]));
    // By force the image goes, and the layers that the container needs stay until it goes.
    s.ok(["rmi", "b:1"]);
    let removed = s.ok(["rmi", "-f", "a:1"]);
    assert_eq!(removed, format!("Untagged: a:1\nDeleted: {}", ids[0]));
    assert_eq!(s.ok(["start", "-a", &stopped]), "kept");
    let usage = s.ok(["system", "df", "-v"]);
    assert!(
        usage.lines().any(|line| line.starts_with("<none>") && line.contains(short) && line.ends_with(" 1")),
        "{usage}"
    );
    s.ok(["rm", &stopped]);
    assert!(s.ok(["image", "prune", "-f"]).starts_with("Total reclaimed space: "));
    assert_eq!(layers(&s), [""; 0]);
}

#[test]
fn damage_stands_in_nobodys_way() {
    ours_only!("damages our own files");
    let s = Sandbox::new();
    let ids = two(&s);
    let name = s.name("damaged");
    let container = s.ok(["create", "--name", &name, "b:1", "sh"]);
    // A config whose digest is wrong.
    let config = s.root().join("image/configs/sha256").join(&ids[0][7..]);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("sleep", "sleeq")).unwrap();
    s.fails(1, ["image", "inspect", "a:1"]).says("is damaged");
    s.fails(125, ["run", "--rm", "a:1"]).says("is damaged");
    assert!(s.ok(["images", "-q", "--no-trunc"]).contains(&ids[0]));
    // And one that says nothing any more, under a container whose record says nothing.
    let record = s.root().join("containers").join(&container).join("config.json");
    fs::write(&record, "{").unwrap();
    assert_eq!(s.ok(["rmi", "a:1"]), format!("Untagged: a:1\nDeleted: {}", ids[0]));
    fs::write(s.root().join("image/configs/sha256").join(&ids[1][7..]), "").unwrap();
    assert_eq!(s.ok(["rmi", &ids[1]]), format!("Untagged: b:1\nDeleted: {}", ids[1]));
    s.ok(["rm", "-f", &container]);
    s.ok(["image", "prune", "-f"]);
    assert_eq!(layers(&s), [""; 0]);
}

#[test]
fn a_container_that_is_made_meanwhile_has_its_layers_or_is_not_made() {
    ours_only!("Docker's daemon takes one after the other");
    let s = Sandbox::new();
    let file = s.host("a.tar");
    crate::support::archive::save(std::path::Path::new(&file), "a:1", &json!({}), &[base()]);
    let (mut made, mut refused) = (0, 0);
    for _ in 0..25 {
        s.ok(["load", "-q", "-i", &file]);
        let makers = || (0..3).map(|_| s.command(["create", "--pull=never", "a:1", "echo", "whole"]).start());
        let runners = || (0..2).map(|_| s.command(["run", "--rm", "--pull=never", "a:1", "echo", "whole"]).start());
        let mut started: Vec<_> = makers().collect();
        let remover = s.command(["rmi", "-f", "a:1"]).start();
        started.extend(runners());
        remover.finish().cleanly();
        for command in started {
            let output = command.finish().cleanly();
            match output.code {
                0 => made += 1,
                _ => {
                    refused += 1;
                    drop(output.says("No such image: a:1"));
                }
            }
        }
        for container in s.ok(["ps", "-aq"]).lines() {
            assert_eq!(s.ok(["start", "-a", container]), "whole");
            s.ok(["rm", container]);
        }
        // Whatever the removal had to leave is not left for good.
        s.ok(["image", "prune", "-af"]);
        assert_eq!(layers(&s), [""; 0]);
    }
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused: they did not meet");
}

#[test]
fn a_container_whose_images_name_has_moved_on_is_listed_with_the_id() {
    let s = Sandbox::new();
    let [old, new] = ["old", "new"].map(|stem| format!("{}:1", s.name(stem)));
    s.load_images(&[
        Image { references: &[&old], created: "2020-01-01T00:00:00Z", layers: &[Layer::busybox()], ..Image::default() },
        Image { references: &[&new], created: "2021-01-01T00:00:00Z", layers: &[Layer::busybox()], ..Image::default() },
    ]);
    let id = s.ok(["image", "inspect", "-f", "{{.Id}}", &old]);
    let name = s.name("c");
    s.ok(["create", "--name", &name, &old, "true"]);
    let listed = |more: &[&str]| {
        let filter = format!("name={name}");
        let line = ["ps", "-a", "--format", "{{.Image}}", "--filter", &filter];
        s.ok(line.iter().chain(more))
    };
    assert_eq!(listed(&[]), old);
    s.ok(["tag", &new, &old]);
    assert_eq!(listed(&[]), id[7..19], "the name means another image");
    assert_eq!(listed(&["--no-trunc"]), id);
    s.ok(["tag", &id, &old]);
    assert_eq!(listed(&[]), old);
    s.ok(["rmi", "-f", &old]);
    assert_eq!(listed(&[]), id[7..19], "there is no such name");
    s.ok(["rm", &name]);
    s.ok(["rmi", &new]);
}
