//! Programs that keep credentials: `docker-credential-NAME get|store|erase`, with JSON on their standard
//! streams (docker-credential-helpers, "Development").

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::{Credential, TOKEN_USER};
use crate::error::Failure;
use crate::image::registry::fault::printable;

/// What a helper may say, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
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
        command.arg(action);
        if let Some(who) = self.caller.identity {
            // Root's group list is given up by the standard library along with the user.
            command.uid(who.uid).gid(who.gid);
            if let Some(home) = &self.caller.home {
                command.env("HOME", home);
            }
        }
        let (ended, answer) = match talk(&mut command, input, PATIENCE) {
            Ok(Some(talk)) => talk,
            Ok(None) => {
                let text = format!("it has not ended within {} seconds", PATIENCE.as_secs());
                return Err(self.failure(action, &text).into());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Failure::engine(format!("error getting credentials - err: {program}: not found in $PATH"))
                    .with_hint("install it, or take its name out of config.json (credsStore, credHelpers)")
                    .into());
            }
            Err(error) => return Err(error).with_context(|| format!("run {program}")),
        };
        if ended.success() {
            return Ok(Some(answer));
        }
        let said = String::from_utf8_lossy(&answer);
        if said.contains(NOTHING) {
            return Ok(None);
        }
        let why = if said.trim().is_empty() { ended.to_string() } else { printable(&said) };
        Err(self.failure(action, &why).into())
    }

    fn failure(&self, action: &str, why: &str) -> Failure {
        Failure::engine(format!("credential helper {} failed to {action}: {why}", self.name))
    }
}

/// Runs a program with `input`: how it ended, and what it had said until then; `None` when it had not ended in time,
/// and was killed. Nobody is waited for but the program itself: neither one that never reads, nor one that closes its
/// output and stays, nor whoever holds its output after it.
fn talk(command: &mut Command, input: &[u8], limit: Duration) -> io::Result<Option<(ExitStatus, Vec<u8>)>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let result = converse(&mut child, input, limit);
    if !matches!(result, Ok(Some(_))) {
        // It may have ended by itself just now.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn converse(child: &mut Child, mut input: &[u8], limit: Duration) -> io::Result<Option<(ExitStatus, Vec<u8>)>> {
    let deadline = Instant::now() + limit;
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let (mut stdin, mut stdout) = (child.stdin.take(), child.stdout.take());
    for pipe in [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    let mut answer = Vec::new();
    loop {
        let mut events = vec![PollFd::new(&ended, PollFlags::IN)];
        events.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        events.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut events, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let has_ended = !events[0].revents().is_empty();
        // A helper that does not care to read has its reason, which it tells otherwise.
        if stdin.as_mut().is_some_and(|pipe| !hand_over(pipe, &mut input)) {
            stdin = None;
        }
        if stdout.as_mut().is_some_and(|pipe| !take(pipe, &mut answer)) {
            stdout = None;
        }
        if has_ended {
            return Ok(Some((child.wait()?, answer)));
        }
    }
}

/// Writes what the pipe takes; whether there is more to write.
fn hand_over(pipe: &mut ChildStdin, input: &mut &[u8]) -> bool {
    while !input.is_empty() {
        match pipe.write(input) {
            Ok(count) => *input = &input[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    false
}

/// Takes what the pipe has; whether more may come that is wanted.
fn take(pipe: &mut ChildStdout, answer: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    while answer.len() < MAX_ANSWER {
        match pipe.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Option<(ExitStatus, Vec<u8>)> {
        talk(Command::new("sh").args(["-c", script]), b"server", limit).unwrap()
    }

    #[test]
    fn a_helper_is_heard_until_it_ends() {
        let said = |script: &str| shell(script, Duration::from_secs(30)).map(|(ended, said)| (ended.code(), said));
        assert_eq!(said("cat; exit 3"), Some((Some(3), b"server".to_vec())));
        assert_eq!(said("echo late"), Some((Some(0), b"late\n".to_vec())), "one that never reads");
        // Somebody who stays and holds the output: an agent that the helper has started.
        let (ended, answer) = shell("sleep 60 >&1 & echo $!", Duration::from_secs(30)).unwrap();
        assert!(ended.success());
        let agent: i32 = String::from_utf8(answer).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(agent).unwrap(), rustix::process::Signal::KILL).unwrap();
        let (_, much) = shell("exec yes", Duration::from_secs(30)).unwrap();
        assert!((MAX_ANSWER..MAX_ANSWER + 4096).contains(&much.len()), "{} bytes", much.len());
    }

    #[test]
    fn a_helper_that_hangs_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("pid");
        for what in ["", "echo half an answer;", "exec >&-;", "exec <&- >&-;"] {
            let script = format!("echo $$ > {}; {what} exec sleep 60", place.display());
            assert!(shell(&script, Duration::from_secs(3)).is_none(), "{what}");
            let pid: i32 = std::fs::read_to_string(&place).unwrap().trim().parse().unwrap();
            assert!(
                rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_err(),
                "{what} it is still there"
            );
        }
    }
}
