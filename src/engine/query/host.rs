//! `info` and `version`.

use std::fs;

use anyhow::Result;
use serde::Serialize;

use super::{Condition, ListRequest};
use crate::cgroup::{Cgroups, Mode};
use crate::container::status::Status;
use crate::engine::Engine;

/// What `info` tells, under Docker's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InfoView {
    /// How many containers.
    pub containers: usize,
    /// That run.
    pub containers_running: usize,
    /// That are frozen.
    pub containers_paused: usize,
    /// That do not run.
    pub containers_stopped: usize,
    /// How many images.
    pub images: usize,
    /// `overlay2`.
    pub driver: String,
    /// What containers can be given, by kind.
    pub plugins: PluginsView,
    /// `json-file`.
    pub logging_driver: String,
    /// Who makes cgroups: always the engine itself.
    pub cgroup_driver: String,
    /// What containers use: `1`, `2`, or `none` when nothing is mounted.
    pub cgroup_version: String,
    /// Which hierarchies there are, in words.
    pub cgroup_description: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// The distribution's own name.
    pub operating_system: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// `uname -m`.
    pub architecture: String,
    /// Processors this process may use.
    #[serde(rename = "NCPU")]
    pub ncpu: usize,
    /// Bytes of memory.
    pub mem_total: u64,
    /// The data root.
    pub docker_root_dir: String,
    /// The host's name.
    pub name: String,
    /// The engine's version.
    pub server_version: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Drivers by kind; all are part of this program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PluginsView {
    /// Of volumes.
    pub volume: Vec<String>,
    /// Of networks.
    pub network: Vec<String>,
    /// Who may do what: nobody is asked.
    pub authorization: Option<Vec<String>>,
    /// Of logs.
    pub log: Vec<String>,
}

/// What `version` tells. There is no server: both halves describe this program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionView {
    /// The program.
    pub client: ProgramView,
    /// The engine in it.
    pub server: ProgramView,
}

/// A program's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProgramView {
    /// `1.2.3`.
    pub version: String,
    /// Commit it was built from.
    pub git_commit: String,
    /// When it was built, RFC 3339.
    pub build_time: String,
    /// Compiler.
    pub rust_version: String,
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ….
    pub arch: String,
}

impl Engine {
    /// This program's version.
    pub fn version() -> VersionView {
        let program = ProgramView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: env!("MYDOCKER_COMMIT").to_owned(),
            build_time: env!("MYDOCKER_BUILD_TIME").to_owned(),
            rust_version: env!("MYDOCKER_RUSTC").to_owned(),
            os: "linux".to_owned(),
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
        };
        VersionView { client: program.clone(), server: program }
    }

    /// What there is on this host.
    pub fn info(&self) -> Result<InfoView> {
        let listing = self.list(&ListRequest { all: true, ..ListRequest::default() })?;
        let status = |wanted: fn(Status) -> bool| {
            let is = |condition: &Condition| matches!(condition, Condition::Known { status, .. } if wanted(*status));
            listing.containers.iter().filter(|container| is(&container.condition)).count()
        };
        // As with Docker, one that waits to be started again counts as stopped.
        let running = status(|status| matches!(status, Status::Starting | Status::Running));
        let paused = status(|status| status == Status::Paused);
        let mut warnings: Vec<String> = listing.problems.iter().map(|problem| format!("{problem:#}")).collect();
        let images = match self.images() {
            Ok(images) => images.len(),
            Err(error) => {
                warnings.push(format!("{:#}", error.context("count images")));
                0
            }
        };
        let cgroups = Cgroups::detect();
        let (cgroup_version, cgroup_description) = match &cgroups {
            Ok(cgroups) if cgroups.mode == Mode::V2 => ("2", cgroups.describe()),
            Ok(cgroups) => ("1", cgroups.describe()),
            Err(_) => ("none", String::new()),
        };
        if cgroups.is_err() {
            warnings.push("no cgroup file system is mounted: limits cannot be set".to_owned());
        }
        let system = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        Ok(InfoView {
            containers: listing.containers.len(),
            containers_running: running,
            containers_paused: paused,
            containers_stopped: listing.containers.len() - running - paused,
            images,
            driver: "overlay2".to_owned(),
            plugins: plugins(),
            logging_driver: "json-file".to_owned(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: cgroup_version.to_owned(),
            cgroup_description,
            kernel_version: text(system.release()),
            operating_system: operating_system(),
            os_type: "linux".to_owned(),
            architecture: text(system.machine()),
            ncpu: std::thread::available_parallelism().map_or(1, usize::from),
            mem_total: memory(),
            docker_root_dir: self.layout.root().display().to_string(),
            name: text(system.nodename()),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            warnings,
        })
    }
}

fn plugins() -> PluginsView {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    PluginsView {
        volume: words(&["local"]),
        network: words(&["bridge", "host", "ipvlan", "macvlan", "null"]),
        authorization: None,
        log: words(&["json-file", "none"]),
    }
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches(['"', '\'']).to_owned())
}

/// `MemTotal` of /proc/meminfo, in bytes.
pub(super) fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|number| number.trim().parse().ok());
    kibibytes.unwrap_or(0u64).saturating_mul(1024)
}

/// Processors that are online, whatever this process may use of them (`/sys/devices/system/cpu/online`).
pub(super) fn online_cpus() -> u32 {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let listed = count_listed(text.trim()).filter(|count| *count > 0);
    listed.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get() as u32))
}

/// How many numbers a list like `0-3,5` has; `None` when it is none.
fn count_listed(list: &str) -> Option<u32> {
    let span = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').map(span).try_fold(0u32, |sum, count| sum.checked_add(count?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_of_processors_are_counted() {
        for (list, count) in [("0", Some(1)), ("0-3", Some(4)), ("0-3,5,8-9", Some(7)), ("", None), ("3-1", None)] {
            assert_eq!(super::count_listed(list), count, "{list}");
        }
        assert!(super::online_cpus() >= 1);
    }
}
