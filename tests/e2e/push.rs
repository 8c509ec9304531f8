//! Pushing: what was pulled goes out byte for byte, what was made here is made once.

use std::process::Command;

use serde_json::Value;

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::Layer;
use crate::support::registry::{Options, Registry, sha256};

/// The manifest that skopeo sees, byte for byte.
fn raw(image: &str) -> Vec<u8> {
    let output = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")])
        .output()
        .expect("run skopeo (install the package of that name)");
    assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn layers(image: &str) -> Vec<String> {
    let manifest: Value = serde_json::from_slice(&raw(image)).unwrap();
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_pulled_goes_out_byte_for_byte() {
    let s = Sandbox::new();
    let (from, to) = (Registry::start(&s, Options::default()), Registry::start(&s, Options::default()));
    from.fill_with(&[Layer::busybox().bytes(), Layer::default().file("x", 0o644, "1").bytes()], "a/box:1");
    let (source, target) = (from.image("a/box:1"), to.image("b/box:2"));
    s.ok(["pull", "-q", &source]);
    s.ok(["tag", &source, &target]);
    let original = raw(&source);
    // The store has all of it: where it came from is not asked again.
    drop(from);
    let out = s.ok(["push", &target]);
    assert!(out.starts_with(&format!("The push refers to repository [{}]", to.image("b/box"))), "{out}");
    assert_eq!(out.matches(": Pushed").count(), 2, "{out}");
    assert_eq!(raw(&target), original);
    let digest = format!("sha256:{}", sha256(&original));
    assert!(out.contains(&format!("2: digest: {digest} size: {}", original.len())), "{out}");
    // Again: nothing goes.
    let again = s.ok(["push", &target]);
    assert_eq!(again.matches(": Layer already exists").count(), 2, "{again}");
    assert_eq!(s.ok(["push", "-q", &target]), target);
    let digests = s.ok(["image", "inspect", "-f", "{{json .RepoDigests}}", &target]);
    assert!(digests.contains(&format!("{}@{digest}", to.image("b/box"))), "{digests}");
}

#[test]
fn a_committed_image_travels() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    registry.fill_busybox("base");
    let (base, made) = (registry.image("base"), registry.image("team/made:1"));
    s.ok(["run", "--name", "source", "-q", &base, "sh", "-c", "echo mine > /etc/mine; rm /bin/vi"]);
    s.ok(["commit", "-m", "mine", "source", &made]);
    let out = s.ok(["push", &made]);
    assert!(out.contains(": Mounted from base"), "the layer below is taken over within the registry: {out}");
    assert_eq!(layers(&made)[0], layers(&base)[0]);
    let id = s.ok(["image", "inspect", "-f", "{{.Id}}", &made]);
    s.ok(["rm", "source"]);
    s.ok(["rmi", &made]);
    // Somebody else gets the same image.
    let root = s.host_dir("other");
    let other = |args: &[&str]| s.ok(["--root", &root].iter().chain(args));
    other(&["pull", "-q", &made]);
    assert_eq!(other(&["image", "inspect", "-f", "{{.Id}}", &made]), id);
    let script = "cat /etc/mine; ls /bin/vi 2>&1 || true";
    assert_eq!(other(&["run", "--rm", &made, "sh", "-c", script]).lines().next(), Some("mine"));
}

#[test]
fn made_once_a_layer_is_the_same_everywhere() {
    let s = Sandbox::new();
    let (one, two) = (Registry::start(&s, Options::default()), Registry::start(&s, Options::default()));
    s.ok(["run", "--name", "source", "busybox", "sh", "-c", "seq 10000 > /numbers"]);
    for registry in [&one, &two] {
        s.ok(["commit", "source", &registry.image("numbers")]);
    }
    s.ok(["rm", "source"]);
    s.ok(["tag", &one.image("numbers"), &two.image("again")]);
    for image in [one.image("numbers"), two.image("again")] {
        s.ok(["push", &image]);
    }
    assert_eq!(raw(&one.image("numbers")), raw(&two.image("again")));
}

#[test]
fn without_compressed_layers_the_registrys_own_are_taken_over() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    registry.fill_with(&[Layer::busybox().bytes(), Layer::default().file("x", 0o644, "1").bytes()], "box");
    let settings = s.host_file("config.toml", "keep-compressed-layers = false\n");
    let ok = |args: &[&str]| s.command(args).env("MYDOCKER_CONFIG", &settings).run().code(0).out();
    let (source, target) = (registry.image("box"), registry.image("other/box:1"));
    ok(&["pull", "-q", &source]);
    assert!(!s.root().join("image/blobs").exists(), "nothing compressed is kept");
    ok(&["tag", &source, &target]);
    ok(&["push", &target]);
    assert_eq!(raw(&target), raw(&source));
    // Where it has none, the layers are made anew: other digests, the same image.
    let elsewhere = Registry::start(&s, Options::default());
    let target = elsewhere.image("box");
    ok(&["tag", &source, &target]);
    ok(&["push", &target]);
    let id = ok(&["image", "inspect", "-f", "{{.Id}}", &source]);
    let root = s.host_dir("other");
    s.ok(["--root", &root, "pull", "-q", &target]);
    assert_eq!(s.ok(["--root", &root, "image", "inspect", "-f", "{{.Id}}", &target]), id);
}

#[test]
fn all_tags_at_once() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    s.ok(["run", "--rm", "busybox", "true"]);
    for tag in ["1", "2", "latest"] {
        s.ok(["tag", "busybox", &registry.image(&format!("box:{tag}"))]);
    }
    let out = s.ok(["push", "-a", &registry.image("box")]);
    assert_eq!(out.matches(": digest: sha256:").count(), 3, "{out}");
    let root = s.host_dir("other");
    s.ok(["--root", &root, "pull", "-a", "-q", &registry.image("box")]);
    let tags = s.ok(["--root", &root, "images", "--format", "{{.Tag}}", &registry.image("box")]);
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2", "latest"]);
    s.fails(125, ["push", "-a", &registry.image("box:1")]).says("tag can't be used with --all-tags/-a");
    s.fails(1, ["push", &registry.image("none")]).says("An image does not exist locally with the tag");
}

#[test]
fn what_is_meant_is_told_before_it_is_looked_for() {
    let s = Sandbox::new();
    let none = s.name("none");
    let output = s.fails(1, ["push", &none]).says("An image does not exist locally with the tag");
    let expected = format!("Using default tag: latest\nThe push refers to repository [docker.io/library/{none}]\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let output = s.fails(1, ["push", &format!("{none}:1")]).says("does not exist locally");
    assert!(!output.out().contains("default tag"), "{output}");
    let pinned = format!("{none}@sha256:{}", "0".repeat(64));
    let output = s.fails(1, ["push", &pinned]).says("cannot push a digest reference");
    assert_eq!(output.out(), "");
}

#[test]
fn a_layer_has_one_name_from_compressing_to_pushed() {
    ours_only!("needs an image that was made here, and a terminal");
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    s.ok(["run", "--name", "source", "busybox", "sh", "-c", "echo x > /x"]);
    let image = registry.image("made");
    s.ok(["commit", "source", &image]);
    let layers = s.ok(["image", "inspect", "-f", "{{join .RootFS.Layers \" \"}}", &image]);
    let mut terminal = s.terminal(["push", &image]);
    terminal.expect("latest: digest: sha256:");
    let (code, screen) = terminal.finish();
    assert_eq!(code, 0, "{screen}");
    let names: Vec<&str> = screen
        .match_indices(": ")
        .filter_map(|(at, _)| screen.get(at.checked_sub(12)?..at))
        .filter(|name| name.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect();
    assert!(names.len() >= 4 && screen.contains("Compressing"), "{screen}");
    for name in names {
        assert!(layers.contains(&format!("sha256:{name}")), "{name} is none of {layers}: {screen}");
    }
}

#[test]
fn signatures_that_are_not_verified_are_not_promised() {
    ours_only!("Docker asks a notary");
    let s = Sandbox::new();
    for command in ["pull", "push"] {
        s.fails(125, [command, "--disable-content-trust=false", "box"]).says("signatures are not verified");
    }
}
