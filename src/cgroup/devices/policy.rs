//! The rules of an OCI spec as one policy: a verdict for every device, and the exceptions from it.

use std::fmt;

use anyhow::Result;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::Failure;

/// What a rule says of the accesses that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny,
}

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Character,
}

/// A set of accesses, as the kernel numbers them (`BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access(u8);

impl Access {
    /// Make a node, read, write.
    pub(super) const ALL: Access = Access(0b111);
    const LETTERS: [(char, u8); 3] = [('r', 0b010), ('w', 0b100), ('m', 0b001)];

    /// `r`, `w`, `m` in any order; `None` for anything else and for nothing.
    fn parse(text: &str) -> Option<Access> {
        let bit = |letter| Access::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| *bit);
        let bits = text.chars().try_fold(0, |bits, letter| Some(bits | bit(letter)?))?;
        (bits != 0).then_some(Access(bits))
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn union(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    pub(super) fn without(self, other: Access) -> Access {
        Access(self.0 & !other.0)
    }

    pub(super) fn intersects(self, other: Access) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Access::LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0).try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

/// One rule; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) verdict: Verdict,
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: Access,
}

impl Rule {
    fn of_spec(rule: &LinuxDeviceCgroup) -> Result<Rule, Failure> {
        let refuse = |why: &str| Failure::usage(format!("invalid device cgroup rule \"{rule}\": {why}"));
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(Kind::Block),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Character),
            Some(LinuxDeviceType::P) => return Err(refuse("a fifo is no device")),
        };
        // Absent or -1 is any (config-linux.md, "Allowed Device list"; runc's reading of negative numbers).
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number).map(Some).map_err(|_| refuse("no device has such a number")),
        };
        let access = rule.access().as_deref().and_then(Access::parse).ok_or_else(|| refuse("access is r, w and m"))?;
        let verdict = if rule.allow() { Verdict::Allow } else { Verdict::Deny };
        Ok(Rule { verdict, kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
    }

    fn is_about_everything(&self) -> bool {
        (self.kind, self.major, self.minor, self.access) == (None, None, None, Access::ALL)
    }
}

impl fmt::Display for Rule {
    /// As a line of the v1 files: `c 136:* rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            None => 'a',
            Some(Kind::Block) => 'b',
            Some(Kind::Character) => 'c',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

/// What a group may do with devices. Of several exceptions the last that covers an access decides it; read, write and
/// mknod are decided apart from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// What holds where no exception does.
    pub(super) base: Verdict,
    /// In the order given; the first is never of the same verdict as the base.
    pub(super) exceptions: Vec<Rule>,
}

impl Policy {
    /// Reads the rules of an OCI spec (`linux.resources.devices`). No rules restrict nothing; where there are some,
    /// what they do not speak of is denied.
    pub(super) fn of_spec(rules: &[LinuxDeviceCgroup]) -> Result<Policy, Failure> {
        let base = if rules.is_empty() { Verdict::Allow } else { Verdict::Deny };
        let mut policy = Policy { base, exceptions: Vec::new() };
        for rule in rules {
            let rule = Rule::of_spec(rule)?;
            if rule.is_about_everything() {
                // Whatever was said before counts no more.
                policy = Policy { base: rule.verdict, exceptions: Vec::new() };
            } else if rule.verdict != policy.base || !policy.exceptions.is_empty() {
                policy.exceptions.push(rule);
            }
        }
        Ok(policy)
    }

    /// Whether there is nothing to enforce.
    pub(super) fn allows_everything(&self) -> bool {
        // An exception from allowing everything begins with a denial.
        self.base == Verdict::Allow && self.exceptions.is_empty()
    }
}
