//! Debian's `docker-registry` on the test's own loopback: plain or with TLS, open or with accounts.
//!
//! It stores below the sandbox and ends when dropped. Start it from the test's thread, whose network
//! namespace it shares: `Registry::start(&sandbox, Options::default())`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use sha2::Digest as _;

use super::{Sandbox, eventually, host};

static REGISTRIES: AtomicU32 = AtomicU32::new(0);

/// What kind of registry.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The IPv4 address; one other than 127.0.0.1 is given to the loopback device, and is not trusted as
    /// loopback is.
    pub address: &'a str,
    /// With a certificate for the address, signed by [`Registry::authority`].
    pub tls: bool,
    /// User name and password without which it serves nobody.
    pub account: Option<(&'a str, &'a str)>,
    /// Copies of contents of this URL, fetched when asked for: a mirror.
    pub upstream: Option<&'a str>,
    /// With TLS: it serves only who has a certificate of this authority (PEM).
    pub clients: Option<&'a Path>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { address: "127.0.0.1", tls: false, account: None, upstream: None, clients: None }
    }
}

/// A registry that runs until it is dropped.
pub struct Registry {
    child: Child,
    address: String,
    directory: PathBuf,
    tls: bool,
}

impl Registry {
    #[track_caller]
    pub fn start(sandbox: &Sandbox, options: Options<'_>) -> Registry {
        let number = REGISTRIES.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(sandbox.host_dir(&format!("registry-{number}")));
        if options.address != "127.0.0.1" {
            // `replace`: a second registry may have the same address.
            host::ip(&["address", "replace", &format!("{}/32", options.address), "dev", "lo"]);
        }
        let port = free_port(options.address);
        let address = format!("{}:{port}", options.address);
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {0}/data}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: {address}\n  secret: test\n",
            directory.display()
        );
        if options.tls {
            authority_and_certificate(&directory, options.address);
            let clients = options.clients.map(|path| format!(", clientcas: [{}]", path.display())).unwrap_or_default();
            let _ = writeln!(
                config,
                "  tls: {{certificate: {0}/server.crt, key: {0}/server.key{clients}}}",
                directory.display()
            );
        }
        if let Some((user, password)) = options.account {
            let output = Command::new("htpasswd").args(["-Bbn", user, password]).output();
            let output = output.expect("run htpasswd (install apache2-utils)");
            assert!(output.status.success(), "htpasswd failed");
            fs::write(directory.join("htpasswd"), output.stdout).unwrap();
            let _ = writeln!(config, "auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}", directory.display());
        }
        if let Some(upstream) = options.upstream {
            let _ = writeln!(config, "proxy: {{remoteurl: {upstream:?}}}");
        }
        fs::write(directory.join("config.yml"), config).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("run docker-registry (install the package of that name)");
        let registry = Registry { child, address, directory, tls: options.tls };
        eventually(&format!("a registry on {}", registry.address), || TcpStream::connect(&registry.address).is_ok());
        registry
    }

    /// `host:port`: what stands before the first slash of an image's name.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `address/name`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The certificate (PEM) of the authority that signed the registry's; for `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        assert!(self.tls, "the registry has no certificate");
        self.directory.join("ca.crt")
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Where it keeps what it has: `docker/registry/v2/{blobs,repositories}`.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Puts an image with these layers (tar archives, gzipped on the way) there.
    #[track_caller]
    pub fn fill_with(&self, layers: &[Vec<u8>], name: &str) {
        let layout = tempfile::tempdir_in(&self.directory).unwrap();
        write_layout(layout.path(), layers);
        self.fill(&format!("oci:{}", layout.path().display()), name);
    }

    /// Puts the bundled busybox there.
    #[track_caller]
    pub fn fill_busybox(&self, name: &str) {
        self.fill_with(&[fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/images/busybox.tar")).unwrap()], name);
    }

    /// Puts an image there with skopeo; `source` in skopeo's words (`docker-archive:/x.tar`).
    #[track_caller]
    pub fn fill(&self, source: &str, name: &str) {
        let target = format!("docker://{}", self.image(name));
        let output = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", source, &target])
            .output()
            .expect("run skopeo (install the package of that name)");
        assert!(output.status.success(), "skopeo copy: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody has at this moment; the namespace is the test's own, so it stays free.
#[track_caller]
pub fn free_port(address: &str) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

/// An OCI layout with one image of these layers, which are tar archives.
pub fn write_layout(directory: &Path, layers: &[Vec<u8>]) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| -> Value {
        let digest = sha256(bytes);
        fs::write(blobs.join(&digest), bytes).unwrap();
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"),
            "size": bytes.len() })
    };
    let diff_ids: Vec<String> = layers.iter().map(|tar| format!("sha256:{}", sha256(tar))).collect();
    let compressed = layers.iter().map(|tar| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(tar).unwrap();
        put("layer.v1.tar+gzip", &encoder.finish().unwrap())
    });
    let compressed: Vec<Value> = compressed.collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = put("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": compressed });
    let manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// An authority (`ca.crt`), and a certificate for `address` signed by it (`server.crt`, `server.key`), which does
/// for docker.io as well, wherever a test puts that.
pub fn authority_and_certificate(directory: &Path, address: &str) {
    let run = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(directory).output().expect("run openssl");
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let request = |extra: &[&str]| run(&[&["req"][..], &key, extra].concat());
    request(&["-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"]);
    request(&["-subj", &format!("/CN={address}"), "-keyout", "server.key", "-out", "server.csr"]);
    fs::write(
        directory.join("names"),
        format!("subjectAltName=IP:{address},DNS:localhost,DNS:registry-1.docker.io,DNS:index.docker.io\n"),
    )
    .unwrap();
    run(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "server.crt",
    ]);
}
