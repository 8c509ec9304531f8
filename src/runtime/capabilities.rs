//! Capabilities (capabilities(7)): the set a container is given, and giving it.
//!
//! Order inside init, and why:
//!
//! 1. [`drop_bounding`] while still all-powerful, because it needs `CAP_SETPCAP`;
//! 2. setgroups, setgid, setuid by the caller, because they need `CAP_SETGID` and `CAP_SETUID`. Leaving uid 0
//!    empties the permitted, effective and ambient sets by itself;
//! 3. [`set_after_user_change`], which takes away what is left.
//!
//! The bounding set is what counts afterwards: execve gives root all of it, and a set-user-ID program run by a
//! plain user too. The inheritable and ambient sets stay empty (CVE-2022-24769): with inheritable ones a plain
//! user could win them back through files that carry file capabilities.

use std::fs;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::error::Failure;

/// Names by bit number, without `CAP_` (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What every container has unless it asks otherwise: Docker's fourteen.
pub const DEFAULT: CapSet = CapSet(
    CapabilitySet::CHOWN.bits()
        | CapabilitySet::DAC_OVERRIDE.bits()
        | CapabilitySet::FSETID.bits()
        | CapabilitySet::FOWNER.bits()
        | CapabilitySet::MKNOD.bits()
        | CapabilitySet::NET_RAW.bits()
        | CapabilitySet::SETGID.bits()
        | CapabilitySet::SETUID.bits()
        | CapabilitySet::SETFCAP.bits()
        | CapabilitySet::SETPCAP.bits()
        | CapabilitySet::NET_BIND_SERVICE.bits()
        | CapabilitySet::SYS_CHROOT.bits()
        | CapabilitySet::KILL.bits()
        | CapabilitySet::AUDIT_WRITE.bits(),
);

/// A set of capabilities, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSet(u64);

impl CapSet {
    /// Everything this kernel knows, by name or not.
    pub fn all() -> Self {
        CapSet(u64::MAX >> (63 - last_capability()))
    }

    /// The bits, numbered as in `linux/capability.h`; what `/proc/<pid>/status` prints in hexadecimal.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set with these bits; those this kernel does not know are left out.
    pub fn from_bits(bits: u64) -> Self {
        CapSet(bits & CapSet::all().0)
    }

    /// `CAP_…` names in bit order, as the OCI spec writes them. Bits without a name are left out.
    pub fn names(self) -> impl Iterator<Item = String> {
        NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| format!("CAP_{name}"))
    }
}

/// What a container starts from, before single capabilities are added and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// [`DEFAULT`].
    Ordinary,
    /// Everything (`--privileged`); adding and dropping then change nothing, as in Docker.
    Privileged,
}

/// The number of the last capability this kernel knows; below 64.
fn last_capability() -> u32 {
    static LAST: OnceLock<u32> = OnceLock::new();
    *LAST.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
        // Without /proc the kernel is asked one by one: prctl(2) refuses numbers it does not know.
        let asked = || (0..64).take_while(|bit| capability_is_in_bounding_set(single(*bit)).is_ok()).last();
        text.trim().parse().ok().or_else(asked).unwrap_or(40).min(63)
    })
}

fn single(bit: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << bit)
}

/// `ALL` or the name without `CAP_` in upper case, however it was written.
///
/// # Errors
/// `unknown capability: "CAP_X"`.
pub fn normalise(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if plain == "ALL" || NAMES.contains(&plain) {
        return Ok(plain.to_owned());
    }
    Err(Failure::usage(format!("unknown capability: {:?}", format!("CAP_{plain}")))
        .with_hint("capabilities(7) lists the names; ALL stands for every one")
        .into())
}

/// The container's bounding set, by Docker's rules: `ALL` added gives all but those dropped; `ALL` dropped
/// leaves those added; otherwise the default without those dropped, with those added.
///
/// # Errors
/// `invalid CapAdd: unknown capability: "CAP_X"`, `invalid CapDrop: …`, or a capability that this kernel lacks.
pub fn effective_set(privilege: Privilege, add: &[String], drop: &[String]) -> Result<CapSet> {
    let (added, all_added) = lowered(add).map_err(|error| prefixed("invalid CapAdd", &error))?;
    let (dropped, all_dropped) = lowered(drop).map_err(|error| prefixed("invalid CapDrop", &error))?;
    Ok(match privilege {
        Privilege::Privileged => CapSet::all(),
        Privilege::Ordinary if all_added => CapSet(CapSet::all().0 & !dropped),
        Privilege::Ordinary if all_dropped => CapSet(added),
        Privilege::Ordinary => CapSet((DEFAULT.0 & !dropped) | added),
    })
}

/// The bits of `names`, and whether `ALL` is among them.
fn lowered(names: &[String]) -> Result<(u64, bool)> {
    let (mut bits, mut all) = (0, false);
    for name in names {
        let plain = normalise(name)?;
        let Some(bit) = NAMES.iter().position(|known| *known == plain) else {
            all = true;
            continue;
        };
        let mask = 1 << bit;
        if CapSet::all().0 & mask == 0 {
            return Err(Failure::engine(format!("capability not supported by your kernel: \"CAP_{plain}\"")).into());
        }
        bits |= mask;
    }
    Ok((bits, all))
}

/// Puts `prefix` before the message itself, where Docker has it, instead of above it.
fn prefixed(prefix: &str, error: &anyhow::Error) -> Failure {
    let mut failure = Failure::from_error(error);
    failure.message = format!("{prefix}: {}", failure.message);
    failure
}

/// Takes everything outside `keep` from this thread's bounding set, for good. Needs `CAP_SETPCAP`, so it comes
/// before the user changes.
///
/// # Errors
/// prctl(2) `PR_CAPBSET_DROP` refused.
pub fn drop_bounding(keep: CapSet) -> Result<()> {
    for bit in 0..=last_capability() {
        if keep.0 & (1 << bit) == 0 {
            let name = NAMES.get(bit as usize).copied().unwrap_or("unnamed");
            remove_capability_from_bounding_set(single(bit))
                .with_context(|| format!("drop capability {name} ({bit}) from the bounding set"))?;
        }
    }
    Ok(())
}

/// Sets this thread's own sets, once groups and user are final: `keep` for root, as far as we hold it (a host
/// may lack some, CAP_SYS_RESOURCE for one), nothing for a plain user. Inheritable and ambient sets end up
/// empty for both.
///
/// # Errors
/// capset(2) or prctl(2) refused.
pub fn set_after_user_change(keep: CapSet, uid: u32) -> Result<()> {
    let held = capabilities(None).context("read capabilities")?.permitted;
    let keep = if uid == 0 { CapabilitySet::from_bits_retain(keep.0 & held.bits()) } else { CapabilitySet::empty() };
    // Ambient before inheritable only for clarity: the kernel clears ambient bits that are not inheritable.
    clear_ambient_capability_set().context("clear ambient capabilities")?;
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("set capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn set(add: &[&str], drop: &[&str]) -> Result<CapSet> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        effective_set(Privilege::Ordinary, &owned(add), &owned(drop))
    }

    #[test]
    fn the_default_is_dockers() {
        assert_eq!(set(&[], &[]).unwrap().bits(), 0xa804_25fb);
        assert_eq!(DEFAULT.names().count(), 14);
        assert!(DEFAULT.names().all(|name| lowered(&[name]).unwrap().0.count_ones() == 1));
    }

    #[test]
    fn names_stand_at_their_kernel_numbers() {
        for (name, bit) in [("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("SETFCAP", 31), ("CHECKPOINT_RESTORE", 40)] {
            assert_eq!(set(&[name], &["ALL"]).unwrap().bits(), 1 << bit);
        }
    }

    #[test]
    fn adding_and_dropping_follow_docker() {
        let all = CapSet::all().bits();
        assert_eq!(set(&["net_admin"], &[]).unwrap().bits(), DEFAULT.bits() | 1 << 12);
        assert_eq!(set(&["Cap_Net_Admin"], &["CHOWN"]).unwrap().bits(), (DEFAULT.bits() | 1 << 12) & !1);
        assert_eq!(set(&["ALL"], &["CAP_CHOWN"]).unwrap().bits(), all & !1);
        assert_eq!(set(&["CHOWN"], &["all"]).unwrap().bits(), 1);
        assert_eq!(set(&["ALL"], &["ALL"]).unwrap().bits(), all);
        assert_eq!(set(&[], &["ALL"]).unwrap().bits(), 0);
        // Both named: the addition wins.
        assert_eq!(set(&["CHOWN"], &["CHOWN"]).unwrap().bits(), DEFAULT.bits());
        assert_eq!(effective_set(Privilege::Privileged, &[], &["ALL".to_owned()]).unwrap().bits(), all);
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        assert_eq!(set(&["foo"], &[]).unwrap_err().to_string(), "invalid CapAdd: unknown capability: \"CAP_FOO\"");
        assert_eq!(set(&[], &[""]).unwrap_err().to_string(), "invalid CapDrop: unknown capability: \"CAP_\"");
        assert_eq!(normalise("cap_all").unwrap(), "ALL");
    }

    /// The `Cap…` line of a child started by a thread that has given its capabilities up.
    fn child_after(keep: CapSet, uid: u32) -> Vec<(String, u64)> {
        let give_up = move || {
            drop_bounding(keep).unwrap();
            set_after_user_change(keep, uid).unwrap();
            fs::read_to_string("/proc/thread-self/status").unwrap()
                + &String::from_utf8(Command::new("cat").arg("/proc/self/status").output().unwrap().stdout).unwrap()
        };
        let status = std::thread::spawn(give_up).join().unwrap();
        let caps = status.lines().filter_map(|line| line.strip_prefix("Cap"));
        caps.map(|line| {
            let (name, bits) = line.split_once(":\t").unwrap();
            (name.to_owned(), u64::from_str_radix(bits, 16).unwrap())
        })
        .collect()
    }

    #[test]
    fn root_keeps_the_set_and_hands_it_on_through_exec() {
        let lines = child_after(DEFAULT, 0);
        assert_eq!(lines.len(), 10);
        for (name, bits) in lines {
            let expected = if matches!(name.as_str(), "Inh" | "Amb") { 0 } else { DEFAULT.bits() };
            assert_eq!(bits, expected, "{name}");
        }
    }

    #[test]
    fn a_plain_user_has_nothing_but_the_bound() {
        // The thread alone: its child is still uid 0 here and would be given the bound by execve.
        for (name, bits) in child_after(DEFAULT, 1000).into_iter().take(5) {
            assert_eq!(bits, if name == "Bnd" { DEFAULT.bits() } else { 0 }, "{name}");
        }
    }

    #[test]
    fn what_the_host_lacks_is_no_error() {
        for (name, bits) in child_after(CapSet::all(), 0).into_iter().take(5) {
            assert!(CapSet::from_bits(bits).bits() == bits, "{name}");
            assert_eq!(bits == 0, matches!(name.as_str(), "Inh" | "Amb"), "{name}");
        }
    }
}
