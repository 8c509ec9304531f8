//! Golden: every limit in the words of both kernel interfaces.

use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxHugepageLimitBuilder, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResourcesBuilder, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};

use super::*;

fn everything() -> LinuxResources {
    let rate =
        |rate: u64| vec![LinuxThrottleDeviceBuilder::default().major(254i64).minor(0i64).rate(rate).build().unwrap()];
    LinuxResourcesBuilder::default()
        .cpu(
            LinuxCpuBuilder::default()
                .shares(512u64)
                .quota(50_000i64)
                .period(100_000u64)
                .cpus("0-1")
                .mems("0")
                .build()
                .unwrap(),
        )
        .memory(
            LinuxMemoryBuilder::default()
                .limit(64i64 << 20)
                .swap(96i64 << 20)
                .reservation(32i64 << 20)
                .swappiness(10u64)
                .disable_oom_killer(true)
                .build()
                .unwrap(),
        )
        .pids(LinuxPidsBuilder::default().limit(20i64).build().unwrap())
        .block_io(
            LinuxBlockIoBuilder::default()
                .weight(300u16)
                .weight_device(vec![
                    LinuxWeightDeviceBuilder::default().major(254i64).minor(0i64).weight(500u16).build().unwrap(),
                ])
                .throttle_read_bps_device(rate(1))
                .throttle_write_bps_device(rate(2))
                .throttle_read_iops_device(rate(3))
                .throttle_write_iops_device(rate(4))
                .build()
                .unwrap(),
        )
        .hugepage_limits(vec![LinuxHugepageLimitBuilder::default().page_size("2MB").limit(4i64 << 20).build().unwrap()])
        .unified([("memory.oom.group".to_owned(), "1".to_owned())])
        .build()
        .unwrap()
}

fn lines(resources: &LinuxResources, mode: Mode) -> String {
    let settings = settings(resources, mode);
    let line = |setting: &Setting| {
        let ways: Vec<String> = setting.ways.iter().map(|(file, value)| format!("{file} = {value}")).collect();
        format!("{}: {}", setting.controller, ways.join(" | "))
    };
    settings.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_limit_on_v1() {
    insta::assert_snapshot!(lines(&everything(), Mode::Hybrid));
    assert_eq!(extra_controllers(&everything()), ["cpuset", "hugetlb"]);
}

#[test]
fn every_limit_on_v2() {
    insta::assert_snapshot!(lines(&everything(), Mode::V2));
}

#[test]
fn unlimited_and_nothing() {
    let memory = LinuxMemoryBuilder::default().limit(-1i64).swap(-1i64).build().unwrap();
    let cpu = LinuxCpuBuilder::default().quota(-1i64).build().unwrap();
    let pids = LinuxPidsBuilder::default().limit(-1i64).build().unwrap();
    let unlimited = LinuxResourcesBuilder::default().memory(memory).cpu(cpu).pids(pids).build().unwrap();
    insta::assert_snapshot!(format!("{}\n\n{}", lines(&unlimited, Mode::V1), lines(&unlimited, Mode::V2)));
    assert_eq!(lines(&LinuxResources::default(), Mode::V1), "");
    assert!(extra_controllers(&LinuxResources::default()).is_empty());
}

#[test]
fn the_usual_weight_stays_the_usual_weight() {
    let pairs: Vec<(u64, u64)> =
        [2, 512, 1024, 2048, 262_144].into_iter().map(|shares| (shares, weight_of_shares(shares))).collect();
    assert_eq!(pairs, [(2, 1), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)]);
    // Never the other way round: more shares, no less weight.
    let mut last = 0;
    for shares in 2..=262_144 {
        let weight = weight_of_shares(shares);
        assert!(weight >= last, "{shares}");
        last = weight;
    }
}
