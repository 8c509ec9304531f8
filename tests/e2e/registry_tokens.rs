//! Tokens that end in the middle of something long, and token servers that give less than was asked for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use mydocker::image::registry::{Access, Accounts, Registry as Client, Target};

use super::registry_client::{client, content, impatient, reference, words};
use super::registry_faults::{descriptor, noise};
use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::Layer;
use crate::support::scripted::{Answer, Request, Scripted};
use crate::support::shelf::Shelf;

/// What a registry says to who has no token that counts.
fn challenge(request: &Request, answer: &mut Answer<'_>) {
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"r\"", request.header("host").unwrap());
    answer.send(
        "401 x",
        &[("www-authenticate", &realm)],
        br#"{"errors":[{"code":"UNAUTHORIZED","message":"expired"}]}"#,
    );
}

/// Each token serves for so many requests, whatever its server says of its lifetime.
fn short_lived(
    requests: usize,
    script: impl Fn(&Request, &mut Answer<'_>) + Send + Sync + 'static,
) -> (Scripted, Arc<AtomicUsize>) {
    let issued: Arc<AtomicUsize> = Arc::default();
    let (counter, left) = (Arc::clone(&issued), AtomicUsize::new(0));
    let server = Scripted::start(move |request, answer| {
        if request.target.starts_with("/token") {
            left.store(requests, Ordering::SeqCst);
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            return answer.send("200 OK", &[], format!(r#"{{"token":"t{number}","expires_in":3600}}"#).as_bytes());
        }
        let present = format!("Bearer t{}", counter.load(Ordering::SeqCst));
        let counts = request.header("authorization") == Some(&present)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if counts { script(request, answer) } else { challenge(request, answer) }
    });
    (server, issued)
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_pull_is_renewed() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    let mut tars = vec![Layer::busybox().bytes()];
    tars.extend((0..12).map(|n| Layer::default().file(&format!("f{n}"), 0o644, "x").bytes()));
    let mut shelf = Shelf::default();
    shelf.image("latest", &tars);
    // Also in the middle of a layer: the connection breaks, and what goes on needs a token that counts.
    let (held, broken) = (shelf.clone(), Mutex::new(BTreeSet::new()));
    let (server, issued) = short_lived(3, move |request, answer| match held.asked(request) {
        Some(blob) if blob.len() > 100_000 && broken.lock().unwrap().insert(request.target.clone()) => {
            answer.raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", blob.len()).as_bytes());
            answer.raw(&blob[..blob.len() / 2]);
        }
        _ => held.serve(request, answer),
    });
    let name = format!("{}/box", server.address());
    s.ok(["pull", "-q", &name]);
    assert!(issued.load(Ordering::SeqCst) >= 5, "{} tokens", issued.load(Ordering::SeqCst));
    assert_eq!(s.ok(["run", "--rm", "--network", "none", "--pull", "never", &name, "cat", "/f0", "/f11"]), "xx");
}

/// Each of two requests may use up the token that the other has just fetched.
#[test]
fn a_token_that_others_used_up_is_renewed_again() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let mut shelf = Shelf::default();
    shelf.image("latest", &[Layer::busybox().bytes()]);
    let issued: Arc<AtomicUsize> = Arc::default();
    let counter = Arc::clone(&issued);
    let (arrived, arrival) = channel();
    let (open, gate) = channel::<()>();
    let (arrived, gate) = (Mutex::new(arrived), Mutex::new(gate));
    let server = Scripted::start(move |request, answer| {
        if request.target.starts_with("/token") {
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            return answer.send("200 OK", &[], format!(r#"{{"token":"t{number}"}}"#).as_bytes());
        }
        let held = request.target.ends_with("/held");
        match request.header("authorization") {
            None => challenge(request, answer),
            Some("Bearer t1") if held => challenge(request, answer),
            Some("Bearer t2") if held => {
                arrived.lock().unwrap().send(()).unwrap();
                let _ = gate.lock().unwrap().recv();
                challenge(request, answer);
            }
            _ if request.target.ends_with("/refused") => challenge(request, answer),
            _ => {
                let target = request.target.replace("/held", "/latest");
                shelf.serve(&Request { target, ..request.clone() }, answer);
            }
        }
    });
    let client = client(&format!("{}/x", server.address()), Access::Pull);
    client.manifest(Target::Tag("latest")).unwrap();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| client.manifest(Target::Tag("held")).map(|_| ()));
        arrival.recv().unwrap();
        client.manifest(Target::Tag("latest")).unwrap();
        drop(open);
        held.join().unwrap().unwrap();
    });
    assert_eq!(issued.load(Ordering::SeqCst), 3);
    // One that never served for anything is not asked for twice.
    let refused = words(client.manifest(Target::Tag("refused")));
    assert!(refused.contains("unauthorized"), "{refused}");
    assert_eq!(issued.load(Ordering::SeqCst), 4);
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_push_is_renewed() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(6 << 20);
    for requests in [1, 2] {
        let stored: Arc<Mutex<Vec<u8>>> = Arc::default();
        let state = Arc::clone(&stored);
        let (server, _) = short_lived(requests, move |request, answer| {
            let mut state = state.lock().unwrap();
            let last = |state: &Vec<u8>| format!("0-{}", state.len().saturating_sub(1));
            match request.method.as_str() {
                "POST" => answer.send("202 x", &[("location", "/up?a=b")], b""),
                "GET" => answer.send("204 x", &[("location", "/up?a=b"), ("range", &last(&state))], b""),
                "PATCH" => {
                    let from: usize =
                        request.header("content-range").unwrap().split('-').next().unwrap().parse().unwrap();
                    state.truncate(from);
                    state.extend(answer.body());
                    answer.send("202 x", &[("location", "/up?a=b"), ("range", &last(&state))], b"");
                }
                "PUT" => {
                    state.extend(answer.body());
                    answer.send("201 x", &[], b"");
                }
                _ => answer.send("404 x", &[], b""),
            }
        });
        let registry = client(&format!("{}/x", server.address()), Access::Push);
        registry.upload(&descriptor(&blob), &content(&blob), &|_| (), &|_, _| ()).unwrap();
        assert!(*stored.lock().unwrap() == blob, "{requests} requests a token");
        // A small one goes in one request, which is repeated as a whole.
        stored.lock().unwrap().clear();
        registry.upload(&descriptor(b"small"), &content(b"small"), &|_| (), &|_, _| ()).unwrap();
        assert_eq!(*stored.lock().unwrap(), b"small");
    }
}

/// A mount needs the right to read elsewhere. Without it the blob is uploaded, and what follows does not suffer.
#[test]
fn a_token_server_that_refuses_the_other_repository_spoils_no_push() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    for refusal in ["403 Forbidden", "401 Unauthorized", "500 Internal Server Error"] {
        let server = Scripted::start(move |request, answer| {
            if request.target.starts_with("/token") {
                return match request.target.contains("secret") {
                    true => answer.send(refusal, &[], b"{\"details\":\"no\"}"),
                    false => answer.send("200 OK", &[], b"{\"token\":\"t\"}"),
                };
            }
            if request.header("authorization") != Some("Bearer t") {
                return challenge(request, answer);
            }
            match request.method.as_str() {
                "POST" => answer.send("202 x", &[("location", "/up")], b""),
                "PUT" => answer.send("201 x", &[], b""),
                _ => answer.send("404 x", &[], b""),
            }
        });
        let registry = client(&format!("{}/x", server.address()), Access::Push);
        let wanted = descriptor(b"small");
        assert!(!registry.has_blob(&wanted.digest).unwrap());
        let from = reference(&format!("{}/secret", server.address()));
        assert!(!registry.mount(&wanted.digest, &from).unwrap(), "{refusal}");
        registry
            .upload(&wanted, &content(b"small"), &|_| (), &|_, _| ())
            .unwrap_or_else(|error| panic!("{refusal}: {error:#}"));
        assert!(!registry.has_blob(&wanted.digest).unwrap());
    }
}

/// `docker login` of some registries leaves an identity token, others write a bearer token for us.
#[test]
fn identity_tokens_are_exchanged_and_bearer_tokens_used_as_they_are() {
    ours_only!("the client is ours");
    let s = Sandbox::new();
    let server = Scripted::start(|request, answer| {
        if request.target.starts_with("/token") {
            let form = String::from_utf8(answer.body()).unwrap();
            let expected = "grant_type=refresh_token&service=r&scope=repository%3Ax%3Apull&client_id=mydocker&\
                            refresh_token=id%3Dentity";
            return match (request.method.as_str(), form == expected, request.header("authorization")) {
                ("POST", true, None) => answer.send("200 OK", &[], b"{\"access_token\":\"given\",\"expires_in\":60}"),
                _ => answer.send("400 x", &[], form.as_bytes()),
            };
        }
        match request.header("authorization") {
            Some("Bearer given" | "Bearer written") => answer.send("200 OK", &[], b"{}"),
            _ => challenge(request, answer),
        }
    });
    let name = reference(&format!("{}/x", server.address()));
    let fetch = |entry: serde_json::Value| {
        let directory = s.host_dir("docker");
        let auths = serde_json::json!({ "auths": { server.address(): entry } });
        std::fs::write(format!("{directory}/config.json"), auths.to_string()).unwrap();
        let accounts = Accounts::in_directory(std::path::Path::new(&directory)).unwrap();
        Client::open(&impatient(), &accounts, &name, Access::Pull).unwrap().manifest(Target::Tag("a"))
    };
    // Beside it stands what older programs wrote.
    fetch(serde_json::json!({ "auth": "PHRva2VuPjp4", "identitytoken": "id=entity" })).unwrap();
    assert_eq!(server.count("/token"), 1);
    fetch(serde_json::json!({ "registrytoken": "written" })).unwrap();
    let said = words(fetch(serde_json::json!({ "registrytoken": "old" })));
    assert!(said.contains("pull access denied") && !said.contains("old"), "{said}");
    assert_eq!(server.count("/token"), 1, "a bearer token is exchanged for nothing");
}
