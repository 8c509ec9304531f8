//! OCI `linux.resources` → what is written into which file. Lowering is pure and has golden tests; writing is the
//! rest. Sources: OCI runtime spec, config-linux.md; kernel, `Documentation/admin-guide/cgroup-v1/` and
//! `cgroup-v2.rst`.

use std::fs;

use anyhow::Result;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::{Cgroups, Group, Mode};
use crate::error::Failure;

/// One limit in the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Whose file it is.
    pub controller: &'static str,
    /// What it limits, for errors.
    pub what: &'static str,
    /// File and text. Of several the first that exists is written: the same limit under names of different kernels.
    pub ways: Vec<(String, String)>,
}

impl Setting {
    fn new(controller: &'static str, what: &'static str, file: &str, value: impl ToString) -> Setting {
        Setting { controller, what, ways: vec![(file.to_owned(), value.to_string())] }
    }
}

/// The controllers beside the usual ones that these limits need a v1 group in.
pub fn extra_controllers(resources: &LinuxResources) -> Vec<&'static str> {
    let mut extra = Vec::new();
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if resources.cpu().as_ref().is_some_and(|cpu| given(cpu.cpus()) || given(cpu.mems())) {
        extra.push("cpuset");
    }
    if resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty()) {
        extra.push("hugetlb");
    }
    extra
}

/// Lowers resources; `mode` tells the kernel's interface.
pub fn settings(resources: &LinuxResources, mode: Mode) -> Vec<Setting> {
    let mut list = Vec::new();
    let unified = mode == Mode::V2;
    if let Some(cpu) = resources.cpu() {
        // The cpuset first: a process must not run elsewhere, not even for an instant.
        cpuset(cpu, &mut list);
        if unified { cpu_v2(cpu, &mut list) } else { cpu_v1(cpu, &mut list) }
    }
    if let Some(memory) = resources.memory() {
        if unified { memory_v2(memory, &mut list) } else { memory_v1(memory, &mut list) }
    }
    if let Some(pids) = resources.pids() {
        list.push(Setting::new(
            "pids",
            "pids limit",
            "pids.max",
            or_max(Some(pids.limit()).filter(|limit| *limit > 0)),
        ));
    }
    if let Some(block) = resources.block_io() {
        if unified { block_v2(block, &mut list) } else { block_v1(block, &mut list) }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = if unified { "max" } else { "limit_in_bytes" };
        let file = format!("hugetlb.{}.{file}", limit.page_size());
        list.push(Setting::new("hugetlb", "huge page limit", &file, limit.limit()));
    }
    if unified {
        let mut words: Vec<_> = resources.unified().iter().flatten().collect();
        words.sort();
        for (file, value) in words {
            list.push(Setting { controller: "", what: "cgroup file", ways: vec![(file.clone(), value.clone())] });
        }
    }
    list
}

/// A v1 weight of 2 to 262144 as a v2 weight of 1 to 10000, the usual 1024 becoming the usual 100. A straight line
/// through the ends, as older engines draw it, makes 39 of 1024: less than half of what a neighbour without any
/// weight gets. This is the parabola in the logarithm through all three points.
pub fn weight_of_shares(shares: u64) -> u64 {
    if shares == 0 {
        return 0;
    }
    let exponent = (shares.clamp(2, 262_144) as f64).log2();
    let power = (exponent * exponent + 125.0 * exponent) / 612.0 - 7.0 / 34.0;
    (10f64.powf(power).ceil() as u64).clamp(1, 10_000)
}

fn or_max(limit: Option<i64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}

fn cpuset(cpu: &LinuxCpu, list: &mut Vec<Setting>) {
    for (file, what, value) in
        [("cpuset.cpus", "set of processors", cpu.cpus()), ("cpuset.mems", "set of memory nodes", cpu.mems())]
    {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            list.push(Setting::new("cpuset", what, file, value));
        }
    }
}

fn cpu_v1(cpu: &LinuxCpu, list: &mut Vec<Setting>) {
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        list.push(Setting::new("cpu", "cpu shares", "cpu.shares", shares));
    }
    if let Some(period) = cpu.period().filter(|period| *period > 0) {
        list.push(Setting::new("cpu", "cpu period", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        list.push(Setting::new("cpu", "cpu quota", "cpu.cfs_quota_us", quota.max(-1)));
    }
}

fn cpu_v2(cpu: &LinuxCpu, list: &mut Vec<Setting>) {
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        list.push(Setting::new("cpu", "cpu shares", "cpu.weight", weight_of_shares(shares)));
    }
    let (quota, period) = (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period > 0));
    if quota.is_some() || period.is_some() {
        let quota = or_max(quota.filter(|quota| *quota > 0));
        let period = period.unwrap_or(100_000);
        list.push(Setting::new("cpu", "cpu quota", "cpu.max", format!("{quota} {period}")));
    }
}

fn memory_v1(memory: &LinuxMemory, list: &mut Vec<Setting>) {
    // Memory and swap together may never be less than memory alone, so which comes first depends on whether the
    // limits rise or fall: what is refused at first is written again after the rest ([`Group::apply`]).
    for (file, what, value) in [
        ("memory.limit_in_bytes", "memory limit", memory.limit()),
        ("memory.memsw.limit_in_bytes", "memory and swap limit", memory.swap()),
        ("memory.soft_limit_in_bytes", "memory reservation", memory.reservation()),
    ] {
        if let Some(value) = value.filter(|value| *value != 0) {
            list.push(Setting::new("memory", what, file, value.max(-1)));
        }
    }
    if let Some(value) = memory.swappiness() {
        list.push(Setting::new("memory", "memory swappiness", "memory.swappiness", value));
    }
    if let Some(disable) = memory.disable_oom_killer() {
        list.push(Setting::new("memory", "out-of-memory killer", "memory.oom_control", u8::from(disable)));
    }
}

fn memory_v2(memory: &LinuxMemory, list: &mut Vec<Setting>) {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        list.push(Setting::new("memory", "swap limit", "memory.swap.max", or_max(swap_alone(swap, limit))));
    }
    if let Some(limit) = limit {
        list.push(Setting::new("memory", "memory limit", "memory.max", or_max(Some(limit).filter(|limit| *limit > 0))));
    }
    if let Some(low) = memory.reservation().filter(|low| *low != 0) {
        list.push(Setting::new("memory", "memory reservation", "memory.low", or_max(Some(low).filter(|low| *low > 0))));
    }
}

/// v2 counts swap alone; `None` is no limit.
pub(super) fn swap_alone(swap: i64, limit: Option<i64>) -> Option<i64> {
    (swap >= 0).then(|| (swap - limit.unwrap_or(0).max(0)).max(0))
}

/// A v1 weight of block I/O of 10 to 1000 as a v2 weight of 1 to 10000.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.max(10)) - 10) * 9999 / 990
}

fn throttled(devices: &Option<Vec<LinuxThrottleDevice>>) -> impl Iterator<Item = &LinuxThrottleDevice> {
    devices.iter().flatten()
}

fn block_v1(block: &LinuxBlockIo, list: &mut Vec<Setting>) {
    let weight_files = ["blkio.weight", "blkio.bfq.weight"];
    if let Some(weight) = block.weight().filter(|weight| *weight > 0) {
        let ways = weight_files.map(|file| (file.to_owned(), weight.to_string())).to_vec();
        list.push(Setting { controller: "blkio", what: "block I/O weight", ways });
    }
    for device in block.weight_device().iter().flatten() {
        let text = format!("{}:{} {}", device.major(), device.minor(), device.weight().unwrap_or_default());
        let ways = weight_files.map(|file| (format!("{file}_device"), text.clone())).to_vec();
        list.push(Setting { controller: "blkio", what: "block I/O weight of a device", ways });
    }
    for (file, what, devices) in [
        ("read_bps", "read rate", block.throttle_read_bps_device()),
        ("write_bps", "write rate", block.throttle_write_bps_device()),
        ("read_iops", "read operations", block.throttle_read_iops_device()),
        ("write_iops", "write operations", block.throttle_write_iops_device()),
    ] {
        for device in throttled(devices) {
            let text = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            list.push(Setting::new("blkio", what, &format!("blkio.throttle.{file}_device"), text));
        }
    }
}

fn block_v2(block: &LinuxBlockIo, list: &mut Vec<Setting>) {
    // BFQ's weight has v1's range.
    if let Some(weight) = block.weight().filter(|weight| *weight > 0) {
        let ways = vec![
            ("io.bfq.weight".to_owned(), weight.to_string()),
            ("io.weight".to_owned(), format!("default {}", io_weight(weight))),
        ];
        list.push(Setting { controller: "io", what: "block I/O weight", ways });
    }
    for device in block.weight_device().iter().flatten() {
        let (number, weight) = (format!("{}:{}", device.major(), device.minor()), device.weight().unwrap_or(10));
        let ways = vec![
            ("io.bfq.weight".to_owned(), format!("{number} {weight}")),
            ("io.weight".to_owned(), format!("{number} {}", io_weight(weight))),
        ];
        list.push(Setting { controller: "io", what: "block I/O weight of a device", ways });
    }
    for (key, what, devices) in [
        ("rbps", "read rate", block.throttle_read_bps_device()),
        ("wbps", "write rate", block.throttle_write_bps_device()),
        ("riops", "read operations", block.throttle_read_iops_device()),
        ("wiops", "write operations", block.throttle_write_iops_device()),
    ] {
        for device in throttled(devices) {
            let text = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            list.push(Setting::new("io", what, "io.max", text));
        }
    }
}

impl Cgroups {
    /// Makes sure that the group has the `extra` controllers' directories, too, with its processes in them.
    ///
    /// # Errors
    /// As [`Cgroups::create`] and [`Group::gather`].
    pub fn extend(&self, place: &super::Place, extra: &[&str]) -> Result<Group> {
        let present = self.group(place).existing();
        if extra.iter().all(|name| present.directory(name).is_some()) {
            return Ok(present);
        }
        let mut wanted: Vec<&str> = extra.to_vec();
        let optional = super::v1::OPTIONAL.into_iter();
        wanted.extend(optional.filter(|name| present.directory(name).is_some()));
        let group = self.create(place, &wanted)?;
        group.gather()?;
        Ok(group)
    }
}

impl Group {
    /// Puts limits in force.
    ///
    /// # Errors
    /// The host lacks the controller or the file, or the kernel refuses the value. The others are not undone.
    pub fn apply(&self, settings: &[Setting]) -> Result<()> {
        let mut refused = Vec::new();
        for setting in settings {
            match self.write(setting) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused.push(setting),
                result => result.map_err(|error| self.explain(setting, &error))?,
            }
        }
        // Limits that depend on each other: the rest is in place now.
        for setting in refused {
            self.write(setting).map_err(|error| self.explain(setting, &error))?;
        }
        Ok(())
    }

    fn write(&self, setting: &Setting) -> std::io::Result<()> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let directory = self.directory(setting.controller).ok_or_else(missing)?;
        let mut result = Err(missing());
        for (file, value) in &setting.ways {
            // Without O_CREAT: a file that the kernel does not have is told by ENOENT.
            result = fs::OpenOptions::new()
                .write(true)
                .open(directory.join(file))
                .and_then(|file| rustix::io::write(&file, value.as_bytes()).map_err(Into::into).map(drop));
            if !result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                return result;
            }
        }
        result
    }

    fn explain(&self, setting: &Setting, error: &std::io::Error) -> anyhow::Error {
        let (file, value) = setting.ways.last().map_or(("", ""), |(file, value)| (file, value));
        let failure = Failure::engine(format!("set {} ({file} = {value}): {error}", setting.what));
        let hint = match error.raw_os_error() {
            Some(libc::EBUSY) => {
                "the container uses more than that now; stop it first, or choose a higher limit".into()
            }
            Some(libc::EINVAL | libc::ERANGE) => "the kernel refuses this value".into(),
            Some(libc::ENODEV) => "the device is unknown to the kernel, or is a partition: name the whole disk".into(),
            Some(libc::EACCES | libc::EPERM) => "this part of the cgroup tree is not ours to write".into(),
            _ if self.mode == Mode::V2 && !setting.controller.is_empty() => format!(
                "the controller {} is not enabled for this group: see cgroup.subtree_control of its parents",
                setting.controller
            ),
            _ => "this kernel, or its cgroup hierarchy, does not have it".into(),
        };
        failure.with_hint(hint).into()
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
