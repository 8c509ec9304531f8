//! What a front end may ask of the engine: plain structs, complete, with nothing of the command
//! line or of the caller's environment left to look up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use crate::container::{
    Attachment, CgroupDriver, DeviceMapping, ExtraHost, HealthCheck, LogOptions, Mount, Networking, Resources,
    RestartPolicy, Security, Streams, Tmpfs, Ulimit,
};

/// Create a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateRequest {
    /// Image reference as the user wrote it.
    pub image: String,
    /// Command and arguments; empty takes the image's.
    pub command: Vec<String>,
    /// Name; `None` for a random one.
    pub name: Option<String>,
    /// Entrypoint; `Some(vec![])` removes the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`; a bare `NAME` removes the image's variable (the front end resolves `-e NAME`
    /// to the caller's value, and to a bare name when the caller has none).
    pub env: Vec<String>,
    /// Working directory inside.
    pub workdir: Option<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Supplementary groups.
    pub group_add: Vec<String>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// NIS domain name inside.
    pub domainname: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub interactive: bool,
    /// Streams a foreground client will attach; all false when detached. Decides `stdin_once`.
    pub attach: Streams,
    /// `-v`.
    pub mounts: Vec<Mount>,
    /// `--tmpfs`.
    pub tmpfs: Vec<Tmpfs>,
    /// `--read-only`.
    pub read_only: bool,
    /// `-l`.
    pub labels: BTreeMap<String, String>,
    /// `--stop-signal`, any spelling of a signal.
    pub stop_signal: Option<String>,
    /// `--stop-timeout`, seconds.
    pub stop_timeout: Option<i64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size`, bytes.
    pub shm_size: Option<u64>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--device`.
    pub devices: Vec<DeviceMapping>,
    /// `--device-cgroup-rule`.
    pub device_rules: Vec<String>,
    /// `--privileged --cap-add --cap-drop --security-opt`.
    pub security: Security,
    /// `--memory`, `--cpus`, … .
    pub resources: Resources,
    /// `--cgroup-parent`; empty for the usual one.
    pub cgroup_parent: String,
    /// `--cgroup-driver`.
    pub cgroup_driver: CgroupDriver,
    /// `--cgroupns`: empty, `host` or `private`.
    pub cgroupns: String,
    /// `--pid`: empty, `private`, `host` or `container:REF`.
    pub pid: String,
    /// `--ipc`: empty, `private`, `shareable`, `host` or `container:REF`.
    pub ipc: String,
    /// `--uts`: empty or `host`.
    pub uts: String,
    /// `--network`, `-p`, `--dns`, …; no attachment takes the default network.
    pub networking: Networking,
    /// `--log-driver`, `--log-opt`.
    pub log: LogOptions,
    /// `--pull`.
    pub pull: PullPolicy,
    /// `--platform`.
    pub platform: Option<String>,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// `--health-cmd`, … and `--no-healthcheck`, over the image's field by field.
    pub health: Option<HealthCheck>,
}

/// When a registry is asked for the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// When the store lacks it.
    #[default]
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// How much a start tells about itself (`--explain`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Explain {
    /// Nothing.
    #[default]
    Off,
    /// Steps with their times, or the failing step.
    Steps,
}

/// How a front end wants to be joined to a container's streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// Which streams.
    pub streams: Streams,
    /// Forward the caller's signals to the container's first process.
    pub sig_proxy: bool,
    /// Bytes that detach from a terminal; `None` means ctrl-p ctrl-q.
    pub detach_keys: Option<Vec<u8>>,
}

/// Start a container that exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartRequest {
    /// Join its streams and stay until it ends; `None` returns once it runs.
    pub attach: Option<AttachRequest>,
    /// Collect the timed steps of the start.
    pub explain: Explain,
    /// File that receives the pid of the first process.
    pub pidfile: Option<PathBuf>,
}

/// Run another process inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Command and arguments.
    pub command: Vec<String>,
    /// `NAME=value` over the container's environment; resolved by the front end.
    pub env: Vec<String>,
    /// `user[:group]`; `None` takes the container's.
    pub user: Option<String>,
    /// Working directory; `None` takes the container's.
    pub workdir: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-d`: return once it runs, its output thrown away.
    pub detach: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Bytes that detach from a terminal; `None` means ctrl-p ctrl-q.
    pub detach_keys: Option<Vec<u8>>,
}

/// Read a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogsRequest {
    /// Go on until the container ends.
    pub follow: bool,
    /// Prefix each line with its time.
    pub timestamps: bool,
    /// Only the last so many lines; `None` for all.
    pub tail: Option<u64>,
    /// Only lines at or after this time.
    pub since: Option<jiff::Timestamp>,
    /// Only lines at or before this time.
    pub until: Option<jiff::Timestamp>,
    /// Show standard output.
    pub stdout: bool,
    /// Show standard error.
    pub stderr: bool,
}

/// Stop a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopRequest {
    /// Signal instead of the container's stop signal.
    pub signal: Option<String>,
    /// Seconds before SIGKILL instead of the container's; negative waits for ever.
    pub timeout: Option<i64>,
}

/// Change a container's limits and restart policy; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    /// The new limits.
    pub resources: Resources,
    /// The new restart policy.
    pub restart: Option<RestartPolicy>,
}

/// Remove a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveRequest {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// Make a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Its name.
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`.
    pub driver: String,
    /// `--subnet`, as given; host bits may be set.
    pub subnets: Vec<IpNetwork>,
    /// `--gateway`; each belongs to the subnet it lies in.
    pub gateways: Vec<IpAddr>,
    /// `--ip-range`, likewise.
    pub ranges: Vec<IpNetwork>,
    /// `--aux-address`, likewise.
    pub auxiliary: Vec<(String, IpAddr)>,
    /// `--internal`.
    pub internal: bool,
    /// `--ipv6`.
    pub ipv6: bool,
    /// `--attachable`.
    pub attachable: bool,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--opt`, keys as given.
    pub options: BTreeMap<String, String>,
}

/// Connect a container to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The container.
    pub container: String,
    /// The network and the wishes for it.
    pub attachment: Attachment,
    /// Private names for other containers.
    pub links: Vec<crate::container::Link>,
}
