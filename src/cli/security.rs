//! `--privileged`, `--cap-add`, `--cap-drop`, `--security-opt`, `--ulimit`, `--sysctl`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::spec::{self, invalid, parse_boolean};
use crate::container::{Security, Ulimit};

/// Adds the flags.
pub(super) fn flags(command: Command) -> Command {
    command
        .arg(spec::list("cap-add", None, "list", "Add Linux capabilities"))
        .arg(spec::list("cap-drop", None, "list", "Drop Linux capabilities"))
        .arg(spec::switch("privileged", None, "Give extended privileges to this container"))
        .arg(spec::list("security-opt", None, "list", "Security options: no-new-privileges, systempaths=unconfined"))
        .arg(spec::list("sysctl", None, "map", "Namespaced kernel parameters (KEY=VALUE)"))
        .arg(spec::list("ulimit", None, "ulimit", "Resource limits (NAME=SOFT[:HARD], -1 is unlimited)"))
}

/// Privileges granted and withheld.
pub(super) fn security(matches: &ArgMatches) -> Result<Security> {
    let mut security = Security {
        privileged: spec::is_set(matches, "privileged"),
        cap_add: capabilities(matches, "cap-add")?,
        cap_drop: capabilities(matches, "cap-drop")?,
        ..Security::default()
    };
    for option in spec::texts(matches, "security-opt") {
        // Docker has had both `key=value` and `key:value`.
        let (key, value) = option.split_once(['=', ':']).map_or((option.as_str(), None), |(k, v)| (k, Some(v)));
        let refuse = |why: &str| Err(invalid("security-opt", &option, why));
        match (key, value) {
            ("no-new-privileges", None) => security.no_new_privileges = true,
            ("no-new-privileges", Some(value)) => match parse_boolean(value) {
                Some(on) => security.no_new_privileges = on,
                None => return refuse("no-new-privileges is true or false"),
            },
            ("systempaths", Some("unconfined")) => security.unconfined_paths = true,
            ("seccomp" | "apparmor" | "label", Some(value)) if !value.is_empty() => {}
            _ => return refuse("it is none of no-new-privileges, systempaths=unconfined, seccomp=, apparmor=, label="),
        }
    }
    Ok(security)
}

/// Upper case without `CAP_`; whether the kernel knows them is the engine's question.
fn capabilities(matches: &ArgMatches, flag: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for text in spec::texts(matches, flag) {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(invalid(flag, &text, "it is no capability"));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

const LIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Resource limits; the last of a name counts.
pub(super) fn ulimits(matches: &ArgMatches) -> Result<Vec<Ulimit>> {
    let mut limits: BTreeMap<String, Ulimit> = BTreeMap::new();
    for text in spec::texts(matches, "ulimit") {
        let limit = ulimit(&text).map_err(|why| invalid("ulimit", &text, why))?;
        limits.insert(limit.name.clone(), limit);
    }
    Ok(limits.into_values().collect())
}

fn ulimit(text: &str) -> std::result::Result<Ulimit, String> {
    let (name, values) = text.split_once('=').ok_or("write NAME=SOFT[:HARD]")?;
    let name = name.to_ascii_lowercase();
    if !LIMITS.contains(&name.as_str()) {
        return Err(format!("unknown limit {name:?}"));
    }
    let number = |text: &str| match text.trim() {
        "-1" | "unlimited" => Ok(u64::MAX),
        digits => digits.parse::<u64>().map_err(|_| format!("{digits:?} is no limit")),
    };
    let (soft, hard) = values.split_once(':').map_or((values, values), |pair| pair);
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err("ulimit soft limit must be less than or equal to hard limit".to_owned());
    }
    Ok(Ulimit { name, soft, hard })
}

/// Kernel parameters. Which are namespaced is the engine's question.
pub(super) fn sysctls(matches: &ArgMatches) -> Result<BTreeMap<String, String>> {
    let mut sysctls = BTreeMap::new();
    for text in spec::texts(matches, "sysctl") {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => sysctls.insert(key.to_owned(), value.to_owned()),
            _ => return Err(invalid("sysctl", &text, "write KEY=VALUE")),
        };
    }
    Ok(sysctls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        let limit = |text: &str| ulimit(text).map(|limit| (limit.name, limit.soft, limit.hard));
        assert_eq!(limit("nofile=1024"), Ok(("nofile".into(), 1024, 1024)));
        assert_eq!(limit("nofile=1024:2048"), Ok(("nofile".into(), 1024, 2048)));
        assert_eq!(limit("core=-1"), Ok(("core".into(), u64::MAX, u64::MAX)));
        assert_eq!(limit("memlock=0:-1"), Ok(("memlock".into(), 0, u64::MAX)));
        for bad in ["nofile", "nofile=", "nofile=x", "nofile=2:1", "foo=1", "nofile=1:2:3", "nofile=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
