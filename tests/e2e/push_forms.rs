//! Pushing what came from elsewhere: a part of an index, a base from another registry.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::support::archive::Layer;
use crate::support::registry::{Options, Registry};
use crate::support::scripted::Scripted;
use crate::support::shelf::{INDEX, Shelf, own_architecture};

fn raw(image: &str) -> Vec<u8> {
    let output = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")])
        .output()
        .expect("run skopeo (install the package of that name)");
    assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// As Docker does without the other platforms: what is there goes, and it says so.
#[test]
fn of_an_index_the_platform_goes_that_is_there() {
    let s = Sandbox::new();
    let mut shelf = Shelf::default();
    let layer = Layer::busybox().bytes();
    let parts: Vec<Value> = ["s390x", own_architecture()]
        .map(|architecture| {
            let mut part = shelf.image_of(architecture, architecture, "tar", &[(&layer, &layer)]);
            part["platform"] = json!({ "os": "linux", "architecture": architecture });
            part
        })
        .to_vec();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": parts });
    let index = shelf.document("latest", INDEX, &index)["digest"].as_str().unwrap().to_owned();
    let own = shelf.bytes(own_architecture()).to_vec();
    let part = parts[1]["digest"].as_str().unwrap().to_owned();
    let server = Scripted::start(move |request, answer| shelf.serve(request, answer));
    let source = format!("{}/multi", server.address());
    s.ok(["pull", "-q", &source]);
    let registry = Registry::start(&s, Options::default());
    let target = registry.image("multi");
    s.ok(["tag", &source, &target]);
    let out = s.ok(["push", &target]);
    let note = "Not all multiplatform-content is present and only the available single-platform image was pushed";
    assert!(out.contains(&format!("{note}: {index} -> {part}")), "{out}");
    assert!(out.lines().last().unwrap().starts_with(&format!("latest: digest: {part} size: ")), "{out}");
    assert_eq!(raw(&target), own, "byte for byte what the index names for this platform");
    // Who asks for it by platform need not be told; who asks for another gets nothing.
    let own_platform = format!("linux/{}", own_architecture());
    let out = s.ok(["push", "--platform", &own_platform, &target]);
    assert!(!out.contains("multiplatform") && out.contains(&part), "{out}");
    let other = registry.image("other");
    s.ok(["tag", &source, &other]);
    s.fails(1, ["push", "--platform", "linux/s390x", &other])
        .says("was found but does not provide the specified platform (linux/s390x)")
        .says(&format!("it is for {own_platform}"));
    s.fails(1, ["pull", "-q", &other]).says("not found");
    s.fails(125, ["push", "--platform", "a/b/c/d", &other]).says("invalid platform");
    // What came as a single image, or was made here, is whole.
    s.ok(["pull", "-q", &format!("{}/multi@{part}", server.address())]);
    s.ok(["run", "--name", "source", "--network", "none", &target, "touch", "/new"]);
    s.ok(["commit", "source", &registry.image("made")]);
    assert!(!s.ok(["push", &registry.image("made")]).contains("multiplatform"));
}

#[test]
fn a_base_from_another_registry_goes_out_as_it_came() {
    let s = Sandbox::new();
    let (from, to) = (Registry::start(&s, Options::default()), Registry::start(&s, Options::default()));
    from.fill_busybox("base");
    let (base, made) = (from.image("base"), to.image("made"));
    s.ok(["run", "--name", "source", "--network", "none", "-q", &base, "touch", "/new"]);
    s.ok(["commit", "source", &made]);
    let layers = |image: &str| {
        let manifest: Value = serde_json::from_slice(&raw(image)).unwrap();
        manifest["layers"].as_array().unwrap().iter().map(|l| l["digest"].clone()).collect::<Vec<_>>()
    };
    let below = layers(&base);
    // Nothing of it needs the other registry any more.
    drop(from);
    let out = s.ok(["push", &made]);
    assert_eq!(out.matches(": Pushed").count(), 2, "{out}");
    assert_eq!((layers(&made).len(), layers(&made)[0].clone()), (2, below[0].clone()));
    let again = s.ok(["push", &made]);
    assert_eq!(again.matches(": Layer already exists").count(), 2, "{again}");
}
