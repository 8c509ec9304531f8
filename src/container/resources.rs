//! Limits that a container was given: Docker's `HostConfig` in our words. `None` means not given, so
//! that an update can tell what to leave alone.

use serde::{Deserialize, Serialize};

/// What the container may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes of memory, page cache included; -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// Bytes below which memory is not reclaimed while others have some to spare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    /// Bytes of memory and swap together; -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// How readily anonymous memory is swapped out, 0 to 100 (cgroups v1 only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u64>,
    /// At the memory limit processes wait instead of being killed (cgroups v1 only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill_disable: Option<bool>,
    /// Billionths of a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<i64>,
    /// Microseconds after which the quota is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<i64>,
    /// Microseconds of processor time a period; -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// Weight beside other groups: 2 to 262144, 1024 being the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<i64>,
    /// Processors, as a list: `0-2,5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// Processes and threads at a time; 0 and below are unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Weight of block I/O beside other groups: 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_weight: Option<u16>,
    /// The same for particular devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_weight_devices: Vec<DeviceRate>,
    /// Bytes a second read from a device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_bps: Vec<DeviceRate>,
    /// Bytes a second written to a device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write_bps: Vec<DeviceRate>,
    /// Reads a second from a device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_iops: Vec<DeviceRate>,
    /// Writes a second to a device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write_iops: Vec<DeviceRate>,
    /// Bytes of huge pages by page size.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hugetlb: Vec<HugepageLimit>,
    /// Files of the cgroup v2 directory and what is written to them (`memory.oom.group`, `1`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unified: Vec<(String, String)>,
}

/// A number that belongs to a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// Path of the device node on the host.
    pub path: String,
    /// Bytes or operations a second, or a weight.
    pub rate: u64,
}

/// A limit of huge pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// As the kernel names it: `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

impl Resources {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }

    /// These resources, and for whatever `other` limits and these do not, the kernel's own value: put in force after
    /// `other`, they take it back. A set of processors or memory nodes has no such value and stays.
    pub fn lifting(&self, other: &Resources) -> Resources {
        let lift = |own: Option<i64>, other: Option<i64>, free: i64| own.or(other.map(|_| free));
        let mut lifted = Resources {
            memory: lift(self.memory, other.memory, -1),
            memory_swap: lift(self.memory_swap, other.memory_swap, -1),
            cpu_shares: lift(self.cpu_shares, other.cpu_shares, 1024),
            pids_limit: lift(self.pids_limit, other.pids_limit, -1),
            ..self.clone()
        };
        if self.nano_cpus.is_none() {
            lifted.cpu_quota = lift(self.cpu_quota, other.cpu_quota.or(other.nano_cpus), -1);
        }
        lifted
    }

    /// These resources with whatever `change` gives in their place.
    pub fn updated(&self, change: &Resources) -> Resources {
        fn newer<T: Clone>(old: &Option<T>, new: &Option<T>) -> Option<T> {
            new.clone().or_else(|| old.clone())
        }
        fn newer_list<T: Clone>(old: &[T], new: &[T]) -> Vec<T> {
            if new.is_empty() { old.to_vec() } else { new.to_vec() }
        }
        let mut merged = Resources {
            memory: newer(&self.memory, &change.memory),
            memory_reservation: newer(&self.memory_reservation, &change.memory_reservation),
            memory_swap: newer(&self.memory_swap, &change.memory_swap),
            memory_swappiness: newer(&self.memory_swappiness, &change.memory_swappiness),
            oom_kill_disable: newer(&self.oom_kill_disable, &change.oom_kill_disable),
            nano_cpus: newer(&self.nano_cpus, &change.nano_cpus),
            cpu_period: newer(&self.cpu_period, &change.cpu_period),
            cpu_quota: newer(&self.cpu_quota, &change.cpu_quota),
            cpu_shares: newer(&self.cpu_shares, &change.cpu_shares),
            cpuset_cpus: newer(&self.cpuset_cpus, &change.cpuset_cpus),
            cpuset_mems: newer(&self.cpuset_mems, &change.cpuset_mems),
            pids_limit: newer(&self.pids_limit, &change.pids_limit),
            blkio_weight: newer(&self.blkio_weight, &change.blkio_weight),
            blkio_weight_devices: newer_list(&self.blkio_weight_devices, &change.blkio_weight_devices),
            read_bps: newer_list(&self.read_bps, &change.read_bps),
            write_bps: newer_list(&self.write_bps, &change.write_bps),
            read_iops: newer_list(&self.read_iops, &change.read_iops),
            write_iops: newer_list(&self.write_iops, &change.write_iops),
            hugetlb: newer_list(&self.hugetlb, &change.hugetlb),
            unified: newer_list(&self.unified, &change.unified),
        };
        // `--cpus` and the pair of period and quota say the same thing: the later word counts.
        if change.nano_cpus.is_some() {
            (merged.cpu_period, merged.cpu_quota) = (None, None);
        } else if change.cpu_period.is_some() || change.cpu_quota.is_some() {
            merged.nano_cpus = None;
        }
        merged
    }
}
