//! Whose credentials they are: the user's who called, also when sudo stands between.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::sys::identity::{self, Identity};

/// A larger `/etc/passwd` is not read to its end, in bytes.
const MAX_PASSWD: u64 = 16 << 20;

/// Who called.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    /// Whose rights count; `None`: those that the process has.
    pub(super) identity: Option<Identity>,
    pub(super) home: Option<PathBuf>,
    directory: Option<PathBuf>,
    runtime: Option<PathBuf>,
}

impl Caller {
    /// From the environment: `DOCKER_CONFIG`, `HOME`, and what sudo tells.
    pub(super) fn from_environment() -> Caller {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let is_root = rustix::process::geteuid().is_root();
        let identity = number("SUDO_UID").zip(number("SUDO_GID")).filter(|(uid, _)| is_root && *uid != 0);
        let identity = identity.map(|(uid, gid)| Identity { uid, gid });
        let home = match identity {
            Some(identity) => home_of(identity.uid),
            None => path("HOME").or_else(|| home_of(rustix::process::geteuid().as_raw())),
        };
        let runtime = match identity {
            Some(identity) => Some(PathBuf::from(format!("/run/user/{}", identity.uid))),
            None => path("XDG_RUNTIME_DIR"),
        };
        Caller { identity, home, directory: path("DOCKER_CONFIG"), runtime }
    }

    /// Where `config.json` is.
    pub(super) fn config_directory(&self) -> Option<PathBuf> {
        self.directory.clone().or_else(|| self.home.as_ref().map(|home| home.join(".docker")))
    }

    /// Podman's file of credentials.
    pub(super) fn podman_file(&self) -> Option<PathBuf> {
        self.runtime.as_ref().map(|runtime| runtime.join("containers/auth.json"))
    }

    /// Touches files with the caller's rights.
    pub(super) fn act<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        match self.identity {
            Some(who) => identity::act_as(who, act).context("act with the rights of who called sudo"),
            None => Ok(act()),
        }
    }
}

/// The home directory of a user in `/etc/passwd` (passwd(5)).
fn home_of(uid: u32) -> Option<PathBuf> {
    let mut text = Vec::new();
    File::open("/etc/passwd").ok()?.take(MAX_PASSWD).read_to_end(&mut text).ok()?;
    home_in(&String::from_utf8_lossy(&text), uid)
}

fn home_in(passwd: &str, uid: u32) -> Option<PathBuf> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let matches = fields.len() == 7 && fields[2].parse() == Ok(uid);
        (matches && fields[5].starts_with('/')).then(|| PathBuf::from(fields[5]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# a comment\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n\
                      broken:x:1001\nrelative:x:1002:1:::\n";
        assert_eq!(home_in(passwd, 1000), Some("/home/ann".into()));
        for uid in [1, 100, 1001, 1002] {
            assert_eq!(home_in(passwd, uid), None, "{uid}");
        }
    }
}
