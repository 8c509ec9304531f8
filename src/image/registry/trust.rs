//! Whom TLS trusts: the system's authorities, and what an administrator laid down for one registry.
//!
//! No authority is built in: the system's bundle is read, so a host's own policy holds here as well.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, parse_pem};

use super::url::Origin;
use crate::error::Failure;

/// Where distributions keep the authorities they trust, as one file.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A bundle of all public authorities takes 200 KiB.
const MAX_BUNDLE: u64 = 16 << 20;

/// The authorities of the system. `SSL_CERT_FILE` names another bundle, `SSL_CERT_DIR` directories
/// (separated by colons) whose files count as well.
///
/// # Errors
/// There is none, or `SSL_CERT_FILE` cannot be read.
pub(super) fn system() -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    match std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            found = certificates(&path).with_context(|| format!("read SSL_CERT_FILE {}", path.display()))?;
        }
        None => {
            if let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.is_file()) {
                found = certificates(bundle).with_context(|| format!("read {}", bundle.display()))?;
            }
        }
    }
    if let Some(directories) = std::env::var_os("SSL_CERT_DIR") {
        for directory in std::env::split_paths(&directories) {
            for path in files(&directory, "") {
                // Such a directory holds other things, too.
                found.extend(certificates(&path).unwrap_or_default());
            }
        }
    }
    Ok(found)
}

/// What `certs.d/<host:port>` holds for a registry.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// `*.crt`: authorities besides the system's.
    pub(super) authorities: Vec<Certificate<'static>>,
    /// The first `*.cert` with its `*.key`: how we prove who we are.
    pub(super) client: Option<ClientCert>,
}

impl Local {
    /// Reads the directories of `origin` below `bases`; those of a default port may be named without it.
    ///
    /// # Errors
    /// A file there that cannot be read; a certificate without its key and the other way round, or whose key
    /// is another's.
    pub(super) fn read(bases: &[PathBuf], origin: &Origin) -> Result<Local> {
        let mut local = Local::default();
        let mut names = vec![origin.host_and_port()];
        if origin.has_default_port() {
            names.push(origin.host.clone());
        }
        for directory in bases.iter().flat_map(|base| names.iter().map(|name| base.join(name))) {
            for path in files(&directory, "crt") {
                let more = certificates(&path).with_context(|| format!("read {}", path.display()))?;
                if more.is_empty() {
                    return Err(Failure::engine(format!("{} holds no certificate in PEM", path.display())).into());
                }
                local.authorities.extend(more);
            }
            for path in files(&directory, "key") {
                if !path.with_extension("cert").is_file() {
                    return Err(missing(&path, "cert"));
                }
            }
            for path in files(&directory, "cert") {
                if !path.with_extension("key").is_file() {
                    return Err(missing(&path, "key"));
                }
                if local.client.is_none() {
                    let client = client(&path).with_context(|| format!("use client certificate {}", path.display()))?;
                    local.client = Some(client);
                }
            }
        }
        Ok(local)
    }
}

fn missing(path: &Path, extension: &str) -> anyhow::Error {
    let other = path.with_extension(extension);
    Failure::engine(format!("{} lacks its counterpart {}", path.display(), other.display()))
        .with_hint("a client certificate is NAME.cert, its key NAME.key; authorities are *.crt")
        .into()
}

/// A certificate and the key beside it. The pair is tried out here, since ureq takes it for granted.
fn client(path: &Path) -> Result<ClientCert> {
    let chain = certificates(path)?;
    let key_path = path.with_extension("key");
    let key_bytes = read(&key_path).with_context(|| format!("read {}", key_path.display()))?;
    let key = PrivateKey::from_pem(&key_bytes).map_err(|_| Failure::engine("its key is no private key in PEM"))?;
    let der = rustls::pki_types::PrivateKeyDer::try_from(key.der()).map_err(|why| Failure::engine(why.to_owned()))?;
    rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("set up TLS")?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(chain.iter().map(|c| c.der().to_vec().into()).collect(), der.clone_key())
        .context("certificate and key do not fit together")?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// The certificates of a PEM file; other things in it are passed over.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let bytes = read(path)?;
    let items = parse_pem(&bytes).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    Ok(items.collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BUNDLE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The regular files of a directory with this extension (any, when empty), sorted.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| extension.is_empty() || path.extension().is_some_and(|is| is == extension))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found
}

/// Registries that need no certificate that can be verified, and may speak plain HTTP.
#[derive(Debug, Clone, Default)]
pub(super) struct Insecure(Vec<Entry>);

#[derive(Debug, Clone)]
enum Entry {
    Network(IpNetwork),
    Host(String),
}

impl Insecure {
    /// From `insecure-registries`.
    pub(super) fn new(entries: &[String]) -> Insecure {
        let entry = |text: &String| match text.parse() {
            Ok(network) if text.contains('/') => Entry::Network(network),
            _ => Entry::Host(text.trim_end_matches('/').to_ascii_lowercase()),
        };
        Insecure(entries.iter().map(entry).collect())
    }

    /// Whether `origin` is among them, as loopback always is. A network means hosts that are given as
    /// addresses: names are not looked up, or whoever answers for DNS could switch verification off.
    pub(super) fn covers(&self, origin: &Origin) -> bool {
        origin.is_loopback()
            || self.0.iter().any(|entry| match entry {
                Entry::Network(network) => origin.address().is_some_and(|address| network.contains(address)),
                Entry::Host(host) => *host == origin.host || *host == origin.host_and_port(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::registry::url::Scheme;

    #[test]
    fn insecure_registries_are_hosts_ports_and_networks() {
        let list = ["a.example", "B.example:5000", "10.1.0.0/16", "192.168.7.7"].map(str::to_owned);
        let insecure = Insecure::new(&list);
        let covers = |text: &str| insecure.covers(&Origin::new(Scheme::Https, text).unwrap());
        for host in ["a.example", "a.example:99", "b.example:5000", "10.1.2.3:5000", "192.168.7.7", "127.1.1.1:5000"] {
            assert!(covers(host), "{host}");
        }
        for host in ["b.example", "b.example:5001", "10.2.2.3", "x.a.example", "a.example.com", "192.168.7.8"] {
            assert!(!covers(host), "{host}");
        }
    }

    #[test]
    fn a_certificate_without_its_key_is_named() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("r.example:443");
        fs::create_dir(&directory).unwrap();
        let origin = Origin::new(Scheme::Https, "r.example").unwrap();
        let read = || Local::read(&[base.path().to_path_buf()], &origin);
        assert!(read().unwrap().authorities.is_empty());
        fs::write(directory.join("client.cert"), "x").unwrap();
        assert!(read().unwrap_err().to_string().contains("client.key"));
        fs::write(directory.join("client.key"), "x").unwrap();
        assert!(format!("{:#}", read().unwrap_err()).contains("client.cert"));
        fs::remove_file(directory.join("client.cert")).unwrap();
        assert!(read().unwrap_err().to_string().contains("client.cert"));
        fs::remove_file(directory.join("client.key")).unwrap();
        fs::write(directory.join("ca.crt"), "no certificate").unwrap();
        assert!(read().unwrap_err().to_string().contains("ca.crt holds no certificate"));
    }
}
