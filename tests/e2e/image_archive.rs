//! `save`, `load` and `import`: images that go out and come in again.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::archive::{Layer, save};
use crate::support::peers::host;
use crate::support::{Sandbox, against_docker};

/// Two layers with all that layers have.
fn layers() -> [Layer; 2] {
    let lower = Layer::busybox().dir("d/", 0o1777).file("d/gone", 0o644, "x").file("d/suid", 0o4755, "suid").file(
        "big",
        0o600,
        vec![7; 300_000],
    );
    let upper =
        Layer::default().whiteout("d/gone").file("d/new", 0o640, "new").hardlink("d/link", "d/new").symlink("l", "d");
    [lower, upper]
}

/// Loads an image of these layers into `s` as `tag`; its id.
#[track_caller]
fn loaded(s: &Sandbox, tag: &str) -> String {
    let file = s.host("made.tar");
    save(Path::new(&file), tag, &json!({"Cmd": ["cat", "/d/new"], "Labels": {"a": "b"}}), &layers());
    s.ok(["load", "-i", &file]);
    s.ok(["images", "-q", "--no-trunc", tag])
}

/// A member of an archive.
#[track_caller]
fn member(archive: &str, name: &str) -> String {
    host("tar", ["-xOf", archive, name])
}

#[test]
fn an_image_travels_and_stays_the_same() {
    ours_only!("two data roots");
    let (here, there) = (Sandbox::new(), Sandbox::new());
    let id = loaded(&here, "a/b:1");
    let (first, second) = (here.host("first.tar"), there.host("second.tar"));
    here.ok(["save", "-o", &first, "a/b:1"]);
    assert_eq!(there.ok(["load", "-i", &first]), "Loaded image: a/b:1");
    assert_eq!(there.ok(["images", "-q", "--no-trunc"]), id);
    assert_eq!(there.ok(["run", "--rm", "a/b:1"]), "new");
    there.ok(["save", "--output", &second, "a/b:1"]);
    host("cmp", [&first, &second]);
    here.ok(["image", "save", "-o", &second, "a/b:1"]);
    host("cmp", [&first, &second]);
    // What loading again changes: nothing.
    assert_eq!(there.ok(["image", "load", "-i", &first]), "Loaded image: a/b:1");
    // By its id it goes without a name.
    there.ok(["save", "-o", &second, &id]);
    let third = Sandbox::new();
    assert_eq!(third.ok(["load", "-q", "-i", &second]), format!("Loaded image ID: {id}"));
}

#[test]
fn through_pipes_and_compressed() {
    ours_only!("two data roots");
    let (here, there) = (Sandbox::new(), Sandbox::new());
    loaded(&here, "a/b:1");
    let raw = here.host("raw");
    here.ok(["save", "-o", &raw, "a/b:1"]);
    // To standard output as to a file.
    drop(here.with_shell(&format!("exec \"$@\" > {raw}.out"), ["save", "a/b:1"]).run().code(0));
    host("cmp", [&raw, &format!("{raw}.out")]);
    host("gzip", ["-k", &raw]);
    host("zstd", ["-q", &raw]);
    for (number, script) in [
        format!("cat {raw} | \"$@\""),
        format!("\"$@\" < {raw}"),
        format!("cat {raw}.gz | \"$@\""),
        format!("\"$@\" < {raw}.zst"),
        format!("\"$@\" -i {raw}.gz"),
        format!("\"$@\" --input {raw}.zst"),
    ]
    .iter()
    .enumerate()
    {
        let s = if number == 0 { &there } else { &Sandbox::new() };
        assert_eq!(s.with_shell(script, ["load"]).run().code(0).out(), "Loaded image: a/b:1", "{script}");
        assert_eq!(s.ok(["run", "--rm", "a/b:1"]), "new", "{script}");
    }
    host("xz", ["-k", &raw]);
    there.fails(1, ["load", "-i", &format!("{raw}.xz")]).says("xz compression is not supported").says("xz -d");
}

#[test]
fn several_images_in_one_archive() {
    ours_only!("two data roots");
    let (here, there) = (Sandbox::new(), Sandbox::new());
    let id = loaded(&here, "one:1");
    save(Path::new(&here.host("two.tar")), "one:2", &json!({"Cmd": ["true"]}), &layers()[..1]);
    here.ok(["load", "-i", &here.host("two.tar")]);
    let other = here.ok(["images", "-q", "--no-trunc", "one:2"]);
    let file = here.host("both.tar");
    // All tags of a repository; the shared layer once.
    here.ok(["save", "-o", &file, "one"]);
    assert_eq!(there.ok(["load", "-i", &file]), "Loaded image: one:1\nLoaded image: one:2");
    assert_eq!(there.ok(["images", "-q", "--no-trunc", "one:1"]), id);
    assert_eq!(there.ok(["images", "-q", "--no-trunc", "one:2"]), other);
    let listing = host("tar", ["-tf", &file]);
    let mut names: Vec<&str> = listing.lines().collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "{listing}");
    let manifest: Value = serde_json::from_str(&member(&file, "manifest.json")).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["one:1"]));
    assert_eq!(manifest[1]["RepoTags"], json!(["one:2"]));
    // A name that moves is told.
    save(Path::new(&there.host("moved.tar")), "one:2", &json!({"Cmd": ["false"]}), &layers()[..1]);
    let words = format!(
        "The image one:2 already exists, renaming the old one with ID {other} to empty string\nLoaded image: one:2"
    );
    assert_eq!(there.ok(["load", "-i", &there.host("moved.tar")]), words);
}

#[test]
fn the_file_is_whole_or_as_it_was() {
    let s = Sandbox::new();
    let tag = format!("{}:1", s.name("img"));
    loaded(&s, &tag);
    s.host_dir("out");
    let file = s.host("out/f");
    let output = s.fails(1, ["save", "-o", &file, "absent:1"]).says("No such image: absent:1");
    assert!(!output.err().contains(&file), "the file has nothing to do with it: {output}");
    s.fails(1, ["save", "-o", &file, &tag, "absent:1"]).says("No such image: absent:1");
    assert_eq!(fs::read_dir(s.path("out")).unwrap().count(), 0);
    fs::write(&file, "before").unwrap();
    s.fails(1, ["save", "-o", &file, "absent:1"]);
    assert_eq!(fs::read(&file).unwrap(), b"before");
    s.fails(1, ["save", "-o", &s.host("none/f"), &tag]).says("invalid output path: directory");
    s.ok(["save", "-o", &file, &tag]);
    assert_eq!(fs::read_dir(s.path("out")).unwrap().count(), 1);
    let mut terminal = s.terminal(["save", &tag]);
    terminal.expect("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    assert_eq!(terminal.finish().0, 1);
    if against_docker() {
        s.ok(["rmi", &tag]);
    }
}

#[test]
fn platforms() {
    ours_only!("docker 20.10 has no --platform here");
    let s = Sandbox::new();
    loaded(&s, "a:1");
    let file = s.host("f");
    s.fails(1, ["save", "-o", &file, "--platform", "linux/s390x", "a:1"])
        .says("does not provide the specified platform");
    s.fails(125, ["save", "-o", &file, "--platform", "a/b/c/d", "a:1"]).says("invalid platform");
    let own = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    s.ok(["save", "-o", &file, "--platform", own, "a:1"]);
    s.fails(1, ["load", "-i", &file, "--platform", "linux/s390x"]).says("linux/s390x");
    assert_eq!(s.ok(["load", "-i", &file, "--platform", own]), "Loaded image: a:1");
}

#[test]
fn a_file_system_becomes_an_image() {
    let s = Sandbox::new();
    let tag = format!("{}:1", s.name("imported"));
    let file = s.host_file("root.tar", Layer::busybox().file("mark", 0o644, "here").bytes());
    let id = s.ok(["import", "-m", "a message", "-c", "CMD cat /mark", "-c", "ENV A=1 B=\"x y\"", &file, &tag]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(s.ok(["run", "--rm", &tag]), "here");
    assert_eq!(s.ok(["run", "--rm", &tag, "sh", "-c", "echo $A $B"]), "1 x y");
    let piped = s.with_shell(&format!("gzip -c {file} | \"$@\""), ["import", "-", &tag]).run().code(0).out();
    assert_ne!(piped, id);
    s.fails(125, ["run", "--rm", &tag]).says("no command specified");
    // Without a name it is had by its id.
    let unnamed = s.ok(["import", &file]);
    assert_eq!(s.ok(["run", "--rm", &unnamed, "cat", "/mark"]), "here");
    for (args, reason) in [
        (&["import", "-c", "RUN x", &file][..], "is not a valid change command"),
        (&["import", "-c", "ENV A", &file], "ENV must have two arguments"),
        (&["import", "-c", "EXPOSE abc", &file], "nvalid containerPort: abc"),
        (&["import", &file, "Bad"], "repository name must be lowercase"),
        (&["import", "/absent"], "/absent"),
    ] {
        let output = s.run(args);
        assert_ne!(output.code, 0);
        assert!(output.err().contains(reason), "{output}");
    }
    if against_docker() {
        s.ok(["rmi", "-f", &tag, &id, &unnamed, &piped]);
    }
}

#[test]
fn what_is_no_file_system_is_refused() {
    ours_only!("docker takes a cut archive for a whole one");
    let s = Sandbox::new();
    s.fails(125, ["import", "http://example.org/root.tar"])
        .says("curl -fL http://example.org/root.tar | mydocker import -");
    let bytes = Layer::busybox().bytes();
    for (name, contents) in
        [("noise", vec![0x5a; 4096]), ("cut", bytes[..bytes.len() - 1024].to_vec()), ("empty", vec![])]
    {
        let file = s.host_file(name, contents);
        let output = s.run(["import", &file]);
        assert_eq!(output.code, 1, "{name}: {output}");
        assert_eq!(s.ok(["images", "-q"]), "", "{name}");
        assert_eq!(fs::read_dir(s.root().join("overlay2/layers")).unwrap().count(), 0, "{name}");
    }
    let directory = s.host_dir("directory");
    for (command, args) in [("load", &["load", "-i", &directory][..]), ("import", &["import", &directory])] {
        s.fails(1, args).says(&format!("open {directory}: it is a directory, not a tar archive")).says(command);
    }
    // Nothing of what was found instead is repeated.
    let text = s.host_file("text", "root:x:0:0:root:/root:/bin/sh\n".repeat(40));
    let output = s.fails(1, ["load", "-i", &text]).says("this is no tar archive");
    assert!(!output.err().contains("root:x"), "{output}");
}
