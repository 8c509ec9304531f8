//! Archives that other programs read and write: skopeo, umoci, podman, Docker.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::{Layer, save};
use crate::support::peers::{Docker, host, podman, skopeo, tree};
use crate::support::registry::{Options, Registry};

/// An image with a whiteout, links, bits and a long name, loaded as `x/y:1`, and its id.
fn image(s: &Sandbox) -> String {
    let deep = format!("{}/", "long-name-".repeat(9));
    let lower =
        Layer::busybox().dir("d/", 0o1777).file("d/gone", 0o644, "x").file("d/suid", 0o4755, "suid").dir(&deep, 0o755);
    let upper = Layer::default()
        .dir("d/", 0o1777)
        .whiteout("d/gone")
        .file("d/new", 0o644, "new")
        .hardlink("d/link", "d/new")
        .symlink("l", "d/new")
        .file("d/bytes", 0o644, vec![9; 100_000]);
    let file = s.host("made.tar");
    save(Path::new(&file), "x/y:1", &json!({"Cmd": ["cat", "/l"], "Env": ["PATH=/bin"]}), &[lower, upper]);
    s.ok(["load", "-i", &file]);
    s.ok(["images", "-q", "--no-trunc", "x/y:1"])
}

/// Saves `x/y:1`; the file.
fn saved(s: &Sandbox) -> String {
    let file = s.host("saved.tar");
    s.ok(["save", "-o", &file, "x/y:1"]);
    file
}

/// Loads an archive elsewhere and runs what came.
#[track_caller]
fn comes_as(file: &str, id: Option<&String>) {
    let there = Sandbox::new();
    let line = there.ok(["load", "-i", file]);
    let found = there.ok(["images", "-q", "--no-trunc"]);
    assert!(id.is_none_or(|id| *id == found), "{line}: {found}");
    assert_eq!(there.ok(["run", "--rm", &found]), "new");
}

/// The files of an image as a container has them.
fn files(s: &Sandbox, image: &str) -> PathBuf {
    let name = s.name("files");
    s.ok(["create", "--name", &name, image]);
    let directory = s.host_dir("files");
    let script = format!("\"$@\" | tar -x --numeric-owner --same-owner -p -C {directory}");
    drop(s.with_shell(&script, ["export", &name]).run().code(0));
    s.ok(["rm", &name]);
    directory.into()
}

#[test]
fn skopeo_reads_and_writes() {
    ours_only!("our archives");
    let s = Sandbox::new();
    let id = image(&s);
    let file = saved(&s);
    for source in
        [format!("docker-archive:{file}"), format!("docker-archive:{file}:x/y:1"), format!("oci-archive:{file}")]
    {
        let config = skopeo(&s, &["inspect", "--raw", "--config", &source]);
        assert!(config.contains("rootfs"), "{source}: {config}");
        for (form, target) in [("docker-archive", ":x/y:1"), ("oci-archive", ":1")] {
            let out = s.host("out.tar");
            let _ = fs::remove_file(&out);
            skopeo(&s, &["copy", &source, &format!("{form}:{out}{target}")]);
            // Between the two worlds skopeo writes another config.
            comes_as(&out, source.starts_with(form).then_some(&id));
        }
    }
    // A layout in a directory: its tar is loaded, names and compressed layers as skopeo wrote them.
    let directory = s.host("layout");
    skopeo(&s, &["copy", "--dest-compress", &format!("oci-archive:{file}"), &format!("oci:{directory}:q/r:2")]);
    let tar = s.host("layout.tar");
    host("tar", ["-C", &directory, "-cf", &tar, "."]);
    let there = Sandbox::new();
    assert_eq!(there.ok(["load", "-i", &tar]), "Loaded image: q/r:2");
    assert_eq!(there.ok(["run", "--rm", "q/r:2"]), "new");
    // It goes out with the manifest and the compressed layers that it came with.
    let again = there.host("again.tar");
    there.ok(["save", "-o", &again, "q/r:2"]);
    let digest = |source: &str| skopeo(&s, &["inspect", "--format", "{{.Digest}} {{.Layers}}", source]);
    assert_eq!(digest(&format!("oci-archive:{again}")), digest(&format!("oci:{directory}:q/r:2")));
}

#[test]
fn umoci_unpacks_the_same_files_and_repacks() {
    ours_only!("our archives");
    let s = Sandbox::new();
    let id = image(&s);
    let directory = s.host_dir("layout");
    host("tar", ["-C", &directory, "-xf", &saved(&s)]);
    let (named, bundle) = (format!("{directory}:1"), s.host("bundle"));
    host("umoci", ["unpack", "--image", &named, &bundle]);
    assert_eq!(tree(&Path::new(&bundle).join("rootfs")), tree(&files(&s, &id)));
    fs::write(Path::new(&bundle).join("rootfs/d/added"), "by umoci").unwrap();
    fs::remove_file(Path::new(&bundle).join("rootfs/d/suid")).unwrap();
    host("umoci", ["repack", "--image", &format!("{directory}:2"), &bundle]);
    let expected = tree(&Path::new(&bundle).join("rootfs"));
    // The new image alone: the layout still has the old one under its complete name.
    host("umoci", ["rm", "--image", &named]);
    let tar = s.host("repacked.tar");
    host("tar", ["-C", &directory, "-cf", &tar, "oci-layout", "index.json", "blobs"]);
    let there = Sandbox::new();
    let line = there.ok(["load", "-i", &tar]);
    let repacked = line.rsplit(' ').next().unwrap();
    assert_eq!(there.ok(["run", "--rm", repacked, "cat", "/d/added"]), "by umoci");
    assert_eq!(tree(&files(&there, repacked)), expected);
}

#[test]
fn an_image_of_dockers_kind_is_the_ocis_in_an_oci_archive() {
    ours_only!("our archives");
    let s = Sandbox::new();
    image(&s);
    let registry = Registry::start(&s, Options::default());
    let named = registry.image("x/y:1");
    let target = format!("docker://{named}");
    skopeo(
        &s,
        &["copy", "--dest-tls-verify=false", "--format", "v2s2", &format!("oci-archive:{}", saved(&s)), &target],
    );
    assert!(
        skopeo(&s, &["inspect", "--tls-verify=false", "--raw", &target])
            .contains("vnd.docker.distribution.manifest.v2")
    );
    s.ok(["rmi", "x/y:1"]);
    s.ok(["pull", "-q", &named]);
    let (docker, oci) = (s.host("docker.tar"), s.host("oci.tar"));
    s.ok(["save", "-o", &docker, &named]);
    s.ok(["save", "--format", "oci-archive", "-o", &oci, &named]);
    let field = |source: &str, field: &str| skopeo(&s, &["inspect", "--format", field, source]);
    // For Docker it goes out as it came.
    let came = skopeo(&s, &["inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Layers}}", &target]);
    assert_eq!(field(&format!("oci-archive:{docker}"), "{{.Digest}} {{.Layers}}"), came);
    assert!(came.ends_with(&field(&format!("oci-archive:{oci}"), "{{.Layers}}")), "{came}");
    let directory = s.host_dir("oci");
    host("tar", ["-C", &directory, "-xf", &oci]);
    let bundle = s.host("bundle");
    host("umoci", ["unpack", "--image", &format!("{directory}:1"), &bundle]);
    assert_eq!(tree(&Path::new(&bundle).join("rootfs")), tree(&files(&s, &named)));
    comes_as(&oci, None);
}

#[test]
fn podman_loads_and_saves() {
    ours_only!("our archives");
    let s = Sandbox::new();
    let id = image(&s);
    let said = podman(&s, &["load", "-q", "-i", &saved(&s)]);
    assert!(said.contains("x/y:1"), "{said}");
    let found = podman(&s, &["images", "-q", "--no-trunc"]);
    assert_eq!(found, id);
    for form in ["docker-archive", "oci-archive"] {
        let out = s.host(&format!("{form}.tar"));
        podman(&s, &["save", "-q", "--format", form, "-o", &out, "x/y:1"]);
        comes_as(&out, Some(&id));
    }
}

#[test]
fn docker_loads_and_saves() {
    ours_only!("our archives");
    let s = Sandbox::new();
    let id = image(&s);
    let docker = Docker::start(&s);
    assert_eq!(docker.ok(["load", "-i", &saved(&s)]), "Loaded image: x/y:1");
    assert_eq!(docker.ok(["images", "-q", "--no-trunc"]), id);
    let out = s.host("docker.tar");
    docker.ok(["save", "-o", &out, "x/y:1"]);
    comes_as(&out, Some(&id));
    // The files are the same.
    docker.ok(["create", "--name", "c1", "x/y:1"]);
    let (exported, directory) = (s.host("exported.tar"), s.host_dir("exported"));
    docker.ok(["export", "-o", &exported, "c1"]);
    host("tar", ["-x", "--numeric-owner", "-p", "-C", &directory, "-f", &exported]);
    let own = |line: &String| !["dev", ".dockerenv", "etc", "proc", "sys"].iter().any(|name| line.starts_with(name));
    let (theirs, ours) = (tree(Path::new(&directory)), tree(&files(&s, &id)));
    assert_eq!(theirs.into_iter().filter(own).collect::<Vec<_>>(), ours.into_iter().filter(own).collect::<Vec<_>>());
}
