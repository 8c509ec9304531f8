//! Rules to policies, policies to writes and programs: what is said, and what the program does when it runs.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};
use proptest::prelude::*;

use super::policy::{Access, Kind, Policy, Rule, Verdict};
use super::{program, v1};

/// `+c 1:3 rwm` allows, `-a *:* rwm` denies.
pub(super) fn rules(lines: &[&str]) -> Vec<LinuxDeviceCgroup> {
    lines.iter().map(|line| rule(line)).collect()
}

fn rule(line: &str) -> LinuxDeviceCgroup {
    let words: Vec<&str> = line[1..].split([' ', ':']).collect();
    let kind = match words[0] {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => LinuxDeviceType::P,
    };
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(line.starts_with('+')).typ(kind).access(words[3]);
    if words[1] != "*" {
        rule = rule.major(words[1].parse::<i64>().unwrap());
    }
    if words[2] != "*" {
        rule = rule.minor(words[2].parse::<i64>().unwrap());
    }
    rule.build().unwrap()
}

fn policy(lines: &[&str]) -> Policy {
    Policy::of_spec(&rules(lines)).unwrap()
}

fn writes(lines: &[&str]) -> Vec<String> {
    let writes = v1::writes(&policy(lines)).unwrap();
    writes.iter().map(|write| format!("{} {}", write.file(), write.line)).collect()
}

const NOTHING: &str = "-a *:* rwm";
const EVERYTHING: &str = "+a *:* rwm";

#[test]
fn what_is_about_everything_ends_what_was_said_before() {
    assert!(policy(&[]).allows_everything());
    assert!(policy(&[EVERYTHING]).allows_everything());
    assert!(policy(&[NOTHING, "+c 1:3 rwm", "-b 8:0 w", EVERYTHING]).allows_everything());
    assert!(policy(&[EVERYTHING, "+c 1:3 r"]).allows_everything());
    assert!(!policy(&[EVERYTHING, NOTHING]).allows_everything());
    assert!(!policy(&[EVERYTHING, "-c 1:3 r"]).allows_everything());
    // Less than everything.
    assert!(!policy(&["+a *:* rw"]).allows_everything());
    assert!(!policy(&["+c *:* rwm", "+b *:* rwm"]).allows_everything());
    // Where there are rules, what they do not speak of is denied.
    assert_eq!(policy(&["+c 1:3 rwm"]), policy(&[NOTHING, "-c 7:7 r", "+c 1:3 mwr"]));
    // runc writes "any" as -1.
    assert_eq!(policy(&[NOTHING, "+c -1:-1 m"]), policy(&[NOTHING, "+c *:* m"]));
}

#[test]
fn rules_that_mean_nothing_are_refused() {
    for bad in ["+c 1:3 x", "+c 1:3 ", "+c -2:3 r", "+c 4294967296:0 r", "+p 1:3 r"] {
        let error = Policy::of_spec(&[rule(bad)]).unwrap_err();
        assert_eq!(error.class, crate::error::Class::Usage, "{bad}");
        assert!(error.message.starts_with("invalid device cgroup rule"), "{bad}: {}", error.message);
    }
    // An absent access is no reason to give all of them.
    let silent = LinuxDeviceCgroupBuilder::default().allow(true).build().unwrap();
    Policy::of_spec(&[silent]).unwrap_err();
}

#[test]
fn lines_of_v1() {
    assert_eq!(
        writes(&[NOTHING, "+c *:* m", "+c 136:* rwm", "-c 136:* w"]),
        ["devices.deny a", "devices.allow c *:* m", "devices.allow c 136:* rwm", "devices.deny c 136:* w"]
    );
    assert_eq!(writes(&[EVERYTHING, "-b 8:0 w"]), ["devices.allow a", "devices.deny b 8:0 w"]);
    // A line of `a` would open everything.
    assert_eq!(writes(&["+a 1:3 r"]), ["devices.deny a", "devices.allow b 1:3 r", "devices.allow c 1:3 r"]);
}

#[test]
fn what_v1_would_silently_not_do_is_refused() {
    let refused = |lines: &[&str]| v1::writes(&policy(lines)).unwrap_err().message;
    let text = refused(&[NOTHING, "+c 1:* rw", "-c 1:3 w"]);
    assert_eq!(text, "cannot deny device c 1:3 w after \"allow c 1:* rw\" in cgroups v1");
    refused(&[NOTHING, "+c 1:3 rw", "-c 1:* w"]);
    refused(&[EVERYTHING, "-b *:* w", "+b 8:1 w"]);
    // Not the same accesses, not the same kind, or nothing left of the wider rule.
    writes(&[NOTHING, "+c 1:* m", "-c 1:3 rw"]);
    writes(&[NOTHING, "+b 1:* rw", "-c 1:3 rw"]);
    writes(&[NOTHING, "+c 1:* rw", "-c 1:* rw", "+c 1:3 r", "-c 1:3 r"]);
}

#[test]
fn the_program_of_a_policy() {
    let program = program::assemble(&policy(&[
        NOTHING,
        "+c *:* m",
        "+b 7:* r",
        "+c 136:* rwm",
        "+c 1:3 rwm",
        "+c 1:5 rm",
        "-c 1:5 m",
    ]));
    let program = program.unwrap();
    let listing = "  0: r2 = *(u32 *)(r1 + 0)
  1: r3 = r2
  2: r2 &= 0xffff
  3: r3 >>= 16
  4: r4 = *(u32 *)(r1 + 4)
  5: r5 = *(u32 *)(r1 + 8)
  6: if r2 != 2 goto 21
  7: if r4 != 1 goto 17
  8: if r5 != 5 goto 11
  9: if r3 & 0x1 goto 24
 10: r5 = *(u32 *)(r1 + 8)
 11: if r5 != 5 goto 15
 12: r3 &= 0x4
 13: if r3 == 0 goto 26
 14: r5 = *(u32 *)(r1 + 8)
 15: if r5 == 3 goto 26
 16: goto 18
 17: if r4 == 136 goto 26
 18: r3 &= 0x6
 19: if r3 == 0 goto 26
 20: goto 24
 21: if r4 != 7 goto 24
 22: r3 &= 0x5
 23: if r3 == 0 goto 26
 24: r0 = 0
 25: exit
 26: r0 = 1
 27: exit";
    assert_eq!(program.to_string(), listing);
    if cfg!(target_endian = "little") {
        let code: Vec<String> = program.encode().iter().map(|word| format!("{:016x}", word.swap_bytes())).collect();
        // By the manual: code, registers (from and to), distance, value.
        let expected = [
            "6112000000000000",
            "bf23000000000000",
            "57020000ffff0000",
            "7703000010000000",
            "6114040000000000",
            "6115080000000000",
            "55020e0002000000",
            "5504090001000000",
            "5505020005000000",
            "45030e0001000000",
        ];
        assert_eq!(code[..10], expected);
        assert_eq!(code[12..14], ["5703000004000000", "15030c0000000000"]);
        assert_eq!(code[20], "0500030000000000");
        assert_eq!(code[24..26], ["b700000000000000", "9500000000000000"]);
    }
}

/// Lists whose programs have something left out.
pub(super) const ODD: [&[&str]; 9] = [
    &[NOTHING],
    &["+c 1:* rwm"],
    &["+c *:* rwm"],
    &["+c *:* rwm", "+b *:* rwm"],
    &["+c *:* rwm", "-c 1:3 w", "-c 1:* w"],
    &["+c 1:3 r", "+c 2:* rwm", "+c 2:5 r", "+b 8:1 w"],
    &["+b 8:* r", "+b 9:* r"],
    &[EVERYTHING, "-b *:* w", "-c 10:1 rw", "-a 3:* r"],
    &["+a *:7 rwm", "+a 3:* r"],
];

#[test]
fn no_instruction_is_out_of_reach() {
    // The kernel refuses a program that has one; it is asked in kernel_tests.
    for lines in ODD {
        let text = program::assemble(&policy(lines)).unwrap().to_string();
        let targets: Vec<usize> = text.lines().filter_map(|line| line.split("goto ").nth(1)?.parse().ok()).collect();
        let mut reached = true;
        for (place, line) in text.lines().enumerate() {
            assert!(reached || targets.contains(&place), "{place} is out of reach, of {lines:?}:\n{text}");
            reached = !(line.contains(": goto ") || line.ends_with("exit"));
        }
        assert!(!reached, "the end is open, of {lines:?}:\n{text}");
    }
}

#[test]
fn a_rule_is_one_instruction_or_four() {
    let length = |count: usize, access: &str| {
        let lines: Vec<String> = (0..count).map(|minor| format!("+c 10:{minor} {access}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        program::assemble(&policy(&lines)).unwrap().encode().len()
    };
    assert_eq!(length(11, "rwm") - length(1, "rwm"), 10);
    assert_eq!(length(11, "rw") - length(1, "rw"), 40);
    let lines = vec!["+c 10:1 rw"; 9000];
    assert!(program::assemble(&policy(&lines)).unwrap_err().message.starts_with("too many device rules"));
}

/// One access asked for.
#[derive(Debug, Clone, Copy)]
struct Request {
    kind: Kind,
    major: u32,
    minor: u32,
    access: u8,
}

/// What the words of the spec mean, said once more without any program: each access by the last rule that covers it.
fn meaning(policy: &Policy, request: Request) -> bool {
    let covers = |rule: &Rule, bit: u8| {
        rule.kind.is_none_or(|kind| kind == request.kind)
            && rule.major.is_none_or(|major| major == request.major)
            && rule.minor.is_none_or(|minor| minor == request.minor)
            && rule.access.bits() & bit != 0
    };
    [1, 2, 4].into_iter().filter(|bit| request.access & bit != 0).all(|bit| {
        let last = policy.exceptions.iter().rev().find(|rule| covers(rule, bit));
        last.map_or(policy.base, |rule| rule.verdict) == Verdict::Allow
    })
}

/// Runs the encoded program as the instruction set says, on little-endian machines.
fn interpret(program: &[u64], request: Request) -> u64 {
    let kind = if request.kind == Kind::Block { 1 } else { 2 };
    let context = [u32::from(request.access) << 16 | kind, request.major, request.minor];
    let mut registers = [0u64; 11];
    let mut place = 0usize;
    for _ in 0..program.len() {
        let [code, pair, o0, o1, v @ ..] = program[place].to_le_bytes();
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let offset = i64::from(i16::from_le_bytes([o0, o1]));
        let value = i64::from(i32::from_le_bytes(v)) as u64;
        let mut jump = false;
        match code {
            0x61 => registers[to] = u64::from(context[offset as usize / 4]),
            0xbf => registers[to] = registers[from],
            0x57 => registers[to] &= value,
            0x77 => registers[to] >>= value,
            0xb7 => registers[to] = value,
            0x05 => jump = true,
            0x15 => jump = registers[to] == value,
            0x55 => jump = registers[to] != value,
            0x45 => jump = registers[to] & value != 0,
            0x95 => return registers[0],
            other => panic!("unknown instruction {other:#x}"),
        }
        place = (place as i64 + 1 + if jump { offset } else { 0 }) as usize;
    }
    panic!("no end")
}

fn any_rule() -> impl Strategy<Value = LinuxDeviceCgroup> {
    let number = || prop_oneof![Just(None), (0..3i64).prop_map(Some)];
    let kind = prop_oneof![Just(LinuxDeviceType::A), Just(LinuxDeviceType::B), Just(LinuxDeviceType::C)];
    let access = prop::sample::subsequence(vec!['r', 'w', 'm'], 1..=3).prop_map(String::from_iter);
    (any::<bool>(), kind, number(), number(), access).prop_map(|(allow, kind, major, minor, access)| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access));
        rule
    })
}

proptest! {
    #[test]
    #[cfg(target_endian = "little")]
    fn programs_do_what_the_rules_say(rules in prop::collection::vec(any_rule(), 0..8)) {
        let policy = Policy::of_spec(&rules).unwrap();
        let program = program::assemble(&policy).unwrap().encode();
        for kind in [Kind::Block, Kind::Character] {
            for (major, minor) in [(0, 0), (0, 1), (1, 0), (2, 2), (3, 0), (3, 3)] {
                for access in 1..=Access::ALL.bits() {
                    let request = Request { kind, major, minor, access };
                    prop_assert_eq!(interpret(&program, request) == 1, meaning(&policy, request), "{:?}", request);
                }
            }
        }
    }
}
