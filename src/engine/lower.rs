//! `Config` → OCI runtime `Spec` + [`Launch`]: what a container is, in the runtime's words.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    Mount as SpecMount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};
use rustix::fs::{Mode, OFlags};

use super::devices::{self, Devices};
use super::{lower_resources, resources};
use crate::cgroup::limits::extra_controllers;
use crate::cgroup::{Cgroups, Group, Mode as CgroupMode, View};
use crate::container::{Config, ContainerId, Mount, MountSource, NamespaceMode, NetworkMode, Tmpfs, handle};
use crate::error::Failure;
use crate::layout::Layout;
use crate::runtime::capabilities::{self, Privilege};
use crate::runtime::{Launch, Overlay, spec};
use crate::sys::process;

/// Everything the runtime needs, and the descriptors that must stay open until it has used them.
#[derive(Debug)]
pub struct Lowered {
    /// The contract.
    pub spec: Spec,
    /// What the contract cannot say.
    pub launch: Launch,
    /// Namespaces of other containers that the spec names by `/proc/<pid>/fd/<n>`: held open, so
    /// that a recycled process id cannot lead to a stranger's.
    pub held: Vec<OwnedFd>,
}

/// Lowers a config. `id` names the cgroup.
pub fn lower(layout: &Layout, config: &Config, cgroups: &Cgroups) -> Result<Lowered> {
    let id = &config.id;
    let privileged = config.security.privileged;
    let mut held = Vec::new();
    let mut launch = Launch {
        overlay: Some(overlay(layout, config)),
        user: config.process.user.clone(),
        groups: config.process.group_add.clone(),
        cgroup_namespace: has_cgroup_namespace(config, cgroups),
        ..Launch::default()
    };

    let namespaces = namespaces(layout, config, &mut held, &mut launch)?;
    let propagation = if wants_host_mounts(config) { "rslave" } else { "rprivate" };
    let mut mounts = spec::base_mounts(privileged);
    let mut limits = lower_resources::resources(&config.resources)?;
    let group = cgroups.group_with(&resources::place(config)?, &extra_controllers(&limits));
    mounts.extend(cgroup_mounts(&group, privileged, &mut launch));
    mounts.extend(ipc_mounts(config));
    mounts.extend(engine_files(layout, config));
    for tmpfs in &config.tmpfs {
        mounts.push(tmpfs_mount(tmpfs));
    }
    for mount in &config.mounts {
        mounts.push(user_mount(layout, mount, propagation, &mut launch));
    }

    let set = spec_capabilities(config, privileged)?;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .permitted(set.clone())
        .effective(set)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()?;

    let mut arguments = config.process.entrypoint.clone();
    arguments.extend(config.process.command.iter().cloned());
    let process = ProcessBuilder::default()
        .terminal(config.process.tty)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?)
        .args(arguments)
        .env(config.process.env.clone())
        .cwd(&config.process.workdir)
        .capabilities(capabilities)
        .rlimits(rlimits(config)?)
        .no_new_privileges(config.security.no_new_privileges)
        .build()?;

    let confined = !privileged && !config.security.unconfined_paths;
    let paths = |list: &[&str]| if confined { list.iter().map(|&p| p.to_owned()).collect() } else { Vec::new() };
    let Devices { nodes, rules } = devices::lower(config)?;
    limits.set_devices(Some(rules));
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .devices(nodes)
        .sysctl(sysctls(config))
        .cgroups_path(Path::new("/").join(resources::place(config)?.path()))
        .resources(limits)
        .rootfs_propagation(propagation)
        .masked_paths(paths(&spec::MASKED_PATHS))
        .readonly_paths(paths(&spec::READONLY_PATHS))
        .build()?;
    let root =
        RootBuilder::default().path(layout.container_overlay(id).join("merged")).readonly(config.read_only).build()?;
    let spec = SpecBuilder::default()
        .process(process)
        .root(root)
        .hostname(&config.hostname)
        .domainname(&config.domainname)
        .mounts(mounts)
        .linux(linux)
        .build()?;
    Ok(Lowered { spec, launch, held })
}

/// Kernel parameters: the user's over Docker's defaults, which let a plain user of a network of its
/// own bind low ports and ping.
fn sysctls(config: &Config) -> HashMap<String, String> {
    let mut values = HashMap::new();
    if matches!(config.namespaces.network, NetworkMode::Networks | NetworkMode::None) {
        values.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        values.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    values.extend(config.sysctls.clone());
    values
}

/// The capabilities that processes of this container may have.
pub fn spec_capabilities(config: &Config, privileged: bool) -> Result<HashSet<Capability>> {
    let privilege = if privileged { Privilege::Privileged } else { Privilege::Ordinary };
    let set = capabilities::effective_set(privilege, &config.security.cap_add, &config.security.cap_drop)?;
    Ok(set.names().filter_map(|name| Capability::from_str(name.trim_start_matches("CAP_")).ok()).collect())
}

/// The resource limits of this container's processes.
pub fn rlimits(config: &Config) -> Result<Vec<PosixRlimit>> {
    config.ulimits.iter().map(rlimit).collect()
}

fn overlay(layout: &Layout, config: &Config) -> Overlay {
    let own = PathBuf::from(config.id.as_str());
    let layer = |id: &String| Path::new("layers").join(id.trim_start_matches("sha256:")).join("diff");
    Overlay {
        base: layout.overlay(),
        lower: config.image.layers.iter().rev().map(layer).collect(),
        upper: own.join("upper"),
        work: own.join("work"),
        merged: own.join("merged"),
        volatile: config.auto_remove,
    }
}

fn rlimit(limit: &crate::container::Ulimit) -> Result<PosixRlimit> {
    let typ = PosixRlimitType::from_str(&format!("RLIMIT_{}", limit.name.to_ascii_uppercase()))
        .map_err(|_| Failure::usage(format!("invalid ulimit type: {}", limit.name)))?;
    Ok(PosixRlimitBuilder::default().typ(typ).soft(limit.soft).hard(limit.hard).build()?)
}

fn own(kind: LinuxNamespaceType) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind);
    namespace
}

fn namespaces(
    layout: &Layout,
    config: &Config,
    held: &mut Vec<OwnedFd>,
    launch: &mut Launch,
) -> Result<Vec<LinuxNamespace>> {
    let mut list = vec![own(LinuxNamespaceType::Mount)];
    if config.namespaces.uts == NamespaceMode::Private {
        list.push(own(LinuxNamespaceType::Uts));
    }
    let mut join = |peer: &str, kind: LinuxNamespaceType, file: &str| -> Result<LinuxNamespace> {
        let path = hold(layout, peer, file, held)?;
        Ok(LinuxNamespaceBuilder::default().typ(kind).path(path).build()?)
    };
    match &config.namespaces.pid {
        NamespaceMode::Private => list.push(own(LinuxNamespaceType::Pid)),
        NamespaceMode::Host => {}
        NamespaceMode::Container(peer) => list.push(join(peer, LinuxNamespaceType::Pid, "pid")?),
    }
    match &config.namespaces.ipc {
        NamespaceMode::Private => list.push(own(LinuxNamespaceType::Ipc)),
        NamespaceMode::Host => {}
        NamespaceMode::Container(peer) => list.push(join(peer, LinuxNamespaceType::Ipc, "ipc")?),
    }
    match &config.namespaces.network {
        NetworkMode::Networks | NetworkMode::None => list.push(own(LinuxNamespaceType::Network)),
        NetworkMode::Host => {}
        NetworkMode::Container(peer) => list.push(join(peer, LinuxNamespaceType::Network, "net")?),
    }
    if let NamespaceMode::Container(peer) = &config.namespaces.ipc {
        launch.ipc_peer = Some(hold(layout, peer, "mnt", held)?);
    }
    Ok(list)
}

/// Opens a namespace of another, running container and returns a path that leads to it for as long
/// as this process holds it.
fn hold(layout: &Layout, peer: &str, file: &str, held: &mut Vec<OwnedFd>) -> Result<PathBuf> {
    let id = handle::find(layout, peer)?;
    let record = handle::load(layout, &id)?;
    let init = record.live_init().ok_or_else(|| {
        Failure::conflict(format!("cannot join the namespaces of container {}: it is not running", record.config.name))
            .with_hint(format!("start it first: mydocker start {}", record.config.name))
    })?;
    let path = format!("/proc/{}/ns/{file}", init.pid);
    let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {path}"))?;
    // Checked after opening: the number still belongs to that container's process.
    if process::start_time(init.pid) != Some(init.start_time) {
        return Err(Failure::conflict(format!("container {} ended just now", record.config.name)).into());
    }
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    held.push(namespace);
    Ok(path.into())
}

/// The container's own cgroup as `/sys/fs/cgroup`, read-only unless privileged (CVE-2022-0492).
fn cgroup_mounts(group: &Group, privileged: bool, launch: &mut Launch) -> Vec<SpecMount> {
    let base = ["nosuid", "noexec", "nodev"];
    let with = |extra: &[&'static str]| -> Vec<&'static str> { base.iter().chain(extra).copied().collect() };
    let access: &[&'static str] = if privileged { &[] } else { &["ro"] };
    let View::Directories { mounts: hierarchies, links } = group.own_view() else {
        return vec![spec::mount("cgroup2", "cgroup", "/sys/fs/cgroup", &with(access))];
    };
    if hierarchies.is_empty() {
        return Vec::new();
    }
    launch.links.extend(links.into_iter().map(|link| (format!("/sys/fs/cgroup/{}", link.name), link.target)));
    let mut mounts = vec![spec::mount("tmpfs", "tmpfs", "/sys/fs/cgroup", &with(&["mode=755", "size=64k"]))];
    for hierarchy in &hierarchies {
        mounts.push(spec::bind(&hierarchy.source, &format!("/sys/fs/cgroup/{}", hierarchy.name), &with(access)));
    }
    if !privileged {
        launch.seal.push("/sys/fs/cgroup".into());
    }
    mounts
}

/// Docker's default: private where the unified tree makes it cheap and whole, the host's on v1.
pub fn has_cgroup_namespace(config: &Config, cgroups: &Cgroups) -> bool {
    match config.cgroup_namespace {
        None => cgroups.mode == CgroupMode::V2,
        Some(NamespaceMode::Private) => true,
        Some(_) => false,
    }
}

fn ipc_mounts(config: &Config) -> Vec<SpecMount> {
    let shm = ["nosuid", "noexec", "nodev", "mode=1777"];
    match config.namespaces.ipc {
        NamespaceMode::Private => {
            let size = format!("size={}", config.shm_size);
            let options: Vec<&str> = shm.iter().copied().chain([size.as_str()]).collect();
            vec![
                spec::mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
                spec::mount("tmpfs", "shm", "/dev/shm", &options),
            ]
        }
        NamespaceMode::Host => ["/dev/mqueue", "/dev/shm"]
            .into_iter()
            .filter(|path| Path::new(path).is_dir())
            .map(|path| spec::bind(path.as_ref(), path, &["nosuid", "noexec", "nodev"]))
            .collect(),
        // Copied from the other container by init (Launch::ipc_peer).
        NamespaceMode::Container(_) => Vec::new(),
    }
}

/// `/etc/resolv.conf`, `/etc/hostname`, `/etc/hosts`; those of the other container when its network
/// is shared. A mount that the user asked for on the same path comes later and wins.
fn engine_files(layout: &Layout, config: &Config) -> Vec<SpecMount> {
    let owner = match &config.namespaces.network {
        NetworkMode::Container(peer) => ContainerId::parse(peer).unwrap_or_else(|| config.id.clone()),
        _ => config.id.clone(),
    };
    let directory = layout.container(&owner);
    ["resolv.conf", "hostname", "hosts"]
        .into_iter()
        .filter(|file| !config.mounts.iter().any(|mount| mount.target == format!("/etc/{file}")))
        .map(|file| spec::bind(&directory.join(file), &format!("/etc/{file}"), &[]))
        .collect()
}

fn tmpfs_mount(tmpfs: &Tmpfs) -> SpecMount {
    // Docker's defaults; a later word of the same kind wins.
    let mut options = vec!["nosuid", "nodev", "noexec"];
    options.extend(tmpfs.options.split(',').filter(|word| !word.is_empty()));
    spec::mount("tmpfs", "tmpfs", &tmpfs.target, &options)
}

fn user_mount(layout: &Layout, mount: &Mount, tree: &str, launch: &mut Launch) -> SpecMount {
    let source = match &mount.source {
        MountSource::Host(path) => PathBuf::from(path),
        MountSource::Volume { name, copy, .. } => {
            let data = layout.volumes().join(name).join("_data");
            if *copy {
                launch.copy_up.push((mount.target.clone(), data.clone()));
            }
            data
        }
    };
    // Without a word the mount is private, as the whole tree is (Step::IsolateMounts) unless another
    // mount is to follow the host.
    let word = mount.propagation.as_deref().or((tree == "rslave").then_some("rprivate"));
    let mut options: Vec<&str> = word.into_iter().collect();
    if mount.read_only {
        options.push("ro");
    }
    spec::bind(&source, &mount.target, &options)
}

/// A mount that follows the host needs the container's tree to be a slave of it.
fn wants_host_mounts(config: &Config) -> bool {
    config
        .mounts
        .iter()
        .any(|mount| mount.propagation.as_deref().is_some_and(|p| p.ends_with("slave") || p.ends_with("shared")))
}

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
