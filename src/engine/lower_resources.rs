//! `Config` → OCI `linux.resources`.

use std::collections::HashMap;

use anyhow::Result;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxHugepageLimit, LinuxHugepageLimitBuilder, LinuxMemory, LinuxPids,
    LinuxResources, LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};

use super::resources::device_number;
use crate::container::{DeviceRate, Resources};

/// Microseconds of a period where a share of the processors is asked for.
const PERIOD: u64 = 100_000;

/// Lowers limits; devices of block rates are looked up now, because numbers change between boots.
pub fn resources(given: &Resources) -> Result<LinuxResources> {
    let mut lowered = LinuxResources::default();
    if given.is_empty() {
        return Ok(lowered);
    }
    let memory = memory(given);
    if memory != LinuxMemory::default() {
        lowered.set_memory(Some(memory));
    }
    let cpu = cpu(given);
    if cpu != LinuxCpu::default() {
        lowered.set_cpu(Some(cpu));
    }
    if let Some(limit) = given.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        lowered.set_pids(Some(pids));
    }
    let block = block_io(given)?;
    if block != LinuxBlockIo::default() {
        lowered.set_block_io(Some(block));
    }
    if !given.hugetlb.is_empty() {
        let limit = |limit: &crate::container::HugepageLimit| -> Result<LinuxHugepageLimit> {
            let bytes = i64::try_from(limit.limit).unwrap_or(i64::MAX);
            Ok(LinuxHugepageLimitBuilder::default().page_size(&limit.page_size).limit(bytes).build()?)
        };
        lowered.set_hugepage_limits(Some(given.hugetlb.iter().map(limit).collect::<Result<_>>()?));
    }
    if !given.unified.is_empty() {
        lowered.set_unified(Some(given.unified.iter().cloned().collect::<HashMap<_, _>>()));
    }
    Ok(lowered)
}

fn memory(given: &Resources) -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(given.memory)
        .set_swap(given.memory_swap)
        .set_reservation(given.memory_reservation)
        .set_swappiness(given.memory_swappiness)
        .set_disable_oom_killer(given.oom_kill_disable);
    memory
}

fn cpu(given: &Resources) -> LinuxCpu {
    let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive(given.cpu_shares))
        .set_quota(given.cpu_quota)
        .set_period(positive(given.cpu_period))
        .set_cpus(given.cpuset_cpus.clone())
        .set_mems(given.cpuset_mems.clone());
    if let Some(nano) = given.nano_cpus.filter(|nano| *nano > 0) {
        cpu.set_period(Some(PERIOD)).set_quota(Some(nano * PERIOD as i64 / 1_000_000_000));
    }
    cpu
}

fn block_io(given: &Resources) -> Result<LinuxBlockIo> {
    let throttle = |rates: &[DeviceRate]| -> Result<Vec<LinuxThrottleDevice>> {
        let one = |device: &DeviceRate| -> Result<LinuxThrottleDevice> {
            let (major, minor) = device_number(&device.path)?;
            let numbers = LinuxThrottleDeviceBuilder::default().major(i64::from(major)).minor(i64::from(minor));
            Ok(numbers.rate(device.rate).build()?)
        };
        rates.iter().map(one).collect()
    };
    let mut weights = Vec::new();
    for device in &given.blkio_weight_devices {
        let (major, minor) = device_number(&device.path)?;
        let numbers = LinuxWeightDeviceBuilder::default().major(i64::from(major)).minor(i64::from(minor));
        weights.push(numbers.weight(u16::try_from(device.rate).unwrap_or(1000)).build()?);
    }
    let mut block = LinuxBlockIoBuilder::default().build()?;
    block.set_weight(given.blkio_weight);
    let listed = |list: Vec<LinuxThrottleDevice>| if list.is_empty() { None } else { Some(list) };
    block.set_weight_device(if weights.is_empty() { None } else { Some(weights) });
    block.set_throttle_read_bps_device(listed(throttle(&given.read_bps)?));
    block.set_throttle_write_bps_device(listed(throttle(&given.write_bps)?));
    block.set_throttle_read_iops_device(listed(throttle(&given.read_iops)?));
    block.set_throttle_write_iops_device(listed(throttle(&given.write_iops)?));
    Ok(block)
}
