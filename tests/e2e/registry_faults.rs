//! The registry client against servers that break off, lie and dawdle.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mydocker::image::oci::digest::Digest;
use mydocker::image::oci::manifest::Descriptor;
use mydocker::image::registry::{Access, Accounts, Registry as Client, Target};
use mydocker::settings::Settings;

use super::registry_client::{client, impatient, reference, words};
use crate::ours_only;
use crate::support::Sandbox;
use crate::support::scripted::{Answer, Request, Scripted};

/// Some megabytes that no compression shortens.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let word = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 32) as u8
    };
    (0..bytes).map(|_| word(&mut state)).collect()
}

pub fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of(bytes), bytes.len() as u64)
}

/// What a read of the whole blob gives: the bytes or the error, and how many pauses there were.
fn fetch(server: &Scripted, wanted: &Descriptor) -> (Result<Vec<u8>, String>, usize) {
    let client = client(&format!("{}/x", server.address()), Access::Pull);
    let pauses = AtomicUsize::new(0);
    let mut bytes = Vec::new();
    let result = client.blob(wanted, |_, _| _ = pauses.fetch_add(1, Ordering::SeqCst)).map_err(|e| format!("{e:#}"));
    let result = result.and_then(|mut blob| {
        let read = blob.read_to_end(&mut bytes).map_err(|error| error.to_string());
        if read.is_err() {
            assert!(blob.read(&mut [0]).is_err(), "a failed blob never looks like one that ended");
        }
        read
    });
    (result.map(|_| bytes), pauses.load(Ordering::SeqCst))
}

/// A head that announces `length` bytes, and then only some of them.
fn cut(answer: &mut Answer<'_>, status: &str, length: usize, bytes: &[u8]) {
    answer.raw(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n").as_bytes());
    answer.raw(bytes);
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(3 << 20);
    let (wanted, served) = (descriptor(&blob), blob.clone());
    let server = Scripted::start(move |request, answer| {
        let (start, third) = (request.range().unwrap_or(0), served.len() / 3);
        let end = served.len().min(start + third);
        if start == 0 {
            return cut(answer, "200 OK", served.len(), &served[..end]);
        }
        let range = format!("content-range: bytes {start}-{}/{}\r\n", served.len() - 1, served.len());
        let head = format!("HTTP/1.1 206 Partial Content\r\n{range}content-length: {}\r\n\r\n", served.len() - start);
        answer.raw(head.as_bytes());
        answer.raw(&served[start..end]);
    });
    let (fetched, pauses) = fetch(&server, &wanted);
    assert!(fetched.unwrap() == blob);
    let ranges: Vec<Option<usize>> = server.requests().iter().map(Request::range).collect();
    assert_eq!(ranges, [None, Some(1 << 20), Some(2 << 20)]);
    assert_eq!(pauses, 2);
}

#[test]
fn a_server_without_ranges_begins_again_and_nothing_comes_twice() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(2 << 20);
    let (wanted, served) = (descriptor(&blob), blob.clone());
    let times = AtomicUsize::new(0);
    let server = Scripted::start(move |_, answer| match times.fetch_add(1, Ordering::SeqCst) {
        0 => cut(answer, "200 OK", served.len(), &served[..served.len() / 2]),
        _ => answer.send("200 OK", &[], &served),
    });
    assert!(fetch(&server, &wanted).0.unwrap() == blob);
}

#[test]
fn a_connection_that_always_breaks_is_given_up() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(1 << 16);
    let (wanted, served) = (descriptor(&blob), blob.clone());
    // One byte more each time: progress, but not enough to go on for ever.
    let server = Scripted::start(move |request, answer| {
        let start = request.range().unwrap_or(0);
        let range = format!("bytes {start}-{}/{}", served.len() - 1, served.len());
        let head =
            format!("HTTP/1.1 206 x\r\ncontent-range: {range}\r\ncontent-length: {}\r\n\r\n", served.len() - start);
        answer.raw(head.as_bytes());
        answer.raw(&served[start..=start]);
    });
    let (fetched, pauses) = fetch(&server, &wanted);
    assert!(fetched.unwrap_err().contains("the connection"));
    assert_eq!((pauses, server.count("/blobs/")), (4, 5), "five attempts");
}

#[test]
fn content_that_does_not_match_its_digest_is_refused() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(100_000);
    let wanted = descriptor(&blob);
    let mut changed = blob.clone();
    changed[77_777] ^= 1;
    let longer = [&blob[..], b"x"].concat();
    let shorter = blob[1..].to_vec();
    let chunked = |bytes: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", bytes.len());
        [head.as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat()
    };
    type Lie = Box<dyn Fn(&mut Answer<'_>) + Send + Sync>;
    let lies: Vec<(&str, Lie, &str)> = vec![
        ("other content", Box::new(move |a| a.send("200 OK", &[], &changed)), "filesystem layer verification failed"),
        (
            "longer",
            Box::new({
                let b = longer.clone();
                move |a| a.send("200 OK", &[], &b)
            }),
            "100001 bytes where",
        ),
        (
            "shorter",
            Box::new({
                let b = shorter.clone();
                move |a| a.send("200 OK", &[], &b)
            }),
            "99999 bytes where",
        ),
        (
            "longer, unannounced",
            Box::new({
                let b = chunked(&longer);
                move |a| _ = a.raw(&b)
            }),
            "sends more than",
        ),
        (
            "shorter, unannounced",
            Box::new({
                let b = chunked(&shorter);
                move |a| _ = a.raw(&b)
            }),
            "ended after 99999",
        ),
        (
            "another range",
            Box::new(|a| a.send("206 x", &[("content-range", "bytes 5-9/10")], b"56789")),
            "another range",
        ),
        ("broken chunks", Box::new(|a| _ = a.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nx")), ""),
    ];
    for (name, lie, says) in lies {
        let server = Scripted::start(move |_, answer| lie(answer));
        let said = fetch(&server, &wanted).0.expect_err(name);
        assert!(said.contains(says), "{name}: {said}");
    }
}

#[test]
fn manifests_are_verified_and_bounded() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let other = Digest::of(b"other");
    let told = other.to_string();
    let server = Scripted::start(move |request, answer| {
        let of = |name: &str| request.target.ends_with(name);
        if of("/headers") {
            let line = format!("x-h: {}\r\n", "y".repeat(1000)).repeat(1000);
            answer.raw(format!("HTTP/1.1 200 OK\r\n{line}\r\n").as_bytes());
        } else if of("/announced") {
            answer.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999\r\n\r\n{");
        } else if of("/endless") {
            answer.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
            while answer.raw(chunk.as_bytes()) {}
        } else if of("/circle") {
            answer.send("307 x", &[("location", &request.target)], b"");
        } else {
            answer.send("200 OK", &[("docker-content-digest", &told)], b"{}");
        }
    });
    let client = client(&format!("{}/x", server.address()), Access::Pull);
    for (tag, says) in [
        ("lies", "manifest verification failed"),
        ("announced", "more than 8388608 bytes"),
        ("endless", "more than 8388608 bytes"),
        ("headers", "headers"),
        ("circle", "redirects in circles"),
    ] {
        let said = words(client.manifest(Target::Tag(tag)));
        assert!(said.contains(says), "{tag}: {said}");
    }
    let said = words(client.manifest(Target::Digest(&other)));
    assert!(said.contains("manifest verification failed"), "{said}");
    assert_eq!(server.count("circle"), 11, "ten redirects are followed");
}

#[test]
fn a_busy_registry_is_tried_again_and_one_that_says_no_is_not() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let times = AtomicUsize::new(0);
    let server = Scripted::start(move |request, answer| {
        let error = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"\u001b[31mno\u0007"}}]}}"#);
        match request.target.rsplit('/').next().unwrap() {
            "busy" if times.fetch_add(1, Ordering::SeqCst) < 3 => {
                answer.send("503 x", &[("retry-after", "0")], b"");
            }
            "busy" => answer.send("200 OK", &[], b"{}"),
            "limit" => answer.send("429 x", &[("retry-after", "9999")], error("TOOMANYREQUESTS").as_bytes()),
            "ill" => answer.send("500 x", &[], b"<html>"),
            "denied" => answer.send("403 x", &[], error("DENIED").as_bytes()),
            _ => answer.send("400 x", &[], b"{\"errors\":[{}]}"),
        }
    });
    let name = format!("{}/x", server.address());
    let client = client(&name, Access::Pull);
    client.manifest(Target::Tag("busy")).unwrap();
    for (tag, attempts, says) in [
        ("limit", 1, "toomanyrequests: \\u{1b}[31mno\\u{7} | wait, log in"),
        ("ill", 5, "received unexpected HTTP status: 500 Internal Server Error"),
        (
            "denied",
            1,
            &format!("pull access denied for {name}, repository does not exist or may require 'mydocker login'"),
        ),
        ("odd", 1, ""),
    ] {
        let said = words(client.manifest(Target::Tag(tag)));
        assert!(said.contains(says) && !said.contains('\u{1b}'), "{tag}: {said}");
        assert_eq!(server.count(&format!("/{tag}")), attempts, "{tag}");
    }
}

#[test]
fn a_registry_that_dawdles_is_left() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let blob = noise(100_000);
    let (wanted, served) = (descriptor(&blob), blob.clone());
    let server = Scripted::start(move |request, answer| {
        let slowly = |answer: &mut Answer<'_>, bytes: &[u8]| {
            for byte in bytes {
                if !answer.raw(&[*byte]) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        if request.target.contains("/blobs/") {
            answer.raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", served.len()).as_bytes());
            return slowly(answer, &served);
        }
        answer.raw(b"HTTP/1.1 200 OK\r\n");
        slowly(answer, &b"x".repeat(10_000));
    });
    let settings = Settings { registry_timeout: Some(Duration::from_secs(1)), max_download_attempts: 2, ..impatient() };
    let name = reference(&format!("{}/x", server.address()));
    let client = Client::open(&settings, &Accounts::default(), &name, Access::Pull).unwrap();
    let started = Instant::now();
    assert!(words(client.manifest(Target::Tag("x"))).contains("timed out"));
    let mut bytes = Vec::new();
    let said = client.blob(&wanted, |_, _| ()).unwrap().read_to_end(&mut bytes).unwrap_err().to_string();
    assert!(said.contains("timed out") || said.contains("too slowly"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn listings_come_in_pages_that_may_lead_in_circles() {
    ours_only!("the client is ours");
    let _sandbox = Sandbox::new();
    let server = Scripted::start(|request, answer| {
        let page = |n: usize| format!(r#"{{"tags":["t{n}"]}}"#);
        let number = request.target.rsplit("last=").next().and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        let link = match request.target.split('/').nth(2).unwrap() {
            "two" if number == 0 => Some("</v2/two/tags/list?last=1>; rel=\"next\"".to_owned()),
            "two" => None,
            "itself" => Some(format!("<{}>; rel=\"next\"", request.target)),
            "elsewhere" => Some("<http://127.0.0.9:1/v2/x/tags/list>; rel=\"next\"".to_owned()),
            _ => Some(format!("</v2/endless/tags/list?last={}>; rel=\"next\"", number + 1)),
        };
        let headers: Vec<(&str, &str)> = link.iter().map(|link| ("link", link.as_str())).collect();
        answer.send("200 OK", &headers, page(number).as_bytes());
    });
    let tags = |name: &str| client(&format!("{}/{name}", server.address()), Access::Pull).tags();
    assert_eq!(tags("two").unwrap(), ["t0", "t1"]);
    assert_eq!(tags("itself").unwrap(), ["t0"]);
    assert_eq!(tags("elsewhere").unwrap(), ["t0"]);
    assert!(words(tags("endless")).contains("without end"));
}
