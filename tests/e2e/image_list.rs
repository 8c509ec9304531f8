//! `images`, `image inspect`, `inspect`, `tag`.

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::archive::{Image, Layer};
use crate::support::{Sandbox, against_docker};

/// Three images: `old` and `new` share a layer, the third has no name.
fn three(s: &Sandbox) -> [String; 3] {
    let base = || Layer::default().file("base", 0o644, vec![1; 10_000]);
    let top = || Layer::default().file("top", 0o644, vec![2; 5_000]);
    s.load_images(&[
        Image {
            references: &["old:1", "team/old:2", "localhost:5000/team/old:3"],
            created: "2020-01-01T00:00:00Z",
            config: json!({"Labels": {"age": "old", "both": ""}, "Cmd": ["x"]}),
            layers: &[base()],
            ..Image::default()
        },
        Image {
            references: &["new:1"],
            created: "2022-01-01T00:00:00Z",
            config: json!({"Labels": {"age": "new", "both": ""}}),
            layers: &[base(), top()],
            ..Image::default()
        },
        Image { created: "2021-01-01T00:00:00Z", layers: &[top()], ..Image::default() },
    ]);
    let id = |name: &str| s.ok(["image", "inspect", "-f", "{{.Id}}", name]);
    let dangling = s.ok(["images", "-q", "--no-trunc", "-f", "dangling=true"]);
    [id("old:1"), id("new:1"), dangling]
}

/// `repository:tag` of each row.
fn names(s: &Sandbox, args: &[&str]) -> Vec<String> {
    let mut line = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
    line.extend(args);
    s.ok(line).lines().map(str::to_owned).collect()
}

#[test]
fn newest_first_with_a_row_for_each_tag() {
    ours_only!("lists the images of its own data root only");
    let s = Sandbox::new();
    let ids = three(&s);
    let all = ["new:1", "<none>:<none>", "localhost:5000/team/old:3", "old:1", "team/old:2"];
    assert_eq!(names(&s, &[]), all);
    assert_eq!(names(&s, &["-a"]), all);
    let listed = s.ok(["images", "-q", "--no-trunc"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), [&ids[1], &ids[2], &ids[0], &ids[0], &ids[0]]);
    let table = s.ok(["image", "ls"]);
    let first: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((first[0], first[1], first[2]), ("new", "1", &ids[1][7..19]));
    assert!(table.starts_with("REPOSITORY "), "{table}");
    assert!(table.lines().nth(1).unwrap().ends_with("ago   15kB"), "{table}");
    assert!(s.ok(["images", "--digests"]).lines().next().unwrap().contains("DIGEST"));
    let row: Value = serde_json::from_str(s.ok(["images", "--format", "json", "new"]).trim()).unwrap();
    assert_eq!((&row["Repository"], &row["Size"]), (&json!("new"), &json!("15kB")));
    assert_eq!(
        (&row["SharedSize"], &row["UniqueSize"], &row["Containers"]),
        (&json!("15kB"), &json!("0B"), &json!("0"))
    );
    s.fails(1, ["images", "--format", "{{.Nothing}}"]).says("Nothing");
}

#[test]
fn filters_choose() {
    ours_only!("lists the images of its own data root only");
    let s = Sandbox::new();
    let ids = three(&s);
    for (args, expected) in [
        (&["-f", "dangling=true"][..], &["<none>:<none>"][..]),
        (&["-f", "dangling=false", "-f", "label=age=new"], &["new:1"]),
        (&["-f", "label=both", "-f", "label=age=new"], &["new:1"]),
        (&["-f", "label=none"], &[]),
        (&["-f", "before=new:1", "-f", "since=old:1"], &["<none>:<none>"]),
        (&["-f", &format!("since={}", &ids[2][7..17])], &["new:1"]),
        (&["-f", "until=2020-06-01"], &["localhost:5000/team/old:3", "old:1", "team/old:2"]),
        (&["-f", "reference=*/old"], &["team/old:2"]),
        (&["-f", "reference=*:1"], &["new:1", "old:1"]),
        (&["-f", "reference=ne?", "-f", "reference=*/*/old:*"], &["new:1", "localhost:5000/team/old:3"]),
        (&["old"], &["old:1"]),
        (&["old:2"], &[]),
        (&["team/old:2"], &["team/old:2"]),
        (&["localhost:5000/team/old"], &["localhost:5000/team/old:3"]),
        (&["*"], &["new:1", "old:1"]),
    ] {
        assert_eq!(names(&s, args), expected, "{args:?}");
    }
    for (filter, message) in [
        ("nothing=1", "invalid filter 'nothing'"),
        ("dangling=perhaps", "invalid filter 'dangling=perhaps'"),
        ("dangling", "bad format of filter (expected name=value)"),
        ("before=missing", "No such image: missing:latest"),
        ("reference=[", "syntax error in pattern"),
        ("until=soon", "invalid filter 'until=soon'"),
    ] {
        s.fails(1, ["images", "-f", filter]).says(message);
    }
}

#[test]
fn the_tree_shows_layers_and_who_has_them() {
    ours_only!("Docker's tree shows platforms");
    let s = Sandbox::new();
    let name = s.name("user");
    three(&s);
    s.ok(["create", "--name", &name, "old:1"]);
    let tree = s.ok(["images", "--tree", "old"]);
    let lines: Vec<&str> = tree.lines().collect();
    assert_eq!(lines.len(), 3, "{tree}");
    assert!(lines[1].starts_with("old:1 ") && lines[1].ends_with(&format!("used by {name}")), "{tree}");
    assert!(lines[2].starts_with("└─ layer") && lines[2].ends_with("shared with 1 image"), "{tree}");
    s.fails(1, ["images", "--tree", "-q"]).says("--quiet is not yet supported with --tree");
}

#[test]
fn inspect_has_dockers_fields() {
    let s = Sandbox::new();
    let config = json!({
        "Env": ["A=1"], "Cmd": ["run"], "Entrypoint": ["/init"], "User": "1:2", "WorkingDir": "/w",
        "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}, "Labels": {"l": "1"}, "StopSignal": "SIGUSR1",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000}, "OnBuild": ["RUN x"], "Shell": ["/bin/ash", "-c"],
    });
    let tag = format!("{}:1", s.name("inspected"));
    let layers = [Layer::default().file("a", 0o644, "1"), Layer::default().file("b", 0o644, "22")];
    s.load_images(&[Image { references: &[&tag], config: config.clone(), layers: &layers, ..Image::default() }]);
    let views: Vec<Value> = serde_json::from_str(&s.ok(["image", "inspect", &tag])).unwrap();
    let view = &views[0];
    for (name, value) in config.as_object().unwrap() {
        assert_eq!(view["Config"][name], *value, "{name}");
    }
    assert_eq!(view["RepoTags"], json!([tag]));
    assert_eq!(view["Created"], "2024-01-01T00:00:00Z");
    assert_eq!((&view["Os"], &view["Size"]), (&json!("linux"), &json!(3)));
    assert_eq!(view["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    assert_eq!(view["GraphDriver"]["Name"], "overlay2");
    for part in ["UpperDir", "LowerDir"] {
        let directory = view["GraphDriver"]["Data"][part].as_str().unwrap();
        assert!(std::path::Path::new(directory).is_dir(), "{part}: {directory}");
    }
    let shown = |template: &str| s.ok(["image", "inspect", "--format", template, &tag]);
    assert_eq!(shown("{{index .RepoTags 0}} {{.Config.Cmd}} {{json .Config.Env}}"), format!("{tag} [run] [\"A=1\"]"));
    assert_eq!(
        shown("{{range $p, $c := .Config.ExposedPorts}}{{$p}}{{end}} {{.Architecture}}").split(' ').next(),
        Some("80/tcp")
    );
    let id = view["Id"].as_str().unwrap();
    // Without a type, containers come before images; by id and by the beginning of one as well.
    for text in [&tag[..], id, &id[7..], &id[7..19]] {
        assert_eq!(s.ok(["inspect", "-f", "{{.Id}}", text]), id, "{text}");
        assert_eq!(s.ok(["inspect", "--type", "image", "-f", "{{.Id}}", text]), id, "{text}");
    }
    s.ok(["rmi", &tag]);
}

#[test]
fn what_is_not_there_is_told_beside_what_is() {
    let s = Sandbox::new();
    let tag = format!("{}:1", s.name("there"));
    s.load_images(&[Image {
        references: &[&tag],
        layers: &[Layer::default().file("a", 0o644, "1")],
        ..Image::default()
    }]);
    let output = s.fails(1, ["image", "inspect", &s.name("missing"), &tag]);
    let views: Vec<Value> = serde_json::from_str(&output.out()).unwrap();
    assert_eq!((views.len(), &views[0]["RepoTags"]), (1, &json!([tag])));
    output.says(&format!("No such image: {}:latest", s.name("missing")));
    let output = s.fails(1, ["inspect", &s.name("missing")]).says("No such object");
    assert_eq!(output.out(), "[]");
    s.fails(1, ["inspect", "--type", "container", &tag]).says("No such");
    s.ok(["rmi", &tag]);
}

#[test]
fn an_image_for_another_platform_is_told() {
    ours_only!("Docker's message depends on its image store");
    let s = Sandbox::new();
    s.load_images(&[Image { references: &["p:1"], ..Image::default() }]);
    let other = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };
    for command in [&["image", "inspect"][..], &["history"]] {
        let args = command.iter().copied().chain(["--platform", other, "p:1"]);
        s.fails(1, args).says("does not match the specified platform");
    }
    s.ok(["history", "--platform", "linux", "p:1"]);
}

#[test]
fn tags_are_given_and_moved() {
    let s = Sandbox::new();
    let [a, b, c] = ["a", "b", "c"].map(|stem| format!("{}:1", s.name(stem)));
    s.load_images(&[
        Image { references: &[&a], created: "2020-01-01T00:00:00Z", ..Image::default() },
        Image { references: &[&b], created: "2021-01-01T00:00:00Z", ..Image::default() },
    ]);
    let id = |name: &str| s.ok(["image", "inspect", "-f", "{{.Id}}", name]);
    let (first, second) = (id(&a), id(&b));
    s.ok(["tag", &a, &c]);
    assert_eq!(id(&c), first);
    s.ok(["image", "tag", &second[7..19], &c]);
    assert_eq!(id(&c), second, "a tag means one image");
    s.ok(["tag", &second, &s.name("bare")]);
    assert_eq!(id(&format!("{}:latest", s.name("bare"))), second);
    s.fails(1, ["tag", &s.name("missing"), &c]).says(&format!("No such image: {}:latest", s.name("missing")));
    s.fails(1, ["tag", &a, "UPPER"]).says("is not a valid repository/tag: invalid reference format: repository name");
    s.fails(1, ["tag", &a, &format!("x@{first}")]).says("refusing to create a tag with a digest reference");
    s.fails(1, ["tag", &a, "sha256:abc"]).says("refusing to create an ambiguous tag using digest algorithm as name");
    assert_eq!(s.ok(["images", "-q", "sha256"]), "");
    s.ok(["rmi", &a, &b, &c, &s.name("bare")]);
}

#[test]
fn control_characters_of_an_image_reach_no_terminal() {
    ours_only!("Docker lets them through");
    let s = Sandbox::new();
    let evil = "\u{1b}[2Jclear\r\nDeleted: x";
    s.load_images(&[Image {
        references: &["evil:1"],
        config: json!({"Labels": {"evil": evil}, "Cmd": [evil]}),
        history: json!([{"created_by": evil, "comment": evil, "empty_layer": true}]),
        ..Image::default()
    }]);
    for args in [&["history", "--no-trunc", "evil:1"][..], &["image", "inspect", "evil:1"], &["images", "--tree"]] {
        let out = s.run(args).code(0);
        assert!(!out.stdout.contains(&0x1b) && !out.stdout.contains(&b'\r'), "{out}");
    }
    let mut terminal = s.terminal(["image", "inspect", "-f", "{{.Config.Labels.evil}}", "evil:1"]);
    terminal.expect("\\u{1b}[2Jclear");
    assert_eq!(terminal.finish().0, 0);
}

#[test]
fn what_is_no_reference_is_told_as_such() {
    let s = Sandbox::new();
    for line in [
        &["rmi", "UPPER"][..],
        &["history", "UPPER"],
        &["save", "UPPER"],
        &["pull", "UPPER"],
        &["push", "UPPER"],
        &["create", "UPPER"],
        &["image", "inspect", "UPPER"],
        &["import", "/dev/null", "UPPER"],
    ] {
        s.fails(1, line).says("invalid reference format: repository name must be lowercase");
    }
    s.fails(125, ["run", "UPPER"]).says("repository name must be lowercase");
    if !against_docker() {
        // It says which of several, and of what form it should be.
        let output =
            s.fails(1, ["rmi", "a", "x:y:z"]).says("\"x:y:z\" is not of the form [HOST[:PORT]/]NAME[:TAG][@DIGEST]");
        assert!(!output.err().contains("--help"), "{output}");
        s.fails(1, ["pull", "x@sha256:12"]).says("64 lower-case hexadecimal digits");
    }
}
