//! Limits: the flags of `run`, `create` and `update`.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::quantity;
use super::spec::{self, invalid, list, switch, value};
use crate::container::{CgroupDriver, DeviceRate, HugepageLimit, Resources};

/// Flags that `run`, `create` and `update` share.
pub(super) fn flags(command: Command) -> Command {
    command
        .arg(value("blkio-weight", None, "uint16", "Block IO (relative weight), between 10 and 1000, or 0 to disable"))
        .arg(value("cpu-period", None, "int", "Limit CPU CFS (Completely Fair Scheduler) period"))
        .arg(value("cpu-quota", None, "int", "Limit CPU CFS (Completely Fair Scheduler) quota"))
        .arg(value("cpu-shares", Some('c'), "int", "CPU shares (relative weight)"))
        .arg(value("cpus", None, "decimal", "Number of CPUs"))
        .arg(value("cpuset-cpus", None, "string", "CPUs in which to allow execution (0-3, 0,1)"))
        .arg(value("cpuset-mems", None, "string", "MEMs in which to allow execution (0-3, 0,1)"))
        .arg(value("memory", Some('m'), "bytes", "Memory limit"))
        .arg(value("memory-reservation", None, "bytes", "Memory soft limit"))
        .arg(value("memory-swap", None, "bytes", "Swap limit equal to memory plus swap: -1 to enable unlimited swap"))
        .arg(value("pids-limit", None, "int", "Tune container pids limit (set -1 for unlimited)"))
        .arg(list("cgroup-conf", None, "list", "Files of the cgroup v2 group (memory.oom.group=1)"))
        .arg(list("hugetlb", None, "list", "Limit huge pages (PAGESIZE=BYTES, as 2MB=64m)"))
}

/// Flags that only `run` and `create` have.
pub(super) fn create_flags(command: Command) -> Command {
    command
        .arg(list("blkio-weight-device", None, "list", "Block IO weight (relative device weight)"))
        .arg(value("cgroup-driver", None, "string", "Who makes the cgroup: cgroupfs (default) or systemd"))
        .arg(value("cgroup-parent", None, "string", "Optional parent cgroup for the container"))
        .arg(value("cgroupns", None, "string", "Cgroup namespace to use: host or private"))
        .arg(list("device-read-bps", None, "list", "Limit read rate (bytes per second) from a device"))
        .arg(list("device-read-iops", None, "list", "Limit read rate (IO per second) from a device"))
        .arg(list("device-write-bps", None, "list", "Limit write rate (bytes per second) to a device"))
        .arg(list("device-write-iops", None, "list", "Limit write rate (IO per second) to a device"))
        .arg(value("memory-swappiness", None, "int", "Tune container memory swappiness (0 to 100)"))
        .arg(switch("oom-kill-disable", None, "Disable OOM Killer"))
}

/// Lowers the flags; which of them make sense together, and on this host, is the engine's question.
pub(super) fn resources(matches: &ArgMatches) -> Result<Resources> {
    let mut resources = Resources {
        memory: bytes(matches, "memory")?,
        memory_reservation: bytes(matches, "memory-reservation")?,
        memory_swap: bytes(matches, "memory-swap")?,
        nano_cpus: cpus(matches)?,
        cpu_period: nonzero(spec::integer(matches, "cpu-period")?),
        cpu_quota: nonzero(spec::integer(matches, "cpu-quota")?),
        cpu_shares: nonzero(spec::integer(matches, "cpu-shares")?),
        cpuset_cpus: spec::text(matches, "cpuset-cpus").filter(|text| !text.is_empty()),
        cpuset_mems: spec::text(matches, "cpuset-mems").filter(|text| !text.is_empty()),
        pids_limit: nonzero(spec::integer(matches, "pids-limit")?),
        blkio_weight: spec::integer(matches, "blkio-weight")?.filter(|weight| *weight != 0),
        hugetlb: hugetlb(matches)?,
        unified: unified(matches)?,
        ..Resources::default()
    };
    // `update` has only the flags above.
    if matches.try_contains_id("memory-swappiness").is_ok() {
        resources.memory_swappiness = spec::integer::<i64>(matches, "memory-swappiness")?
            .filter(|value| *value != -1)
            .map(|value| u64::try_from(value).unwrap_or(u64::MAX));
    }
    if matches.try_contains_id("oom-kill-disable").is_ok() {
        resources.oom_kill_disable = spec::is_set(matches, "oom-kill-disable").then_some(true);
        resources.blkio_weight_devices = rates(matches, "blkio-weight-device", plain_number)?;
        resources.read_bps = rates(matches, "device-read-bps", quantity::binary_size)?;
        resources.write_bps = rates(matches, "device-write-bps", quantity::binary_size)?;
        resources.read_iops = rates(matches, "device-read-iops", plain_number)?;
        resources.write_iops = rates(matches, "device-write-iops", plain_number)?;
    }
    Ok(resources)
}

/// Docker has it as an option of its daemon, `native.cgroupdriver`.
pub(super) fn cgroup_driver(matches: &ArgMatches) -> Result<CgroupDriver> {
    match spec::text(matches, "cgroup-driver").as_deref() {
        None | Some("" | "cgroupfs") => Ok(CgroupDriver::Cgroupfs),
        Some("systemd") => Ok(CgroupDriver::Systemd),
        Some(other) => Err(invalid("cgroup-driver", other, "use cgroupfs or systemd")),
    }
}

/// Docker takes 0 for "not given".
fn nonzero(number: Option<i64>) -> Option<i64> {
    number.filter(|number| *number != 0)
}

/// Bytes; `-1` is unlimited.
fn bytes(matches: &ArgMatches, flag: &str) -> Result<Option<i64>> {
    let Some(text) = spec::text(matches, flag) else { return Ok(None) };
    if text == "-1" {
        return Ok(Some(-1));
    }
    match quantity::binary_size(&text).and_then(|size| i64::try_from(size).ok()) {
        Some(size) => Ok(nonzero(Some(size))),
        None => Err(invalid(flag, &text, format!("invalid size: '{text}'"))),
    }
}

/// A decimal number of processors, in billionths: exactly, not through a floating point number.
fn cpus(matches: &ArgMatches) -> Result<Option<i64>> {
    let Some(text) = spec::text(matches, "cpus") else { return Ok(None) };
    match billionths(&text) {
        Some(nano) => Ok(nonzero(Some(nano))),
        None => Err(invalid("cpus", &text, "write a number of processors such as 0.5")),
    }
}

fn billionths(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i64>().ok() };
    number(whole)?.checked_mul(1_000_000_000)?.checked_add(number(&format!("{fraction:0<9}"))?)
}

fn plain_number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn rates(matches: &ArgMatches, flag: &str, number: fn(&str) -> Option<u64>) -> Result<Vec<DeviceRate>> {
    let mut rates = Vec::new();
    for text in spec::texts(matches, flag) {
        let (path, rate) =
            text.rsplit_once(':').ok_or_else(|| invalid(flag, &text, "bad format: write DEVICE:NUMBER"))?;
        if !path.starts_with("/dev/") {
            return Err(invalid(flag, &text, "bad format for device path: it begins with /dev/"));
        }
        let rate = number(rate).ok_or_else(|| {
            invalid(flag, &text, "invalid rate for device: write DEVICE:NUMBER, for bytes with a unit such as kb or mb")
        })?;
        rates.push(DeviceRate { path: path.to_owned(), rate });
    }
    Ok(rates)
}

fn hugetlb(matches: &ArgMatches) -> Result<Vec<HugepageLimit>> {
    let mut limits = Vec::new();
    for text in spec::texts(matches, "hugetlb") {
        let (size, limit) = text.split_once('=').ok_or_else(|| invalid("hugetlb", &text, "write PAGESIZE=BYTES"))?;
        let size = size.to_ascii_uppercase();
        let known = size.strip_suffix('B').and_then(|rest| rest.strip_suffix(['K', 'M', 'G']));
        if known.is_none_or(|digits| digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit())) {
            return Err(invalid("hugetlb", &text, "a page size is written as 2MB or 1GB"));
        }
        let limit = quantity::binary_size(limit).ok_or_else(|| invalid("hugetlb", &text, "write bytes such as 64m"))?;
        limits.push(HugepageLimit { page_size: size, limit });
    }
    Ok(limits)
}

fn unified(matches: &ArgMatches) -> Result<Vec<(String, String)>> {
    let pair = |text: String| match text.split_once('=') {
        Some((file, value)) if !file.is_empty() => Ok((file.to_owned(), value.to_owned())),
        _ => Err(invalid("cgroup-conf", &text, "write FILE=VALUE")),
    };
    spec::texts(matches, "cgroup-conf").into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_read_exactly() {
        for (text, nano) in [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("1.", 1_000_000_000)] {
            assert_eq!(billionths(text), Some(nano), "{text}");
        }
        for bad in ["", ".", "-1", "1e3", "0.0000000001", "a", "99999999999"] {
            assert_eq!(billionths(bad), None, "{bad}");
        }
    }
}
