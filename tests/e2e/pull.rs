//! Pulling: names, digests, platforms, what is there already, many at once, and what a kill leaves.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::archive::Layer;
use crate::support::injection::{each, killed_at};
use crate::support::registry::{Options, Registry, sha256};
use crate::support::{Sandbox, eventually};

/// Regular files below the image store and the layers.
fn stored(s: &Sandbox) -> Vec<String> {
    let find = Command::new("find")
        .args([s.root().join("image"), s.root().join("overlay2/layers")])
        .args(["-mindepth", "1", "-not", "-type", "d", "-not", "-name", "lock", "-not", "-name", "repositories.json"])
        .output()
        .unwrap();
    String::from_utf8(find.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn put(registry: &Registry, repository: &str, target: &str, media_type: &str, document: &Value) {
    let url = format!("http://{}/v2/{repository}/manifests/{target}", registry.address());
    let output = Command::new("curl")
        .args(["-sS", "--fail-with-body", "-X", "PUT", "-H", &format!("Content-Type: {media_type}")])
        .args(["--data-binary", &document.to_string(), &url])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn upload(registry: &Registry, repository: &str, bytes: &[u8]) -> Value {
    let url = format!("http://{}/v2/{repository}/blobs/uploads/", registry.address());
    let digest = format!("sha256:{}", sha256(bytes));
    let script = format!(
        "where=$(curl -sS -D - -o /dev/null -X POST {url} | tr -d '\\r' | sed -n 's/^[Ll]ocation: //p') && \
         curl -sS --fail-with-body -X PUT -H 'Content-Type: application/octet-stream' --data-binary @- \"$where&digest={digest}\""
    );
    let mut child = Command::new("sh").args(["-c", &script]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
    assert!(child.wait().unwrap().success());
    json!({ "digest": digest, "size": bytes.len() })
}

fn blob(registry: &Registry, repository: &str, kind: &str, bytes: &[u8]) -> Value {
    let mut descriptor = upload(registry, repository, bytes);
    descriptor["mediaType"] = json!(format!("application/vnd.oci.image.{kind}"));
    descriptor
}

/// An image for `architecture` whose one layer is busybox and a file; gives the manifest's descriptor.
fn image_for(registry: &Registry, repository: &str, architecture: &str, diff_id: Option<&str>) -> Value {
    let layer = Layer::busybox().file("made-for", 0o644, architecture).bytes();
    let diff_id = diff_id.map_or_else(|| format!("sha256:{}", sha256(&layer)), str::to_owned);
    let config = json!({ "architecture": architecture, "os": "linux", "config": { "Cmd": ["cat", "/made-for"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] } });
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(registry, repository, "config.v1+json", config.to_string().as_bytes()),
        "layers": [blob(registry, repository, "layer.v1.tar", &layer)] });
    put(registry, repository, architecture, "application/vnd.oci.image.manifest.v1+json", &manifest);
    json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": manifest.to_string().len(),
        "digest": format!("sha256:{}", sha256(manifest.to_string().as_bytes())),
        "platform": { "os": "linux", "architecture": architecture } })
}

#[test]
fn by_tag_and_by_digest() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    registry.fill_busybox("team/box:1");
    let name = registry.image("team/box:1");
    let output = s.run(["pull", &name]).code(0);
    let (out, err) = (output.out(), output.err());
    assert_eq!(err, "", "all of it is what the command is for");
    let digest = out.lines().find_map(|line| line.strip_prefix("Digest: ")).unwrap().to_owned();
    for line in ["1: Pulling from team/box", ": Pull complete", &format!("Status: Downloaded newer image for {name}")] {
        assert!(out.contains(line), "{line:?} in {out}");
    }
    assert_eq!(out.lines().last(), Some(&name[..]));
    assert_eq!(s.ok(["run", "--rm", &name, "echo", "hello"]), "hello");
    // Again: nothing comes.
    let again = s.ok(["pull", &name]);
    assert!(again.contains("Already exists") && again.contains(&format!("Status: Image is up to date for {name}")));
    assert!(!again.contains("Pulling fs layer"), "what is there is not pulled: {again}");
    assert_eq!(s.ok(["pull", "-q", &name]), name);
    // By digest, without a tag.
    let pinned = format!("{}@{digest}", registry.image("team/box"));
    s.ok(["rmi", &name]);
    assert_eq!(stored(&s), [""; 0], "the image took all of its with it");
    assert!(s.ok(["pull", &pinned]).starts_with(&format!("{pinned}: Pulling from team/box\n")));
    assert_eq!(s.ok(["pull", "-q", &pinned]), pinned);
    assert_eq!(s.ok(["run", "--rm", &pinned, "echo", "pinned"]), "pinned");
    let wrong = format!("{}@sha256:{}", registry.image("team/box"), "0".repeat(64));
    s.fails(1, ["pull", &wrong]).says("manifest unknown");
    let output = s.fails(1, ["pull", &registry.image("team/none")]).says("manifest unknown");
    assert_eq!(output.out(), "Using default tag: latest", "nothing is said to be pulled that there is not");
}

#[test]
fn run_pulls_what_is_missing() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    registry.fill_busybox("box");
    let name = registry.image("box");
    s.fails(125, ["run", "--rm", "--pull", "never", &name, "true"]).says("No such image");
    let output = s.run(["run", "--rm", &name, "echo", "out"]).code(0);
    assert_eq!(output.out(), "out", "the output is the container's");
    assert!(output.err().contains(&format!("Unable to find image '{name}:latest' locally")), "{}", output.err());
    assert_eq!(s.run(["run", "--rm", &name, "echo", "out"]).code(0).err(), "");
    // Always: the registry is asked, and a new image under the old name is met.
    registry.fill_with(&[Layer::busybox().file("new", 0o644, "1").bytes()], "box");
    s.fails(1, ["run", "--rm", &name, "cat", "/new"]);
    assert_eq!(s.ok(["run", "--rm", "--pull", "always", "-q", &name, "cat", "/new"]), "1");
    drop(registry);
    assert_eq!(s.ok(["run", "--rm", &name, "cat", "/new"]), "1", "what is there needs no registry");
    s.fails(125, ["run", "--rm", "--pull", "always", &name, "true"]).says("refused");
}

#[test]
fn the_platform_is_chosen() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let images: Vec<Value> =
        ["s390x", own, "riscv64"].iter().map(|arch| image_for(&registry, "multi", arch, None)).collect();
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": images });
    put(&registry, "multi", "latest", "application/vnd.oci.image.index.v1+json", &index);
    let name = registry.image("multi");
    assert_eq!(s.ok(["run", "--rm", "-q", &name]), own);
    let digest = format!("sha256:{}", sha256(index.to_string().as_bytes()));
    assert!(s.ok(["pull", &name]).contains(&format!("Digest: {digest}")), "the index is what the name leads to");
    s.ok(["pull", "-q", "--platform", "linux/riscv64", &name]);
    assert_eq!(s.ok(["image", "inspect", "-f", "{{.Architecture}}", &name]), "riscv64");
    let output = s.run(["run", "--rm", "--pull", "never", &name]);
    assert!(output.err().contains("does not match the detected host platform"), "{}", output.err());
    let none = s.fails(1, ["pull", "--platform", "linux/mips64le", &name]);
    none.says("no matching manifest for linux/mips64le").says("linux/s390x");
    s.fails(1, ["pull", "--platform", "linux/arm/v9", &registry.image("multi:riscv64")]).says("does not match");
    s.fails(125, ["pull", "--platform", "a/b/c/d", &name]).says("invalid platform");
}

#[test]
fn a_config_that_lies_about_its_layer() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    let lie = format!("sha256:{}", sha256(b"something else"));
    image_for(&registry, "liar", "amd64", Some(&lie));
    s.fails(1, ["pull", &registry.image("liar:amd64")]).says(&format!("not {lie} as the image says"));
    s.ok(["image", "prune", "-f"]);
    assert_eq!(stored(&s), [""; 0]);
    // What is no image says so.
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.cncf.helm.config.v1+json",
            "digest": upload(&registry, "chart", b"{}")["digest"], "size": 2 },
        "layers": [] });
    put(&registry, "chart", "1", "application/vnd.oci.image.manifest.v1+json", &manifest);
    s.fails(1, ["pull", &registry.image("chart:1")]).says("is not a container image").says("helm");
}

#[test]
fn a_hundred_and_twenty_layers() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    let mut layers = vec![Layer::busybox().bytes()];
    for i in 0..119 {
        let mut layer = Layer::default().file(&format!("layer-{i}"), 0o644, "1").file("latest", 0o644, i.to_string());
        if i > 0 && i % 2 == 0 {
            layer = layer.whiteout(&format!("layer-{}", i - 1));
        }
        layers.push(layer.bytes());
    }
    registry.fill_with(&layers, "tall");
    let name = registry.image("tall");
    s.ok(["pull", "-q", &name]);
    assert_eq!(s.ok(["run", "--rm", &name, "sh", "-c", "cat /latest; echo; ls / | grep -c layer-"]), "118\n60");
}

#[test]
fn several_processes_do_the_work_once() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    let files = (0..400).fold(Layer::busybox(), |layer, i| layer.file(&format!("f{i}"), 0o644, vec![0x61; 20_000]));
    registry.fill_with(&[files.bytes(), Layer::default().file("a", 0o644, "1").bytes()], "one");
    registry.fill_with(&[files.bytes(), Layer::default().file("b", 0o644, "1").bytes()], "two");
    let pulls: Vec<_> =
        (0..6).map(|i| s.command(["pull", &registry.image(if i % 2 == 0 { "one" } else { "two" })]).start()).collect();
    let outputs: Vec<String> = pulls.into_iter().map(|pull| pull.finish().code(0).out()).collect();
    let came: usize = outputs.iter().map(|out| out.matches(": Pull complete").count()).sum();
    assert_eq!(came, 3, "three layers in all, whoever fetched them: {outputs:#?}");
    for (image, file) in [("one", "/a"), ("two", "/b")] {
        assert_eq!(s.ok(["run", "--rm", &registry.image(image), "cat", file, "/f399"]).len(), 20_001);
    }
}

#[test]
fn killed_at_any_step_a_pull_can_be_repeated() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    registry.fill_with(
        &[Layer::busybox().bytes(), Layer::default().dir("d", 0o755).file("d/f", 0o644, "1").bytes()],
        "box",
    );
    let name = registry.image("box");
    let rounds = each(
        &[("renameat2", 1), ("rename", 1), ("openat", 15), ("write", 9), ("mkdirat", 1), ("unlink", 1), ("flock", 2)],
        |call, nth| {
            let killed = killed_at(&s, call, nth, &["pull", "-q", &name]);
            assert_eq!(s.ok(["run", "--rm", "-q", &name, "cat", "/d/f"]), "1", "after a kill at {call} {nth}");
            s.ok(["rmi", &name]);
            s.ok(["image", "prune", "-f"]);
            assert_eq!(stored(&s), [""; 0], "after a kill at {call} {nth}");
            killed
        },
    );
    assert!(rounds > 20, "only {rounds} kills hit");
}

#[test]
fn a_full_disk_is_an_error_and_no_loss() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    registry.fill_busybox("box");
    let large = (0..40).fold(Layer::default(), |layer, i| layer.file(&format!("f{i}"), 0o644, vec![i as u8; 1 << 20]));
    registry.fill_with(&[Layer::busybox().bytes(), large.bytes()], "large");
    let disk = s.host_dir("disk");
    let mount = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    mount(&["-t", "tmpfs", "-o", "size=24m", "tmpfs", &disk]);
    let root = ["--root", &disk];
    let run = |args: &[&str]| s.run(root.iter().copied().chain(args.iter().copied()));
    run(&["pull", "-q", &registry.image("box")]).code(0);
    run(&["pull", "-q", &registry.image("large")]).code(1).says("No space left on device");
    // The one that is there is none the worse, and nothing of the other stays.
    assert_eq!(run(&["run", "--rm", &registry.image("box"), "echo", "fine"]).code(0).out(), "fine");
    run(&["image", "prune", "-f"]).code(0);
    let layers = fs::read_dir(Path::new(&disk).join("overlay2/layers")).unwrap().count();
    assert_eq!(layers, 1);
    mount(&["-o", "remount,size=200m", &disk]);
    run(&["pull", "-q", &registry.image("large")]).code(0);
    // Whoever flushes new layers lets go of the file system.
    eventually("the file system is free", || Command::new("umount").arg(&disk).status().unwrap().success());
}

#[test]
fn a_large_layer_does_not_fill_memory() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    // Half of it does not compress, so that there is much on the way at any moment.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..64 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    registry.fill_with(
        &[Layer::default().file("noise", 0o644, noise).file("zeros", 0o644, vec![0; 96 << 20]).bytes()],
        "large",
    );
    let wrapper = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); \
                   print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let script = format!("exec python3 -c '{wrapper}' \"$@\"");
    let peak: u64 =
        s.with_shell(&script, ["pull", "-q", &registry.image("large")]).run().code(0).out().parse().unwrap();
    assert!(peak < 64 << 10, "{peak} KiB");
}

#[test]
fn a_terminal_sees_each_layer() {
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options::default());
    registry.fill_with(&[Layer::busybox().bytes(), Layer::default().file("x", 0o644, "1").bytes()], "box");
    let mut terminal = s.terminal(["pull", &registry.image("box")]);
    terminal.expect("latest: Pulling from box");
    terminal.expect(": Pull complete");
    terminal.expect(": Pull complete");
    terminal.expect("Status: Downloaded newer image for");
    terminal.expect(&registry.image("box:latest"));
    assert_eq!(terminal.finish().0, 0);
}
