//! Limits, checked against what this host can do: Docker's rules and Docker's words. Nonsense is an error before
//! anything exists; what this host cannot apply is discarded with a warning, never in silence.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;

use anyhow::Result;

use crate::cgroup::{Cgroups, Group, Mode, Place};
use crate::container::{CgroupDriver, Config, DeviceRate, Resources};
use crate::error::Failure;

/// Least memory that a container can start with, bytes.
const LEAST_MEMORY: i64 = 6 << 20;

/// Where a container's cgroup lies.
pub fn place(config: &Config) -> Result<Place> {
    match config.cgroup_driver {
        CgroupDriver::Cgroupfs => Place::new(&config.cgroup_parent, config.id.as_str()),
        CgroupDriver::Systemd => Place::scope(&config.cgroup_parent, config.id.as_str()),
    }
}

/// The cgroup of a container that runs: what is there of it.
pub fn group(cgroups: &Cgroups, config: &Config) -> Result<Group> {
    Ok(cgroups.group(&place(config)?).existing())
}

/// Checks limits that make sense by themselves or do not. Pure but for the host's processors, memory nodes and
/// device nodes.
pub fn validate(resources: &Resources) -> Result<()> {
    memory(resources)?;
    processors(resources)?;
    if resources.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
        return Err(refused("Range of blkio weight is from 10 to 1000"));
    }
    for device in &resources.blkio_weight_devices {
        if !(10..=1000).contains(&device.rate) && device.rate != 0 {
            return Err(refused(format!("Range of blkio weight is from 10 to 1000 ({})", device.path)));
        }
    }
    rates(resources).try_for_each(|device| device_number(&device.path).map(drop))?;
    for (file, _) in &resources.unified {
        let plain = file.contains('.') && file.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
        if !plain || file.starts_with("cgroup.") {
            return Err(refused(format!("invalid cgroup file {file:?}"))
                .context(Failure::usage("--cgroup-conf takes a controller's file, such as memory.oom.group=1")));
        }
    }
    Ok(())
}

fn refused(text: impl Into<String>) -> anyhow::Error {
    Failure::usage(text).into()
}

fn memory(resources: &Resources) -> Result<()> {
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let (limit, swap) = (given(resources.memory), given(resources.memory_swap));
    let reservation = given(resources.memory_reservation);
    if limit.is_some_and(|limit| limit < LEAST_MEMORY && limit != -1) {
        return Err(refused("Minimum memory limit allowed is 6MB"));
    }
    let limit = limit.filter(|limit| *limit > 0);
    match (swap, limit) {
        (Some(swap), _) if swap < -1 => {
            return Err(refused("invalid memory and swap limit: it must be positive, or -1 for unlimited"));
        }
        (Some(swap), Some(limit)) if swap > 0 && swap < limit => {
            return Err(refused("Minimum memoryswap limit should be larger than memory limit, see usage"));
        }
        (Some(swap), None) if swap > 0 => {
            return Err(refused("You should always set the Memory limit when using Memoryswap limit, see usage"));
        }
        _ => {}
    }
    if let Some(swappiness) = resources.memory_swappiness.filter(|value| *value > 100) {
        return Err(refused(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    if let Some(reservation) = reservation {
        if reservation < LEAST_MEMORY {
            return Err(refused("Minimum memory reservation allowed is 6MB"));
        }
        if limit.is_some_and(|limit| limit < reservation) {
            return Err(refused("Minimum memory limit can not be less than memory reservation limit, see usage"));
        }
    }
    Ok(())
}

fn processors(resources: &Resources) -> Result<()> {
    let online = list_of("/sys/devices/system/cpu/online");
    let count = online.len().max(1);
    if let Some(nano) = resources.nano_cpus.filter(|nano| *nano != 0) {
        for (other, name) in [(resources.cpu_period, "Period"), (resources.cpu_quota, "Quota")] {
            if other.is_some_and(|value| value != 0) {
                return Err(refused(format!("Conflicting options: Nano CPUs and CPU {name} cannot both be set")));
            }
        }
        if nano < 10_000_000 || nano > count as i64 * 1_000_000_000 {
            return Err(refused(format!(
                "Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
            )));
        }
    }
    if resources.cpu_shares.is_some_and(|shares| shares < 0) {
        return Err(refused("invalid CPU shares: the value must be positive"));
    }
    if resources.cpu_period.is_some_and(|period| period != 0 && !(1000..=1_000_000).contains(&period)) {
        return Err(refused("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"));
    }
    if resources.cpu_quota.is_some_and(|quota| quota != 0 && quota != -1 && quota < 1000) {
        return Err(refused("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    let nodes = list_of("/sys/devices/system/node/online");
    let nodes = if nodes.is_empty() { BTreeSet::from([0]) } else { nodes };
    for (text, available, what, plural) in
        [(&resources.cpuset_cpus, &online, "cpus", "CPUs"), (&resources.cpuset_mems, &nodes, "mems", "memory nodes")]
    {
        let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { continue };
        let wanted = parse_list(text).ok_or_else(|| refused(format!("Invalid value {text} for cpuset {what}")))?;
        if !wanted.is_subset(available) {
            let available: Vec<String> = available.iter().map(ToString::to_string).collect();
            return Err(refused(format!(
                "Requested {plural} are not available - requested {text}, available: {}",
                available.join(",")
            )));
        }
    }
    Ok(())
}

/// Every device that a rate or a weight belongs to.
fn rates(resources: &Resources) -> impl Iterator<Item = &DeviceRate> {
    let Resources { blkio_weight_devices, read_bps, write_bps, read_iops, write_iops, .. } = resources;
    [blkio_weight_devices, read_bps, write_bps, read_iops, write_iops].into_iter().flatten()
}

/// Major and minor number of a block device.
pub fn device_number(path: &str) -> Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).map_err(|error| {
        Failure::usage(format!("block device {path}: {error}")).with_hint("lsblk lists this host's block devices")
    })?;
    if !metadata.file_type().is_block_device() {
        return Err(Failure::usage(format!("{path} is not a block device"))
            .with_hint("name a disk such as /dev/sda; the file system's is shown by df")
            .into());
    }
    Ok((rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())))
}

/// The numbers of a kernel list such as `0-2,5`; `None` when it is none.
fn parse_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // The kernel's own bound on processors is 8192.
        if first > last || last >= 8192 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn list_of(path: &str) -> BTreeSet<u32> {
    fs::read_to_string(path).ok().and_then(|text| parse_list(&text)).unwrap_or_default()
}

/// Takes away what this host cannot apply and completes the rest; what to tell the user. Costs nothing where nothing
/// is limited.
pub fn fit(resources: &mut Resources, place: &Place) -> Result<Vec<String>> {
    if resources.is_empty() {
        return Ok(Vec::new());
    }
    let host = Host { cgroups: Cgroups::detect()?, place };
    let mut warnings = Vec::new();
    fit_memory(resources, &host, &mut warnings);
    fit_processors(resources, &host, &mut warnings)?;
    if resources.pids_limit.is_some() && !host.has("pids", "pids.max", "pids.max") {
        resources.pids_limit = None;
        warnings.push(discarded("PIDs limit capabilities", "PIDs limit"));
    }
    fit_block_io(resources, &host, &mut warnings);
    for limit in &resources.hugetlb {
        let file = |end: &str| format!("hugetlb.{}.{end}", limit.page_size);
        if !host.has("hugetlb", &file("limit_in_bytes"), &file("max")) {
            return Err(Failure::engine(format!("this host cannot limit huge pages of {}", limit.page_size))
                .with_hint("see /sys/kernel/mm/hugepages for its sizes, and `mydocker info` for its cgroup controllers")
                .into());
        }
    }
    if !resources.unified.is_empty() && host.cgroups.mode != Mode::V2 {
        return Err(Failure::engine("--cgroup-conf needs cgroups v2, and this host has v1").into());
    }
    Ok(warnings)
}

struct Host<'a> {
    cgroups: Cgroups,
    place: &'a Place,
}

impl Host<'_> {
    /// Whether the controller is there under its name in either version, with the file.
    fn has(&self, controller: &str, v1: &str, v2: &str) -> bool {
        let file = if self.cgroups.mode == Mode::V2 { v2 } else { v1 };
        !file.is_empty() && self.cgroups.has_file(self.place, controller, file)
    }
}

/// Docker's sentence.
fn discarded(capability: &str, what: &str) -> String {
    format!("Your kernel does not support {capability} or the cgroup is not mounted. {what} discarded.")
}

fn fit_memory(resources: &mut Resources, host: &Host<'_>, warnings: &mut Vec<String>) {
    let positive = |value: Option<i64>| value.filter(|value| *value > 0);
    if resources.memory.is_some() && !host.has("memory", "memory.limit_in_bytes", "memory.max") {
        (resources.memory, resources.memory_swap) = (None, None);
        warnings.push(discarded("memory limit capabilities", "Limitation"));
    }
    if let Some(memory) = positive(resources.memory) {
        // As much swap as memory, unless told otherwise.
        let swap = resources.memory_swap.filter(|swap| *swap != 0).unwrap_or(memory.saturating_mul(2));
        resources.memory_swap = Some(swap);
        if !host.has("memory", "memory.memsw.limit_in_bytes", "memory.swap.max") {
            resources.memory_swap = Some(-1);
            warnings.push(
                "Your kernel does not support swap limit capabilities or the cgroup is not mounted. \
                 Memory limited without swap."
                    .into(),
            );
        }
    }
    if resources.memory_reservation.is_some() && !host.has("memory", "memory.soft_limit_in_bytes", "memory.low") {
        resources.memory_reservation = None;
        warnings.push(discarded("memory soft limit capabilities", "Limitation"));
    }
    if resources.memory_swappiness.is_some() && !host.has("memory", "memory.swappiness", "") {
        resources.memory_swappiness = None;
        warnings.push(discarded("memory swappiness capabilities", "Memory swappiness"));
    }
    if resources.oom_kill_disable == Some(true) {
        if !host.has("memory", "memory.oom_control", "") {
            resources.oom_kill_disable = None;
            warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
        } else if positive(resources.memory).is_none() {
            warnings.push(
                "OOM killer is disabled for the container, but no memory limit is set, \
                 this can result in the system running out of resources."
                    .into(),
            );
        }
    }
}

fn fit_processors(resources: &mut Resources, host: &Host<'_>, warnings: &mut Vec<String>) -> Result<()> {
    let quota = host.has("cpu", "cpu.cfs_quota_us", "cpu.max");
    if resources.nano_cpus.is_some_and(|nano| nano != 0) && !quota {
        return Err(refused(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ));
    }
    if (resources.cpu_period.is_some() || resources.cpu_quota.is_some()) && !quota {
        (resources.cpu_period, resources.cpu_quota) = (None, None);
        warnings.push(discarded("CPU CFS scheduler", "CPU period and quota"));
    }
    if resources.cpu_shares.is_some() && !host.has("cpu", "cpu.shares", "cpu.weight") {
        resources.cpu_shares = None;
        warnings.push(discarded("CPU shares", "Shares"));
    }
    let cpuset = resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some();
    if cpuset && !host.has("cpuset", "cpuset.cpus", "cpuset.cpus") {
        (resources.cpuset_cpus, resources.cpuset_mems) = (None, None);
        warnings.push(discarded("cpuset", "Cpuset"));
    }
    Ok(())
}

fn fit_block_io(resources: &mut Resources, host: &Host<'_>, warnings: &mut Vec<String>) {
    let weight =
        [("blkio", "blkio.weight"), ("blkio", "blkio.bfq.weight"), ("io", "io.weight"), ("io", "io.bfq.weight")]
            .into_iter()
            .any(|(controller, file)| host.cgroups.has_file(host.place, controller, file));
    if resources.blkio_weight.is_some() && !weight {
        resources.blkio_weight = None;
        warnings.push(discarded("Block I/O weight", "Weight"));
    }
    if !resources.blkio_weight_devices.is_empty() && !weight {
        resources.blkio_weight_devices.clear();
        warnings.push(discarded("Block I/O weight_device", "Weight-device"));
    }
    for (rates, file, words) in [
        (&mut resources.read_bps, "read_bps", "BPS Block I/O read limit"),
        (&mut resources.write_bps, "write_bps", "BPS Block I/O write limit"),
        (&mut resources.read_iops, "read_iops", "IOPS Block read limit"),
        (&mut resources.write_iops, "write_iops", "IOPS Block write limit"),
    ] {
        let v1 = format!("blkio.throttle.{file}_device");
        if !rates.is_empty() && !host.has("blkio", &v1, "") && !host.has("io", "", "io.max") {
            rates.clear();
            warnings.push(discarded(words, words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        let cases: [(Resources, &str); 10] = [
            (Resources { memory: Some(4 << 20), ..Resources::default() }, "Minimum memory limit allowed is 6MB"),
            (Resources { memory: Some(-5), ..Resources::default() }, "Minimum memory limit allowed is 6MB"),
            (Resources { memory_swap: Some(1 << 30), ..Resources::default() }, "always set the Memory limit"),
            (
                Resources { memory: Some(64 << 20), memory_swap: Some(32 << 20), ..Resources::default() },
                "larger than memory limit",
            ),
            (Resources { memory_swappiness: Some(101), ..Resources::default() }, "range is 0-100"),
            (Resources { nano_cpus: Some(1 << 50), ..Resources::default() }, "Range of CPUs is from 0.01 to"),
            (Resources { cpu_period: Some(10), ..Resources::default() }, "CPU cfs period can not be less"),
            (
                Resources { cpuset_cpus: Some("0-x".into()), ..Resources::default() },
                "Invalid value 0-x for cpuset cpus",
            ),
            (
                Resources { cpuset_cpus: Some("4000".into()), ..Resources::default() },
                "Requested CPUs are not available",
            ),
            (Resources { blkio_weight: Some(5), ..Resources::default() }, "from 10 to 1000"),
        ];
        for (resources, words) in cases {
            let text = validate(&resources).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
        validate(&Resources { memory: Some(6 << 20), nano_cpus: Some(500_000_000), ..Resources::default() }).unwrap();
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(parse_list("0-2,5\n"), Some(BTreeSet::from([0, 1, 2, 5])));
        for bad in ["", "a", "2-1", "1,,2", "-1", "0-99999999"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }
}
