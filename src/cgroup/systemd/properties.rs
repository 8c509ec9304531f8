//! A scope and its limits in systemd's words (systemd.resource-control(5), systemd.scope(5)).

use std::fs;

use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::Scope;
use super::dbus::Value;
use crate::cgroup::limits::weight_of_shares;
use crate::cgroup::{Mode, limits};

/// "No limit".
const INFINITY: u64 = u64::MAX;

/// Name and value.
pub(super) type Property = (&'static str, Value);

/// Everything that a new scope is.
pub(super) fn of_scope(scope: &Scope<'_>) -> Result<Vec<Property>> {
    let pid = u32::try_from(scope.pid).context("no process id")?;
    let io = if scope.mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    let mut list = vec![
        ("Description", Value::Text(scope.description.clone())),
        ("Slice", Value::Text(scope.unit.slice.clone())),
        ("PIDs", Value::Numbers(vec![pid])),
        ("Delegate", Value::Boolean(true)),
        // Nobody is to be ordered before or after a container; whoever shuts the host down ends it with the rest.
        ("DefaultDependencies", Value::Boolean(false)),
        // Forgotten when it ends, however it does.
        ("CollectMode", Value::Text("inactive-or-failed".into())),
        ("MemoryAccounting", Value::Boolean(true)),
        ("CPUAccounting", Value::Boolean(true)),
        ("TasksAccounting", Value::Boolean(true)),
        (io, Value::Boolean(true)),
    ];
    list.extend(of_limits(scope.limits, scope.mode)?);
    Ok(list)
}

/// The limits that systemd would otherwise undo, in its words (systemd.resource-control(5)).
pub(super) fn of_limits(resources: &LinuxResources, mode: Mode) -> Result<Vec<Property>> {
    let unified = mode == Mode::V2;
    let mut list = Vec::new();
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    // -1 and the like: no limit.
    let bytes = |value: i64| Value::Number(u64::try_from(value).unwrap_or(INFINITY));
    if let Some(memory) = resources.memory() {
        let limit = given(memory.limit());
        if let Some(limit) = limit {
            list.push((if unified { "MemoryMax" } else { "MemoryLimit" }, bytes(limit)));
        }
        if unified {
            list.extend(given(memory.reservation()).map(|low| ("MemoryLow", bytes(low))));
            let swap = given(memory.swap()).map(|swap| limits::swap_alone(swap, limit));
            list.extend(swap.map(|swap| ("MemorySwapMax", swap.map_or(Value::Number(INFINITY), bytes))));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
            list.push(match unified {
                true => ("CPUWeight", Value::Number(weight_of_shares(shares))),
                false => ("CPUShares", Value::Number(shares)),
            });
        }
        let period = cpu.period().filter(|period| *period > 0);
        if let Some(period) = period {
            list.push(("CPUQuotaPeriodUSec", Value::Number(period)));
        }
        if let Some(quota) = given(cpu.quota()) {
            // Microseconds of every second.
            let share = |quota| u64::try_from(u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(100_000)));
            let share = u64::try_from(quota).ok().and_then(|quota: u64| share(quota).ok());
            list.push(("CPUQuotaPerSecUSec", Value::Number(share.unwrap_or(INFINITY))));
        }
        if unified {
            for (name, text) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
                if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                    list.push((name, Value::Bytes(bitmap(text).with_context(|| format!("read the set {text}"))?)));
                }
            }
        }
    }
    // Without a word systemd has a limit of its own (DefaultTasksMax=).
    let tasks = resources.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit > 0);
    list.push(("TasksMax", bytes(tasks.unwrap_or(-1))));
    if let Some(weight) = resources.block_io().as_ref().and_then(|block| block.weight()).filter(|weight| *weight > 0) {
        list.push(match unified {
            true => ("IOWeight", Value::Number(limits::io_weight(weight))),
            false => ("BlockIOWeight", Value::Number(u64::from(weight))),
        });
    }
    if !unified {
        list.extend(of_devices(resources.devices().as_deref().unwrap_or_default()));
    }
    Ok(list)
}

/// Devices in v1, whose rules systemd writes anew like the other limits, or opens all where it was told none. In v2 it
/// has a program of its own beside ours, and none where it was told none.
///
/// A denial within what is allowed has no words here: then systemd's rules allow nothing, until ours are written.
fn of_devices(rules: &[LinuxDeviceCgroup]) -> Vec<Property> {
    let about_everything = |rule: &LinuxDeviceCgroup| {
        let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
        let all = rule.access().as_deref().is_some_and(|access| ["r", "w", "m"].iter().all(|way| access.contains(way)));
        all && any(rule.major()) && any(rule.minor()) && matches!(rule.typ(), None | Some(LinuxDeviceType::A))
    };
    let last = rules.iter().rposition(about_everything);
    let (base, exceptions) = last.map_or((!rules.is_empty(), rules), |at| (!rules[at].allow(), &rules[at + 1..]));
    if !base && exceptions.iter().all(LinuxDeviceCgroup::allow) {
        return Vec::new();
    }
    let sayable = base && exceptions.iter().all(LinuxDeviceCgroup::allow);
    let names = fs::read_to_string("/proc/devices").unwrap_or_default();
    let allowed = exceptions.iter().filter(|_| sayable).filter_map(|rule| device(rule, &names)).collect();
    vec![("DevicePolicy", Value::Text("strict".into())), ("DeviceAllow", Value::Pairs(allowed))]
}

/// A rule as systemd takes it: `/dev/char/1:3`, `char-pts` for all of a driver's, `char-*`.
fn device(rule: &LinuxDeviceCgroup, names: &str) -> Option<(String, String)> {
    let kind = if rule.typ() == Some(LinuxDeviceType::B) { "block" } else { "char" };
    let given = |number: Option<i64>| number.filter(|number| *number >= 0);
    let path = match (given(rule.major()), given(rule.minor())) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{}", driver(kind, major, names)?),
        (None, None) => format!("{kind}-*"),
        (None, Some(_)) => return None,
    };
    Some((path, rule.access().clone()?))
}

/// The driver's name in `/proc/devices` (proc_devices(5)): two lists, of character and of block devices.
fn driver<'a>(kind: &str, major: i64, names: &'a str) -> Option<&'a str> {
    let list = names.split("Block devices:").nth(usize::from(kind == "block"))?;
    let mut lines = list.lines().filter_map(|line| line.trim().split_once(' '));
    lines.find(|(number, _)| number.parse() == Ok(major)).map(|(_, name)| name)
}

/// A list of numbers (`0-2,5`) as systemd takes it: number n is bit n % 8 of byte n / 8.
fn bitmap(list: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // The kernel's own bound on processors is 8192.
        if last >= 8192 {
            return None;
        }
        for number in first..=last {
            if bytes.len() <= number / 8 {
                bytes.resize(number / 8 + 1, 0);
            }
            bytes[number / 8] |= 1_u8 << (number % 8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
