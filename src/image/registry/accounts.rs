//! Credentials for registries: Docker's `config.json`.

use std::fmt;

use anyhow::Result;

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
        f.write_str("Credential(…)")
    }
}

/// The caller's credentials.
#[derive(Debug, Clone, Default)]
pub struct Accounts {}

impl Accounts {
    /// Those of whoever called the program; under sudo, of the user who called sudo.
    pub fn of_caller() -> Result<Accounts> {
        Ok(Accounts::default())
    }

    /// What is stored for a registry (`docker.io`, `host`, `host:port`).
    pub(super) fn of(&self, _domain: &str) -> Result<Option<Credential>> {
        Ok(None)
    }
}
