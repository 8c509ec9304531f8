//! Proxies from the environment: what they are told, and who is reached without them.

use std::path::Path;

use crate::ours_only;
use crate::support::host::ip;
use crate::support::registry::{Options, Registry, authority_and_certificate};
use crate::support::scripted::Scripted;
use crate::support::{Output, Sandbox};

/// `pull` under these variables, of a registry that is not on loopback.
fn pull(s: &Sandbox, image: &str, variables: &[(&str, &str)]) -> Output {
    let settings = s.host_file("config.toml", "registry-timeout = 5\ninsecure-registries = [\"10.99.0.7\"]\n");
    let command = s.command(["pull", "-q", image]).env("MYDOCKER_CONFIG", &settings);
    variables.iter().fold(command, |command, (name, value)| command.env(name, value)).run().cleanly()
}

#[test]
fn a_proxy_is_told_who_we_are_and_nobody_else_is() {
    ours_only!("Docker's daemon lives in another network namespace");
    let s = Sandbox::new();
    ip(&["address", "replace", "10.99.0.7/32", "dev", "lo"]);
    // One that refuses everybody: what it was told is what matters.
    let proxy = Scripted::start(|_, answer| answer.send("407 Proxy Authentication Required", &[], b""));
    let url = format!("http://us%40er:p%40ss%3Aword@{}", proxy.address());
    let refused = pull(&s, "registry.example/box", &[("HTTPS_PROXY", &url)]).code(1);
    assert!(!refused.err().contains("p%40ss") && !refused.err().contains("p@ss"), "{refused}");
    refused.says("proxy");
    let request = &proxy.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("CONNECT", "registry.example:443"));
    // us@er:p@ss:word
    assert_eq!(request.header("proxy-authorization"), Some("Basic dXNAZXI6cEBzczp3b3Jk"));
    // Through one that leads there, the registry hears nothing of that.
    let directory = s.host_dir("tls");
    authority_and_certificate(Path::new(&directory), "10.99.0.7");
    let registry = Scripted::start_tls("10.99.0.7", Path::new(&directory), |_, answer| answer.send("404 x", &[], b""));
    let tunnel = tunnel();
    let url = format!("http://user:secret@{}", tunnel.address());
    pull(&s, &format!("{}/box", registry.address()), &[("https_proxy", &url)]).code(1).says("manifest for");
    assert!(tunnel.count(registry.address()) > 0, "{:?}", tunnel.requests());
    let headers: Vec<_> = registry.requests().into_iter().flat_map(|request| request.headers).collect();
    assert!(!headers.is_empty() && !headers.iter().any(|(name, _)| name.contains("authorization")), "{headers:?}");
}

/// A proxy that connects to whom it is asked for.
fn tunnel() -> Scripted {
    Scripted::start(|request, answer| match std::net::TcpStream::connect(&request.target) {
        Ok(mut there) => {
            answer.raw(b"HTTP/1.1 200 OK\r\n\r\n");
            answer.join(&mut there);
        }
        Err(_) => answer.send("502 x", &[], b""),
    })
}

#[test]
fn hosts_that_no_proxy_names_are_reached_without_one() {
    ours_only!("Docker's daemon lives in another network namespace");
    let s = Sandbox::new();
    let registry = Registry::start(&s, Options { address: "10.99.0.7", ..Options::default() });
    registry.fill_busybox("box");
    let name = registry.image("box");
    let port = registry.address().rsplit(':').next().unwrap();
    let proxy = Scripted::start(|_, answer| answer.send("403 no", &[], b""));
    let url = format!("http://{}", proxy.address());
    for (list, direct) in [
        ("", false),
        ("10.99.0.7", true),
        ("10.99.0.0/24", true),
        ("other.example, 10.99.0.7", true),
        (&format!("10.99.0.7:{port}"), true),
        ("10.99.0.7:1", false),
        ("*", true),
        ("10.99.0", false),
        ("localhost,.internal", false),
    ] {
        let before = proxy.requests().len();
        let output = pull(&s, &name, &[("HTTPS_PROXY", &url), ("HTTP_PROXY", &url), ("NO_PROXY", list)]);
        assert_eq!((output.code == 0, proxy.requests().len() == before), (direct, direct), "{list:?}: {output}");
    }
    // Loopback never goes through one.
    let here = Registry::start(&s, Options::default());
    here.fill_busybox("box");
    let before = proxy.requests().len();
    pull(&s, &here.image("box"), &[("HTTPS_PROXY", &url), ("HTTP_PROXY", &url), ("ALL_PROXY", &url)]).code(0);
    assert_eq!(proxy.requests().len(), before);
    // A proxy that is none is an error that does not tell its password.
    let output = pull(&s, &name, &[("HTTPS_PROXY", "gopher://user:hunter2@proxy:1")]);
    assert!(output.code != 0 && !output.err().contains("hunter2"), "{output}");
    output.says("proxy");
}
