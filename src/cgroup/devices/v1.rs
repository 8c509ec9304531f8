//! A policy as writes to the files of cgroups v1 (`Documentation/admin-guide/cgroup-v1/devices.rst`).
//!
//! A v1 group has a verdict for everything and a list of exceptions from it. A write that speaks against the verdict
//! adds an exception; one that agrees with it takes accesses from the exception of exactly the same numbers, and is
//! silently of no effect on any other. So not every policy can be said, and one that cannot is refused here.

use anyhow::Result;

use super::policy::{Kind, Policy, Rule, Verdict};
use crate::error::Failure;

/// A line for `devices.allow` or `devices.deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) verdict: Verdict,
    pub(super) line: String,
}

impl Write {
    pub(super) fn file(&self) -> &'static str {
        if self.verdict == Verdict::Allow { "devices.allow" } else { "devices.deny" }
    }
}

/// The writes, in order. The first sets the verdict for everything and forgets what the parent's exceptions were.
///
/// # Errors
/// v1 has no words for this policy.
pub(super) fn writes(policy: &Policy) -> Result<Vec<Write>, Failure> {
    let mut writes = vec![Write { verdict: policy.base, line: "a".into() }];
    let mut exceptions: Vec<Rule> = Vec::new();
    for rule in &policy.exceptions {
        for rule in one_kind_each(rule) {
            if rule.verdict == policy.base {
                take(&mut exceptions, &rule)?;
            } else {
                match exceptions.iter_mut().find(|exception| same_numbers(exception, &rule)) {
                    Some(exception) => exception.access = exception.access.union(rule.access),
                    None => exceptions.push(rule),
                }
            }
            writes.push(Write { verdict: rule.verdict, line: rule.to_string() });
        }
    }
    Ok(writes)
}

/// A line that begins with `a` means everything, whatever follows; so a rule for both kinds is two lines.
fn one_kind_each(rule: &Rule) -> Vec<Rule> {
    let kinds = rule.kind.map_or_else(|| vec![Kind::Block, Kind::Character], |kind| vec![kind]);
    kinds.into_iter().map(|kind| Rule { kind: Some(kind), ..*rule }).collect()
}

fn take(exceptions: &mut [Rule], rule: &Rule) -> Result<(), Failure> {
    let meets = |one: Option<u32>, other: Option<u32>| one.is_none() || other.is_none() || one == other;
    for exception in exceptions {
        let overlaps = exception.kind == rule.kind
            && meets(exception.major, rule.major)
            && meets(exception.minor, rule.minor)
            && exception.access.intersects(rule.access);
        if !overlaps {
            continue;
        }
        if !same_numbers(exception, rule) {
            let word = |verdict| if verdict == Verdict::Allow { "allow" } else { "deny" };
            let (this, that) = (word(rule.verdict), word(exception.verdict));
            return Err(Failure::engine(format!(
                "cannot {this} device {rule} after \"{that} {exception}\" in cgroups v1"
            ))
            .with_hint("cgroups v1 can only take back a rule with the same numbers; write the wider one out"));
        }
        exception.access = exception.access.without(rule.access);
    }
    Ok(())
}

fn same_numbers(one: &Rule, other: &Rule) -> bool {
    (one.kind, one.major, one.minor) == (other.kind, other.major, other.minor)
}
