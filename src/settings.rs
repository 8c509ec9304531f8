//! What an administrator sets once for the machine: `/etc/mydocker/config.toml`.
//!
//! Keys are named as in Docker's `daemon.json`. The file is read only by commands that need it: a start of
//! a container from an image that is there never opens it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::error::Failure;

/// Where the settings are when `MYDOCKER_CONFIG` does not name another file.
const FILE: &str = "/etc/mydocker/config.toml";
/// A larger file holds no settings, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// More transfers at once than this help nobody.
const MAX_CONCURRENT: usize = 64;
/// More attempts than this are no patience any more.
const MAX_ATTEMPTS: u32 = 100;

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
    /// `max-download-attempts`: how often in a row a transfer may break before it counts as failed.
    pub max_download_attempts: u32,
    /// `keep-compressed-layers`: whether a pulled layer's compressed bytes are kept, so that a push sends
    /// the same.
    pub keep_compressed_layers: bool,
    /// `[proxies]`: outranked by the environment.
    pub proxies: Proxies,
    /// `registry-timeout`, in seconds: how long a registry may stay silent. 30 before a response begins and
    /// 60 within it when not set; a larger value changes nothing.
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

/// One file: what it does not say stays as it is.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    registry_mirrors: Option<Vec<String>>,
    insecure_registries: Option<Vec<String>>,
    max_concurrent_downloads: Option<toml::Spanned<usize>>,
    max_concurrent_uploads: Option<toml::Spanned<usize>>,
    max_download_attempts: Option<toml::Spanned<u32>>,
    keep_compressed_layers: Option<bool>,
    registry_timeout: Option<toml::Spanned<u64>>,
    proxies: Option<WrittenProxies>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenProxies {
    http_proxy: Option<String>,
    https_proxy: Option<String>,
    no_proxy: Option<String>,
}

impl Settings {
    /// Reads `/etc/mydocker/config.toml` (or the file that `MYDOCKER_CONFIG` names) and then, of the
    /// directory of that name with `.d` behind, `*.toml` in order; later ones win. Files that do not exist
    /// are fine, unless they were named.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong type or size; the message names file, line and key.
    pub fn load() -> Result<Settings> {
        match std::env::var_os("MYDOCKER_CONFIG").filter(|path| !path.is_empty()) {
            Some(path) => Settings::read(Path::new(&path), Presence::Required),
            None => Settings::read(Path::new(FILE), Presence::Optional),
        }
    }

    fn read(file: &Path, presence: Presence) -> Result<Settings> {
        let mut settings = Settings::default();
        if let Some(directory) = file.parent() {
            settings.directory = directory.to_path_buf();
        }
        settings.add(file, presence)?;
        let mut drop_in = file.as_os_str().to_owned();
        drop_in.push(".d");
        let mut more: Vec<PathBuf> = match fs::read_dir(&drop_in) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", Path::new(&drop_in).display())),
        };
        more.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        more.sort();
        for path in more {
            settings.add(&path, Presence::Optional)?;
        }
        Ok(settings)
    }

    fn add(&mut self, path: &Path, presence: Presence) -> Result<()> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && presence == Presence::Optional => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("read settings {}", path.display())),
        };
        let mut text = String::new();
        let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
        read.with_context(|| format!("read settings {}", path.display()))?;
        if text.len() as u64 > MAX_FILE {
            return Err(Failure::usage(format!("settings {} have more than {MAX_FILE} bytes", path.display())).into());
        }
        let written: Written = toml::from_str(&text).map_err(|error| {
            // Its first line names the key and what is expected instead.
            let message = error.message().lines().next().unwrap_or("it is no TOML").to_owned();
            refusal(path, &text, error.span().map_or(0, |span| span.start), &message)
        })?;
        self.take(written, |at, message| refusal(path, &text, at, message))
    }

    fn take(&mut self, written: Written, refuse: impl Fn(usize, &str) -> anyhow::Error) -> Result<()> {
        let within = |value: &toml::Spanned<usize>, key: &str| match *value.get_ref() {
            count @ 1..=MAX_CONCURRENT => Ok(count),
            _ => Err(refuse(value.span().start, &format!("{key} must be between 1 and {MAX_CONCURRENT}"))),
        };
        if let Some(value) = &written.max_concurrent_downloads {
            self.max_concurrent_downloads = within(value, "max-concurrent-downloads")?;
        }
        if let Some(value) = &written.max_concurrent_uploads {
            self.max_concurrent_uploads = within(value, "max-concurrent-uploads")?;
        }
        if let Some(value) = &written.max_download_attempts {
            self.max_download_attempts = match *value.get_ref() {
                count @ 1..=MAX_ATTEMPTS => count,
                _ => {
                    let message = format!("max-download-attempts must be between 1 and {MAX_ATTEMPTS}");
                    return Err(refuse(value.span().start, &message));
                }
            };
        }
        if let Some(value) = &written.registry_timeout {
            if *value.get_ref() == 0 {
                return Err(refuse(value.span().start, "registry-timeout must be at least 1 (second)"));
            }
            self.registry_timeout = Some(Duration::from_secs(*value.get_ref()));
        }
        if let Some(list) = written.insecure_registries {
            // Docker refuses a scheme there as well; passed over, it would seem to have worked.
            if let Some(url) = list.iter().find(|entry| entry.contains("://")) {
                return Err(refuse(0, &format!("insecure-registries holds the URL {url:?}: write host or host:port")));
            }
            self.insecure_registries = list;
        }
        self.registry_mirrors = written.registry_mirrors.unwrap_or(std::mem::take(&mut self.registry_mirrors));
        self.keep_compressed_layers = written.keep_compressed_layers.unwrap_or(self.keep_compressed_layers);
        if let Some(proxies) = written.proxies {
            let ours = std::mem::take(&mut self.proxies);
            self.proxies = Proxies {
                http: proxies.http_proxy.or(ours.http),
                https: proxies.https_proxy.or(ours.https),
                no_proxy: proxies.no_proxy.or(ours.no_proxy),
            };
        }
        Ok(())
    }
}

/// Whether a file must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

fn refusal(path: &Path, text: &str, at: usize, message: &str) -> anyhow::Error {
    let before = text.get(..at).unwrap_or_default();
    let line = before.lines().count().max(1) + usize::from(before.ends_with('\n') && !before.is_empty());
    Failure::usage(format!("settings {}, line {line}: {message}", path.display()))
        .with_hint("docs/images.md lists the keys; remove or correct the line")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(directory: &Path) -> Result<Settings> {
        Settings::read(&directory.join("config.toml"), Presence::Optional)
    }

    fn message(error: &anyhow::Error) -> String {
        format!("{error:#}")
    }

    #[test]
    fn later_files_win_key_by_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let default = Settings { directory: directory.path().into(), ..Settings::default() };
        assert_eq!(read(directory.path()).unwrap(), default, "no file is fine");
        let first = "registry-mirrors = [\"https://m\"]\nmax-concurrent-downloads = 7\n\
                     keep-compressed-layers = false\n[proxies]\nhttp-proxy = \"p:1\"\nno-proxy = \"x\"\n";
        fs::write(path("config.toml"), first).unwrap();
        fs::create_dir(path("config.toml.d")).unwrap();
        fs::write(path("config.toml.d/20.toml"), "max-concurrent-downloads = 9").unwrap();
        fs::write(path("config.toml.d/10.toml"), "max-concurrent-downloads = 8\n[proxies]\nno-proxy=\"y\"").unwrap();
        fs::write(path("config.toml.d/README"), "not read").unwrap();
        let settings = read(directory.path()).unwrap();
        assert_eq!(settings.max_concurrent_downloads, 9);
        assert_eq!((settings.registry_mirrors, settings.keep_compressed_layers), (vec!["https://m".into()], false));
        assert_eq!(settings.proxies.http.as_deref(), Some("p:1"));
        assert_eq!(settings.proxies.no_proxy.as_deref(), Some("y"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        for (text, line, says) in [
            ("\n\nregistry-miror = []", 3, "registry-miror"),
            ("max-concurrent-uploads = \"5\"", 1, "string"),
            ("\nmax-concurrent-uploads = 0", 2, "max-concurrent-uploads must be between 1 and 64"),
            ("max-download-attempts = 101", 1, "max-download-attempts must be"),
            ("registry-timeout = 0", 1, "registry-timeout must be"),
            ("[proxies]\nhttp = \"x\"", 2, "http"),
            ("insecure-registries = [\"http://x\"]", 1, "write host or host:port"),
            ("x = = 1", 1, "settings"),
        ] {
            fs::write(&file, text).unwrap();
            let said = message(&read(directory.path()).expect_err(text));
            assert!(said.contains(&format!("line {line}: ")) && said.contains(says), "{text:?}: {said}");
        }
        fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
        assert!(message(&read(directory.path()).unwrap_err()).contains("more than"));
        fs::remove_file(&file).unwrap();
        assert!(Settings::read(&file, Presence::Required).is_err(), "a file that was named must be there");
    }
}
