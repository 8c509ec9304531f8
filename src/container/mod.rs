//! What a container is, on disk: an immutable [`Config`], a [`State`] rewritten at each transition.
//!
//! Both are versioned JSON in the container's directory. This layer knows nothing of how a
//! container is made to run; it records what was asked for and what became of it. Reading is free
//! for all; writing needs the lock ([`handle::Locked`]).

pub mod handle;
pub mod health;
pub mod names;
pub mod networking;
mod oom;
pub mod random_name;
pub mod resources;
mod restart_policy;
#[cfg(test)]
pub mod sample;
pub mod status;

use std::collections::BTreeMap;

pub use crate::id::ContainerId;
pub use health::{HealthCheck, HealthReport, HealthResult, HealthStatus};
use jiff::Timestamp;
pub use networking::{
    Attachment, Dns, Endpoint, ExposedPort, Link, MacAddress, Networking, PortMapping, Protocol, Published,
};
pub use oom::{OomReport, OomVictim};
pub use resources::{DeviceRate, HugepageLimit, Resources};
use serde::{Deserialize, Serialize};

pub use restart_policy::RestartPolicy;

/// Version written into `config.json` and `state.json`.
pub const FORMAT_VERSION: u32 = 1;

/// What was asked for, image defaults already merged in. Written once by create (again only by
/// rename and update); the OCI spec of every start is derived from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// The container's id.
    pub id: ContainerId,
    /// The container's name, without a slash.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// The image it was made from.
    pub image: ImageSource,
    /// The command and its surroundings.
    pub process: Process,
    /// Namespaces shared or private.
    pub namespaces: Namespaces,
    /// Networks, published ports, name resolution.
    #[serde(default, skip_serializing_if = "Networking::is_default")]
    pub networking: Networking,
    /// Host name inside.
    pub hostname: String,
    /// NIS domain name inside; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// Bind mounts and volumes, in the order of mounting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// tmpfs mounts: path inside and mount options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// Root file system mounted read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// `host:address` lines added to `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// Namespaced kernel parameters, dotted key to value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of the process (setrlimit).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Limits of the container as a whole; [`handle::Locked::save_config`] after an update.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Path of the parent cgroup, or name of the slice; empty for the usual one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup_parent: String,
    /// Who makes the cgroup.
    #[serde(default, skip_serializing_if = "CgroupDriver::is_default")]
    pub cgroup_driver: CgroupDriver,
    /// Where the cgroup namespace comes from; `None` for the host's on cgroups v1 and a private one on v2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_namespace: Option<NamespaceMode>,
    /// Devices of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceMapping>,
    /// Rules added to the default ones of the device cgroup, each `TYPE MAJOR:MINOR ACCESS` (`c 10:229 rwm`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<String>,
    /// Privileges granted and withheld.
    pub security: Security,
    /// User's labels over the image's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The log's bounds.
    pub log: LogOptions,
    /// Signal that `stop` sends, as a name (`SIGTERM`) or number.
    pub stop_signal: String,
    /// Seconds between the stop signal and SIGKILL; negative waits for ever.
    pub stop_timeout: i64,
    /// Removed when it exits (`--rm`).
    #[serde(default)]
    pub auto_remove: bool,
    /// Whether it is started again when it exits; read at each end, so it may be changed meanwhile.
    #[serde(default, skip_serializing_if = "RestartPolicy::is_no")]
    pub restart: RestartPolicy,
    /// How to find out whether it does what it is for; `None` when nobody asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
}

/// Who makes a container's cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// This program, in the file system.
    #[default]
    Cgroupfs,
    /// systemd, as a transient scope.
    Systemd,
}

impl CgroupDriver {
    fn is_default(&self) -> bool {
        *self == CgroupDriver::default()
    }
}

/// The image a container was made from, held by id so that moving a tag changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// The reference as the user wrote it.
    pub name: String,
    /// `sha256:…` of the image config.
    pub id: String,
    /// Diff ids (`sha256:…`) of the layers, lowest first.
    pub layers: Vec<String>,
}

/// The container's first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Entrypoint of image or user; prefixed to `command`.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Command of image or user.
    #[serde(default)]
    pub command: Vec<String>,
    /// `NAME=value`, complete: PATH, HOSTNAME and the image's included; HOME is added at start
    /// from the container's passwd when missing.
    pub env: Vec<String>,
    /// Working directory inside; made when missing.
    pub workdir: String,
    /// `user[:group]`, each a name or a number; empty is root.
    #[serde(default)]
    pub user: String,
    /// Supplementary groups, names or numbers.
    #[serde(default)]
    pub group_add: Vec<String>,
    /// Has a terminal (`-t`).
    pub tty: bool,
    /// Standard input stays open (`-i`).
    pub open_stdin: bool,
    /// Standard input closes when the first attached client's does.
    pub stdin_once: bool,
    /// Streams attached at creation, as `inspect` reports them.
    #[serde(default)]
    pub attach: Streams,
    /// What the image's commands in shell form are given to; empty for `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// A choice of standard streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// The container's own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container, by id (resolved at creation).
    Container(String),
}

/// Where the network comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A namespace of its own, connected to the networks of [`Config::networking`].
    #[default]
    #[serde(alias = "default")]
    Networks,
    /// A namespace of its own with loopback only.
    None,
    /// The host's.
    Host,
    /// That of another container, by id (resolved at creation).
    Container(String),
}

/// The namespaces a container shares or owns. UTS is private or the host's only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Process ids.
    pub pid: NamespaceMode,
    /// System V IPC, POSIX message queues and `/dev/shm`.
    pub ipc: NamespaceMode,
    /// Host name.
    pub uts: NamespaceMode,
    /// Network.
    pub network: NetworkMode,
}

/// A host directory or a volume seen inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path inside.
    pub target: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// Propagation inside: `private`, `rprivate` (default), `slave`, `rslave`, `shared`, `rshared`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// The other option words given (`z`, `Z`, `nocopy`, …), as `inspect` shows them in `Mode`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
}

/// Where a mount's contents live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// An absolute path on the host.
    Host(String),
    /// A volume below the data root. Anonymous ones have a 64-digit name and go with the container.
    Volume {
        /// The volume's name.
        name: String,
        /// Made for this container alone.
        anonymous: bool,
        /// Filled from the image's directory when empty.
        copy: bool,
    },
}

/// A tmpfs inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path inside.
    pub target: String,
    /// Comma-separated mount options as given (`size=64m,mode=1777,exec`); may be empty.
    pub options: String,
}

/// The address in `--add-host NAME:host-gateway`: the host, as the container reaches it.
pub const HOST_GATEWAY: &str = "host-gateway";

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// Host name.
    pub name: String,
    /// IPv4 or IPv6 address, or [`HOST_GATEWAY`].
    pub address: String,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name without the prefix: `nofile`, `core`, ….
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// A device of the host seen inside, or every device below a directory of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// Absolute path on the host; what it leads to is looked up at each start.
    pub host: String,
    /// Absolute path inside.
    pub container: String,
    /// What processes inside may do with it: of `r` (read), `w` (write), `m` (make nodes of it).
    pub permissions: String,
}

/// Privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Capabilities added (`ALL`, `NET_ADMIN`, …), normalised: upper case without `CAP_`.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// Capabilities taken away, normalised likewise.
    #[serde(default)]
    pub cap_drop: Vec<String>,
    /// `PR_SET_NO_NEW_PRIVS`.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// `/proc` and `/sys` neither masked nor read-only (`systempaths=unconfined`).
    #[serde(default)]
    pub unconfined_paths: bool,
}

/// How the log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// `json-file` or `none`.
    pub driver: String,
    /// Bytes at which a file is rotated.
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_file: u32,
}

impl Default for LogOptions {
    /// Bounded without being asked: 100 MB × 5.
    fn default() -> Self {
        LogOptions { driver: "json-file".into(), max_size: 100 * 1000 * 1000, max_file: 5 }
    }
}

/// A process of the host, told apart from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Process id in the host's namespace.
    pub pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat` (proc(5)).
    pub start_time: u64,
}

/// What became of the container. Rewritten at each transition, under the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// The status last recorded; [`status::effective`] tells the true one.
    pub status: status::Status,
    /// `/proc/sys/kernel/random/boot_id` at the time of the last start: process ids of another boot mean nothing.
    #[serde(default)]
    pub boot_id: String,
    /// The container's first process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<ProcessRef>,
    /// The process that supervises it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shim: Option<ProcessRef>,
    /// Exit code of the last run: the command's own, or 128+n by signal n.
    #[serde(default)]
    pub exit_code: i32,
    /// Killed for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// What is known of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<OomReport>,
    /// Why the last start failed; empty when it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// What the user can do about `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Its connections to networks while it runs, in the order of their devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// When the last run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// Times the restart policy has started it again since the user did, the one to come included.
    #[serde(default)]
    pub restart_count: u32,
    /// The user has told it to end, and it is not to be started again by its restart policy. Written
    /// before the signal is sent, and only for containers that have a policy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped_by_user: bool,
}

impl State {
    /// The state of a container that has never run.
    pub fn created() -> Self {
        State {
            version: FORMAT_VERSION,
            status: status::Status::Created,
            boot_id: String::new(),
            init: None,
            shim: None,
            exit_code: 0,
            oom_killed: false,
            oom: None,
            error: String::new(),
            hint: None,
            endpoints: Vec::new(),
            started: None,
            finished: None,
            restart_count: 0,
            stopped_by_user: false,
        }
    }
}
