//! Mirrors of docker.io that fail, lie and dawdle, and the registry itself behind them. docker.io is a server of the
//! test's own here, to which the command's /etc/hosts leads.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::Layer;
use crate::support::host::ip;
use crate::support::invocation::Invocation;
use crate::support::registry::{Options, Registry, authority_and_certificate};
use crate::support::scripted::{Answer, Request, Scripted};
use crate::support::shelf::Shelf;

/// docker.io, and a command's surroundings in which it is that.
struct Hub {
    server: Scripted,
    hosts: String,
}

impl Hub {
    fn start(s: &Sandbox, shelf: &Shelf) -> Hub {
        ip(&["address", "replace", "10.99.0.4/32", "dev", "lo"]);
        let directory = s.host_dir("hub");
        authority_and_certificate(Path::new(&directory), "10.99.0.4");
        for name in ["registry-1.docker.io", "index.docker.io"] {
            let trusted = s.host_dir(&format!("etc/certs.d/{name}"));
            fs::copy(format!("{directory}/ca.crt"), format!("{trusted}/ca.crt")).unwrap();
        }
        let hosts = s.host_file("hosts", "127.0.0.1 localhost\n10.99.0.4 registry-1.docker.io index.docker.io\n");
        let shelf = shelf.clone();
        let serve = move |request: &Request, answer: &mut Answer<'_>| shelf.serve(request, answer);
        Hub { server: Scripted::start_tls("10.99.0.4:443", Path::new(&directory), serve), hosts }
    }

    /// A command for which these are the settings, with `auths` as accounts.
    fn command(&self, s: &Sandbox, settings: &str, args: &[&str]) -> Invocation {
        let settings = s.host_file("etc/config.toml", settings);
        let script = "exec unshare -m sh -c 'mount --bind \"$HOSTS\" /etc/hosts && exec \"$@\"' sh \"$@\"";
        let command = s.with_shell(script, args).env("HOSTS", &self.hosts).env("MYDOCKER_CONFIG", &settings);
        command.env("DOCKER_CONFIG", &s.host_dir("docker"))
    }
}

fn mirrors(urls: &[&str]) -> String {
    format!("registry-mirrors = {urls:?}\nregistry-timeout = 1\n")
}

/// An image whose second layer is large enough to break in its middle.
fn box_with(marker: &str) -> (Shelf, String) {
    let noise: Vec<u8> = super::registry_faults::noise(300_000);
    let tars =
        [Layer::busybox().file("marker", 0o644, marker).bytes(), Layer::default().file("n", 0o644, noise).bytes()];
    let mut shelf = Shelf::default();
    let digest = shelf.image("latest", &tars)["digest"].as_str().unwrap().to_owned();
    (shelf, digest)
}

type Script = Box<dyn Fn(&Request, &mut Answer<'_>) + Send + Sync>;

/// A mirror that has all of `shelf` but answers with `lie` where that gives one.
fn lying(shelf: &Shelf, lie: impl Fn(&Request, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Script {
    let shelf = shelf.clone();
    Box::new(move |request, answer| {
        let truth = match shelf.asked(request) {
            Some(blob) => blob.to_vec(),
            None if request.target.contains("/manifests/") => {
                shelf.bytes(request.target.rsplit('/').next().unwrap()).to_vec()
            }
            None => Vec::new(),
        };
        match lie(request, &truth) {
            Some(lie) => answer.send("200 OK", &[], &lie),
            None => shelf.serve(request, answer),
        }
    })
}

/// A server that begins to answer, and waits for the client to leave.
fn silent() -> Script {
    Box::new(|_, answer| {
        answer.raw(b"HTTP/1.1 200");
        answer.until_left();
    })
}

fn one_bit_off(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

#[test]
fn a_mirror_that_fails_lies_or_dawdles_is_passed_over() {
    ours_only!("Docker's daemon lives in another network namespace");
    let s = Sandbox::new();
    let (shelf, digest) = box_with("of the hub");
    let hub = Hub::start(&s, &shelf);
    let is_layer = |request: &Request, truth: &[u8]| request.target.contains("/blobs/") && truth.len() > 4096;
    let is_config = |request: &Request, truth: &[u8]| request.target.contains("/blobs/") && truth.len() <= 4096;
    let breaking = shelf.clone();
    let scripts: Vec<(&str, Script)> = vec![
        ("ill", Box::new(|_, answer| answer.send("500 x", &[], b""))),
        ("forbidding", Box::new(|_, answer| answer.send("403 x", &[], b""))),
        ("asking", Box::new(|_, answer| answer.send("401 x", &[("www-authenticate", "Basic realm=\"m\"")], b""))),
        ("silent", silent()),
        ("no registry", Box::new(|_, answer| answer.send("200 OK", &[], b"<html>welcome</html>"))),
        ("away", Box::new(|_, answer| answer.send("307 x", &[("location", "http://127.0.0.1:1/")], b""))),
        ("config", lying(&shelf, move |request, truth| is_config(request, truth).then(|| one_bit_off(truth)))),
        ("layer", lying(&shelf, move |request, truth| is_layer(request, truth).then(|| one_bit_off(truth)))),
        ("short", lying(&shelf, move |request, truth| is_layer(request, truth).then(|| truth[..4096].to_vec()))),
        (
            "breaking",
            Box::new(move |request, answer| match breaking.asked(request) {
                Some(blob) if blob.len() > 4096 => {
                    answer.raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", blob.len()).as_bytes());
                    answer.raw(&blob[..blob.len() / 2]);
                }
                _ => breaking.serve(request, answer),
            }),
        ),
    ];
    for (name, script) in scripts {
        let mirror = Scripted::start(script);
        let root = s.host_dir(&format!("root of {name}"));
        let settings = mirrors(&[&format!("http://{}", mirror.address())]);
        let before = hub.server.requests().len();
        let pull = hub.command(&s, &settings, &["--root", &root, "pull", "team/box"]).run().cleanly();
        assert_eq!(pull.code, 0, "a mirror that is {name}: {pull}");
        assert!(pull.out().contains(&format!("Digest: {digest}")), "{name}: {pull}");
        assert!(!mirror.requests().is_empty(), "{name}: the mirror was asked");
        assert!(hub.server.requests().len() > before, "{name}: so was docker.io");
        let root = ["--root", &root];
        let marker = ["run", "--rm", "--network", "none", "--pull", "never", "team/box", "cat", "/marker"];
        assert_eq!(s.ok(root.iter().chain(&marker)), "of the hub", "{name}");
    }
}

#[test]
fn what_a_mirror_and_the_registry_lack_is_told_of_the_registry() {
    ours_only!("Docker's daemon lives in another network namespace");
    let s = Sandbox::new();
    let (shelf, _) = box_with("x");
    let hub = Hub::start(&s, &shelf);
    let mirror = Scripted::start(|_, answer| answer.send("500 x", &[], b""));
    let settings = mirrors(&[&format!("http://{}", mirror.address())]);
    let pull = hub.command(&s, &settings, &["pull", "team/box:none"]).run().cleanly().code(1);
    pull.says("manifest for team/box:none not found: manifest unknown");
    // By a digest that neither has.
    let name = format!("team/box@sha256:{}", "0".repeat(64));
    hub.command(&s, &settings, &["pull", &name]).run().cleanly().code(1).says("not found");
}

#[test]
fn a_mirror_over_tls_is_verified_and_gets_its_own_account_alone() {
    ours_only!("Docker's daemon lives in another network namespace");
    let s = Sandbox::new();
    let (shelf, _) = box_with("of the hub");
    let hub = Hub::start(&s, &shelf);
    let mirror = Registry::start(
        &s,
        Options { address: "10.99.0.5", tls: true, account: Some(("mia", "mirror's")), ..Options::default() },
    );
    let layout = s.host_dir("layout");
    crate::support::registry::write_layout(
        Path::new(&layout),
        &[Layer::busybox().file("marker", 0o644, "of the mirror").bytes()],
    );
    let copied = std::process::Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", "mia:mirror's"])
        .args([format!("oci:{layout}"), format!("docker://{}", mirror.image("team/box:latest"))])
        .status()
        .expect("run skopeo");
    assert!(copied.success());
    let settings = mirrors(&[&format!("https://{}", mirror.address())]);
    let marker = |root: &str| {
        let root = s.host_dir(root);
        let pull = hub.command(&s, &settings, &["--root", &root, "pull", "-q", "team/box"]).run().cleanly();
        pull.code(0);
        let show = ["run", "--rm", "--network", "none", "--pull", "never", "team/box", "cat", "/marker"];
        s.ok(["--root", &root].iter().chain(&show))
    };
    let docker = s.host_dir("docker");
    let accounts = |auths: serde_json::Value| {
        fs::write(format!("{docker}/config.json"), json!({ "auths": auths }).to_string()).unwrap();
    };
    // "hub:secret", "mia:mirror's"
    let (of_hub, of_mirror) = (json!({ "auth": "aHViOnNlY3JldA==" }), json!({ "auth": "bWlhOm1pcnJvcidz" }));
    accounts(json!({ "https://index.docker.io/v1/": of_hub, mirror.address(): of_mirror }));
    assert_eq!(marker("unverified"), "of the hub", "its certificate is of an authority that nobody knows");
    let trusted = s.host_dir(&format!("etc/certs.d/{}", mirror.address()));
    fs::copy(mirror.authority(), format!("{trusted}/ca.crt")).unwrap();
    accounts(json!({ "https://index.docker.io/v1/": of_hub }));
    assert_eq!(marker("unknown"), "of the hub", "the account of docker.io is nothing to a mirror");
    let asked = hub.server.requests().len();
    accounts(json!({ "https://index.docker.io/v1/": of_hub, mirror.address(): of_mirror }));
    assert_eq!(marker("known"), "of the mirror");
    assert_eq!(hub.server.requests().len(), asked, "docker.io was not needed");
    assert!(
        hub.server.requests().iter().all(|request| request.header("authorization").is_none()),
        "nobody asked for it"
    );
}

/// Pushing and searching are the registry's own business.
#[test]
fn mirrors_are_asked_for_nothing_but_pulls_of_docker_io() {
    ours_only!("Docker's daemon lives in another network namespace");
    let s = Sandbox::new();
    let (shelf, _) = box_with("x");
    let hub = Hub::start(&s, &shelf);
    let mirror = Scripted::start(|_, answer| answer.send("500 x", &[], b""));
    let settings = mirrors(&[&format!("http://{}", mirror.address())]);
    s.ok(["run", "--rm", "--network", "none", "busybox", "true"]);
    s.ok(["tag", "busybox", "team/new"]);
    hub.command(&s, &settings, &["push", "team/new"]).run().cleanly().code(1);
    hub.command(&s, &settings, &["search", "new"]).run().cleanly().code(1);
    let registry = Registry::start(&s, Options::default());
    registry.fill_busybox("box");
    hub.command(&s, &settings, &["pull", "-q", &registry.image("box")]).run().cleanly().code(0);
    assert!(mirror.requests().is_empty(), "{:?}", mirror.requests());
    assert!(hub.server.count("/v2/team/new/") > 0 && hub.server.count("/v1/search") == 1);
}
