//! The firewall of bridge networks: who may reach whom, and published ports, translated in the
//! kernel.
//!
//! ```text
//! rules     what must stand in the tables: pure
//! saved     what stands there: pure
//! plan      the difference as input for iptables-restore: pure
//! program   which iptables, and running it
//! ```
//!
//! All rules stand in chains of our own and carry a comment with the data root's tag and the id of
//! the network or owner, so that several data roots, Docker and the administrator's rules live side
//! by side and each finds its own again.
//!
//! Publishing and its reverse are one run of `iptables-restore` each, which refuses as a whole when
//! the tables are not as expected. Everything else reads the tables first and writes the difference;
//! it is what publishing falls back to, what networks are made with, and what repairs the rules
//! after somebody has flushed them.
//!
//! kill -9 takes whoever runs `iptables-restore`, and not the program, which goes on to write its rules.
//! It has the lock as its standard output, which nobody writes to: so who takes rules away waits until
//! no one is left who could still write them.

mod plan;
mod program;
mod rules;
mod saved;

use std::collections::BTreeSet;
use std::fs::File;

use anyhow::Result;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::{Driver, Network, Protocol, Published};
use crate::error::Failure;
use crate::sys::conntrack;
use plan::{Sweep, plan};
use program::Backend;
pub use rules::Family;
use rules::Ruleset;
use saved::Saved;

/// Makes "read the tables, write the difference" one step among the processes of all data roots. Who
/// writes without reading shares it with others who do.
/// Not `/run/xtables.lock`: the programs we run take that one.
const LOCK: &str = "/run/mydocker-firewall.lock";
/// Times a difference is computed anew because the tables changed under it (others take no lock of ours).
const RACES: usize = 4;

/// The rules of one data root in the calling thread's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    tag: String,
}

/// Which address families the caller has just begun to forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// `net.ipv4.ip_forward` was 0.
    pub ipv4: bool,
    /// `net.ipv6.conf.all.forwarding` was 0.
    pub ipv6: bool,
}

/// What an owner publishes on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The owner's id.
    pub owner: String,
    /// The network whose addresses the ports lead to.
    pub network: Network,
    /// The ports.
    pub ports: Vec<Published>,
}

/// Something about the rules that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whose rules.
    pub subject: Subject,
    /// In the IPv6 tables.
    pub ipv6: bool,
    /// Rules and chains that are not there.
    pub missing: usize,
    /// Rules and chains that are there and should not be.
    pub stray: usize,
}

/// Whom rules serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// All networks.
    Base,
    /// The network of this name.
    Network(String),
    /// The owner with this id.
    Owner(String),
    /// A network or owner that no longer exists: its short id, or a chain's name.
    Gone(String),
}

impl Firewall {
    /// The rules that are marked with `tag`, a short word that tells this data root from others in
    /// the same network namespace. Looks at nothing yet.
    pub fn open(tag: &str) -> Firewall {
        Firewall { tag: tag.to_owned() }
    }

    /// The word that its rules are marked with.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// There is a program to write rules with.
    pub fn is_available(&self) -> bool {
        program::candidates(Family::V4).is_ok()
    }

    /// Makes a network's rules, and the chains that all share, where they are missing. Nothing to do
    /// for anything but a bridge.
    ///
    /// Where forwarding was off before this network, packets between the host's other devices must
    /// stay where they are: for the families in `begun` the policy of FORWARD becomes DROP, as with
    /// Docker. Forwarding is best turned on after this, so that the host is an open router at no time.
    pub fn add_network(&self, network: &Network, begun: Forwarding) -> Result<()> {
        if network.driver != Driver::Bridge {
            return Ok(());
        }
        check_device(&network.device)?;
        for family in Family::BOTH {
            let own = rules::network(family, &self.tag, network);
            if own.entries.is_empty() {
                continue;
            }
            let mut want = rules::base(family);
            want.append(own);
            let backend = self.settle(family, &want, &Sweep::Nothing)?;
            let begun = if family == Family::V4 { begun.ipv4 } else { begun.ipv6 };
            if begun {
                // A built-in chain that is declared gets its policy; without --flush nothing else.
                backend.restore("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", &lock(FlockOperation::LockShared))?;
            }
        }
        Ok(())
    }

    /// Takes a network's rules away; what is already gone is no error. The shared chains stay.
    pub fn remove_network(&self, network: &Network) -> Result<()> {
        if network.driver != Driver::Bridge {
            return Ok(());
        }
        let sweep = Sweep::Of { tag: self.tag.clone(), id: rules::short(&network.id), chain: None };
        for family in Family::BOTH {
            if network.subnets_of(family == Family::V6).next().is_some() {
                self.settle(family, &Ruleset::default(), &sweep)?;
            }
        }
        Ok(())
    }

    /// Takes away everything that is marked as a network's of which nothing is known but the id.
    pub fn forget_network(&self, id: &str) -> Result<()> {
        self.unpublish_owner(id)
    }

    /// Makes the host's ports lead to the owner: one run of a program for each address family that
    /// occurs. The network's rules are made, too, if somebody has removed them. On an error nothing stays.
    pub fn publish(&self, owner: &str, network: &Network, ports: &[Published]) -> Result<()> {
        for family in Family::BOTH {
            let own = rules::published(family, &self.tag, owner, network, ports);
            if own.entries.is_empty() {
                continue;
            }
            if let Err(error) = self.publish_family(family, network, own) {
                // The first error is the one to tell.
                let _ = self.unpublish(owner, network, ports);
                return Err(error);
            }
        }
        // A client that has been sending since before has an entry that says "not translated", or
        // translated to an address that was another owner's. TCP begins each connection anew.
        for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            conntrack::forget_datagrams_to(port.host);
        }
        Ok(())
    }

    fn publish_family(&self, family: Family, network: &Network, own: Ruleset) -> Result<()> {
        let text = rules::publish_text(&own);
        if restore_anywhere(family, &text)? {
            return Ok(());
        }
        // The chains are gone, or something of this owner is there: the difference tells.
        check_device(&network.device)?;
        let mut want = rules::base(family);
        want.append(rules::network(family, &self.tag, network));
        want.append(own);
        self.settle(family, &want, &Sweep::Nothing).map(drop)
    }

    /// Takes what [`Firewall::publish`] made, and the connections that went through it. What is
    /// already gone is no error.
    pub fn unpublish(&self, owner: &str, network: &Network, ports: &[Published]) -> Result<()> {
        let mut result = Ok(());
        for family in Family::BOTH {
            if ports.iter().any(|port| family.is(port.target.ip())) {
                result = result.and(self.unpublish_family(family, owner, network));
            }
        }
        let targets: BTreeSet<_> = ports.iter().map(|port| port.target.ip()).collect();
        targets.into_iter().for_each(conntrack::forget_connections_to);
        result
    }

    fn unpublish_family(&self, family: Family, owner: &str, network: &Network) -> Result<()> {
        let text = rules::unpublish_text(&self.tag, owner, &network.id);
        if restore_anywhere(family, &text)? {
            return Ok(());
        }
        let chain = Some(rules::owner_chain(owner, &network.id));
        let sweep = Sweep::Of { tag: self.tag.clone(), id: rules::short(owner), chain };
        self.settle(family, &Ruleset::default(), &sweep).map(drop)
    }

    /// Takes away everything that is marked as this owner's, on whatever network: for an owner of
    /// which nothing is known but the id. A machine without the programs has no rules.
    pub fn unpublish_owner(&self, owner: &str) -> Result<()> {
        let sweep = Sweep::Of { tag: self.tag.clone(), id: rules::short(owner), chain: None };
        for family in Family::BOTH {
            // Whichever back end the rules were written with.
            for backend in program::candidates(family).unwrap_or_default() {
                let lock = lock(FlockOperation::LockExclusive);
                apply(&backend, backend.saved()?, family, &Ruleset::default(), &sweep, &lock)?;
            }
        }
        Ok(())
    }

    /// Compares the tables with what these networks and publications need. Besides missing rules it
    /// finds those of networks and owners that are not among them.
    pub fn check(&self, networks: &[Network], publications: &[Publication]) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for family in Family::BOTH {
            let (want, sweep) = self.whole(family, networks, publications)?;
            let Some((_, saved)) = home_if_any(family, &want)? else { continue };
            problems.extend(plan(&want, &saved, &sweep, family == Family::V6).problems);
        }
        Ok(problems)
    }

    /// Makes the tables what [`Firewall::check`] wants; the answer is what was wrong.
    pub fn repair(&self, networks: &[Network], publications: &[Publication]) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for family in Family::BOTH {
            let (want, sweep) = self.whole(family, networks, publications)?;
            let lock = lock(FlockOperation::LockExclusive);
            let Some((backend, saved)) = home_if_any(family, &want)? else { continue };
            problems.extend(plan(&want, &saved, &sweep, family == Family::V6).problems);
            apply(&backend, saved, family, &want, &sweep, &lock)?;
        }
        Ok(problems)
    }

    fn whole(&self, family: Family, networks: &[Network], publications: &[Publication]) -> Result<(Ruleset, Sweep)> {
        let mut own = Ruleset::default();
        let mut known = BTreeSet::new();
        for network in networks.iter().filter(|network| network.driver == Driver::Bridge) {
            check_device(&network.device)?;
            own.append(rules::network(family, &self.tag, network));
            known.insert(rules::short(&network.id));
        }
        for Publication { owner, network, ports } in publications {
            own.append(rules::published(family, &self.tag, owner, network, ports));
            known.insert(rules::short(owner));
        }
        let mut want = Ruleset::default();
        if !own.entries.is_empty() {
            want = rules::base(family);
            want.append(own);
        }
        Ok((want, Sweep::Orphans { tag: self.tag.clone(), known }))
    }

    fn settle(&self, family: Family, want: &Ruleset, sweep: &Sweep) -> Result<Backend> {
        let lock = lock(FlockOperation::LockExclusive);
        let (backend, saved) = home(family)?;
        apply(&backend, saved, family, want, sweep, &lock)?;
        Ok(backend)
    }
}

/// The back end our rules belong in, and what its tables hold: see [`program`].
fn home(family: Family) -> Result<(Backend, Saved)> {
    let mut found = program::candidates(family)?
        .into_iter()
        .map(|backend| backend.saved().map(|saved| (backend, saved)))
        .collect::<Result<Vec<_>>>()?;
    // Of two, the legacy one is first and the default last.
    let chosen = (found.iter().rposition(|(_, saved)| saved.is_home()))
        .or_else(|| found.iter().position(|(_, saved)| saved.is_used()))
        .unwrap_or(found.len().saturating_sub(1));
    Ok(found.swap_remove(chosen))
}

/// [`home`]; a machine without the programs has no rules, which is right when none are wanted.
fn home_if_any(family: Family, want: &Ruleset) -> Result<Option<(Backend, Saved)>> {
    if want.entries.is_empty() && program::candidates(family).is_err() {
        return Ok(None);
    }
    home(family).map(Some)
}

/// Writes the difference between `saved`, which has just been read, and what is wanted.
fn apply(
    backend: &Backend,
    mut saved: Saved,
    family: Family,
    want: &Ruleset,
    sweep: &Sweep,
    lock: &Option<File>,
) -> Result<()> {
    for _ in 1..RACES {
        let script = plan(want, &saved, sweep, family == Family::V6).script;
        if script.is_empty() || backend.restore(&script, lock).is_ok() {
            return Ok(());
        }
        saved = backend.saved()?;
    }
    let script = plan(want, &saved, sweep, family == Family::V6).script;
    if script.is_empty() { Ok(()) } else { backend.restore(&script, lock) }
}

/// Writes without a look at the tables, with the first back end that can; false when none could.
fn restore_anywhere(family: Family, text: &str) -> Result<bool> {
    let lock = lock(FlockOperation::LockShared);
    Ok(program::candidates(family)?.iter().any(|backend| backend.restore(text, &lock).is_ok()))
}

/// Without a place for the lock it goes without: the worst is a rule that stands twice, which
/// [`Firewall::repair`] finds. The file stays, because a lock that is removed locks nobody. Open for
/// reading only: programs have it, too.
fn lock(operation: FlockOperation) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(LOCK, flags, Mode::from_raw_mode(0o600)).ok()?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation)).ok()?;
    Some(File::from(file))
}

/// A device's name becomes part of lines of rules, where quotes have a meaning and a last `+` would
/// stand for every device whose name begins so.
fn check_device(device: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | ':');
    if device.is_empty() || device.len() > 15 || device.starts_with(['-', '!']) || !device.chars().all(plain) {
        let failure = Failure::usage(format!("invalid bridge name {device:?}: it cannot be written in firewall rules"));
        return Err(failure.with_hint("use at most 15 letters, digits, '-', '_' and '.'").into());
    }
    Ok(())
}

/// What a network's bridge needs below `/proc/sys`: path and value.
///
/// `send_redirects` is not among them: the kernel takes the larger of `all`, which is 1, and the
/// device's own, and drops redirects of translated connections anyway (nf_nat_icmp_reply_translation).
pub fn bridge_sysctls(network: &Network) -> Vec<(String, String)> {
    let device = &network.device;
    let mut settings = Vec::new();
    if network.driver != Driver::Bridge {
        return settings;
    }
    let mut set = |path: String, value: &str| settings.push((path, value.to_owned()));
    if !network.internal && network.subnets_of(false).next().is_some() {
        // 127.0.0.1:port of the host leads into the bridge with a source in 127.0.0.0/8, and its
        // answers come back from there; the raw table keeps everything else to 127.0.0.0/8 out.
        set(format!("net/ipv4/conf/{device}/route_localnet"), "1");
    }
    if network.has_ipv6() {
        // A container that plays router must not change the host's routes (CVE-2020-13401).
        set(format!("net/ipv6/conf/{device}/accept_ra"), "0");
    } else {
        // No link-local addresses, by which containers would reach the host past rules for IPv4.
        set(format!("net/ipv6/conf/{device}/disable_ipv6"), "1");
    }
    settings
}

#[cfg(test)]
mod tests;
