//! Where credentials go and whom TLS trusts: redirects, tokens, mirrors, proxies, certificates.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use mydocker::image::registry::{Access, Accounts, Registry as Client, Target};
use mydocker::settings::{Proxies, Settings};

use super::registry_client::{client, impatient, reference, words};
use super::registry_faults::{descriptor, noise};
use crate::ours_only;
use crate::support::Sandbox;
use crate::support::host::ip;
use crate::support::registry::{Options, Registry, authority_and_certificate};
use crate::support::scripted::{Request, Scripted};

/// Accounts that hold `user:secret` for each of these registries.
fn accounts(sandbox: &Sandbox, servers: &[&str]) -> Accounts {
    let directory = sandbox.host_dir("docker-config");
    let entry = |server: &&str| ((*server).to_owned(), serde_json::json!({ "auth": "dXNlcjpzZWNyZXQ=" }));
    let auths: serde_json::Map<_, _> = servers.iter().map(entry).collect();
    fs::write(format!("{directory}/config.json"), serde_json::json!({ "auths": auths }).to_string()).unwrap();
    Accounts::in_directory(Path::new(&directory)).unwrap()
}

fn open(settings: &Settings, accounts: &Accounts, name: &str) -> Client {
    Client::open(settings, accounts, &reference(name), Access::Pull).unwrap()
}

fn authorizations(server: &Scripted) -> Vec<Option<String>> {
    server.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect()
}

const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

/// CVE-2020-15157 and its kin.
#[test]
fn credentials_do_not_follow_redirects() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let blob = noise(100_000);
    let (wanted, served) = (descriptor(&blob), blob.clone());
    // The other host asks for a password, which is what the attack does.
    let asks = Scripted::start(|_, answer| {
        answer.send("401 x", &[("www-authenticate", "Basic realm=\"registry\"")], b"");
    });
    let gives = Scripted::start(move |_, answer| answer.send("200 OK", &[], &served));
    let (asking, giving) = (asks.address().to_owned(), gives.address().to_owned());
    let registry = Scripted::start(move |request, answer| {
        if request.header("authorization").is_none() {
            return answer.send("401 x", &[("www-authenticate", "Basic realm=\"r\"")], b"");
        }
        let to = if request.target.contains("/blobs/") { &giving } else { &asking };
        answer.send("307 x", &[("location", &format!("http://{to}/elsewhere?signature=1"))], b"");
    });
    let accounts = accounts(&sandbox, &[registry.address(), asks.address()]);
    let client = open(&impatient(), &accounts, &format!("{}/x", registry.address()));
    let mut bytes = Vec::new();
    client.blob(&wanted, |_, _| ()).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == blob);
    let said = words(client.manifest(Target::Tag("x")));
    assert!(said.contains("unauthorized"), "{said}");
    // Asked without once, then with; `/v2/` was asked to find out whether it speaks TLS.
    assert!(authorizations(&registry).contains(&Some(BASIC.to_owned())));
    assert_eq!(authorizations(&gives), [None]);
    assert_eq!(authorizations(&asks), [None], "its challenge is not answered, though there is an account for it");
}

#[test]
fn an_encrypted_registry_leads_nowhere_unencrypted() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let directory = sandbox.host_dir("tls");
    ip(&["address", "replace", "10.99.0.2/32", "dev", "lo"]);
    authority_and_certificate(Path::new(&directory), "10.99.0.2");
    let plain = Scripted::start(|_, answer| answer.send("200 OK", &[], b"{\"token\":\"t\"}"));
    let port = plain.address().rsplit(':').next().unwrap().to_owned();
    let registry = Scripted::start_tls("10.99.0.2", Path::new(&directory), move |request, answer| {
        // Another name of loopback's, which is not trusted as loopback is.
        let elsewhere = format!("http://10.99.0.2:{port}/x");
        if request.target.contains("realm") {
            let challenge = format!("Bearer realm=\"{elsewhere}\",service=\"s\"");
            return answer.send("401 x", &[("www-authenticate", &challenge)], b"");
        }
        answer.send("307 x", &[("location", &elsewhere)], b"");
    });
    let settings = Settings { directory: certificates(&sandbox, registry.address(), &directory), ..impatient() };
    let accounts = accounts(&sandbox, &[registry.address()]);
    let of = |name: &str| {
        words(open(&settings, &accounts, &format!("{}/{name}", registry.address())).manifest(Target::Tag("x")))
    };
    let said = of("moved");
    assert!(said.contains("which is not encrypted | if that is intended"), "{said}");
    let said = of("realm");
    assert!(said.contains("wants credentials sent to http://10.99.0.2"), "{said}");
    assert_eq!(plain.requests().len(), 0);
}

/// A directory of settings whose `certs.d` trusts the authority of `from` for `address`.
fn certificates(sandbox: &Sandbox, address: &str, from: &str) -> std::path::PathBuf {
    let directory = sandbox.host_dir(&format!("etc/certs.d/{address}"));
    fs::copy(format!("{from}/ca.crt"), format!("{directory}/ca.crt")).unwrap();
    sandbox.path("etc")
}

/// A registry with a token server; tokens count from 1, and only those that `accepts` are accepted.
fn with_tokens(accepts: impl Fn(usize, &Request) -> bool + Send + Sync + 'static, expires: usize) -> Scripted {
    let issued = AtomicUsize::new(0);
    Scripted::start(move |request, answer| {
        if request.target.starts_with("/token") {
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            return answer.send("200 OK", &[], format!(r#"{{"token":"t{number}","expires_in":{expires}}}"#).as_bytes());
        }
        let token = request.header("authorization").and_then(|text| text.strip_prefix("Bearer t"));
        if token.and_then(|number| number.parse().ok()).is_some_and(|number| accepts(number, request)) {
            return answer.send("200 OK", &[], b"{}");
        }
        let host = request.header("host").unwrap();
        let challenge =
            format!("Bearer realm=\"http://{host}/token?a=b\",service=\"the registry\",scope=\"repository:x:pull\"");
        answer.send("401 x", &[("www-authenticate", &challenge)], b"");
    })
}

#[test]
fn tokens_are_fetched_renewed_once_and_kept() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    // The first token is not accepted for `b` any more.
    let server = with_tokens(|number, request| number > 1 || !request.target.ends_with("/b"), 300);
    let accounts = accounts(&sandbox, &[server.address()]);
    let name = format!("{}/x", server.address());
    let registry = open(&impatient(), &accounts, &name);
    for tag in ["a", "a", "b", "b", "a"] {
        registry.manifest(Target::Tag(tag)).unwrap();
    }
    assert_eq!(server.count("/token"), 2);
    let asked = server.requests().into_iter().find(|request| request.target.starts_with("/token")).unwrap();
    let expected = "/token?a=b&service=the%20registry&scope=repository%3Ax%3Apull&account=user";
    assert_eq!((asked.target.as_str(), asked.header("authorization")), (expected, Some(BASIC)));
    let to_registry = |request: &Request| !request.target.starts_with("/token");
    let basic = |request: &Request| request.header("authorization").is_some_and(|text| text.starts_with("Basic"));
    assert!(!server.requests().iter().any(|request| to_registry(request) && basic(request)), "only tokens go there");

    let never = with_tokens(|_, _| false, 300);
    let said = words(client(&format!("{}/x", never.address()), Access::Pull).manifest(Target::Tag("a")));
    assert!(said.contains("pull access denied"), "{said}");
    assert_eq!(never.count("/token"), 1, "a refused token is not fetched again and again");
    let anonymous = never.requests().into_iter().find(|request| request.target.starts_with("/token")).unwrap();
    assert_eq!(anonymous.header("authorization"), None);

    let short = with_tokens(|_, _| true, 1);
    let registry = client(&format!("{}/x", short.address()), Access::Pull);
    registry.manifest(Target::Tag("a")).unwrap();
    registry.manifest(Target::Tag("a")).unwrap();
    assert_eq!(short.count("/token"), 1);
    std::thread::sleep(std::time::Duration::from_millis(600));
    registry.manifest(Target::Tag("a")).unwrap();
    let refused = short.requests().iter().filter(|r| r.header("authorization").is_none()).count();
    assert_eq!((short.count("/token"), refused), (2, 3), "renewed before it was refused");
}

#[test]
fn token_servers_that_talk_nonsense_are_named() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    for (answer, says) in [
        ("{\"token\":\"a b\\r\\nX: y\"}".to_owned(), "no token that can be used"),
        ("{}".to_owned(), "no token that can be used"),
        (format!("{{\"token\":\"{}\"}}", "x".repeat(100_000)), "no token that can be used"),
        ("secret nonsense".to_owned(), "an answer that is no token"),
        (" ".repeat(3 << 20), "an answer that is no token"),
    ] {
        let server = Scripted::start(move |request, reply| {
            if request.target.starts_with("/token") {
                return reply.send("200 OK", &[], answer.as_bytes());
            }
            let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
            reply.send("401 x", &[("www-authenticate", &realm)], b"");
        });
        let said = words(client(&format!("{}/x", server.address()), Access::Pull).manifest(Target::Tag("a")));
        assert!(said.contains(says) && !said.contains("nonsense"), "{said}");
    }
}

#[test]
fn mirrors_serve_first_and_learn_nothing() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let empty = Scripted::start(|_, answer| answer.send("404 x", &[], b""));
    let full = Scripted::start(|request, answer| {
        if request.header("authorization").is_some() {
            return answer.send("400 x", &[], b"");
        }
        answer.send("200 OK", &[], b"{}");
    });
    let settings = Settings {
        registry_mirrors: vec![
            "http://127.0.0.1:1".into(),
            format!("http://{}/some/prefix/", empty.address()),
            format!("http://{}", full.address()),
        ],
        ..impatient()
    };
    let accounts = accounts(&sandbox, &["https://index.docker.io/v1/"]);
    let registry = open(&settings, &accounts, "busybox");
    let fetched = registry.manifest(Target::Tag("latest")).unwrap();
    registry.manifest(Target::Digest(&fetched.digest)).unwrap();
    assert_eq!(authorizations(&full), [None, None]);
    let targets: Vec<String> = empty.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets[0], "/some/prefix/v2/library/busybox/manifests/latest");
    // None has it: docker.io is asked, which no test can reach.
    let settings = Settings { registry_mirrors: vec![format!("http://{}", empty.address())], ..impatient() };
    let said = words(open(&settings, &accounts, "busybox").manifest(Target::Tag("latest")));
    assert!(said.contains("registry-1.docker.io") && said.contains("no such host"), "{said}");
    let other = words(open(&settings, &accounts, "127.0.0.1:1/x").manifest(Target::Tag("latest")));
    assert!(other.contains("connection refused"), "mirrors are docker.io's alone: {other}");
}

#[test]
fn certificates_are_verified_unless_that_was_allowed() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let secure = Registry::start(&sandbox, Options { address: "10.99.0.1", tls: true, ..Options::default() });
    let plain = Registry::start(&sandbox, Options { address: "10.99.0.1", ..Options::default() });
    secure.fill_with(&[b"not a tar".to_vec()], "x:1");
    plain.fill_with(&[b"not a tar".to_vec()], "x:1");
    let fetch = |registry: &Registry, settings: &Settings| {
        open(settings, &Accounts::default(), &registry.image("x")).manifest(Target::Tag("1"))
    };
    let said = words(fetch(&secure, &impatient()));
    assert!(said.contains("x509: certificate signed by unknown authority"), "{said}");
    assert!(said.contains(&format!("/etc/mydocker/certs.d/{}/ca.crt", secure.address())), "{said}");
    let said = words(fetch(&plain, &impatient()));
    assert!(said.contains("http: server gave HTTP response to HTTPS client"), "{said}");
    assert!(said.contains(&format!("add \"{}\" to insecure-registries", plain.address())), "{said}");
    let from = secure.authority().parent().unwrap().to_str().unwrap().to_owned();
    let trusting = Settings { directory: certificates(&sandbox, secure.address(), &from), ..impatient() };
    fetch(&secure, &trusting).unwrap();
    for entry in ["10.99.0.1", "10.99.0.0/24"] {
        let settings = Settings { insecure_registries: vec![entry.into()], ..impatient() };
        fetch(&secure, &settings).unwrap();
        fetch(&plain, &settings).unwrap();
    }
}

#[test]
fn proxies_are_asked_for_everything_but_loopback() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let proxy = Scripted::start(|_, answer| answer.send("403 no", &[], b""));
    let proxies = Proxies { https: Some(format!("http://u:secret@{}", proxy.address())), ..Proxies::default() };
    let settings = Settings { proxies, ..impatient() };
    let said = words(open(&settings, &Accounts::default(), "registry.example/x").manifest(Target::Tag("1")));
    assert!(said.contains("proxy") && !said.contains("secret"), "{said}");
    assert_eq!(
        (proxy.requests()[0].method.as_str(), proxy.requests()[0].target.as_str()),
        ("CONNECT", "registry.example:443")
    );
    let said = words(open(&settings, &Accounts::default(), "127.0.0.1:1/x").manifest(Target::Tag("1")));
    assert!(said.contains("connection refused"), "{said}");
    assert_eq!(proxy.requests().len(), 1);
}
