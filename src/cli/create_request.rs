//! The flags of `run` and `create`, lowered into a [`CreateRequest`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ArgMatches;

use super::environment::{self, Lookup};
use super::mount::{self, Parsed};
use super::spec::{self, invalid};
use super::{device, health, networking, quantity, resources, security};
use crate::container::{ExtraHost, HOST_GATEWAY, LogOptions, Mount, RestartPolicy, Streams, Tmpfs};
use crate::engine::request::{CreateRequest, PullPolicy};
use crate::error::Failure;
use crate::image::oci::platform::Platform;

/// What the caller's surroundings contribute.
pub(super) struct Surroundings<'a> {
    /// The caller's variables.
    pub(super) lookup: Lookup<'a>,
    /// The caller's working directory.
    pub(super) directory: &'a Path,
}

/// Lowers the flags that `run` and `create` share. `attach` is decided by the caller.
pub(super) fn lower(matches: &ArgMatches, attach: Streams, around: &Surroundings) -> Result<CreateRequest> {
    let mut operands = spec::operands(matches).into_iter();
    let (mounts, tmpfs) = mounts(matches, around.directory)?;
    let platform = platform(matches)?;
    Ok(CreateRequest {
        platform,
        image: operands.next().unwrap_or_default(),
        command: operands.collect(),
        name: spec::text(matches, "name").filter(|name| !name.is_empty()),
        entrypoint: spec::text(matches, "entrypoint").map(|text| if text.is_empty() { vec![] } else { vec![text] }),
        env: environment::variables(matches, around.lookup)?,
        workdir: workdir(matches)?,
        user: spec::text(matches, "user").filter(|user| !user.is_empty()),
        group_add: spec::texts(matches, "group-add"),
        hostname: spec::text(matches, "hostname").filter(|name| !name.is_empty()),
        domainname: spec::text(matches, "domainname").filter(|name| !name.is_empty()),
        tty: spec::is_set(matches, "tty"),
        interactive: spec::is_set(matches, "interactive"),
        attach,
        mounts,
        tmpfs,
        read_only: spec::is_set(matches, "read-only"),
        labels: environment::labels(matches)?,
        stop_signal: spec::text(matches, "stop-signal").filter(|signal| !signal.is_empty()),
        stop_timeout: spec::integer(matches, "stop-timeout")?,
        ulimits: security::ulimits(matches)?,
        shm_size: shm_size(matches)?,
        sysctls: security::sysctls(matches)?,
        resources: resources::resources(matches)?,
        cgroup_parent: spec::text(matches, "cgroup-parent").unwrap_or_default(),
        cgroup_driver: resources::cgroup_driver(matches)?,
        cgroupns: spec::text(matches, "cgroupns").unwrap_or_default(),
        extra_hosts: extra_hosts(matches)?,
        devices: device::devices(matches)?,
        device_rules: device::rules(matches)?,
        security: security::security(matches)?,
        pid: namespace(matches, "pid", &["", "private", "host"])?,
        ipc: namespace(matches, "ipc", &["", "private", "shareable", "host"])?,
        uts: namespace(matches, "uts", &["", "host"])?,
        networking: networking::networking(matches)?,
        log: log(matches)?,
        pull: pull(matches)?,
        auto_remove: spec::is_set(matches, "rm"),
        restart: restart(matches)?,
        health: health::check(matches)?,
    })
}

/// Which streams a foreground client joins: those of `-a`, else output, and input with `-i`.
pub(super) fn attached_streams(matches: &ArgMatches) -> Result<Streams> {
    let chosen = spec::texts(matches, "attach");
    let mut streams = Streams::default();
    for name in &chosen {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => streams.stdin = true,
            "stdout" => streams.stdout = true,
            "stderr" => streams.stderr = true,
            _ => return Err(invalid("attach", name, "valid streams are STDIN, STDOUT and STDERR")),
        }
    }
    if chosen.is_empty() {
        streams = Streams { stdin: spec::is_set(matches, "interactive"), stdout: true, stderr: true };
    }
    Ok(streams)
}

fn workdir(matches: &ArgMatches) -> Result<Option<String>> {
    match spec::text(matches, "workdir") {
        Some(path) if !path.is_empty() && !path.starts_with('/') => {
            Err(invalid("workdir", &path, "it must be an absolute path"))
        }
        path => Ok(path.filter(|path| !path.is_empty())),
    }
}

fn mounts(matches: &ArgMatches, directory: &Path) -> Result<(Vec<Mount>, Vec<Tmpfs>)> {
    let (mut mounts, mut tmpfs) = (Vec::new(), Vec::new());
    for text in spec::texts(matches, "volume") {
        mounts.push(mount::parse_volume(&text, directory).map_err(|why| invalid("volume", &text, why))?);
    }
    for text in spec::texts(matches, "mount") {
        match mount::parse_mount(&text, directory).map_err(|why| invalid("mount", &text, why))? {
            Parsed::Mount(mount) => mounts.push(mount),
            Parsed::Tmpfs(mount) => tmpfs.push(mount),
        }
    }
    for text in spec::texts(matches, "tmpfs") {
        tmpfs.push(mount::parse_tmpfs(&text).map_err(|why| invalid("tmpfs", &text, why))?);
    }
    let mut targets = BTreeSet::new();
    for target in mounts.iter().map(|mount| &mount.target).chain(tmpfs.iter().map(|mount| &mount.target)) {
        if !targets.insert(target) {
            return Err(Failure::usage(format!("Duplicate mount point: {target}")).into());
        }
    }
    Ok((mounts, tmpfs))
}

fn shm_size(matches: &ArgMatches) -> Result<Option<u64>> {
    let Some(text) = spec::text(matches, "shm-size") else { return Ok(None) };
    match quantity::binary_size(&text) {
        // Docker takes 0 for "not given".
        Some(size) => Ok(Some(size).filter(|size| *size > 0)),
        None => Err(invalid("shm-size", &text, "write a size such as 64m")),
    }
}

fn extra_hosts(matches: &ArgMatches) -> Result<Vec<ExtraHost>> {
    let mut hosts = Vec::new();
    for text in spec::texts(matches, "add-host") {
        let refuse = |why: &str| invalid("add-host", &text, why);
        // `=` first: it lets an IPv6 address keep its colons.
        let pair = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = pair.filter(|(name, _)| !name.is_empty()).ok_or_else(|| refuse("write HOST:ADDRESS"))?;
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = match bare {
            HOST_GATEWAY => bare.to_owned(),
            _ => {
                let address: IpAddr = bare.parse().map_err(|_| refuse("the address is neither IPv4 nor IPv6"))?;
                address.to_string()
            }
        };
        if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(refuse("the host name contains white space"));
        }
        hosts.push(ExtraHost { name: name.to_owned(), address });
    }
    Ok(hosts)
}

fn namespace(matches: &ArgMatches, flag: &str, words: &[&str]) -> Result<String> {
    let text = spec::text(matches, flag).unwrap_or_default();
    let container = text.strip_prefix("container:").is_some_and(|reference| !reference.is_empty());
    if words.contains(&text.as_str()) || (container && flag != "uts") {
        return Ok(text);
    }
    Err(invalid(flag, &text, format!("it must be one of {}", choices(words, flag != "uts"))))
}

fn choices(words: &[&str], container: bool) -> String {
    let mut choices: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
    choices.extend(container.then_some("container:NAME"));
    choices.join(", ")
}

fn log(matches: &ArgMatches) -> Result<LogOptions> {
    let mut log = LogOptions::default();
    match spec::text(matches, "log-driver").as_deref() {
        None | Some("" | "json-file") => {}
        Some("none") => log.driver = "none".to_owned(),
        Some(other) => return Err(invalid("log-driver", other, "only json-file and none are supported")),
    }
    for text in spec::texts(matches, "log-opt") {
        let refuse = |why: &str| invalid("log-opt", &text, why);
        let (key, value) = text.split_once('=').ok_or_else(|| refuse("write KEY=VALUE"))?;
        match key {
            _ if log.driver == "none" => return Err(refuse("the log driver none takes no options")),
            "max-size" if value == "-1" => log.max_size = u64::MAX,
            "max-size" => {
                let size = quantity::decimal_size(value).filter(|size| *size > 0);
                log.max_size = size.ok_or_else(|| refuse("write a size such as 10m"))?;
            }
            "max-file" => {
                let files = value.parse().ok().filter(|files| (1..=1000).contains(files));
                log.max_file = files.ok_or_else(|| refuse("write a number from 1 to 1000"))?;
            }
            _ => return Err(refuse("only max-size and max-file are supported")),
        }
    }
    Ok(log)
}

fn pull(matches: &ArgMatches) -> Result<PullPolicy> {
    match spec::text(matches, "pull").as_deref() {
        None | Some("missing" | "") => Ok(PullPolicy::Missing),
        Some("always") => Ok(PullPolicy::Always),
        Some("never") => Ok(PullPolicy::Never),
        Some(other) => Err(invalid("pull", other, "it must be one of always, missing, never")),
    }
}

fn restart(matches: &ArgMatches) -> Result<RestartPolicy> {
    let policy = restart_policy(&spec::text(matches, "restart").unwrap_or_default())?;
    if spec::is_set(matches, "rm") && !policy.is_no() {
        return Err(Failure::usage("conflicting options: cannot specify both --restart and --rm").into());
    }
    Ok(policy)
}

/// Reads `NAME[:MAXIMUM]`; refuses in the words of Docker's front end and daemon.
pub(super) fn restart_policy(text: &str) -> Result<RestartPolicy> {
    let refuse = |why: &str| Err(Failure::usage(format!("invalid restart policy{why}")).into());
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() && text.contains(':') {
        return refuse(" format: no policy provided before colon");
    }
    let count: i64 = match count {
        "" => 0,
        digits => match digits.parse() {
            Ok(count) => count,
            Err(_) => return refuse(" format: maximum retry count must be an integer"),
        },
    };
    let policy = match name {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" if count < 0 => return refuse(": maximum retry count cannot be negative"),
        "on-failure" => RestartPolicy::OnFailure { max_retries: u32::try_from(count).unwrap_or(u32::MAX) },
        _ => {
            let known = "use one of 'no', 'always', 'on-failure', or 'unless-stopped'";
            return refuse(&format!(": unknown policy '{name}'; {known}"));
        }
    };
    match (policy, count) {
        (RestartPolicy::OnFailure { .. }, _) | (_, 0) => Ok(policy),
        (_, ..0) => refuse(": maximum retry count can only be used with 'on-failure' and cannot be negative"),
        _ => refuse(": maximum retry count can only be used with 'on-failure'"),
    }
}

/// `--platform`, checked for form.
fn platform(matches: &ArgMatches) -> Result<Option<String>> {
    let Some(text) = spec::text(matches, "platform").filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse::<Platform>().context("choose the platform")?;
    Ok(Some(text))
}
