//! Images: bundled ones, plain tars, `docker save` archives.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::ours_only;
use crate::support::archive::{Layer, save};
use crate::support::{Sandbox, against_docker};

/// Loads an image under a name of this sandbox.
#[track_caller]
fn load(s: &Sandbox, config: &serde_json::Value, layers: &[Layer]) -> String {
    let (tag, file) = (format!("{}:1", s.name("img")), s.host("image.tar"));
    save(Path::new(&file), &tag, config, layers);
    assert!(s.ok(["load", "-i", &file]).contains(&tag));
    tag
}

fn unload(s: &Sandbox, tag: &str) {
    if against_docker() {
        s.ok(["rmi", "-f", tag]);
    }
}

#[test]
fn config_of_the_image_is_honoured() {
    let s = Sandbox::new();
    let config = json!({
        "Env": ["PATH=/bin", "FROM_IMAGE=yes", "BOTH=image"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo default $FROM_IMAGE; pwd; id -u"],
        "User": "1234",
        "WorkingDir": "/srv/app",
        "StopSignal": "SIGUSR1",
        "Labels": {"of": "image", "both": "image"},
        "Volumes": {"/data": {}},
    });
    let tag = load(&s, &config, &[Layer::busybox()]);
    assert_eq!(s.ok(["run", "--rm", &tag]), "default yes\n/srv/app\n1234");
    // Each is overridden on its own.
    assert_eq!(s.ok(["run", "--rm", "-e", "BOTH=flag", &tag, "echo $BOTH $FROM_IMAGE"]), "flag yes");
    assert_eq!(s.ok(["run", "--rm", "-u", "0", "-w", "/", "--entrypoint", "id", &tag, "-u"]), "0");
    let name = s.name("c");
    s.ok(["create", "--name", &name, "-l", "both=flag", "-l", "mine=1", &tag]);
    let value = s.inspect(&name);
    assert_eq!(value["Config"]["Labels"], json!({"of": "image", "both": "flag", "mine": "1"}));
    assert_eq!(value["Config"]["StopSignal"], "SIGUSR1");
    assert_eq!(value["Path"], "/bin/sh");
    assert_eq!(value["Mounts"][0]["Destination"], "/data");
    s.ok(["rm", "-v", &name]);
    unload(&s, &tag);
}

#[test]
fn an_image_without_a_command_needs_one() {
    let s = Sandbox::new();
    let tag = load(&s, &json!({}), &[Layer::busybox()]);
    s.fails(125, ["run", "--rm", &tag]).says("no command specified");
    assert_eq!(s.ok(["run", "--rm", &tag, "/bin/echo", "given"]), "given");
    unload(&s, &tag);
    // An entrypoint puts the image's own command aside, and an empty one puts nothing into its place.
    let tag = load(&s, &json!({"Cmd": ["true"]}), &[Layer::busybox()]);
    let output = s.fails(125, ["run", "--rm", "--entrypoint", "", &tag]).says("no command specified");
    if !against_docker() {
        output.says("with --entrypoint the image's own command does not count");
    }
    unload(&s, &tag);
}

#[test]
fn layers_are_stacked_with_their_whiteouts() {
    let s = Sandbox::new();
    let lower = Layer::busybox()
        .dir("d/", 0o755)
        .file("d/a", 0o644, "lower")
        .file("d/b", 0o644, "lower")
        .file("gone", 0o644, "x");
    let middle = Layer::default()
        .file("d/a", 0o600, "middle")
        .whiteout("d/b")
        .whiteout("gone")
        .dir("o/", 0o755)
        .file("o/old", 0o644, "x");
    let upper = Layer::default()
        .dir("o/", 0o755)
        .file("o/.wh..wh..opq", 0o644, "")
        .file("o/new", 0o644, "y")
        .hardlink("o/link", "o/new")
        .symlink("l", "d/a");
    let tag = load(&s, &json!({"Cmd": ["sh"]}), &[lower, middle, upper]);
    assert_eq!(s.ok(["run", "--rm", &tag, "cat", "/l"]), "middle");
    assert_eq!(
        s.ok(["run", "--rm", &tag, "sh", "-c", "ls /d; ls /o; ls /gone 2>/dev/null; cat /o/link"]),
        "a\nlink\nnew\ny"
    );
    unload(&s, &tag);
}

/// Roots of whole machines have `/etc/resolv.conf` as a link to what only their own daemons make.
#[test]
fn links_where_the_engine_mounts_its_files_are_replaced_and_no_change() {
    let s = Sandbox::new();
    let (tag, copy, name) = (format!("{}:1", s.name("linked")), format!("{}:1", s.name("copy")), s.name("c"));
    let layer = Layer::default()
        .symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
        .symlink("etc/hosts", "/dev/null")
        .symlink("etc/hostname", "machine")
        .file("etc/machine", 0o644, "of the image\n");
    let file = s.host("linked.tar");
    save(Path::new(&file), &tag, &json!({}), &[Layer::busybox(), layer]);
    s.ok(["load", "-i", &file]);
    let script = "cat /etc/hostname /etc/machine; echo lost >/dev/null; cat /dev/null; \
        for f in hosts resolv.conf; do test -f /etc/$f && ! test -L /etc/$f && echo $f; done; ls /run 2>/dev/null; true";
    let expected = "h1\nof the image\nhosts\nresolv.conf";
    let run = |image: &str, name: &str| s.ok(["run", "--name", name, "--hostname", "h1", image, "sh", "-c", script]);
    assert_eq!(run(&tag, &name), expected);
    assert_eq!(s.ok(["start", "-a", &name]), expected, "a second time");
    assert_eq!(s.ok(["diff", &name]), "");
    s.ok(["commit", &name, &copy]);
    let layers = |image: &str| s.ok(["image", "inspect", "-f", "{{json .RootFS.Layers}}", image]);
    assert_eq!(layers(&copy), layers(&tag));
    let second = s.name("second");
    assert_eq!(run(&copy, &second), expected);
    if against_docker() {
        s.ok(["rm", &name, &second]);
        s.ok(["rmi", &tag, &copy]);
    }
}

#[test]
fn a_hundred_and_twenty_layers_are_no_matter() {
    // More than fit into the one page of options that mount(2) takes; Docker's own limit is 125.
    let s = Sandbox::new();
    let mut layers = vec![Layer::busybox()];
    layers.extend(
        (1..120).map(|n| Layer::default().file(&format!("l{n}"), 0o644, "x").file("last", 0o644, n.to_string())),
    );
    let tag = load(&s, &json!({"Cmd": ["sh"]}), &layers);
    assert_eq!(s.ok(["run", "--rm", &tag, "sh", "-c", "cat /last; ls -d /l[0-9]* | wc -l"]), "119119");
    unload(&s, &tag);
}

#[test]
fn owners_modes_and_special_bits_survive() {
    let s = Sandbox::new();
    let layer = Layer::busybox().file("suid", 0o4755, "x").dir("sticky/", 0o1777).file("secret", 0o400, "x");
    let tag = load(&s, &json!({"Cmd": ["sh"]}), &[layer]);
    let listing = s.ok(["run", "--rm", &tag, "ls", "-ld", "/suid", "/sticky", "/secret"]);
    let mut modes: Vec<&str> = listing.lines().map(|line| &line[..10]).collect();
    modes.sort_unstable();
    assert_eq!(modes, ["-r--------", "-rwsr-xr-x", "drwxrwxrwt"]);
    unload(&s, &tag);
}

#[test]
fn a_layer_is_unpacked_once() {
    ours_only!("reads our data root");
    let s = Sandbox::new();
    load(&s, &json!({"Cmd": ["true"]}), &[Layer::busybox()]);
    let file = s.host("second.tar");
    save(
        Path::new(&file),
        "second:1",
        &json!({"Cmd": ["true"], "User": "1"}),
        &[Layer::busybox(), Layer::default().file("x", 0o644, "x")],
    );
    s.ok(["load", "-i", &file]);
    let count = fs::read_dir(s.root().join("overlay2/layers")).unwrap().count();
    assert_eq!(count, 2);
    for _ in 0..3 {
        s.ok(["run", "--rm", "second:1", "true"]);
    }
    assert_eq!(fs::read_dir(s.root().join("overlay2/layers")).unwrap().count(), 2);
}

#[test]
fn a_plain_tar_below_the_data_root_is_an_image() {
    ours_only!("our own look-up");
    let s = Sandbox::new();
    fs::create_dir_all(s.root().join("image")).unwrap();
    fs::write(s.root().join("image/tiny.tar"), Layer::busybox().file("mark", 0o644, "tiny").bytes()).unwrap();
    assert_eq!(s.ok(["run", "--rm", "tiny", "cat", "/mark"]), "tiny");
    assert_eq!(s.ok(["run", "--rm", "tiny:latest", "cat", "/mark"]), "tiny");
}

#[test]
fn busybox_needs_no_network_and_no_preparation() {
    ours_only!("our own look-up");
    let s = Sandbox::new();
    // The very first command on an empty data root, in a network namespace that leads nowhere.
    let output = s.with_shell("exec unshare --net \"$@\"", ["run", "--rm", "busybox", "echo", "first"]).run();
    assert_eq!(output.code(0).out(), "first");
}

#[test]
fn first_runs_side_by_side() {
    ours_only!("our own look-up");
    let s = Sandbox::new();
    let running: Vec<_> =
        (0..6).map(|n| s.command(["run", "--rm", "busybox", "echo", &n.to_string()]).start()).collect();
    for (n, running) in running.into_iter().enumerate() {
        assert_eq!(running.finish().code(0).out(), n.to_string());
    }
}

#[test]
fn load_from_standard_input() {
    let s = Sandbox::new();
    let (tag, file) = (format!("{}:1", s.name("img")), s.host("image.tar"));
    save(Path::new(&file), &tag, &json!({"Cmd": ["/bin/echo", "loaded"]}), &[Layer::busybox()]);
    let output = s.command(["load"]).stdin(fs::read(&file).unwrap()).run().code(0);
    assert!(output.out().contains(&tag), "{output}");
    assert_eq!(s.ok(["run", "--rm", &tag]), "loaded");
    unload(&s, &tag);
}

#[test]
fn archives_that_are_wrong_are_errors() {
    let s = Sandbox::new();
    s.fails(1, ["load", "-i", &s.host("missing.tar")]).says("missing.tar");
    let file = s.host_file("noise.tar", vec![0x5a; 4096]);
    assert_ne!(s.run(["load", "-i", &file]).code, 0);
    // Cut off in the middle.
    let (whole, cut) = (s.host("whole.tar"), s.host("cut.tar"));
    save(Path::new(&whole), "cut:1", &json!({"Cmd": ["true"]}), &[Layer::busybox()]);
    let bytes = fs::read(&whole).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert_ne!(s.run(["load", "-i", &cut]).code, 0);
    assert_ne!(s.run(["run", "--rm", "--pull", "never", "cut:1", "true"]).code, 0);
}

#[test]
fn a_layer_that_is_not_what_the_config_says_is_refused() {
    let s = Sandbox::new();
    let (tag, file) = (format!("{}:1", s.name("img")), s.host("image.tar"));
    let marker = "a-text-in-the-layer";
    save(Path::new(&file), &tag, &json!({"Cmd": ["true"]}), &[Layer::busybox().file("m", 0o644, marker)]);
    let mut bytes = fs::read(&file).unwrap();
    let at = crate::support::position(&bytes, marker.as_bytes()).unwrap();
    bytes[at] = b'A';
    fs::write(&file, &bytes).unwrap();
    assert_ne!(s.run(["load", "-i", &file]).code, 0);
    assert_ne!(s.run(["run", "--rm", "--pull", "never", &tag, "true"]).code, 0);
}

#[test]
fn layers_do_not_write_outside_their_root() {
    // The class of CVE-2014-9356: `..`, absolute names, links that lead out.
    let s = Sandbox::new();
    let victim = s.host_dir("victim");
    fs::write(s.path("victim/f"), "untouched").unwrap();
    let attacks = [
        Layer::default().file("../../../../../../../../var/tmp/mydocker-escape", 0o644, "x"),
        Layer::default().file("/var/tmp/mydocker-escape", 0o644, "x"),
        Layer::default().symlink("out", &victim).file("out/f", 0o644, "overwritten"),
        Layer::default().symlink("out", &victim).whiteout("out/f"),
        Layer::default().hardlink("hard", &format!("{victim}/f")).file("hard", 0o644, "overwritten"),
        Layer::default().symlink("up", "../../../../../../../../var/tmp").file("up/mydocker-escape", 0o644, "x"),
        Layer::default().dir("w/", 0o755).file("w/.wh...", 0o644, ""),
        Layer::default().dir("w/", 0o755).file("w/.wh..", 0o644, ""),
        Layer::default().dir("w/", 0o755).file("w/.wh.", 0o644, ""),
    ];
    for (number, attack) in attacks.into_iter().enumerate() {
        let (tag, file) = (format!("{}:1", s.name(&format!("evil{number}"))), s.host("evil.tar"));
        save(Path::new(&file), &tag, &json!({"Cmd": ["true"]}), &[Layer::busybox(), attack]);
        let output = s.run(["load", "-i", &file]);
        // Refused, or kept inside: then what it made lies in the container.
        if output.code == 0 {
            s.run(["run", "--rm", &tag, "true"]);
            unload(&s, &tag);
        }
        assert!(!Path::new("/var/tmp/mydocker-escape").exists(), "attack {number}");
        assert_eq!(fs::read_to_string(s.path("victim/f")).unwrap(), "untouched", "attack {number}");
    }
}
