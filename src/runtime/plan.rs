//! `Spec` → [`InitPlan`]: the whole start as an ordered list of small steps. Pure, and tested by
//! golden files: what a container gets can be read here, and printed with `--explain=plan`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxDevice, LinuxNamespaceType, Mount, Spec};
use serde::{Deserialize, Serialize};

use super::{Launch, Overlay};
use crate::error::Failure;
use crate::sys::mount::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY};
use crate::sys::tty::Size;

/// What the parent does, and what it tells init to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `CLONE_NEW*` flags of the clone.
    pub namespaces: u64,
    /// PID namespace to clone into, when it is another container's.
    pub pid_namespace: Option<PathBuf>,
    /// Sent to init.
    pub init: InitPlan,
}

/// The steps that init walks, and whether it reports their times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitPlan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Send [`super::Report::Step`] for each.
    pub timed: bool,
}

/// One step. A closed set: init is an interpreter of it. Paths inside the container are resolved
/// below its root on held descriptors, never as strings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the variants say what their fields are for")]
pub enum Step {
    /// Write `0` to these cgroup v1 `tasks` files: a lone thread moves itself without the lock
    /// that a move from outside waits for.
    JoinCgroup { tasks: Vec<PathBuf> },
    /// A cgroup namespace rooted where the process is now.
    NewCgroupNamespace,
    /// Join a namespace by path.
    JoinNamespace { path: PathBuf },
    /// Enter these namespaces of the process behind the target descriptor, and its root (exec). The
    /// PID namespace is entered by going on in a sibling process.
    EnterContainer { namespaces: i32 },
    /// Become leader of a session of its own, with a keyring of its own.
    NewSession,
    /// Host name inside.
    Hostname { name: String },
    /// NIS domain name inside.
    Domainname { name: String },
    /// Loopback device up.
    LoopbackUp,
    /// Stop mounts from travelling between the host and here: `slave` or `private`.
    IsolateMounts { shared_with_host: bool },
    /// Mount the container's root.
    MountOverlay(Overlay),
    /// Take a prepared directory as root.
    UseDirectory { path: PathBuf },
    /// Mount a file system on a path inside.
    MountFilesystem(FilesystemMount),
    /// Show a file or directory of the host on a path inside.
    MountBind(BindMount),
    /// Take `/dev/shm` and `/dev/mqueue` from the container with this mount namespace.
    ShareIpcMounts { mount_namespace: PathBuf },
    /// Copy the image's directory into a volume that is still empty.
    FillVolume { path: String, volume: PathBuf },
    /// Make device nodes and links below `/dev`.
    MakeDevices { nodes: Vec<DeviceNode>, links: Vec<(String, String)> },
    /// Make a directory when missing, with its parents.
    MakeDirectory { path: String },
    /// Open a terminal in the container's devpts and make it the standard streams.
    OpenTerminal { size: Option<Size>, console: bool },
    /// Wait until the parent has connected the network namespace; end with the parent.
    AwaitNetwork,
    /// Write namespaced kernel parameters through a verified procfs.
    Sysctls { values: Vec<(String, String)> },
    /// Mount over paths of `/proc` and `/sys` themselves, read-only.
    ReadOnlyPaths { paths: Vec<String> },
    /// Cover paths of `/proc` and `/sys`.
    MaskPaths { paths: Vec<String> },
    /// Make the mount on a path inside read-only; `/` is the root itself.
    ReadOnlyMount { path: String },
    /// pivot_root(2), and let the old root go.
    PivotRoot,
    /// Resource limits.
    ResourceLimits { limits: Vec<ResourceLimit> },
    /// No program gains privileges by exec from here on.
    NoNewPrivileges,
    /// Change into the working directory and check that it lies inside the root.
    WorkingDirectory { path: String },
    /// Become the user, with these capabilities and no others.
    BecomeUser { user: String, groups: Vec<String>, capabilities: Vec<String> },
    /// Execute the command.
    Execute { arguments: Vec<String>, environment: Vec<String> },
}

/// A file system mounted inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemMount {
    /// `proc`, `tmpfs`, ….
    pub kind: String,
    /// Shown in `/proc/mounts`.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// `MOUNT_ATTR_*` bits.
    pub attributes: u64,
    /// Options of the file system: key and value, or key alone.
    pub options: Vec<(String, Option<String>)>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Path on the host.
    pub source: PathBuf,
    /// Path inside; made when missing.
    pub target: String,
    /// The mounts below it, too.
    pub recursive: bool,
    /// `MOUNT_ATTR_*` bits to set.
    pub attributes: u64,
    /// `MS_*` propagation; 0 keeps private.
    pub propagation: u64,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path inside.
    pub path: String,
    /// `c`, `b` or `p`.
    pub kind: String,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owner.
    pub gid: u32,
}

/// One resource limit (setrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// `nofile`, `core`, ….
    pub name: String,
    /// `u64::MAX` is unlimited.
    pub soft: u64,
    /// `u64::MAX` is unlimited.
    pub hard: u64,
}

impl Step {
    /// The step in the words of `--explain`.
    pub fn title(&self) -> String {
        match self {
            Step::JoinCgroup { .. } => "join cgroup".into(),
            Step::NewCgroupNamespace => "new cgroup namespace".into(),
            Step::JoinNamespace { path } => format!("join namespace {}", path.display()),
            Step::EnterContainer { .. } => "enter the container's namespaces".into(),
            Step::NewSession => "new session".into(),
            Step::Hostname { name } => format!("set host name {name}"),
            Step::Domainname { name } => format!("set domain name {name}"),
            Step::LoopbackUp => "set loopback up".into(),
            Step::IsolateMounts { .. } => "isolate mounts".into(),
            Step::MountOverlay(overlay) => format!("mount overlay of {} layers", overlay.lower.len()),
            Step::UseDirectory { path } => format!("use root {}", path.display()),
            Step::MountFilesystem(mount) => format!("mount {} on {}", mount.kind, mount.target),
            Step::MountBind(mount) => format!("bind {}", mount.target),
            Step::ShareIpcMounts { .. } => "share /dev/shm and /dev/mqueue".into(),
            Step::FillVolume { path, .. } => format!("fill volume of {path}"),
            Step::MakeDevices { .. } => "make devices".into(),
            Step::MakeDirectory { path } => format!("make directory {path}"),
            Step::OpenTerminal { .. } => "open terminal".into(),
            Step::AwaitNetwork => "await the network".into(),
            Step::Sysctls { .. } => "set kernel parameters".into(),
            Step::ReadOnlyPaths { .. } => "make paths read-only".into(),
            Step::MaskPaths { .. } => "mask paths".into(),
            Step::ReadOnlyMount { path } => format!("make {path} read-only"),
            Step::PivotRoot => "pivot root".into(),
            Step::ResourceLimits { .. } => "set resource limits".into(),
            Step::NoNewPrivileges => "no new privileges".into(),
            Step::WorkingDirectory { path } => format!("change directory to {path}"),
            Step::BecomeUser { user, .. } if user.is_empty() => "become root".into(),
            Step::BecomeUser { user, .. } => format!("become user {user}"),
            Step::Execute { arguments, .. } => {
                format!("execute {}", arguments.first().map(String::as_str).unwrap_or_default())
            }
        }
    }
}

/// Lowers a spec to a plan. The order is the whole design of a container's start:
///
/// 1. the cgroup first, so that whatever follows is accounted and limited;
/// 2. namespaces and names;
/// 3. the root and everything mounted on it, while the host's paths can still be reached;
/// 4. pivot_root: from here on the host is out of sight;
/// 5. privileges go last, because everything before needs them; then exec.
pub fn lower(spec: &Spec, launch: &Launch) -> Result<Plan> {
    let process = spec.process().as_ref().context("the spec has no process")?;
    let linux = spec.linux().as_ref().context("the spec has no linux section")?;
    let mut steps = Vec::with_capacity(40);

    if !launch.cgroup_tasks.is_empty() {
        steps.push(Step::JoinCgroup { tasks: launch.cgroup_tasks.clone() });
    }
    let mut namespaces = 0;
    let mut pid_namespace = None;
    let mut private_uts = false;
    let mut private_network = false;
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace.typ();
        match namespace.path() {
            Some(path) if kind == LinuxNamespaceType::Pid => pid_namespace = Some(path.clone()),
            Some(path) => steps.push(Step::JoinNamespace { path: path.clone() }),
            None => namespaces |= clone_flag(kind),
        }
        private_uts |= kind == LinuxNamespaceType::Uts && namespace.path().is_none();
        private_network |= kind == LinuxNamespaceType::Network && namespace.path().is_none();
    }
    if launch.cgroup_namespace {
        steps.push(Step::NewCgroupNamespace);
    }
    steps.push(Step::NewSession);
    if let Some(name) = spec.hostname().as_ref().filter(|_| private_uts) {
        steps.push(Step::Hostname { name: name.clone() });
    }
    if let Some(name) = spec.domainname().as_ref().filter(|name| private_uts && !name.is_empty()) {
        steps.push(Step::Domainname { name: name.clone() });
    }
    if private_network {
        steps.push(Step::LoopbackUp);
    }

    let shared = linux.rootfs_propagation().as_deref().is_some_and(|p| p.ends_with("shared"));
    let slave = linux.rootfs_propagation().as_deref().is_some_and(|p| p.ends_with("slave"));
    steps.push(Step::IsolateMounts { shared_with_host: shared || slave });
    let root = spec.root().as_ref().context("the spec has no root")?;
    steps.push(match &launch.overlay {
        Some(overlay) => Step::MountOverlay(overlay.clone()),
        None => Step::UseDirectory { path: root.path().clone() },
    });
    // Volumes are filled while the image's directories are still uncovered.
    for (path, volume) in &launch.copy_up {
        steps.push(Step::FillVolume { path: path.clone(), volume: volume.clone() });
    }
    // Devices below `/dev` come with its mount, so that others can cover them; elsewhere nothing may cover them.
    let nodes = linux.devices().iter().flatten().map(device_node);
    let (usual, elsewhere): (Vec<_>, Vec<_>) = nodes.partition(|node| node.path.starts_with("/dev/"));
    let mut usual = Some(usual);
    for mount in spec.mounts().iter().flatten() {
        steps.push(mount_step(mount)?);
        // The first such mount is ours; another is the user's, who shows the container the host's own.
        if mount.destination().as_os_str() == "/dev"
            && let Some(nodes) = usual.take()
        {
            steps.push(Step::MakeDevices { nodes, links: device_links() });
        }
    }
    let mut rest = usual.unwrap_or_default();
    rest.extend(elsewhere);
    if !rest.is_empty() {
        steps.push(Step::MakeDevices { nodes: rest, links: Vec::new() });
    }
    if !launch.links.is_empty() {
        steps.push(Step::MakeDevices { nodes: Vec::new(), links: launch.links.clone() });
    }
    for path in &launch.seal {
        steps.push(Step::ReadOnlyMount { path: path.clone() });
    }
    if let Some(mount_namespace) = launch.ipc_peer.clone() {
        steps.push(Step::ShareIpcMounts { mount_namespace });
    }
    let cwd = process.cwd().to_string_lossy().into_owned();
    if cwd != "/" {
        steps.push(Step::MakeDirectory { path: cwd.clone() });
    }
    // As late as can be: the parent makes the network while the steps above are done. Some parameters
    // are those of its devices.
    if launch.await_network {
        steps.push(Step::AwaitNetwork);
    }
    if let Some(values) = linux.sysctl().as_ref().filter(|values| !values.is_empty()) {
        let mut values: Vec<_> = values.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        values.sort();
        steps.push(Step::Sysctls { values });
    }
    let terminal = process.terminal().unwrap_or(false);
    if terminal {
        steps.push(Step::OpenTerminal { size: launch.terminal_size, console: true });
    }
    for (paths, step) in [
        (linux.readonly_paths(), (|paths| Step::ReadOnlyPaths { paths }) as fn(Vec<String>) -> Step),
        (linux.masked_paths(), |paths| Step::MaskPaths { paths }),
    ] {
        if let Some(paths) = paths.as_ref().filter(|paths| !paths.is_empty()) {
            steps.push(step(paths.clone()));
        }
    }
    if root.readonly().unwrap_or(false) {
        steps.push(Step::ReadOnlyMount { path: "/".into() });
    }
    steps.push(Step::PivotRoot);
    steps.extend(process_steps(process, launch)?);
    Ok(Plan { namespaces, pid_namespace, init: InitPlan { steps, timed: launch.timed } })
}

/// The last steps, the same for a container's first process and for exec.
pub fn process_steps(process: &oci_spec::runtime::Process, launch: &Launch) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let limits: Vec<ResourceLimit> = process
        .rlimits()
        .iter()
        .flatten()
        .map(|limit| ResourceLimit {
            name: limit.typ().to_string().trim_start_matches("RLIMIT_").to_ascii_lowercase(),
            soft: limit.soft(),
            hard: limit.hard(),
        })
        .collect();
    if !limits.is_empty() {
        steps.push(Step::ResourceLimits { limits });
    }
    if process.no_new_privileges().unwrap_or(false) {
        steps.push(Step::NoNewPrivileges);
    }
    steps.push(Step::WorkingDirectory { path: process.cwd().to_string_lossy().into_owned() });
    let bounding = process.capabilities().as_ref().and_then(|c| c.bounding().clone()).unwrap_or_default();
    let mut capabilities: Vec<String> = bounding.iter().map(|c| format!("CAP_{c}")).collect();
    capabilities.sort();
    steps.push(Step::BecomeUser { user: launch.user.clone(), groups: launch.groups.clone(), capabilities });
    let arguments = process.args().clone().unwrap_or_default();
    if arguments.is_empty() {
        return Err(Failure::usage("no command specified")
            .with_hint("name a command after the image, or use an image that has one")
            .into());
    }
    steps.push(Step::Execute { arguments, environment: process.env().clone().unwrap_or_default() });
    Ok(steps)
}

fn clone_flag(kind: LinuxNamespaceType) -> u64 {
    let flag = match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => return 0,
    };
    flag as u64
}

fn mount_step(mount: &Mount) -> Result<Step> {
    let target = mount.destination().to_string_lossy().into_owned();
    let mut attributes = 0;
    let mut propagation = 0;
    let mut bind = None;
    let mut options = Vec::new();
    for option in mount.options().iter().flatten() {
        match option.as_str() {
            "ro" => attributes |= ATTR_RDONLY,
            "nosuid" => attributes |= ATTR_NOSUID,
            "nodev" => attributes |= ATTR_NODEV,
            "noexec" => attributes |= ATTR_NOEXEC,
            "rw" => attributes &= !ATTR_RDONLY,
            "suid" => attributes &= !ATTR_NOSUID,
            "dev" => attributes &= !ATTR_NODEV,
            "exec" => attributes &= !ATTR_NOEXEC,
            "strictatime" => attributes |= libc::MOUNT_ATTR_STRICTATIME,
            "noatime" => attributes |= libc::MOUNT_ATTR_NOATIME,
            "relatime" | "defaults" | "async" => {}
            "bind" => bind = Some(false),
            "rbind" => bind = Some(true),
            "private" => propagation = libc::MS_PRIVATE,
            "rprivate" => propagation = libc::MS_PRIVATE | libc::MS_REC,
            "slave" => propagation = libc::MS_SLAVE,
            "rslave" => propagation = libc::MS_SLAVE | libc::MS_REC,
            "shared" => propagation = libc::MS_SHARED,
            "rshared" => propagation = libc::MS_SHARED | libc::MS_REC,
            other => options.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
    if let Some(recursive) = bind {
        let source = mount.source().clone().with_context(|| format!("the bind mount on {target} has no source"))?;
        return Ok(Step::MountBind(BindMount { source, target, recursive, attributes, propagation }));
    }
    let kind = mount.typ().clone().with_context(|| format!("the mount on {target} has no type"))?;
    let source = mount.source().as_ref().map(|s| s.to_string_lossy().into_owned()).unwrap_or_else(|| kind.clone());
    Ok(Step::MountFilesystem(FilesystemMount { kind, source, target, attributes, options }))
}

fn device_node(device: &LinuxDevice) -> DeviceNode {
    DeviceNode {
        path: device.path().to_string_lossy().into_owned(),
        kind: device.typ().as_str().to_owned(),
        major: device.major() as u32,
        minor: device.minor() as u32,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
}

/// Links that the OCI runtime spec demands (config-linux.md, "Dev symbolic links").
fn device_links() -> Vec<(String, String)> {
    [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/core", "/proc/kcore"),
        ("/dev/ptmx", "pts/ptmx"),
    ]
    .map(|(path, target)| (path.to_owned(), target.to_owned()))
    .to_vec()
}

/// `CLONE_NEW*` flags as names, for `--explain=plan`.
pub fn namespace_names(flags: u64) -> Vec<&'static str> {
    [
        (libc::CLONE_NEWNS, "mount"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWNET, "network"),
        (libc::CLONE_NEWCGROUP, "cgroup"),
        (libc::CLONE_NEWUSER, "user"),
    ]
    .into_iter()
    .filter_map(|(flag, name)| (flags & flag as u64 != 0).then_some(name))
    .collect()
}
