//! The parts of an OCI runtime spec that every container gets: Docker's defaults for mounts,
//! devices, masked and read-only paths.

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, Mount, MountBuilder};

/// Docker's search path for images that name none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of `/dev/shm` in bytes: 64 MiB.
pub const DEFAULT_SHM_SIZE: u64 = 64 * 1024 * 1024;

/// A mount entry.
pub fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_destination(destination.into())
        .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}

/// A recursive bind mount; `options` are added.
pub fn bind(source: &std::path::Path, destination: &str, options: &[&str]) -> Mount {
    let mut all: Vec<String> = vec!["rbind".into()];
    all.extend(options.iter().map(|&option| option.to_owned()));
    MountBuilder::default().typ("bind").source(source).destination(destination).options(all).build().unwrap_or_default()
}

/// `/proc`, `/dev`, `/dev/pts`, `/sys` as Docker mounts them; `/dev/mqueue` and `/dev/shm` depend
/// on the IPC namespace and are added by the engine, `/sys/fs/cgroup` on the host.
pub fn base_mounts(privileged: bool) -> Vec<Mount> {
    let sys: &[&str] = if privileged { &["nosuid", "noexec", "nodev"] } else { &["nosuid", "noexec", "nodev", "ro"] };
    vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("sysfs", "sysfs", "/sys", sys),
    ]
}

/// The devices that every container has (OCI runtime spec, config-linux.md, "Default Devices").
pub fn default_devices() -> Vec<LinuxDevice> {
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
        .into_iter()
        .filter_map(|(name, major, minor)| {
            LinuxDeviceBuilder::default()
                .path(format!("/dev/{name}"))
                .typ(LinuxDeviceType::C)
                .major(major)
                .minor(minor)
                .file_mode(0o666_u32)
                .uid(0_u32)
                .gid(0_u32)
                .build()
                .ok()
        })
        .collect()
}

/// Paths covered, as Docker covers them: they tell of, or act on, the host.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths made read-only, as Docker does.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
