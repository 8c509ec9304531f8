//! Registries as a user deals with them apart from images: logging in and out, searching.

use std::io;
use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::Engine;
use crate::image::registry::{self, Accounts, Credential, Kept};
use crate::settings::Settings;
use crate::sys::tty;

pub use crate::image::registry::Found;
pub use crate::sys::tty::Secret;

/// The longest password that is read, in bytes.
pub const MAX_SECRET: usize = 64 * 1024;

/// A login: at which registry, as whom.
#[derive(Clone)]
pub struct Login {
    /// Registry: host, with port where it has one; `docker.io`.
    pub server: String,
    /// User name.
    pub user: String,
    /// Password or access token.
    pub secret: String,
}

impl std::fmt::Debug for Login {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The registry that a user means by `text`; none means docker.io.
///
/// # Errors
/// It is no host.
pub fn server(text: Option<&str>) -> Result<String> {
    text.map_or(Ok("docker.io".to_owned()), registry::server_of)
}

/// Tries a login and keeps it. The file that the password now lies in, unencrypted, unless a helper has it.
///
/// # Errors
/// The registry does not accept it (nothing is kept then), or it cannot be kept.
pub fn log_in(login: &Login) -> Result<Option<String>> {
    let credential = Credential::Password { user: login.user.clone(), secret: login.secret.clone() };
    let mut accounts = Accounts::of_caller()?;
    registry::log_in(&Settings::load()?, &login.server, &credential)?;
    match accounts.keep(&login.server, &credential).context("save credentials")? {
        Kept::File(path) => Ok(Some(path.display().to_string())),
        Kept::Helper(_) => Ok(None),
    }
}

/// Tries what is kept for a registry: `None` when nothing is, otherwise whether it was accepted.
///
/// # Errors
/// The credentials cannot be read.
pub fn log_in_again(server: &str) -> Result<Option<Result<()>>> {
    let Some(credential) = Accounts::of_caller()?.of(server)? else { return Ok(None) };
    Ok(Some(registry::log_in(&Settings::load()?, server, &credential)))
}

/// The user whose password is kept for a registry.
pub fn user_at(server: &str) -> Option<String> {
    match Accounts::of_caller().ok()?.of(server).ok()?? {
        Credential::Password { user, .. } => Some(user),
        _ => None,
    }
}

/// Forgets what is kept for a registry; whether anything was.
pub fn log_out(server: &str) -> Result<bool> {
    Accounts::of_caller()?.forget(server)
}

/// Reads a line from standard input, a terminal, without showing it. `ask` is called when nothing is shown any more.
pub fn read_secret(ask: impl FnOnce()) -> Result<Secret> {
    tty::read_secret(io::stdin().as_fd(), MAX_SECRET, ask).context("read the terminal")
}

/// Looks for repositories: `word` on docker.io, or `host/word`.
///
/// # Errors
/// The registry cannot be talked to, or offers no search.
pub fn search(term: &str, limit: usize) -> Result<Vec<Found>> {
    registry::search(&Settings::load()?, &Accounts::of_caller()?, term, limit)
}

impl Engine {
    /// Images in the store whose reference contains `word`: reference, id, and bytes of the image.
    pub fn search_local(&self, word: &str) -> Result<Vec<(String, String, u64)>> {
        let mut found = Vec::new();
        for image in self.images()? {
            let matching = image.references.iter().filter(|reference| reference.contains(word));
            found.extend(matching.map(|reference| (reference.clone(), image.id.clone(), image.size)));
        }
        Ok(found)
    }
}
