//! Registries that are odd without being broken: they know no HEAD, no ranges, no digests, they keep blobs and uploads
//! elsewhere.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mydocker::image::oci::digest::Digest;
use mydocker::image::registry::{Access, Target};
use serde_json::json;

use super::registry_client::{client, content, reference};
use super::registry_faults::{descriptor, noise};
use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::Layer;
use crate::support::scripted::{Request, Scripted};
use crate::support::shelf::{INDEX, Shelf};

#[test]
fn manifests_are_found_without_head_and_without_digests() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let mut shelf = Shelf::default();
    let wanted = shelf.image("latest", &[Layer::busybox().bytes()])["digest"].as_str().unwrap().to_owned();
    for (how, status) in [("refused", "405 Method Not Allowed"), ("broken", "400 Bad Request"), ("bare", "200 OK")] {
        let shelf = shelf.clone();
        let server = Scripted::start(move |request, answer| match request.method.as_str() {
            "HEAD" => answer.send(status, &[], b""),
            _ if request.target.ends_with("latest") => answer.send("200 OK", &[], shelf.bytes("latest")),
            _ => shelf.serve(request, answer),
        });
        let registry = client(&format!("{}/x", server.address()), Access::Pull);
        let found = registry.manifest_digest(Target::Tag("latest")).unwrap().unwrap();
        assert_eq!(found.to_string(), wanted, "{how}");
        let fetched = registry.manifest(Target::Tag("latest")).unwrap();
        assert_eq!((fetched.digest.to_string(), fetched.media_type.as_str()), (wanted.clone(), ""), "{how}");
    }
}

/// Whether a blob is there already is only worth a shortcut: presigned URLs are for GET alone, some know no HEAD.
#[test]
fn a_push_does_not_need_head() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let elsewhere =
        Scripted::start(|_, answer| answer.send("403 Forbidden", &[], b"<Error>SignatureDoesNotMatch</Error>"));
    let place = format!("http://{}/bucket?signature=for-get", elsewhere.address());
    for status in ["405 Method Not Allowed", "400 Bad Request", "403 Forbidden", "307 Temporary Redirect"] {
        let (place, got) = (place.clone(), Arc::new(Mutex::new(Vec::new())));
        let state = Arc::clone(&got);
        let server = Scripted::start(move |request, answer| match request.method.as_str() {
            "HEAD" if status.starts_with("307") => answer.send(status, &[("location", &place)], b""),
            "HEAD" => answer.send(status, &[], b""),
            "POST" => answer.send("202 x", &[("location", "/up")], b""),
            "PUT" => {
                *state.lock().unwrap() = answer.body();
                answer.send("201 x", &[], b"");
            }
            _ => answer.send("404 x", &[], b""),
        });
        let registry = client(&format!("{}/x", server.address()), Access::Push);
        let wanted = descriptor(b"content");
        assert!(!registry.has_blob(&wanted.digest).unwrap(), "{status}");
        registry.upload(&wanted, &content(b"content"), &|_| (), &|_, _| ()).unwrap();
        assert_eq!(*got.lock().unwrap(), b"content", "{status}");
    }
}

/// What remains of a blob is asked for by `Range`; whoever cannot give that gives all of it.
#[test]
fn a_range_that_is_refused_is_asked_for_as_a_whole() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(300_000);
    for refusal in ["416 Range Not Satisfiable", "400 Bad Request", "501 Not Implemented"] {
        let (wanted, served, broken) = (descriptor(&blob), blob.clone(), AtomicUsize::new(0));
        let server = Scripted::start(move |request, answer| match request.range() {
            Some(_) => answer.send(refusal, &[], b""),
            None if broken.fetch_add(1, Ordering::SeqCst) == 0 => {
                answer.raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", served.len()).as_bytes());
                answer.raw(&served[..100_000]);
            }
            None => answer.send("200 OK", &[], &served),
        });
        let registry = client(&format!("{}/x", server.address()), Access::Pull);
        let mut bytes = Vec::new();
        let read = registry.blob(&wanted, |_, _| ()).unwrap().read_to_end(&mut bytes);
        read.unwrap_or_else(|error| panic!("{refusal}: {error}"));
        assert!(bytes == blob, "{refusal}");
        // And where all of it is refused as well, that is the end.
        let never = Scripted::start(move |_, answer| answer.send(refusal, &[], b""));
        let registry = client(&format!("{}/x", never.address()), Access::Pull);
        assert!(registry.blob(&wanted, |_, _| ()).is_err());
    }
}

/// As object stores do it: the registry redirects to a signed URL, which refuses requests that are authorised twice.
#[test]
fn blobs_come_from_object_stores_resumed_and_without_our_credentials() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(3 << 20);
    let (wanted, served) = (descriptor(&blob), blob.clone());
    let store = Scripted::start(move |request, answer| {
        if request.header("authorization").is_some() || !request.target.contains("signature=") {
            return answer.send("400 x", &[], b"<Error>Only one auth mechanism allowed</Error>");
        }
        // A signature serves once.
        let start = request.range().unwrap_or(0);
        let expected = if start == 0 { "signature=1" } else { "signature=2" };
        if !request.target.contains(expected) {
            return answer.send("403 x", &[], b"<Error>Request has expired</Error>");
        }
        let range = format!("content-range: bytes {start}-{}/{}\r\n", served.len() - 1, served.len());
        let status = if start == 0 { "200 OK" } else { "206 Partial Content" };
        answer.raw(format!("HTTP/1.1 {status}\r\n{range}content-length: {}\r\n\r\n", served.len() - start).as_bytes());
        answer.raw(&served[start..served.len().min(start + (2 << 20))]);
    });
    let (place, signed) = (store.address().to_owned(), AtomicUsize::new(0));
    let registry = Scripted::start(move |request, answer| {
        if request.target.starts_with("/token") {
            return answer.send("200 OK", &[], b"{\"token\":\"t\"}");
        }
        if request.header("authorization") != Some("Bearer t") {
            let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
            return answer.send("401 x", &[("www-authenticate", &realm)], b"");
        }
        let number = signed.fetch_add(1, Ordering::SeqCst) + 1;
        answer.send("307 x", &[("location", &format!("http://{place}/bucket/x?signature={number}&a=%2F"))], b"");
    });
    let registry_client = client(&format!("{}/x", registry.address()), Access::Pull);
    let mut bytes = Vec::new();
    registry_client.blob(&wanted, |_, _| ()).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == blob);
    assert_eq!(store.requests().iter().map(Request::range).collect::<Vec<_>>(), [None, Some(2 << 20)]);
}

#[test]
fn uploads_go_where_the_registry_says() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    // `$HERE` is the registry itself.
    for (location, goes_to) in [
        ("/up/1", "/up/1?digest="),
        ("1?state=a%3D&b=c", "/v2/x/blobs/uploads/1?state=a%3D&b=c&digest="),
        ("?state=a", "/v2/x/blobs/uploads/?state=a&digest="),
        ("http://$HERE/up?", "/up?&digest="),
        ("//$HERE/up", "/up?digest="),
    ] {
        let target: Arc<Mutex<Option<String>>> = Arc::default();
        let state = Arc::clone(&target);
        let server = Scripted::start(move |request, answer| match request.method.as_str() {
            "POST" => {
                let location = location.replace("$HERE", request.header("host").unwrap());
                answer.send("202 x", &[("location", &location)], b"");
            }
            _ => {
                assert_eq!(answer.body(), b"content");
                *state.lock().unwrap() = Some(request.target.clone());
                answer.send("201 x", &[], b"");
            }
        });
        let registry = client(&format!("{}/x", server.address()), Access::Push);
        registry.upload(&descriptor(b"content"), &content(b"content"), &|_| (), &|_, _| ()).unwrap();
        let target = target.lock().unwrap().clone().unwrap();
        assert!(target.starts_with(goes_to), "{location}: {target}");
    }
}

/// 202 instead of 201: the registry would rather have the blob uploaded. What it began for that is given up.
#[test]
fn a_mount_that_is_refused_in_any_way_is_an_upload() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    for status in ["202 Accepted", "404 Not Found", "405 Method Not Allowed", "400 Bad Request", "500 x", "501 x"] {
        let server = Scripted::start(move |request, answer| match request.method.as_str() {
            "POST" if request.target.contains("mount=") => answer.send(status, &[("location", "/begun?a=b")], b""),
            "POST" => answer.send("202 x", &[("location", "/up")], b""),
            "PUT" => answer.send("201 x", &[], b""),
            "DELETE" => answer.send("204 x", &[], b""),
            _ => answer.send("404 x", &[], b""),
        });
        let registry = client(&format!("{}/x", server.address()), Access::Push);
        let wanted = descriptor(b"content");
        let from = reference(&format!("{}/from", server.address()));
        assert!(
            !registry.mount(&wanted.digest, &from).unwrap_or_else(|error| panic!("{status}: {error:#}")),
            "{status}"
        );
        registry.upload(&wanted, &content(b"content"), &|_| (), &|_, _| ()).unwrap();
        let given_up = server.requests().iter().any(|r| r.method == "DELETE" && r.target == "/begun?a=b");
        assert_eq!(given_up, status.starts_with("202"), "{status}");
    }
}

#[test]
fn what_cannot_be_pulled_says_why() {
    ours_only!("the servers are scripted");
    let s = Sandbox::new();
    let mut shelf = Shelf::default();
    let layer = Layer::busybox().bytes();
    let foreign: Vec<_> = ["s390x", "ppc64le"]
        .map(|architecture| {
            let mut descriptor = shelf.image_of(architecture, architecture, "tar", &[(&layer, &layer)]);
            descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
            descriptor
        })
        .to_vec();
    let index =
        |manifests: &[serde_json::Value]| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    shelf.document("foreign", INDEX, &index(&foreign));
    let mut attestation = foreign[0].clone();
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    shelf.document("attested", INDEX, &index(&[attestation]));
    shelf.document("empty", INDEX, &index(&[]));
    let mut deep = shelf.image("image", std::slice::from_ref(&layer));
    for depth in 0..6 {
        deep = shelf.document(&format!("deep{depth}"), INDEX, &index(&[deep]));
    }
    // As registries sent it: signed, so that the digest they tell is not that of the document.
    let schema1 = json!({ "schemaVersion": 1, "name": "x", "tag": "old", "architecture": "amd64",
        "fsLayers": [{ "blobSum": format!("sha256:{}", "0".repeat(64)) }], "history": [{ "v1Compatibility": "{}" }],
        "signatures": [{ "header": {}, "signature": "x", "protected": "x" }] })
    .to_string();
    let server = Scripted::start(move |request, answer| {
        if request.target.ends_with("/old") {
            let headers = [
                ("content-type", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
                ("docker-content-digest", &Digest::of(b"the payload without signatures").to_string()),
            ];
            return answer.send("200 OK", &headers, schema1.as_bytes());
        }
        shelf.serve(request, answer);
    });
    let refused = |tag: &str| s.fails(1, ["pull", &format!("{}/x:{tag}", server.address())]);
    refused("foreign").says("no matching manifest for linux/").says("linux/s390x, linux/ppc64le");
    for tag in ["attested", "empty"] {
        let output = refused(tag).says("no matching manifest for linux/");
        assert!(!output.err().contains("there is one for"), "{output}");
    }
    refused("old").says("a manifest of schema 1");
    s.ok(["pull", "-q", &format!("{}/x:deep3", server.address())]);
    refused("deep5").says("nested more than");
}
