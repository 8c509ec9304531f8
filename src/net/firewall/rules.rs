//! What must stand in the tables, as values and as text: pure.
//!
//! ```text
//! filter  INPUT       ! -i lo          → MYDOCKER-INPUT       gateways of other networks, closed
//!         FORWARD                      → MYDOCKER-USER        the user's: made once, never touched again
//!                                      → MYDOCKER-FORWARD     → MYDOCKER-INTERNAL  nothing leaves these
//!                                                             → MYDOCKER           -o bridge → its chain
//!                                                               -o docker+         left to Docker
//!                                                             → MYDOCKER-OUT       -i bridge, accepted
//!         MYDOCKER-NET-<network>       what may go into that bridge; ends with DROP
//! nat     PREROUTING, OUTPUT  to LOCAL → MYDOCKER             → MYDOCKER-<owner>-<network>: DNAT
//!         POSTROUTING                  → MYDOCKER-POSTROUTING masquerading
//! raw     PREROUTING                   → MYDOCKER             127.0.0.0/8 from outside, dropped
//! ```
//!
//! Every packet towards a bridge is judged by that bridge's chain, which has the last word; only
//! what is towards none of our bridges comes to MYDOCKER-OUT. So no network's permission to send
//! opens another network.
//!
//! `--ctstate DNAT` stands for "somebody on this host translated the destination on purpose": the
//! status is set by NAT rules alone, no packet can claim it. So a published port needs no rule in
//! the filter table: one rule a port instead of two, one table a change instead of two, and the
//! container's address itself stays closed to whoever routes to it directly.
//!
//! Rules are written in the form in which `iptables-save` prints them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::{Driver, Network, Published, option};
use super::Subject;

/// The chain of the filter table that sends a packet to the chain of the bridge it is for.
pub(super) const DISPATCH: &str = "MYDOCKER";
/// First word of every comment.
const MARK: &str = "mydocker";

/// An address family, each of which has tables and programs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Family {
    /// Both, in the order in which things are done.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub(super) fn is(self, address: IpAddr) -> bool {
        address.is_ipv6() == (self == Family::V6)
    }
}

/// One thing that must stand in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub table: &'static str,
    pub chain: String,
    pub want: Want,
    /// Whom it serves, for messages.
    pub subject: Subject,
}

/// What is wanted of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    /// It exists; the content is others' business.
    Exists,
    /// Exactly these rules.
    Exactly(Vec<String>),
    /// This rule, once, anywhere; made at the end.
    Holds(String),
    /// These rules, once each, in this order; made at the top.
    Leads(Vec<String>),
}

/// Everything that must stand in the tables of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub entries: Vec<Entry>,
}

impl Ruleset {
    fn add(&mut self, subject: &Subject, table: &'static str, chain: impl Into<String>, want: Want) {
        self.entries.push(Entry { table, chain: chain.into(), want, subject: subject.clone() });
    }

    pub(super) fn append(&mut self, mut other: Ruleset) {
        self.entries.append(&mut other.entries);
    }
}

/// The comment that tells whose a rule is: which data root's, and of which network or owner.
pub(super) fn comment(tag: &str, id: &str) -> String {
    format!("-m comment --comment \"{MARK} {} {}\"", word(tag), short(id))
}

/// Tag and short id of a comment that [`comment`] wrote.
pub(super) fn parse_comment(text: &str) -> Option<(&str, &str)> {
    let (tag, id) = text.strip_prefix(MARK)?.strip_prefix(' ')?.split_once(' ')?;
    (!tag.is_empty() && !id.is_empty() && !id.contains(' ')).then_some((tag, id))
}

/// The first twelve characters of an id.
pub(super) fn short(id: &str) -> String {
    word(id).chars().take(12).collect()
}

/// Without anything that has a meaning in a line of rules.
fn word(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')).collect()
}

/// The chain that decides what may go into a network's bridge.
pub(super) fn network_chain(network_id: &str) -> String {
    format!("MYDOCKER-NET-{}", short(network_id).chars().take(8).collect::<String>())
}

/// The chain of what an owner publishes from one network. 28 characters is the most a name may have
/// (`XT_EXTENSION_MAXNAMELEN`).
pub(super) fn owner_chain(owner: &str, network_id: &str) -> String {
    format!("MYDOCKER-{}-{}", short(owner), short(network_id).chars().take(6).collect::<String>())
}

/// A chain made for one network or owner, not one of the fixed ones.
pub(super) fn is_private(chain: &str) -> bool {
    let Some(rest) = chain.strip_prefix("MYDOCKER-") else { return false };
    rest.starts_with("NET-")
        || rest.split_once('-').is_some_and(|(owner, network)| owner.len() == 12 && network.len() == 6)
}

/// The chains and jumps that all networks of all data roots share. They stay when the last network
/// goes, as Docker's do.
pub(super) fn base(family: Family) -> Ruleset {
    let mut rules = Ruleset::default();
    let subject = Subject::Base;
    let mark = format!("-m comment --comment {MARK}");
    for chain in ["MYDOCKER-USER", "MYDOCKER-INTERNAL", DISPATCH, "MYDOCKER-OUT", "MYDOCKER-INPUT"] {
        rules.add(&subject, "filter", chain, Want::Exists);
    }
    let mut jumps = ["MYDOCKER-INTERNAL", DISPATCH, "MYDOCKER-OUT"].map(|chain| format!("{mark} -j {chain}")).to_vec();
    // Who may enter Docker's own bridges is for Docker's rules to say, which come after ours.
    jumps.insert(2, format!("-o docker+ {mark} -j RETURN"));
    rules.add(&subject, "filter", "MYDOCKER-FORWARD", Want::Exactly(jumps));
    let jumps = ["MYDOCKER-USER", "MYDOCKER-FORWARD"].map(|chain| format!("{mark} -j {chain}"));
    rules.add(&subject, "filter", "FORWARD", Want::Leads(jumps.to_vec()));
    // What the host sends to itself arrives on lo, whatever address it is for.
    rules.add(&subject, "filter", "INPUT", Want::Leads(vec![format!("! -i lo {mark} -j MYDOCKER-INPUT")]));

    rules.add(&subject, "nat", "MYDOCKER", Want::Exists);
    rules.add(&subject, "nat", "MYDOCKER-POSTROUTING", Want::Exists);
    // At the end: translations that the administrator wrote go first.
    //
    // A packet to 127.0.0.1 that comes in from a wire must not be translated, because routing,
    // which would refuse it, sees the new destination only (the raw table drops it as well). The
    // host's own packets to 127.0.0.1 are translated in OUTPUT.
    // The IPv6 loopback is left out, so that [::1] is refused at once and clients that try it first go
    // on to 127.0.0.1. There is no route_localnet for it: an answer's destination is translated back to
    // ::1, which routing looks for on the bridge only (rt6_need_strict). A route `local ::1 dev <bridge>`
    // cures that, but with br_netfilter the translation happens in the bridge, before ip6_rcv_core throws
    // away whatever comes from a wire for ::1, and connections would hang.
    let (incoming, outgoing) = match family {
        Family::V4 => ("! -d 127.0.0.0/8 ", ""),
        Family::V6 => ("", "! -d ::1/128 "),
    };
    for (chain, but) in [("PREROUTING", incoming), ("OUTPUT", outgoing)] {
        let jump = format!("{but}-m addrtype --dst-type LOCAL {mark} -j MYDOCKER");
        rules.add(&subject, "nat", chain, Want::Holds(jump));
    }
    rules.add(&subject, "nat", "POSTROUTING", Want::Holds(format!("{mark} -j MYDOCKER-POSTROUTING")));

    // CVE-2020-8558: bridges have route_localnet, so without this a container could talk to what
    // listens on the host's 127.0.0.1. For ::1 the kernel does it by itself (ip6_rcv_core).
    if family == Family::V4 {
        let drop = format!("-d 127.0.0.0/8 ! -i lo {mark} -j DROP");
        rules.add(&subject, "raw", "MYDOCKER", Want::Exactly(vec![drop]));
        rules.add(&subject, "raw", "PREROUTING", Want::Leads(vec![format!("{mark} -j MYDOCKER")]));
    }
    rules
}

/// The rules of one network; none where it is no bridge or lacks the family.
pub(super) fn network(family: Family, tag: &str, network: &Network) -> Ruleset {
    let mut rules = Ruleset::default();
    let subnets: Vec<_> = network.subnets_of(family == Family::V6).collect();
    if network.driver != Driver::Bridge || subnets.is_empty() {
        return rules;
    }
    let subject = Subject::Network(network.name.clone());
    let mark = comment(tag, &network.id);
    let bridge = network.device.as_str();
    let chain = network_chain(&network.id);
    let mut into = Vec::new();
    if !network.internal {
        into.push(format!("-m conntrack --ctstate RELATED,ESTABLISHED {mark} -j ACCEPT"));
        into.push(format!("-m conntrack --ctstate DNAT {mark} -j ACCEPT"));
    }
    // From a neighbour: routed by the bridge, or switched where br_netfilter shows us such frames.
    if network.flag(option::ICC, true) {
        into.push(format!("-i {bridge} {mark} -j ACCEPT"));
    }
    into.push(format!("{mark} -j DROP"));
    rules.add(&subject, "filter", &chain, Want::Exactly(into));
    rules.add(&subject, "filter", DISPATCH, Want::Holds(format!("-o {bridge} {mark} -j {chain}")));

    let mut input = |rule: String| rules.add(&subject, "filter", "MYDOCKER-INPUT", Want::Holds(rule));
    for gateway in subnets.iter().filter_map(|subnet| subnet.gateway) {
        input(format!("-d {} ! -i {bridge} {mark} -j DROP", IpNetwork::from(gateway)));
    }
    if network.internal {
        // The host is reached at the network's own addresses only.
        for subnet in &subnets {
            input(format!("-d {} -i {bridge} {mark} -j RETURN", subnet.subnet));
        }
        if family == Family::V6 {
            input(format!("-d fe80::/10 -i {bridge} {mark} -j RETURN"));
        }
        input(format!("-i {bridge} -m addrtype --dst-type LOCAL {mark} -j DROP"));
        let drop = format!("-i {bridge} ! -o {bridge} {mark} -j DROP");
        rules.add(&subject, "filter", "MYDOCKER-INTERNAL", Want::Holds(drop));
        return rules;
    }
    rules.add(&subject, "filter", "MYDOCKER-OUT", Want::Holds(format!("-i {bridge} {mark} -j ACCEPT")));

    let mut masquerade = |rule: String| {
        rules.add(&subject, "nat", "MYDOCKER-POSTROUTING", Want::Holds(format!("{rule} {mark} -j MASQUERADE")));
    };
    for subnet in &subnets {
        if network.flag(option::MASQUERADE, true) {
            masquerade(format!("-s {} ! -o {bridge}", subnet.subnet));
        }
        // A neighbour (or the owner itself) by way of the host's address: the answer must come back
        // through the host to be translated.
        masquerade(format!("-s {} -o {bridge} -m conntrack --ctstate DNAT", subnet.subnet));
    }
    if family == Family::V4 {
        // The host through 127.0.0.1: nobody else can answer such an address.
        masquerade(format!("-s 127.0.0.0/8 -o {bridge}"));
    }
    rules
}

/// The translation of an owner's ports on one network; those of the other family are left out.
pub(super) fn published(family: Family, tag: &str, owner: &str, network: &Network, ports: &[Published]) -> Ruleset {
    let mut rules = Ruleset::default();
    let mark = comment(tag, owner);
    let lines: Vec<String> = ports
        .iter()
        .filter(|port| family.is(port.target.ip()))
        .map(|port| {
            let address = match port.host.ip() {
                any if any.is_unspecified() => String::new(),
                one => format!("-d {} ", IpNetwork::from(one)),
            };
            let (protocol, number, target) = (port.protocol, port.host.port(), port.target);
            format!("{address}-p {protocol} -m {protocol} --dport {number} {mark} -j DNAT --to-destination {target}")
        })
        .collect();
    if lines.is_empty() {
        return rules;
    }
    let subject = Subject::Owner(owner.to_owned());
    let chain = owner_chain(owner, &network.id);
    rules.add(&subject, "nat", &chain, Want::Exactly(lines));
    rules.add(&subject, "nat", "MYDOCKER", Want::Holds(format!("{mark} -j {chain}")));
    rules
}

/// Input for `iptables-restore` that publishes where nothing of this owner stands yet. `-N` fails
/// when the chain exists and `-I` when the one above is missing, and then nothing is changed at
/// all: so the usual case needs no look at the tables, and the unusual ones are noticed. The jump
/// goes to the top: rules of an owner that was killed with its supervisor may still be there, and
/// whoever holds the port now comes first.
pub(super) fn publish_text(rules: &Ruleset) -> String {
    let mut text = String::from("*nat\n");
    for entry in &rules.entries {
        match &entry.want {
            Want::Exactly(lines) => {
                text.push_str(&format!("-N {}\n", entry.chain));
                lines.iter().for_each(|line| text.push_str(&format!("-A {} {line}\n", entry.chain)));
            }
            Want::Holds(line) => text.push_str(&format!("-I {} 1 {line}\n", entry.chain)),
            Want::Exists | Want::Leads(_) => {}
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// The reverse of [`publish_text`]; fails, changing nothing, when part of it is missing.
pub(super) fn unpublish_text(tag: &str, owner: &str, network_id: &str) -> String {
    let chain = owner_chain(owner, network_id);
    let mark = comment(tag, owner);
    format!("*nat\n-D MYDOCKER {mark} -j {chain}\n-F {chain}\n-X {chain}\nCOMMIT\n")
}
