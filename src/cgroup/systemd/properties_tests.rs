//! Limits in systemd's words. The conversation itself is tested where systemd runs: `tests/e2e/systemd.rs`.

use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxPids,
    LinuxResourcesBuilder,
};

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
        of_limits(&everything(), Mode::V2).unwrap(),
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
        of_limits(&everything(), Mode::Hybrid).unwrap(),
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
        of_limits(&LinuxResources::default(), Mode::V2).unwrap(),
        [("TasksMax", Value::Number(INFINITY))],
        "systemd's own limit of tasks would hold otherwise"
    );
    let memory = LinuxMemoryBuilder::default().limit(64i64 << 20).swap(-1i64).build().unwrap();
    let cpu = LinuxCpuBuilder::default().quota(-1i64).build().unwrap();
    let resources = LinuxResourcesBuilder::default().memory(memory).cpu(cpu).build().unwrap();
    let list = of_limits(&resources, Mode::V2).unwrap();
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
fn devices_are_systemds_business_in_v1() {
    let rule = |line: &str| {
        let words: Vec<&str> = line.split([' ', ':']).collect();
        let number = |word: &str| word.parse().unwrap_or(-1);
        let kind = match words[1] {
            "a" => LinuxDeviceType::A,
            "b" => LinuxDeviceType::B,
            _ => LinuxDeviceType::C,
        };
        let rule = LinuxDeviceCgroupBuilder::default().allow(words[0] == "allow").typ(kind).access(words[4]);
        rule.major(number(words[2])).minor(number(words[3])).build().unwrap()
    };
    let of = |lines: &[&str]| of_devices(&lines.iter().map(|line| rule(line)).collect::<Vec<_>>());
    let strict = |allowed: &[(&str, &str)]| {
        let pairs = allowed.iter().map(|(path, access)| ((*path).to_owned(), (*access).to_owned())).collect();
        vec![("DevicePolicy", Value::Text("strict".into())), ("DeviceAllow", Value::Pairs(pairs))]
    };
    let usual = ["deny a *:* rwm", "allow c *:* m", "allow c 1:3 rwm", "allow b 8:0 r", "allow c 1:* rw"];
    let expected = [("char-*", "m"), ("/dev/char/1:3", "rwm"), ("/dev/block/8:0", "r"), ("char-mem", "rw")];
    assert_eq!(of(&usual), strict(&expected));
    // Rules without a base deny what they do not speak of.
    assert_eq!(of(&["allow c 1:3 rwm"]), strict(&[("/dev/char/1:3", "rwm")]));
    // No restriction at all.
    assert_eq!(of(&[]), []);
    assert_eq!(of(&["deny a *:* rwm", "allow a *:* rwm"]), []);
    // What cannot be said must not open anything.
    assert_eq!(of(&["deny a *:* rwm", "allow c *:* rwm", "deny c 1:1 r"]), strict(&[]));
    assert_eq!(of(&["allow a *:* rwm", "deny b *:* rwm"]), strict(&[]));
}
