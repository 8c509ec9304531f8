//! The registry client against Debian's `docker-registry`: what is asked, and what no image name spoils.

use std::io::Read;
use std::time::Duration;

use mydocker::image::oci::digest::Digest;
use mydocker::image::oci::manifest::{Descriptor, Document, Manifest};
use mydocker::image::oci::reference::Reference;
use mydocker::image::registry::{Access, Accounts, Registry as Client, Target};
use mydocker::settings::Settings;

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::registry::{Options, Registry};

/// Settings under which a test does not wait long.
pub fn impatient() -> Settings {
    Settings { first_pause: Duration::from_millis(5), ..Settings::default() }
}

pub fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub fn client(name: &str, access: Access) -> Client {
    Client::open(&impatient(), &Accounts::default(), &reference(name), access).unwrap()
}

fn manifest_of(client: &Client, tag: &str) -> Manifest {
    let fetched = client.manifest(Target::Tag(tag)).unwrap();
    match Document::parse(&fetched.bytes, &fetched.media_type).unwrap() {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) => panic!("an index"),
    }
}

/// The whole error, with its hint.
pub fn words<T>(result: anyhow::Result<T>) -> String {
    let Err(error) = result else { panic!("it succeeded") };
    let failure = mydocker::error::Failure::from_error(&error);
    format!("{failure} | {}", failure.hint.as_deref().unwrap_or_default())
}

#[test]
fn what_was_put_there_is_fetched_byte_for_byte() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Options::default());
    let layer: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    registry.fill_with(&[layer], "a/b:1");
    registry.fill_busybox("a/b:2");
    let client = client(&registry.image("a/b"), Access::Pull);
    let manifest = manifest_of(&client, "1");
    let mut bytes = Vec::new();
    client.blob(&manifest.layers[0], |_, _| {}).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, manifest.layers[0].size);
    assert_eq!(format!("sha256:{}", crate::support::registry::sha256(&bytes)), manifest.layers[0].digest.to_string());
    let fetched = client.manifest(Target::Tag("1")).unwrap();
    assert_eq!(client.manifest(Target::Digest(&fetched.digest)).unwrap().bytes, fetched.bytes);
    assert_eq!(client.manifest_digest(Target::Tag("1")).unwrap(), Some(fetched.digest));
    assert_eq!(client.manifest_digest(Target::Tag("none")).unwrap(), None);
    let mut tags = client.tags().unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
}

#[test]
fn what_is_not_there_is_named_in_dockers_words() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Options::default());
    let name = registry.image("none");
    let said = words(client(&name, Access::Pull).manifest(Target::Tag("latest")));
    assert!(said.starts_with(&format!("manifest for {name}:latest not found: manifest unknown")), "{said}");
    let said = words(client(&name, Access::Pull).tags());
    assert!(said.contains("pull access denied") && said.contains("name unknown"), "{said}");
    drop(registry);
    let said = words(client(&name, Access::Pull).manifest(Target::Tag("latest")));
    assert!(said.contains("connection refused") && said.contains("nothing listens on"), "{said}");
}

/// `open` of an upload: the content from an offset on.
pub fn content(bytes: &[u8]) -> impl Fn(u64) -> anyhow::Result<Box<dyn Read + Send>> + '_ {
    |offset| Ok(Box::new(std::io::Cursor::new(bytes[usize::try_from(offset).unwrap()..].to_vec())))
}

#[test]
fn what_is_uploaded_is_there() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Options::default());
    let client = client(&registry.image("up/load"), Access::Push);
    // One request; one piece and a bit; nothing at all.
    for size in [1000, (64 << 20) + 1, 0] {
        let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let descriptor = Descriptor::new("x", Digest::of(&bytes), bytes.len() as u64);
        assert!(!client.has_blob(&descriptor.digest).unwrap());
        let sent = std::cell::Cell::new(0);
        client.upload(&descriptor, &content(&bytes), &|all| sent.set(all), &|_, why| panic!("{why}")).unwrap();
        assert_eq!(sent.get(), bytes.len() as u64);
        assert!(client.has_blob(&descriptor.digest).unwrap());
        let mut back = Vec::new();
        client.blob(&descriptor, |_, why| panic!("{why}")).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{size} bytes came back changed");
    }
    let wrong = Descriptor::new("x", Digest::of(b"other"), 4);
    let said = words(client.upload(&wrong, &content(b"this"), &|_| (), &|_, _| ()));
    assert!(said.contains("digest invalid"), "{said}");
    let short = Descriptor::new("x", Digest::of(b"this"), 9);
    let said = words(client.upload(&short, &content(b"this"), &|_| (), &|_, _| ()));
    assert!(said.contains("shorter than announced"), "{said}");
}

#[test]
fn blobs_are_mounted_and_manifests_put() {
    ours_only!("the client is ours");
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Options::default());
    registry.fill_busybox("from:1");
    let from = client(&registry.image("from"), Access::Pull);
    let manifest = manifest_of(&from, "1");
    let to = client(&registry.image("to"), Access::Push);
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        assert!(to.mount(&blob.digest, &reference(&registry.image("from"))).unwrap());
        assert!(to.has_blob(&blob.digest).unwrap());
    }
    assert!(!to.mount(&Digest::of(b"nowhere"), &reference(&registry.image("from"))).unwrap());
    assert!(!to.mount(&manifest.config.digest, &reference("other.example/from")).unwrap());
    let fetched = from.manifest(Target::Tag("1")).unwrap();
    let put = to.put_manifest(Target::Tag("new"), &fetched.media_type, &fetched.bytes).unwrap();
    assert_eq!(put, fetched.digest);
    assert_eq!(to.manifest(Target::Tag("new")).unwrap().bytes, fetched.bytes);
    let text = String::from_utf8(fetched.bytes).unwrap();
    let dangling = text.replace(manifest.layers[0].digest.hex(), Digest::of(b"nowhere").hex());
    let said = words(to.put_manifest(Target::Tag("new"), &fetched.media_type, dangling.as_bytes()));
    assert!(said.contains("manifest blob unknown"), "{said}");
}
