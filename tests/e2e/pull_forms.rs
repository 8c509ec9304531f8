//! What is pulled in other forms than usual: other compressions, processors with variants, many tags.

use std::process::Command;

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::Layer;
use crate::support::registry::{Options, Registry};
use crate::support::scripted::Scripted;
use crate::support::shelf::{INDEX, Shelf, own_architecture};

fn serve(shelf: Shelf) -> Scripted {
    Scripted::start(move |request, answer| shelf.serve(request, answer))
}

fn through(program: &str, bytes: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new(program).args(["-q", "-c"]).arg(file.path()).output().expect("run the compressor");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn layers_come_compressed_by_gzip_zstd_or_not_at_all_and_go_out_the_same() {
    let s = Sandbox::new();
    let mut shelf = Shelf::default();
    type Form = fn(&[u8]) -> Vec<u8>;
    let forms: [(&str, &str, Form); 4] = [
        ("zstd", "tar+zstd", |tar| through("zstd", tar)),
        ("gzip", "tar+gzip", |tar| through("gzip", tar)),
        ("plain", "tar", |tar| tar.to_vec()),
        // What a layer is stands in its first bytes; Docker goes by them as well.
        ("mislabelled", "tar+gzip", |tar| through("zstd", tar)),
    ];
    for (tag, kind, form) in forms {
        let tars = [Layer::busybox().bytes(), Layer::default().file("marker", 0o644, tag).bytes()];
        let wire: Vec<Vec<u8>> = tars.iter().map(|tar| form(tar)).collect();
        let layers: Vec<(&[u8], &[u8])> = tars.iter().zip(&wire).map(|(tar, wire)| (&tar[..], &wire[..])).collect();
        shelf.image_of(tag, own_architecture(), kind, &layers);
    }
    let originals: Vec<Vec<u8>> = forms.iter().map(|(tag, ..)| shelf.bytes(tag).to_vec()).collect();
    let server = serve(shelf);
    let target = Registry::start(&s, Options::default());
    for ((tag, ..), original) in forms.iter().zip(originals) {
        let name = format!("{}/box:{tag}", server.address());
        s.ok(["pull", "-q", &name]);
        let show = ["run", "--rm", "--network", "none", "--pull", "never", &name, "cat", "/marker"];
        assert_eq!(s.ok(show), *tag);
        s.ok(["tag", &name, &target.image(&format!("box:{tag}"))]);
        s.ok(["push", "-q", &target.image(&format!("box:{tag}"))]);
        let raw = Command::new("skopeo")
            .args([
                "inspect",
                "--raw",
                "--tls-verify=false",
                &format!("docker://{}", target.image(&format!("box:{tag}"))),
            ])
            .output()
            .expect("run skopeo");
        assert!(raw.stdout == original, "{tag}: {}", String::from_utf8_lossy(&raw.stdout));
        s.ok(["rmi", "-f", &name]);
    }
}

/// What is for a newer kind of processor than every one is chosen only by name: Docker takes `linux/amd64` for the
/// baseline.
#[test]
fn an_index_in_an_index_and_variants_of_a_processor() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    let mut shelf = Shelf::default();
    let mut image = |what: &str, variant: Option<&str>| -> Value {
        let tar = Layer::busybox().file("marker", 0o644, what).bytes();
        let mut descriptor = shelf.image_of(what, own_architecture(), "tar", &[(&tar, &tar)]);
        descriptor["platform"] = json!({ "os": "linux", "architecture": own_architecture() });
        if let Some(variant) = variant {
            descriptor["platform"]["variant"] = json!(variant);
        }
        descriptor
    };
    let (new, baseline) = (image("new", Some("v9")), image("baseline", None));
    let index = |manifests: &[&Value]| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let inner = shelf.document("inner", INDEX, &index(&[&new, &baseline]));
    shelf.document("outer", INDEX, &index(&[&inner]));
    shelf.document("new-only", INDEX, &index(&[&new]));
    let server = serve(shelf);
    let marker = |tag: &str, more: &[&str]| {
        let name = format!("{}/x:{tag}", server.address());
        let pull = ["run", "--rm", "--network", "none", "--pull", "always", "-q"];
        s.ok(pull.iter().chain(more).chain(&[&name[..], "cat", "/marker"]))
    };
    assert_eq!(marker("inner", &[]), "baseline");
    assert_eq!(marker("outer", &[]), "baseline");
    let variant = format!("linux/{}/v9", own_architecture());
    assert_eq!(marker("inner", &["--platform", &variant]), "new");
    let refused = s.fails(1, ["pull", &format!("{}/x:new-only", server.address())]);
    refused.says("no matching manifest for").says(&format!("{variant}; choose with --platform"));
}

#[test]
fn all_of_a_hundred_tags_come_page_by_page() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    let mut shelf = Shelf::default();
    for n in 0..120 {
        shelf.image(&format!("t{n:03}"), &[Layer::default().file("n", 0o644, format!("{}", n / 40)).bytes()]);
    }
    let server = Scripted::start(move |request, answer| {
        let Some((_, query)) = request.target.split_once("/tags/list") else { return shelf.serve(request, answer) };
        // Never more than fifty, whatever was asked for.
        let last =
            query.split(['?', '&']).find_map(|pair| pair.strip_prefix("last=t")).map_or(-1, |n| n.parse().unwrap());
        let tags: Vec<String> = (last + 1..120).take(50).map(|n| format!("t{n:03}")).collect();
        let more = last + 50 < 119;
        let link = format!("</v2/box/tags/list?last={}&n=50>; rel=\"next\"", tags.last().unwrap());
        let headers: Vec<(&str, &str)> = if more { vec![("Link", &link)] } else { Vec::new() };
        answer.send("200 OK", &headers, json!({ "name": "box", "tags": tags }).to_string().as_bytes());
    });
    let name = format!("{}/box", server.address());
    let out = s.ok(["pull", "-a", &name]);
    assert_eq!(out.matches("Digest: sha256:").count(), 120, "{out}");
    // As Docker says it: the repository, once.
    assert_eq!(out.lines().last(), Some(&name[..]));
    assert_eq!(s.ok(["pull", "-a", "-q", &name]), name);
    let tags = s.ok(["images", "--format", "{{.Tag}}", &name]);
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!((tags.len(), tags[0], tags[119]), (120, "t000", "t119"));
    assert_eq!(server.count("/tags/list"), 6, "three pages, twice");
    s.fails(125, ["pull", "-a", &format!("{name}:t001")]).says("tag can't be used with --all-tags/-a");
}
