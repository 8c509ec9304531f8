//! What stands in the tables: the output of `iptables-save`, taken apart. Pure.

use std::collections::BTreeMap;

use super::rules;

/// The tables of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// By table and chain; built-in chains are among them.
    pub chains: BTreeMap<(String, String), Vec<Rule>>,
    /// A built-in chain has another policy than ACCEPT.
    pub closed: bool,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// What follows the chain's name, as printed: good for `-D`.
    pub text: String,
    /// For comparison: the same rule has the same form whichever version printed it.
    pub form: Vec<String>,
    /// Tag and short id, where it is one of ours that belongs to a network or an owner.
    pub mark: Option<(String, String)>,
    /// Where it jumps to.
    pub target: Option<String>,
}

impl Saved {
    pub(super) fn parse(text: &str) -> Saved {
        let mut saved = Saved::default();
        let mut table = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim().to_owned();
            } else if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split_whitespace();
                let name = words.next().unwrap_or_default().to_owned();
                saved.closed |= !matches!(words.next(), Some("-" | "ACCEPT") | None);
                saved.chains.entry((table.clone(), name)).or_default();
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
                saved.chains.entry((table.clone(), chain.to_owned())).or_default().push(Rule::parse(rule));
            }
        }
        saved
    }

    pub(super) fn chain(&self, table: &str, chain: &str) -> Option<&[Rule]> {
        self.chains.get(&(table.to_owned(), chain.to_owned())).map(Vec::as_slice)
    }

    /// Chains of ours are here.
    pub(super) fn is_home(&self) -> bool {
        self.chain("nat", "MYDOCKER").is_some() || self.chain("filter", "MYDOCKER-FORWARD").is_some()
    }

    /// Somebody uses these tables.
    pub(super) fn is_used(&self) -> bool {
        self.closed || self.chains.values().any(|rules| !rules.is_empty())
    }
}

impl Rule {
    pub(super) fn parse(text: &str) -> Rule {
        let words = words(text);
        let after = |flag: &str| {
            let at = words.iter().position(|word| word == flag)?;
            words.get(at + 1).cloned()
        };
        let mark = after("--comment")
            .and_then(|comment| rules::parse_comment(&comment).map(|(tag, id)| (tag.to_owned(), id.to_owned())));
        Rule { text: text.to_owned(), form: form(&words), mark, target: after("-j") }
    }
}

/// The words of a rule, quotes taken away.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None;
    let mut quoted = false;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_with(String::new);
            }
            '\\' => word.get_or_insert_with(String::new).extend(rest.next()),
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_with(String::new).push(c),
        }
    }
    words.extend(word);
    words
}

/// Options with their values, sorted. Versions differ in the order of matches and of states, in
/// whether they name the module and in whether they write the prefix of a single address.
fn form(words: &[String]) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    let mut negated = false;
    for word in words {
        if word == "!" {
            negated = true;
        } else if word.len() > 1 && word.starts_with('-') {
            options.push(format!("{}{word}", if negated { "! " } else { "" }));
            negated = false;
        } else if let Some(option) = options.last_mut() {
            let mut parts: Vec<&str> = word.split(',').map(single).collect();
            parts.sort_unstable();
            option.push(' ');
            option.push_str(&parts.join(","));
        }
    }
    options.retain(|option| !option.starts_with("-m "));
    options.sort_unstable();
    options
}

fn single(address: &str) -> &str {
    let stripped = address.strip_suffix("/32").or_else(|| address.strip_suffix("/128"));
    stripped.filter(|rest| rest.parse::<std::net::IpAddr>().is_ok()).unwrap_or(address)
}
