//! Credentials for registries: Docker's `config.json`, and the programs it names.
//!
//! The file is the caller's: under sudo it is read and written with the file system identity of whoever
//! called sudo, so that a link laid in a home directory leads root nowhere the user could not go.
//! Secrets are never printed, logged or put into a command line; they go to helpers through a pipe.

mod caller;
mod keychain;

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use self::caller::Caller;
use self::keychain::Helper;
use crate::error::Failure;
use crate::store::{self, Durability};

/// The key of docker.io, from the days of another protocol.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// A larger file holds no credentials, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// What a helper calls the user of an identity token.
const TOKEN_USER: &str = "<token>";

/// How to prove who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password.
    Password {
        /// User name.
        user: String,
        /// Password.
        secret: String,
    },
    /// An identity token (OAuth2 refresh token).
    Identity(String),
    /// A bearer token, used as it is.
    Bearer(String),
}

impl fmt::Debug for Credential {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Password { .. } => "Password(…)",
            Credential::Identity(_) => "Identity(…)",
            Credential::Bearer(_) => "Bearer(…)",
        })
    }
}

/// The caller's credentials.
#[derive(Clone, Default)]
pub struct Accounts {
    caller: Caller,
    /// `config.json`; `None` when there is no place for one.
    file: Option<PathBuf>,
    config: Map<String, Value>,
    /// Podman's `auth.json`, looked into where `config.json` has nothing.
    fallback: Map<String, Value>,
}

impl fmt::Debug for Accounts {
    /// Without what the files hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Where a credential was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this file, readable for who reads the file.
    File(PathBuf),
    /// By the helper of this name.
    Helper(String),
}

impl Accounts {
    /// Those of whoever called the program; under sudo, of the user who called sudo. `DOCKER_CONFIG` names
    /// another directory than `~/.docker`.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed; it is named.
    pub fn of_caller() -> Result<Accounts> {
        let caller = Caller::from_environment();
        let file = caller.config_directory().map(|directory| directory.join("config.json"));
        Accounts::read(caller, file)
    }

    /// Those of the `config.json` in `directory`, whoever called.
    pub fn in_directory(directory: &Path) -> Result<Accounts> {
        Accounts::read(Caller::default(), Some(directory.join("config.json")))
    }

    fn read(caller: Caller, file: Option<PathBuf>) -> Result<Accounts> {
        let config = match &file {
            Some(path) => caller.act(|| read_object(path))??,
            None => Map::new(),
        };
        let fallback = match caller.podman_file() {
            // Another program's file is not worth failing for.
            Some(path) => caller.act(|| read_object(&path)).and_then(|read| read).unwrap_or_default(),
            None => Map::new(),
        };
        Ok(Accounts { caller, file, config, fallback })
    }

    /// What is kept for a registry (`docker.io`, `host`, `host:port`).
    ///
    /// # Errors
    /// A malformed entry; a helper that is missing or fails.
    pub fn of(&self, domain: &str) -> Result<Option<Credential>> {
        if let Some(helper) = self.helper(domain)?
            && let Some(found) = helper.get(&key(domain))?
        {
            return Ok(Some(found));
        }
        for config in [&self.config, &self.fallback] {
            if let Some(entry) = entry(config, domain)
                && let Some(found) = credential(entry).with_context(|| format!("read the credentials of {domain}"))?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps the credential of a registry, in its helper if it has one.
    pub fn keep(&mut self, domain: &str, credential: &Credential) -> Result<Kept> {
        if let Some(helper) = self.helper(domain)? {
            helper.store(&key(domain), credential)?;
            let name = helper.name().to_owned();
            // The empty entry tells that there is something to log out from.
            self.change(|config| insert(config, domain, json!({})))?;
            return Ok(Kept::Helper(name));
        }
        let value = match credential {
            Credential::Password { user, secret } => json!({ "auth": STANDARD.encode(format!("{user}:{secret}")) }),
            Credential::Identity(token) => json!({ "identitytoken": token }),
            Credential::Bearer(token) => json!({ "registrytoken": token }),
        };
        self.change(|config| insert(config, domain, value))?;
        let file = self.file.clone().unwrap_or_default();
        Ok(Kept::File(file))
    }

    /// Forgets what is kept for a registry; whether anything was.
    pub fn forget(&mut self, domain: &str) -> Result<bool> {
        let mut known = false;
        if let Some(helper) = self.helper(domain)? {
            known = helper.get(&key(domain))?.is_some();
            if known {
                helper.erase(&key(domain))?;
            }
        }
        if entry(&self.config, domain).is_none() {
            return Ok(known);
        }
        self.change(|config| {
            if let Some(Value::Object(auths)) = config.get_mut("auths") {
                auths.retain(|key, _| !means(key, domain));
            }
        })?;
        Ok(true)
    }

    /// The program that keeps a registry's credentials, if one does.
    fn helper(&self, domain: &str) -> Result<Option<Helper<'_>>> {
        let special = self.config.get("credHelpers").and_then(Value::as_object);
        let special = special.and_then(|all| all.iter().find(|(key, _)| means(key, domain)).map(|(_, name)| name));
        let name = special.or_else(|| self.config.get("credsStore")).and_then(Value::as_str);
        name.filter(|name| !name.is_empty()).map(|name| Helper::new(name, &self.caller)).transpose()
    }

    /// Changes the file as it is now, not as it was when read: another login may have come between.
    fn change(&mut self, change: impl FnOnce(&mut Map<String, Value>) + Send) -> Result<()> {
        let Some(file) = self.file.clone() else {
            return Err(Failure::engine("there is no home directory to keep credentials in")
                .with_hint("set DOCKER_CONFIG to a directory")
                .into());
        };
        self.config = self.caller.act(|| -> Result<Map<String, Value>> {
            let directory = file.parent().unwrap_or(Path::new("/"));
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .with_context(|| format!("create {}", directory.display()))?;
            // A link to where the file really is stays one; we go there with the user's rights alone.
            let file = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            let lock = File::open(directory).with_context(|| format!("open {}", directory.display()))?;
            lock.lock().with_context(|| format!("lock {}", directory.display()))?;
            let mut config = read_object(&file)?;
            change(&mut config);
            let mut bytes = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
            serde::Serialize::serialize(&config, &mut writer).context("encode config.json")?;
            bytes.push(b'\n');
            store::write(&file, &bytes, Durability::PowerCut)?;
            Ok(config)
        })??;
        Ok(())
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Map::new()),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let mut bytes = Vec::new();
    if is_file {
        file.take(MAX_FILE).read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
    }
    if is_file && bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    // serde's message gives line and column, and quotes nothing of what may be a secret, unless a type is
    // wrong; then only the type is.
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(malformed(path, "it is no JSON object")),
        Err(error) => Err(malformed(path, &format!("line {}, column {}", error.line(), error.column()))),
    }
}

fn malformed(path: &Path, why: &str) -> anyhow::Error {
    Failure::engine(format!("{} is malformed: {why}", path.display()))
        .with_hint("correct it, or move it away and log in again")
        .into()
}

/// What stands for a registry in the file.
fn key(domain: &str) -> String {
    if domain == "docker.io" { HUB_KEY.to_owned() } else { domain.to_owned() }
}

/// Whether a key of the file means this registry: with or without a scheme and a version's path.
fn means(key: &str, domain: &str) -> bool {
    let name = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let name = name.trim_end_matches('/');
    let name = name.strip_suffix("/v1").or_else(|| name.strip_suffix("/v2")).unwrap_or(name);
    let hub = |name: &str| matches!(name, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    name.eq_ignore_ascii_case(domain) || (domain == "docker.io" && hub(name))
}

fn entry<'c>(config: &'c Map<String, Value>, domain: &str) -> Option<&'c Map<String, Value>> {
    let auths = config.get("auths")?.as_object()?;
    // The key that Docker would write, then others that mean the same.
    let found = auths.get(&key(domain)).or_else(|| auths.iter().find(|(k, _)| means(k, domain)).map(|(_, v)| v));
    found?.as_object()
}

fn insert(config: &mut Map<String, Value>, domain: &str, value: Value) {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    if let Some(auths) = auths.as_object_mut() {
        auths.retain(|key, _| !means(key, domain));
        auths.insert(key(domain), value);
    }
}

/// An entry's credential; `None` when it is empty, as those of helpers are.
fn credential(entry: &Map<String, Value>) -> Result<Option<Credential>> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credential::Identity(token.to_owned())));
    }
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credential::Bearer(token.to_owned())));
    }
    if let Some(auth) = text("auth") {
        let invalid = || Failure::engine("its \"auth\" is not base64 of user:password");
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| invalid())?;
        let decoded = String::from_utf8(bytes).map_err(|_| invalid())?;
        let (user, secret) = decoded.split_once(':').ok_or_else(invalid)?;
        let secret = secret.trim_matches('\0');
        return Ok(Some(Credential::Password { user: user.to_owned(), secret: secret.to_owned() }));
    }
    Ok(text("username")
        .zip(text("password"))
        .map(|(user, secret)| Credential::Password { user: user.to_owned(), secret: secret.to_owned() }))
}

#[cfg(test)]
mod tests;
