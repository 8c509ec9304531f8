//! Uploads to registries that break off, forget, and send elsewhere.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use mydocker::image::oci::reference::Reference;
use mydocker::image::registry::{Access, Accounts, Registry as Client};

use super::registry_client::{client, content, impatient, words};
use super::registry_faults::{descriptor, noise};
use crate::ours_only;
use crate::support::Sandbox;
use crate::support::scripted::Scripted;

/// What an upload that is broken off is like.
#[derive(Clone, Copy, PartialEq)]
enum Break {
    /// In the first piece, of which half arrives.
    Piece,
    /// The same, and the registry forgets the upload.
    Forget,
    /// After all pieces, when it is to be sealed.
    Seal,
}

#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    broken: bool,
    sealed: Option<String>,
    begun: usize,
}

/// A registry that breaks one upload off, once.
fn breaking(how: Break) -> (Scripted, Arc<Mutex<Stored>>) {
    let stored: Arc<Mutex<Stored>> = Arc::default();
    let state = Arc::clone(&stored);
    let server = Scripted::start(move |request, answer| {
        let mut state = state.lock().unwrap();
        let range = |state: &Stored| format!("0-{}", state.bytes.len().saturating_sub(1));
        match request.method.as_str() {
            "POST" => {
                state.begun += 1;
                state.bytes.clear();
                let place = format!("/place/{}?state=a", state.begun);
                answer.send("202 x", &[("location", &place), ("range", "0-0")], b"");
            }
            "GET" if request.target.starts_with("/place/") => {
                if how == Break::Forget && !request.target.contains(&state.begun.to_string()) || state.bytes.is_empty()
                {
                    return answer.send("404 x", &[], b"");
                }
                answer.send("204 x", &[("location", &request.target), ("range", &range(&state))], b"");
            }
            "PATCH" => {
                assert_eq!(
                    request.header("content-range").unwrap().split('-').next().unwrap(),
                    state.bytes.len().to_string()
                );
                if how != Break::Seal && !state.broken {
                    state.broken = true;
                    let half = answer.some(3 << 20);
                    if how == Break::Piece {
                        state.bytes.extend(half);
                    }
                    return;
                }
                state.bytes.extend(answer.body());
                answer.send("202 x", &[("location", &request.target), ("range", &range(&state))], b"");
            }
            "PUT" if how == Break::Seal && !state.broken => state.broken = true,
            "PUT" => {
                state.bytes.extend(answer.body());
                state.sealed = Some(request.target.clone());
                answer.send("201 x", &[], b"");
            }
            _ => answer.send("404 x", &[], b""),
        }
    });
    (server, stored)
}

#[test]
fn a_broken_upload_goes_on_where_the_registry_has_got_to() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(6 << 20);
    for (how, begun) in [(Break::Piece, 1), (Break::Forget, 2), (Break::Seal, 1)] {
        let (server, stored) = breaking(how);
        let registry = client(&format!("{}/x", server.address()), Access::Push);
        let pauses = std::cell::Cell::new(0);
        registry.upload(&descriptor(&blob), &content(&blob), &|_| (), &|_, _| pauses.set(pauses.get() + 1)).unwrap();
        let stored = stored.lock().unwrap();
        assert!(stored.bytes == blob, "{} bytes arrived", stored.bytes.len());
        let digest = descriptor(&blob).digest.hex().to_owned();
        let sealed = stored.sealed.as_deref().unwrap();
        assert!(sealed.contains("state=a&digest=sha256%3A") && sealed.ends_with(&digest), "{sealed}");
        assert_eq!((pauses.get(), stored.begun), (1, begun));
    }
}

#[test]
fn an_upload_that_is_sent_elsewhere_goes_without_credentials() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let elsewhere = Scripted::start(|_, answer| {
        answer.body();
        answer.send("401 x", &[("www-authenticate", "Basic realm=\"x\"")], b"");
    });
    let target = elsewhere.address().to_owned();
    let registry = Scripted::start(move |request, answer| {
        if request.header("authorization").is_none() {
            return answer.send("401 x", &[("www-authenticate", "Basic realm=\"r\"")], b"");
        }
        answer.send("202 x", &[("location", &format!("http://{target}/up"))], b"");
    });
    let directory = sandbox.host_dir("docker-config");
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, registry.address());
    fs::write(format!("{directory}/config.json"), auths).unwrap();
    let accounts = Accounts::in_directory(Path::new(&directory)).unwrap();
    let name: Reference = format!("{}/x", registry.address()).parse().unwrap();
    let client = Client::open(&impatient(), &accounts, &name, Access::Push).unwrap();
    let said = words(client.upload(&descriptor(b"x"), &content(b"x"), &|_| (), &|_, _| ()));
    assert!(said.contains("unauthorized"), "{said}");
    let sent = elsewhere.requests();
    assert_eq!((sent.len(), sent[0].header("authorization")), (1, None));
}

#[test]
fn registries_that_lie_about_uploads_are_left() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(5 << 20);
    for (range, says) in [("0-0", "has 0 bytes"), ("0-99999999", "has 100000000 bytes")] {
        let server = Scripted::start(move |request, answer| match request.method.as_str() {
            "POST" => answer.send("202 x", &[("location", "/up")], b""),
            "PATCH" => answer.send("202 x", &[("location", "/up"), ("range", range)], b""),
            _ => answer.send("404 x", &[], b""),
        });
        let registry = client(&format!("{}/x", server.address()), Access::Push);
        let said = words(registry.upload(&descriptor(&blob), &content(&blob), &|_| (), &|_, _| ()));
        assert!(said.contains(says), "{said}");
    }
    let nowhere = Scripted::start(|_, answer| answer.send("202 x", &[], b""));
    let registry = client(&format!("{}/x", nowhere.address()), Access::Push);
    let said = words(registry.upload(&descriptor(b"x"), &content(b"x"), &|_| (), &|_, _| ()));
    assert!(said.contains("does not say where to upload"), "{said}");
    let denies = Scripted::start(|_, answer| answer.send("401 x", &[("www-authenticate", "Basic realm=\"x\"")], b""));
    let registry = client(&format!("{}/x", denies.address()), Access::Push);
    let said = words(registry.upload(&descriptor(b"x"), &content(b"x"), &|_| (), &|_, _| ()));
    assert!(said.contains("no basic auth credentials | log in: mydocker login"), "{said}");
}
