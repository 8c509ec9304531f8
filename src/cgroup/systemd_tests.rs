//! Limits in systemd's words. The conversation itself is tested where systemd runs: `tests/e2e/systemd.rs`.

use oci_spec::runtime::{LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPids, LinuxResourcesBuilder};

use super::*;

fn everything() -> LinuxResources {
    let mut pids = LinuxPids::default();
    pids.set_limit(10);
    let cpu = LinuxCpuBuilder::default().shares(512u64).quota(25_000i64).period(50_000u64).cpus("0-1,9").mems("0");
    let memory = LinuxMemoryBuilder::default().limit(64i64 << 20).swap(96i64 << 20).reservation(32i64 << 20);
    LinuxResourcesBuilder::default()
        .cpu(cpu.build().unwrap())
        .memory(memory.build().unwrap())
        .pids(pids)
        .block_io(LinuxBlockIoBuilder::default().weight(500u16).build().unwrap())
        .build()
        .unwrap()
}

#[test]
fn limits_in_systemds_words() {
    let number = Value::Number;
    assert_eq!(
        limit_properties(&everything(), Mode::V2).unwrap(),
        [
            ("MemoryMax", number(64 << 20)),
            ("MemoryLow", number(32 << 20)),
            ("MemorySwapMax", number(32 << 20)),
            ("CPUWeight", number(59)),
            ("CPUQuotaPeriodUSec", number(50_000)),
            ("CPUQuotaPerSecUSec", number(500_000)),
            ("AllowedCPUs", Value::Bytes(vec![3, 2])),
            ("AllowedMemoryNodes", Value::Bytes(vec![1])),
            ("TasksMax", number(10)),
            ("IOWeight", number(4950)),
        ]
    );
    assert_eq!(
        limit_properties(&everything(), Mode::Hybrid).unwrap(),
        [
            ("MemoryLimit", number(64 << 20)),
            ("CPUShares", number(512)),
            ("CPUQuotaPeriodUSec", number(50_000)),
            ("CPUQuotaPerSecUSec", number(500_000)),
            ("TasksMax", number(10)),
            ("BlockIOWeight", number(500)),
        ]
    );
}

#[test]
fn no_limit_is_no_limit() {
    assert_eq!(
        limit_properties(&LinuxResources::default(), Mode::V2).unwrap(),
        [("TasksMax", Value::Number(INFINITY))],
        "systemd's own limit of tasks would hold otherwise"
    );
    let memory = LinuxMemoryBuilder::default().limit(64i64 << 20).swap(-1i64).build().unwrap();
    let cpu = LinuxCpuBuilder::default().quota(-1i64).build().unwrap();
    let resources = LinuxResourcesBuilder::default().memory(memory).cpu(cpu).build().unwrap();
    let list = limit_properties(&resources, Mode::V2).unwrap();
    assert!(list.contains(&("MemorySwapMax", Value::Number(INFINITY))), "{list:?}");
    assert!(list.contains(&("CPUQuotaPerSecUSec", Value::Number(INFINITY))), "{list:?}");
}

#[test]
fn sets_as_bits() {
    assert_eq!(bitmap("0,2-3,16"), Some(vec![0b1101, 0, 1]));
    for bad in ["", "a", "0-99999", "-1"] {
        assert_eq!(bitmap(bad), None, "{bad}");
    }
}

#[test]
fn refusals_are_told_apart_by_their_names() {
    let error = explain(
        "StopUnit",
        CallError::Refused { name: "org.freedesktop.systemd1.NoSuchUnit".into(), text: "Unit x not loaded.".into() },
    );
    assert!(is_named(&error, "NoSuchUnit"));
    assert!(!is_named(&error, "UnitExists"));
    assert_eq!(error.to_string(), "StopUnit: Unit x not loaded. (org.freedesktop.systemd1.NoSuchUnit)");
}
