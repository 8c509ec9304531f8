//! `inspect`: a record as Docker would describe it.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;

use super::inspect_view::*;
use super::networking::given;
use super::{exit_code, health, networking};
use crate::cgroup::Cgroups;
use crate::container::handle::{self, Record};
use crate::container::status::Status;
use crate::container::{
    Config, DeviceMapping, DeviceRate, HealthResult, LogOptions, Mount, MountSource, NamespaceMode, Security,
};
use crate::engine::{Engine, lower, network};
use crate::image::Store;
use crate::layout::Layout;

/// How Docker writes a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Paths hidden from a container without privileges (Docker's defaults).
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths it may read only.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Engine {
    /// Describes a container.
    pub fn inspect(&self, reference: &str) -> Result<ContainerView> {
        let id = handle::find(&self.layout, reference)?;
        Ok(view(&self.layout, &self.settled(&id)?))
    }

    /// Describes a container, the bytes of its layers included.
    pub fn inspect_with_size(&self, reference: &str) -> Result<ContainerView> {
        let id = handle::find(&self.layout, reference)?;
        let size = self.size_of(&id)?;
        let mut view = view(&self.layout, &self.settled(&id)?);
        (view.size_rw, view.size_root_fs) = (Some(size.writable), Some(size.total));
        Ok(view)
    }
}

pub(super) fn view(layout: &Layout, record: &Record) -> ContainerView {
    let config = &record.config;
    let id = &config.id;
    let file = |name: &str| layout.container(id).join(name).display().to_string();
    let mut words = config.process.entrypoint.iter().chain(&config.process.command).cloned();
    ContainerView {
        id: id.to_string(),
        created: config.created.to_string(),
        path: words.next().unwrap_or_default(),
        args: words.collect(),
        state: state(layout, record),
        image: config.image.id.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: if config.log.driver == "none" { String::new() } else { layout.log(id).display().to_string() },
        name: format!("/{}", config.name),
        restart_count: record.state.restart_count,
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: String::new(),
        exec_ids: None,
        host_config: host_config(record),
        graph_driver: graph_driver(layout, record),
        size_rw: None,
        size_root_fs: None,
        mounts: config.mounts.iter().map(|mount| mount_view(layout, mount)).collect(),
        config: config_view(record),
        network_settings: networking::settings(record, |name| network::id_of(layout, name)),
    }
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

fn state(layout: &Layout, record: &Record) -> StateView {
    let status = record.status();
    let pid = record.live_init().map_or(0, |process| process.pid);
    StateView {
        status: status.as_str().to_owned(),
        running: status.is_live(),
        paused: status == Status::Paused,
        restarting: status == Status::Restarting,
        oom_killed: record.state.oom_killed,
        dead: false,
        pid,
        exit_code: exit_code(record),
        error: record.state.error.clone(),
        started_at: time(record.state.started),
        finished_at: time(record.state.finished),
        health: health_view(layout, record),
    }
}

pub(super) fn health_view(layout: &Layout, record: &Record) -> Option<HealthView> {
    let health = health::of(layout, record)?;
    let result = |result: HealthResult| HealthResultView {
        start: result.start.to_string(),
        end: result.end.to_string(),
        exit_code: result.exit_code,
        output: result.output,
    };
    Some(HealthView {
        status: health.status.as_str().to_owned(),
        failing_streak: health.failing_streak,
        log: health.log.into_iter().map(result).collect(),
    })
}

fn host_config(record: &Record) -> HostConfigView {
    let config = &record.config;
    let hosts: Vec<String> = config.extra_hosts.iter().map(|host| format!("{}:{}", host.name, host.address)).collect();
    let binds: Vec<String> = config.mounts.iter().filter_map(bind).collect();
    let resources = &config.resources;
    let hidden = !config.security.privileged && !config.security.unconfined_paths;
    let paths = |list: &[&str]| hidden.then(|| list.iter().map(|path| (*path).to_owned()).collect());
    let limit = |limit: u64| i64::try_from(limit).unwrap_or(-1);
    HostConfigView {
        binds: given(&binds),
        container_id_file: String::new(),
        log_config: LogConfigView { kind: config.log.driver.clone(), config: log_options(&config.log) },
        network_mode: networking::mode(config),
        port_bindings: networking::port_bindings(config),
        restart_policy: RestartPolicyView {
            name: config.restart.name().to_owned(),
            maximum_retry_count: config.restart.max_retries(),
        },
        auto_remove: config.auto_remove,
        volume_driver: String::new(),
        volumes_from: None,
        cap_add: given(&capabilities(&config.security.cap_add)),
        cap_drop: given(&capabilities(&config.security.cap_drop)),
        cgroupns_mode: cgroup_namespace(config),
        dns: config.networking.dns.servers.iter().map(ToString::to_string).collect(),
        dns_options: config.networking.dns.options.clone(),
        dns_search: config.networking.dns.search.clone(),
        extra_hosts: given(&hosts),
        group_add: given(&config.process.group_add),
        ipc_mode: match &config.namespaces.ipc {
            NamespaceMode::Private => "private".to_owned(),
            other => mode(other),
        },
        cgroup: String::new(),
        links: networking::links(config),
        oom_score_adj: 0,
        pid_mode: mode(&config.namespaces.pid),
        privileged: config.security.privileged,
        publish_all_ports: config.networking.publish_all,
        readonly_rootfs: config.read_only,
        security_opt: given(&security_options(&config.security)),
        tmpfs: config.tmpfs.iter().map(|tmpfs| (tmpfs.target.clone(), tmpfs.options.clone())).collect(),
        uts_mode: mode(&config.namespaces.uts),
        userns_mode: String::new(),
        shm_size: config.shm_size,
        sysctls: config.sysctls.clone(),
        runtime: "mydocker".to_owned(),
        cpu_shares: resources.cpu_shares.unwrap_or(0),
        memory: resources.memory.unwrap_or(0),
        nano_cpus: resources.nano_cpus.unwrap_or(0),
        cgroup_parent: config.cgroup_parent.clone(),
        blkio_weight: resources.blkio_weight.unwrap_or(0),
        blkio_weight_device: resources
            .blkio_weight_devices
            .iter()
            .map(|device| WeightDeviceView { path: device.path.clone(), weight: device.rate })
            .collect(),
        blkio_device_read_bps: throttled(&resources.read_bps),
        blkio_device_write_bps: throttled(&resources.write_bps),
        blkio_device_read_iops: throttled(&resources.read_iops),
        blkio_device_write_iops: throttled(&resources.write_iops),
        cpu_period: resources.cpu_period.unwrap_or(0),
        cpu_quota: resources.cpu_quota.unwrap_or(0),
        cpuset_cpus: resources.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: resources.cpuset_mems.clone().unwrap_or_default(),
        devices: config.devices.iter().map(device).collect(),
        device_cgroup_rules: given(&config.device_rules),
        memory_reservation: resources.memory_reservation.unwrap_or(0),
        memory_swap: resources.memory_swap.unwrap_or(0),
        memory_swappiness: resources.memory_swappiness,
        oom_kill_disable: resources.oom_kill_disable,
        pids_limit: resources.pids_limit,
        ulimits: config
            .ulimits
            .iter()
            .map(|ulimit| UlimitView { name: ulimit.name.clone(), hard: limit(ulimit.hard), soft: limit(ulimit.soft) })
            .collect(),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
    }
}

fn throttled(devices: &[DeviceRate]) -> Vec<ThrottleDeviceView> {
    devices.iter().map(|device| ThrottleDeviceView { path: device.path.clone(), rate: device.rate }).collect()
}

fn cgroup_namespace(config: &Config) -> String {
    let private = Cgroups::detect().is_ok_and(|cgroups| lower::has_cgroup_namespace(config, &cgroups));
    if private { "private".to_owned() } else { "host".to_owned() }
}

fn device(device: &DeviceMapping) -> DeviceView {
    DeviceView {
        path_on_host: device.host.clone(),
        path_in_container: device.container.clone(),
        cgroup_permissions: device.permissions.clone(),
    }
}

fn mode(mode: &NamespaceMode) -> String {
    match mode {
        NamespaceMode::Private => String::new(),
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::Container(id) => format!("container:{id}"),
    }
}

fn capabilities(names: &[String]) -> Vec<String> {
    names.iter().map(|name| if name == "ALL" { name.clone() } else { format!("CAP_{name}") }).collect()
}

fn security_options(security: &Security) -> Vec<String> {
    let mut options = Vec::new();
    options.extend(security.no_new_privileges.then(|| "no-new-privileges".to_owned()));
    options.extend(security.unconfined_paths.then(|| "systempaths=unconfined".to_owned()));
    options
}

/// The bounds that are in force, also those nobody asked for.
fn log_options(log: &LogOptions) -> BTreeMap<String, String> {
    if log.driver == "none" {
        return BTreeMap::new();
    }
    let size = match log.max_size {
        u64::MAX => "-1".to_owned(),
        size if size % 1_000_000 == 0 => format!("{}m", size / 1_000_000),
        size => size.to_string(),
    };
    BTreeMap::from([("max-size".to_owned(), size), ("max-file".to_owned(), log.max_file.to_string())])
}

/// A mount in the form of `-v`; anonymous volumes have none.
fn bind(mount: &Mount) -> Option<String> {
    let source = match &mount.source {
        MountSource::Host(path) => path,
        MountSource::Volume { anonymous: true, .. } => return None,
        MountSource::Volume { name, .. } => name,
    };
    let mut options: Vec<&str> = Vec::new();
    options.extend(mount.read_only.then_some("ro"));
    options.extend(mount.propagation.as_deref());
    options.extend(mount.mode.split(',').filter(|word| !word.is_empty()));
    let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    Some(format!("{source}:{}{options}", mount.target))
}

fn mount_view(layout: &Layout, mount: &Mount) -> MountView {
    let mut mode: Vec<&str> = mount.mode.split(',').filter(|word| !word.is_empty()).collect();
    if mount.read_only {
        mode.insert(0, "ro");
    }
    let mode = mode.join(",");
    let (destination, rw) = (mount.target.clone(), !mount.read_only);
    match &mount.source {
        MountSource::Host(path) => MountView {
            kind: "bind".to_owned(),
            name: None,
            source: path.clone(),
            destination,
            driver: None,
            mode,
            rw,
            propagation: mount.propagation.clone().unwrap_or_else(|| "rprivate".to_owned()),
        },
        MountSource::Volume { name, .. } => MountView {
            kind: "volume".to_owned(),
            name: Some(name.clone()),
            source: layout.volumes().join(name).join("_data").display().to_string(),
            destination,
            driver: Some("local".to_owned()),
            mode,
            rw,
            propagation: String::new(),
        },
    }
}

fn graph_driver(layout: &Layout, record: &Record) -> GraphDriverView {
    let store = Store::open(layout);
    let layers = record.config.image.layers.iter().rev();
    let lower: Vec<String> = layers.map(|layer| store.layer(layer).display().to_string()).collect();
    let directory = layout.container_overlay(&record.config.id);
    let below = |name: &str| directory.join(name).display().to_string();
    GraphDriverView {
        data: GraphDriverDataView {
            lower_dir: lower.join(":"),
            merged_dir: below("merged"),
            upper_dir: below("upper"),
            work_dir: below("work"),
        },
        name: "overlay2".to_owned(),
    }
}

fn config_view(record: &Record) -> ConfigView {
    let config = &record.config;
    let process = &config.process;
    let anonymous = |mount: &&Mount| matches!(mount.source, MountSource::Volume { anonymous: true, .. });
    let volumes: BTreeMap<String, Empty> =
        config.mounts.iter().filter(anonymous).map(|mount| (mount.target.clone(), Empty {})).collect();
    ConfigView {
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        user: process.user.clone(),
        attach_stdin: process.attach.stdin,
        attach_stdout: process.attach.stdout,
        attach_stderr: process.attach.stderr,
        exposed_ports: networking::exposed_ports(config),
        tty: process.tty,
        open_stdin: process.open_stdin,
        stdin_once: process.stdin_once,
        env: process.env.clone(),
        cmd: given(&process.command),
        healthcheck: config.health.as_ref().map(|check| HealthcheckView {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        image: config.image.name.clone(),
        volumes: if volumes.is_empty() { None } else { Some(volumes) },
        working_dir: process.workdir.clone(),
        entrypoint: given(&process.entrypoint),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        stop_timeout: config.stop_timeout,
        shell: process.shell.clone(),
    }
}
