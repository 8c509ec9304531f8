//! Images in memory, and the answers of a decent registry that has them: a scripted one decides for itself which
//! questions it answers otherwise.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::registry::sha256;
use super::scripted::{Answer, Request};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a registry has. It has it in every repository.
#[derive(Clone, Default)]
pub struct Shelf {
    /// Media type and bytes, by tag and by digest.
    documents: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Shelf {
    /// Puts a blob there; its digest.
    pub fn blob(&mut self, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", sha256(bytes));
        self.blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Puts a document there under a tag and its digest; its descriptor.
    pub fn document(&mut self, tag: &str, media_type: &str, document: &Value) -> Value {
        let bytes = document.to_string().into_bytes();
        let digest = format!("sha256:{}", sha256(&bytes));
        for name in [tag, &digest] {
            self.documents.insert(name.to_owned(), (media_type.to_owned(), bytes.clone()));
        }
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Puts an image there for `architecture`: of each layer its tar, and what goes over the wire as `kind`
    /// (`tar`, `tar+gzip`, …). The descriptor of its manifest.
    pub fn image_of(&mut self, tag: &str, architecture: &str, kind: &str, layers: &[(&[u8], &[u8])]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| format!("sha256:{}", sha256(tar))).collect();
        let config = json!({ "architecture": architecture, "os": "linux", "config": { "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids } })
        .to_string();
        let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(),
            "digest": self.blob(config.as_bytes()) });
        let layer = |(_, wire): &(&[u8], &[u8])| {
            json!({ "mediaType": format!("application/vnd.oci.image.layer.v1.{kind}"), "size": wire.len(),
                "digest": self.blob(wire) })
        };
        let layers: Vec<Value> = layers.iter().map(layer).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        self.document(tag, MANIFEST, &manifest)
    }

    /// The same for this machine, of layers that go as they are.
    pub fn image(&mut self, tag: &str, tars: &[Vec<u8>]) -> Value {
        let layers: Vec<(&[u8], &[u8])> = tars.iter().map(|tar| (&tar[..], &tar[..])).collect();
        self.image_of(tag, own_architecture(), "tar", &layers)
    }

    /// The document of a tag or digest.
    pub fn bytes(&self, name: &str) -> &[u8] {
        &self.documents[name].1
    }

    /// The blob that a request asks for.
    pub fn asked(&self, request: &Request) -> Option<&[u8]> {
        let (_, digest) = request.target.split_once("/blobs/")?;
        self.blobs.get(digest).map(Vec::as_slice)
    }

    /// Answers as a decent registry does.
    pub fn serve(&self, request: &Request, answer: &mut Answer<'_>) {
        let path = request.target.split('?').next().unwrap_or_default();
        if path == "/v2/" {
            return answer.send("200 OK", &[], b"{}");
        }
        if let Some((_, name)) = path.split_once("/manifests/")
            && let Some((media_type, bytes)) = self.documents.get(name)
        {
            let digest = format!("sha256:{}", sha256(bytes));
            return answer.send("200 OK", &[("content-type", media_type), ("docker-content-digest", &digest)], bytes);
        }
        if let Some(bytes) = self.asked(request) {
            return match request.range() {
                Some(start) => {
                    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                    answer.send("206 Partial Content", &[("content-range", &range)], &bytes[start..]);
                }
                None => answer.send("200 OK", &[], bytes),
            };
        }
        answer.send("404 Not Found", &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
    }
}

/// This machine's architecture in Go's words.
pub fn own_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
