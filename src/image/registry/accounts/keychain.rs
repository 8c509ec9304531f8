//! Programs that keep credentials: `docker-credential-NAME get|store|erase`, with JSON on their standard
//! streams (docker-credential-helpers, "Development").

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::{Credential, TOKEN_USER};
use crate::error::Failure;
use crate::image::registry::fault::printable;

/// What a helper may say, in bytes.
const MAX_ANSWER: u64 = 256 * 1024;
/// It may ask somebody to unlock something; nobody thinks longer than this.
const PATIENCE: Duration = Duration::from_secs(120);
/// What helpers say when they have nothing (credentials/error.go of docker-credential-helpers).
const NOTHING: &str = "credentials not found in native keychain";

/// A helper program.
pub(super) struct Helper<'a> {
    name: String,
    caller: &'a Caller,
}

/// What goes to and comes from a helper.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl<'a> Helper<'a> {
    /// The helper `name`, a part of a file name.
    pub(super) fn new(name: &str, caller: &'a Caller) -> Result<Helper<'a>> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !name.bytes().all(plain) {
            let message = format!("config.json names a credential helper {name:?}, which is no name");
            return Err(Failure::engine(message).into());
        }
        Ok(Helper { name: name.to_owned(), caller })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it keeps for `server`.
    pub(super) fn get(&self, server: &str) -> Result<Option<Credential>> {
        let Some(answer) = self.run("get", server.as_bytes())? else { return Ok(None) };
        // serde's message could quote the secret.
        let entry: Entry = serde_json::from_slice(&answer)
            .map_err(|_| self.failure("get", "its answer is not what a credential helper answers"))?;
        Ok(match entry {
            Entry { secret, .. } if secret.is_empty() => None,
            Entry { username, secret, .. } if username == TOKEN_USER => Some(Credential::Identity(secret)),
            Entry { username, secret, .. } => Some(Credential::Password { user: username, secret }),
        })
    }

    /// Lets it keep a credential.
    pub(super) fn store(&self, server: &str, credential: &Credential) -> Result<()> {
        let (username, secret) = match credential {
            Credential::Password { user, secret } => (user.clone(), secret.clone()),
            Credential::Identity(token) | Credential::Bearer(token) => (TOKEN_USER.to_owned(), token.clone()),
        };
        let entry = Entry { server: server.to_owned(), username, secret };
        self.run("store", &serde_json::to_vec(&entry).context("encode credentials")?).map(|_| ())
    }

    /// Lets it forget what it keeps.
    pub(super) fn erase(&self, server: &str) -> Result<()> {
        self.run("erase", server.as_bytes()).map(|_| ())
    }

    /// Runs it with `input`; what it answers, `None` when it has nothing.
    fn run(&self, action: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
        let program = format!("docker-credential-{}", self.name);
        let mut command = Command::new(&program);
        // Its complaints and questions go where ours go.
        command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(who) = self.caller.identity {
            // Root's group list is given up by the standard library along with the user.
            command.uid(who.uid).gid(who.gid);
            if let Some(home) = &self.caller.home {
                command.env("HOME", home);
            }
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Failure::engine(format!("error getting credentials - err: {program}: not found in $PATH"))
                    .with_hint("install it, or take its name out of config.json (credsStore, credHelpers)")
                    .into());
            }
            Err(error) => return Err(error).with_context(|| format!("run {program}")),
        };
        let answer = self.talk(&mut child, input);
        let ended = match &answer {
            Some(_) => child.wait().with_context(|| format!("wait for {program}"))?,
            None => {
                let _ = child.kill();
                let _ = child.wait();
                let text = format!("it has not answered within {} seconds", PATIENCE.as_secs());
                return Err(self.failure(action, &text).into());
            }
        };
        let answer = answer.unwrap_or_default();
        if ended.success() {
            return Ok(Some(answer));
        }
        let said = String::from_utf8_lossy(&answer);
        if said.contains(NOTHING) {
            return Ok(None);
        }
        Err(self.failure(action, &printable(&said)).into())
    }

    /// Sends `input` and receives the answer; `None` when none came in time. The pipes are served by
    /// threads: a helper that never reads, or leaves the pipe to somebody who stays, holds nobody up.
    fn talk(&self, child: &mut Child, input: &[u8]) -> Option<Vec<u8>> {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let input = input.to_vec();
        std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // A helper that does not care to read has its reason, which it tells otherwise.
                let _ = stdin.write_all(&input);
            }
        });
        let (answered, answer) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(stdout) = stdout {
                let _ = stdout.take(MAX_ANSWER).read_to_end(&mut bytes);
            }
            let _ = answered.send(bytes);
        });
        answer.recv_timeout(PATIENCE).ok()
    }

    fn failure(&self, action: &str, why: &str) -> Failure {
        Failure::engine(format!("credential helper {} failed to {action}: {why}", self.name))
    }
}
