//! From what is wanted and what stands there to the lines that make one of the other: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::rules::{self, Ruleset, Want};
use super::saved::{Rule, Saved};
use super::{Problem, Subject};

/// Which rules of ours are to go although nobody wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sweep {
    /// None.
    Nothing,
    /// Those of one network or owner of this data root, and its chains even where they are empty.
    Of {
        tag: String,
        /// Twelve characters.
        id: String,
        /// Only this chain and what jumps there; `None` for all.
        chain: Option<String>,
    },
    /// Those of this data root whose network or owner is none of these (twelve characters each),
    /// and chains of nobody.
    Orphans { tag: String, known: BTreeSet<String> },
}

impl Sweep {
    fn takes_rule(&self, chain: &str, rule: &Rule) -> bool {
        let Some((rule_tag, rule_id)) = &rule.mark else { return false };
        match self {
            Sweep::Nothing => false,
            Sweep::Of { tag, id, chain: only } => {
                let here = only.as_deref().is_none_or(|only| only == chain || rule.target.as_deref() == Some(only));
                rule_tag == tag && rule_id == id && here
            }
            Sweep::Orphans { tag, known } => rule_tag == tag && !known.contains(rule_id),
        }
    }

    /// An empty chain bears no comment. It is nobody's when nothing jumps there: chains of owners
    /// and networks are made and taken away together with their jump, except by a flush, and what
    /// another data root lost by a flush it makes anew.
    fn takes_empty(&self, chain: &str) -> bool {
        match self {
            Sweep::Nothing => false,
            Sweep::Of { chain: Some(only), .. } => chain == only,
            Sweep::Of { id, .. } => chain == rules::network_chain(id) || chain.starts_with(&format!("MYDOCKER-{id}-")),
            Sweep::Orphans { .. } => true,
        }
    }
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Input for `iptables-restore --noflush`; empty when all is well.
    pub script: String,
    /// What was found, one a subject.
    pub problems: Vec<Problem>,
}

/// The lines of one table, in the order in which they have to stand.
#[derive(Default)]
struct Lines {
    /// Makes the chain or empties it.
    declare: Vec<String>,
    delete: Vec<String>,
    insert: Vec<String>,
    append: Vec<String>,
    drop: Vec<String>,
}

/// Compares and plans. `ipv6` only names the family in the problems.
pub(super) fn plan(want: &Ruleset, saved: &Saved, sweep: &Sweep, ipv6: bool) -> Plan {
    let mut tables: BTreeMap<&str, Lines> = BTreeMap::new();
    let mut counts: Vec<(Subject, usize, usize)> = Vec::new();
    let mut count = |subject: &Subject, missing: usize, stray: usize| {
        if missing + stray == 0 {
            return;
        }
        match counts.iter_mut().find(|(known, _, _)| known == subject) {
            Some(entry) => (entry.1, entry.2) = (entry.1 + missing, entry.2 + stray),
            None => counts.push((subject.clone(), missing, stray)),
        }
    };
    for entry in &want.entries {
        let lines = tables.entry(entry.table).or_default();
        let chain = entry.chain.as_str();
        let present = saved.chain(entry.table, chain);
        let here = present.unwrap_or_default();
        match &entry.want {
            Want::Exists if present.is_some() => {}
            Want::Exists => {
                count(&entry.subject, 1, 0);
                lines.declare.push(declaration(chain));
            }
            Want::Exactly(wanted) => {
                let forms: Vec<Rule> = wanted.iter().map(|text| Rule::parse(text)).collect();
                if !forms.iter().map(|rule| &rule.form).eq(here.iter().map(|rule| &rule.form)) {
                    let missing = forms.iter().filter(|rule| !here.iter().any(|other| other.form == rule.form)).count();
                    // Same rules in another order count as one that is out of place.
                    let stray = here.len().saturating_sub(forms.len() - missing);
                    count(&entry.subject, missing, stray.max(usize::from(missing == 0)));
                    lines.declare.push(declaration(chain));
                    lines.append.extend(wanted.iter().map(|rule| format!("-A {chain} {rule}")));
                }
            }
            Want::Holds(text) => {
                let form = Rule::parse(text).form;
                let found: Vec<&Rule> = here.iter().filter(|rule| rule.form == form).collect();
                match found.split_first() {
                    None => {
                        count(&entry.subject, 1, 0);
                        lines.append.push(format!("-A {chain} {text}"));
                    }
                    Some((_, again)) => {
                        count(&entry.subject, 0, again.len());
                        lines.delete.extend(again.iter().map(|rule| format!("-D {chain} {}", rule.text)));
                    }
                }
            }
            Want::Leads(wanted) => {
                let forms: Vec<Vec<String>> = wanted.iter().map(|text| Rule::parse(text).form).collect();
                let found: Vec<&Rule> = here.iter().filter(|rule| forms.contains(&rule.form)).collect();
                if !found.iter().map(|rule| &rule.form).eq(forms.iter()) {
                    count(&entry.subject, forms.len().saturating_sub(found.len()).max(1), 0);
                    lines.delete.extend(found.iter().map(|rule| format!("-D {chain} {}", rule.text)));
                    lines.insert.extend(wanted.iter().rev().map(|rule| format!("-I {chain} 1 {rule}")));
                }
            }
        }
    }
    for subject in swept(want, saved, sweep, &mut tables) {
        count(&subject, 0, 1);
    }
    let problems = counts.into_iter().map(|(subject, missing, stray)| Problem { subject, ipv6, missing, stray });
    Plan { problems: problems.collect(), script: script(&tables) }
}

/// Adds the lines that take away what the sweep names; one item for each rule or chain.
fn swept<'a>(want: &Ruleset, saved: &'a Saved, sweep: &Sweep, tables: &mut BTreeMap<&'a str, Lines>) -> Vec<Subject> {
    let mut found = Vec::new();
    if *sweep == Sweep::Nothing {
        return found;
    }
    let wanted_whole = |table: &str, chain: &str| {
        let mut entries = want.entries.iter();
        entries.any(|entry| entry.table == table && entry.chain == chain && matches!(entry.want, Want::Exactly(_)))
    };
    let wanted_rule = |table: &str, chain: &str, rule: &Rule| {
        want.entries.iter().filter(|entry| entry.table == table && entry.chain == chain).any(|entry| {
            match &entry.want {
                Want::Holds(text) => Rule::parse(text).form == rule.form,
                _ => false,
            }
        })
    };
    for ((table, chain), here) in &saved.chains {
        if wanted_whole(table, chain) {
            continue;
        }
        let goes = |rule: &Rule| sweep.takes_rule(chain, rule) && !wanted_rule(table, chain, rule);
        let lines = tables.entry(table).or_default();
        let stays = |from: &str, rule: &Rule| !sweep.takes_rule(from, rule) || wanted_rule(table, from, rule);
        let referred = || {
            let others = saved.chains.iter().filter(|((other, _), _)| other == table);
            let mut all = others.flat_map(|((_, from), rules)| rules.iter().map(move |rule| (from, rule)));
            all.any(|(from, rule)| rule.target.as_deref() == Some(chain) && stays(from, rule))
        };
        let all = !here.is_empty() && here.iter().all(goes);
        let empty = here.is_empty() && sweep.takes_empty(chain);
        if rules::is_private(chain) && (all || empty) && !referred() {
            lines.drop.push(format!("-F {chain}"));
            lines.drop.push(format!("-X {chain}"));
            let id = here.first().and_then(|rule| rule.mark.clone()).map_or_else(|| chain.clone(), |(_, id)| id);
            found.extend(std::iter::repeat_n(Subject::Gone(id), here.len().max(1)));
            continue;
        }
        for rule in here.iter().filter(|rule| goes(rule)) {
            lines.delete.push(format!("-D {chain} {}", rule.text));
            let id = rule.mark.as_ref().map(|(_, id)| id.clone()).unwrap_or_default();
            found.push(Subject::Gone(id));
        }
    }
    found
}

fn declaration(chain: &str) -> String {
    format!(":{chain} - [0:0]")
}

fn script(tables: &BTreeMap<&str, Lines>) -> String {
    let mut text = String::new();
    for (table, lines) in tables {
        let all = [&lines.declare, &lines.delete, &lines.insert, &lines.append, &lines.drop];
        if all.iter().all(|part| part.is_empty()) {
            continue;
        }
        text.push_str(&format!("*{table}\n"));
        for line in all.into_iter().flatten() {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("COMMIT\n");
    }
    text
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        let whose = match &self.subject {
            Subject::Base => format!("{family} firewall rules that all networks share"),
            Subject::Network(name) => format!("{family} firewall rules of network {name}"),
            Subject::Owner(id) => format!("{family} firewall rules of container {}'s ports", rules::short(id)),
            Subject::Gone(id) => format!("{family} firewall rules of {id}, which no longer exists"),
        };
        let parts: Vec<String> = [(self.missing, "missing"), (self.stray, "too many")]
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{number} {what}"))
            .collect();
        write!(f, "{whose}: {}", parts.join(", "))
    }
}
