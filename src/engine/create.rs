//! `create`: from a request and an image to a container on disk.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tracing::debug_span;

use super::absolute::absolute;
use super::events::{Action, Kind};
use super::images::transfer::Wish;
use super::lifecycle::signal_number;
use super::network::resolve::{Resolved, exposed_ports};
use super::request::CreateRequest;
use super::{Engine, devices, files, health, recover, resources, shim};
use crate::cgroup::systemd;
use crate::container::handle::{self, Locked};
use crate::container::random_name::{Attempt, random_name};
use crate::container::{
    Config, ContainerId, FORMAT_VERSION, HOST_GATEWAY, ImageSource, Mount, MountSource, NamespaceMode, Namespaces,
    NetworkMode, Process, State, names,
};
use crate::error::Failure;
use crate::image::Image;
use crate::image::oci::platform::Platform;
use crate::image::transfer::progress::{Progress, Silent};
use crate::runtime::capabilities::{self, Privilege};
use crate::runtime::{identity, spec};
use crate::storage::volume::{self, Volumes};

/// Seconds between the stop signal and SIGKILL.
const DEFAULT_STOP_TIMEOUT: i64 = 10;

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Things the user should know; not errors.
    pub warnings: Vec<String>,
}

/// The image that a request asks for.
fn wish(request: &CreateRequest) -> Wish<'_> {
    Wish { image: &request.image, policy: request.pull, platform: request.platform.as_deref() }
}

/// What the user should know when the image is for another kind of machine and nobody asked for that.
fn foreign(image: &Image, request: &CreateRequest) -> Option<String> {
    let host = Platform::host();
    let platform = image.platform.as_ref().filter(|platform| request.platform.is_none() && !host.accepts(platform))?;
    Some(format!(
        "The requested image's platform ({platform}) does not match the detected host platform ({host}) and no \
         specific platform was requested"
    ))
}

impl Engine {
    /// Makes a container without starting it.
    pub fn create(&self, request: &CreateRequest, progress: &dyn Progress) -> Result<Created> {
        let image = debug_span!("resolve image").in_scope(|| self.provide(&wish(request), progress))?;
        let id = ContainerId::random().context("make a container id")?;
        let (mut config, mut warnings) = debug_span!("merge config").in_scope(|| self.config(&id, &image, request))?;
        warnings.extend(foreign(&image, request));
        let place = resources::place(&config)?;
        if place.unit().is_some() {
            systemd::require()?;
        }
        warnings.extend(debug_span!("check limits").in_scope(|| resources::fit(&mut config.resources, &place))?);
        if let Some(name) = &request.name {
            names::validate(name)?;
            self.heal_name_holder(name)?;
            config.name.clone_from(name);
        }
        // From here on things exist; whatever fails is undone in reverse, the first error stays first.
        let mut container =
            debug_span!("make container").in_scope(|| Locked::create(self.layout(), config, State::created()))?;
        let made = debug_span!("name, record, files")
            .in_scope(|| self.furnish(&mut container, request.name.is_some()))
            .and_then(|()| self.still_there(&image, &request.image));
        if let Err(error) = made {
            let volumes = recover::anonymous_volumes(&container);
            let _ = self.take_away(&mut container);
            self.remove_volumes(&volumes);
            self.sweep_trash();
            return Err(error);
        }
        self.note(&container.config, Action::Create);
        Ok(Created { id, name: container.config.name.clone(), warnings })
    }

    /// What a start of such a container would do, as data: the plan of `--explain=plan`. Makes
    /// nothing.
    pub fn plan_of(&self, request: &CreateRequest) -> Result<serde_json::Value> {
        let image = self.provide(&wish(request), &Silent)?;
        let id = ContainerId::random().context("make a container id")?;
        let (mut config, _) = self.config(&id, &image, request)?;
        if let Some(name) = &request.name {
            config.name.clone_from(name);
        }
        shim::plan_as_data(self, &config)
    }

    /// Everything a request and an image say, merged and checked, and what the user should know of it.
    /// Nothing is made.
    fn config(&self, id: &ContainerId, image: &Image, request: &CreateRequest) -> Result<(Config, Vec<String>)> {
        let defaults = &image.defaults;
        let user = request.user.clone().unwrap_or_else(|| defaults.user.clone());
        // An entrypoint of the user's makes the image's command meaningless, as with Docker.
        let entrypoint = request.entrypoint.clone().unwrap_or_else(|| defaults.entrypoint.clone());
        let command = match (&request.command, &request.entrypoint) {
            (command, _) if !command.is_empty() => command.clone(),
            (_, Some(_)) => Vec::new(),
            (_, None) => defaults.command.clone(),
        };
        if entrypoint.is_empty() && command.is_empty() {
            let why = match request.entrypoint.is_some() && !defaults.command.is_empty() {
                true => "with --entrypoint the image's own command does not count".to_owned(),
                false => format!("image {} names none", request.image),
            };
            return Err(Failure::usage("no command specified")
                .with_hint(format!("{why}; write one after the image"))
                .into());
        }
        if request.auto_remove && !request.restart.is_no() {
            return Err(Failure::usage("can't create 'AutoRemove' container with restart policy").into());
        }
        let health = health::merged(defaults.healthcheck.as_ref(), request.health.clone())?;
        let Resolved { mode, networking, mut warnings } =
            self.resolve_networking(request, &exposed_ports(&defaults.exposed_ports))?;
        warnings.extend(health.as_ref().and_then(health::warning));
        let namespaces = self.namespaces(request, mode)?;
        let hostname = match &namespaces.network {
            // With the files of that container, as with Docker.
            NetworkMode::Container(peer) if namespaces.uts == NamespaceMode::Private => {
                handle::load(self.layout(), &handle::find(self.layout(), peer)?)?.config.hostname
            }
            _ => hostname(id, request, &namespaces)?,
        };
        let workdir = request.workdir.clone().or_else(|| Some(defaults.workdir.clone())).filter(|dir| !dir.is_empty());
        let workdir = absolute(workdir.as_deref().unwrap_or("/"), "working directory")?;
        for limit in &request.ulimits {
            if identity::resource(&limit.name).is_none() {
                return Err(Failure::usage(format!("invalid ulimit type: {}", limit.name)).into());
            }
        }
        check_sysctls(request, &namespaces)?;
        resources::validate(&request.resources)?;
        let cgroup_namespace = match request.cgroupns.as_str() {
            "" => None,
            "host" => Some(NamespaceMode::Host),
            "private" => Some(NamespaceMode::Private),
            other => return Err(Failure::usage(format!("invalid cgroup namespace mode: {other}")).into()),
        };
        for host in request.extra_hosts.iter().filter(|host| host.address != HOST_GATEWAY) {
            host.address
                .parse::<IpAddr>()
                .map_err(|_| Failure::usage(format!("invalid IP address in add-host: {:?}", host.address)))?;
        }
        let mut security = request.security.clone();
        capabilities::effective_set(Privilege::Ordinary, &security.cap_add, &security.cap_drop)?;
        for list in [&mut security.cap_add, &mut security.cap_drop] {
            for name in list.iter_mut() {
                *name = capabilities::normalise(name)?;
            }
        }
        let stop_signal =
            request.stop_signal.clone().or_else(|| defaults.stop_signal.clone()).unwrap_or_else(|| "SIGTERM".into());
        signal_number(&stop_signal)?;
        let mut labels = defaults.labels.clone();
        labels.extend(request.labels.clone());
        let config = Config {
            version: FORMAT_VERSION,
            id: id.clone(),
            name: String::new(),
            created: Timestamp::now(),
            image: ImageSource { name: request.image.clone(), id: image.id.clone(), layers: image.layers.clone() },
            process: Process {
                entrypoint,
                command,
                env: environment(&defaults.env, request, &hostname),
                workdir,
                user,
                group_add: request.group_add.clone(),
                tty: request.tty,
                open_stdin: request.interactive,
                stdin_once: request.interactive && request.attach.stdin,
                attach: request.attach,
                shell: defaults.shell.clone(),
            },
            namespaces,
            networking,
            hostname,
            domainname: request.domainname.clone().unwrap_or_default(),
            mounts: mounts(&defaults.volumes, request)?,
            tmpfs: request.tmpfs.clone(),
            read_only: request.read_only,
            shm_size: request.shm_size.unwrap_or(spec::DEFAULT_SHM_SIZE),
            extra_hosts: request.extra_hosts.clone(),
            sysctls: request.sysctls.clone(),
            ulimits: request.ulimits.clone(),
            resources: request.resources.clone(),
            cgroup_parent: request.cgroup_parent.clone(),
            cgroup_driver: request.cgroup_driver,
            cgroup_namespace,
            devices: devices::mappings(request)?,
            device_rules: devices::checked_rules(request)?,
            security,
            labels,
            log: request.log.clone(),
            stop_signal,
            stop_timeout: request.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT),
            auto_remove: request.auto_remove,
            restart: request.restart,
            health,
        };
        Ok((config, warnings))
    }

    fn namespaces(&self, request: &CreateRequest, network: NetworkMode) -> Result<Namespaces> {
        let mode = |text: &str, what: &str| -> Result<NamespaceMode> {
            match text.split_once(':') {
                Some(("container", peer)) => Ok(NamespaceMode::Container(self.peer(peer)?)),
                None if matches!(text, "" | "private") => Ok(NamespaceMode::Private),
                None if text == "shareable" && what == "ipc" => Ok(NamespaceMode::Private),
                None if text == "host" => Ok(NamespaceMode::Host),
                _ => Err(Failure::usage(format!("--{what}: invalid mode {text:?}"))
                    .with_hint("use host or container:NAME")
                    .into()),
            }
        };
        let uts = mode(&request.uts, "uts")?;
        if matches!(uts, NamespaceMode::Container(_)) {
            return Err(Failure::usage("--uts: invalid mode: a UTS namespace is private or host").into());
        }
        Ok(Namespaces { pid: mode(&request.pid, "pid")?, ipc: mode(&request.ipc, "ipc")?, uts, network })
    }

    /// The id of a container whose namespace is to be shared. A name of our own means nothing yet.
    fn peer(&self, reference: &str) -> Result<String> {
        Ok(handle::find(self.layout(), reference)?.as_str().to_owned())
    }

    /// Name, record, directories, files and volumes of a container whose directory exists.
    fn furnish(&self, container: &mut Locked, named: bool) -> Result<()> {
        self.take_name(container, named)?;
        container.save_config()?;
        container.save_state()?;
        self.make_overlay(&container.config)?;
        self.write_files(&container.config)?;
        let volumes = Volumes::open(self.layout());
        for mount in &container.config.mounts {
            match &mount.source {
                MountSource::Host(path) => make_source(path)?,
                MountSource::Volume { name, anonymous, .. } => {
                    let kind = if *anonymous { volume::Kind::Anonymous } else { volume::Kind::Named };
                    let is_new = !volumes.exists(name);
                    volumes.ensure(name, kind)?;
                    if is_new {
                        self.note_object(Kind::Volume, name, "create", &[("driver", "local".into())]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the directories of a container's overlay.
    fn make_overlay(&self, config: &Config) -> Result<()> {
        let directory = self.layout().container_overlay(&config.id);
        let make = |path: &Path, mode| {
            fs::DirBuilder::new().mode(mode).create(path).with_context(|| format!("create {}", path.display()))
        };
        make(&directory, 0o710)?;
        // The upper directory's mode becomes that of `/` inside.
        let upper = directory.join("upper");
        make(&upper, 0o755)?;
        // Whatever the caller's umask: users of the container must be able to enter it.
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("set the mode of {}", upper.display()))?;
        // Empty, as Docker has it: scripts and systemd-detect-virt tell by it where they are.
        let mark = upper.join(".dockerenv");
        let made = fs::OpenOptions::new().write(true).create_new(true).open(&mark);
        made.and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("create {}", mark.display()))?;
        make(&directory.join("work"), 0o700)?;
        make(&directory.join("merged"), 0o700)
    }

    fn take_name(&self, container: &mut Locked, named: bool) -> Result<()> {
        let id = container.id().clone();
        if named {
            return names::claim(self.layout(), &container.config.name, &id);
        }
        let mut attempt = Attempt::First;
        loop {
            let name = random_name(attempt).context("choose a name")?;
            if names::try_claim(self.layout(), &name, &id)?.is_none() {
                container.config.name = name;
                return Ok(());
            }
            attempt = Attempt::Again;
        }
    }

    fn write_files(&self, config: &Config) -> Result<()> {
        let directory = self.layout().container(&config.id);
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        for (name, text) in [
            ("hosts", files::hosts(config, &[])),
            ("hostname", files::hostname(config)),
            ("resolv.conf", files::resolv_conf(&host, config)),
        ] {
            let path = directory.join(name);
            // Nobody else looks before the container is started, so no temporary is needed. Readable
            // for every user of the container.
            let written = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
            written
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Docker's rules: 1 to 63 characters of host name syntax (RFC 1123); the id's digits by default,
/// the host's own name where that namespace is shared.
fn hostname(id: &ContainerId, request: &CreateRequest, namespaces: &Namespaces) -> Result<String> {
    if let Some(name) = &request.hostname {
        let valid = !name.is_empty()
            && name.len() <= 63
            && !name.starts_with(['-', '.'])
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if !valid {
            return Err(Failure::usage(format!("invalid hostname {name:?}")).into());
        }
        if namespaces.uts == NamespaceMode::Host {
            return Err(Failure::usage("conflicting options: hostname and the host's UTS mode").into());
        }
        return Ok(name.clone());
    }
    if namespaces.uts == NamespaceMode::Host || namespaces.network == NetworkMode::Host {
        return Ok(rustix::system::uname().nodename().to_string_lossy().into_owned());
    }
    Ok(id.short().to_owned())
}

/// The environment from nothing: a search path, the host name, the image's, the user's; a later
/// entry of the same name replaces the earlier one in its place.
fn environment(image: &[String], request: &CreateRequest, hostname: &str) -> Vec<String> {
    let mut list: Vec<String> = vec![spec::DEFAULT_PATH.into(), format!("HOSTNAME={hostname}")];
    if request.tty {
        list.push("TERM=xterm".into());
    }
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in image.iter().chain(&request.env) {
        let present = list.iter().position(|other| name(other) == name(entry));
        match (present, entry.contains('=')) {
            (Some(index), true) => list[index].clone_from(entry),
            (None, true) => list.push(entry.clone()),
            // `-e NAME` of a variable that the caller does not have takes it away.
            (Some(index), false) => drop(list.remove(index)),
            (None, false) => {}
        }
    }
    list
}

/// The user's mounts and the image's volumes that they do not cover, parents before children.
fn mounts(volumes: &[String], request: &CreateRequest) -> Result<Vec<Mount>> {
    let mut list = Vec::new();
    for mount in &request.mounts {
        let target = absolute(&mount.target, "mount target")?;
        if target == "/" {
            return Err(Failure::usage("invalid mount target: destination can't be '/'").into());
        }
        if list.iter().any(|other: &Mount| other.target == target) {
            return Err(Failure::usage(format!("Duplicate mount point: {target}")).into());
        }
        list.push(Mount { target, ..name_anonymous(mount.clone())? });
    }
    for target in volumes {
        let target = absolute(target, "volume of the image")?;
        let covered = list.iter().any(|mount: &Mount| mount.target == target)
            || request.tmpfs.iter().any(|tmpfs| tmpfs.target == target);
        if !covered {
            list.push(name_anonymous(Mount {
                source: MountSource::Volume { name: String::new(), anonymous: true, copy: true },
                target,
                read_only: false,
                propagation: None,
                mode: String::new(),
            })?);
        }
    }
    list.sort_by_key(|mount| mount.target.matches('/').count());
    Ok(list)
}

fn name_anonymous(mut mount: Mount) -> Result<Mount> {
    if let MountSource::Volume { name, anonymous: true, .. } = &mut mount.source
        && name.is_empty()
    {
        *name = Volumes::random_name()?;
    }
    Ok(mount)
}

/// A missing source is made as a directory, as Docker's `-v` does.
fn make_source(path: &str) -> Result<()> {
    if Path::new(path).exists() {
        return Ok(());
    }
    fs::create_dir_all(path).with_context(|| format!("create mount source {path}"))
}

/// Only parameters of namespaces that the container owns (CVE-2022-0811 class: no separators).
fn check_sysctls(request: &CreateRequest, namespaces: &Namespaces) -> Result<()> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for (key, value) in &request.sysctls {
        let ipc = IPC.contains(&key.as_str()) || key.starts_with("fs.mqueue.");
        let network = key.starts_with("net.");
        let clean = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !key.contains("..")
            && !value.contains(['\n', '\0']);
        if !clean || !(ipc || network) {
            return Err(Failure::usage(format!("invalid sysctl {key:?}: not a parameter of a namespace"))
                .with_hint("net.*, fs.mqueue.* and the kernel.* parameters of System V IPC can be set")
                .into());
        }
        let own_ipc = namespaces.ipc == NamespaceMode::Private;
        let own_network = matches!(namespaces.network, NetworkMode::Networks | NetworkMode::None);
        if (ipc && !own_ipc) || (network && !own_network) {
            return Err(Failure::usage(format!("sysctl {key:?} is not allowed: its namespace is shared")).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_entries_win_in_place_and_bare_names_remove() {
        let request = CreateRequest { env: vec!["A=2".into(), "B".into(), "C".into()], ..Default::default() };
        let list = environment(&["A=1".into(), "B=1".into()], &request, "h");
        assert_eq!(list[2..], ["A=2"]);
    }

    #[test]
    fn only_namespaced_parameters() {
        let check = |key: &str, value: &str| {
            let request = CreateRequest { sysctls: [(key.into(), value.into())].into(), ..Default::default() };
            check_sysctls(&request, &Namespaces::default())
        };
        check("net.ipv4.ip_forward", "1").unwrap();
        check("kernel.shmmax", "1").unwrap();
        for (key, value) in
            [("kernel.core_pattern", "|/x"), ("net.ipv4.x\ny", "1"), ("net.ipv4.ip_forward", "1\n2"), ("net..x", "1")]
        {
            check(key, value).unwrap_err();
        }
    }
}
