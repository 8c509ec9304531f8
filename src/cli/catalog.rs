//! All commands, flat and grouped, and how a word finds one.

use super::output::Refusal;
use super::spec::Spec;
use super::{
    commit, container, doctor, events, exec, export, image, import, inspect, load, logs, network, port, prune, ps,
    registry, run, save, stats, system, system_prune, top, transfer, update, usage, why,
};

/// A command under one of its words.
pub(super) struct Entry {
    /// The word and its aliases; help shows the first.
    pub(super) words: &'static [&'static str],
    /// The command.
    pub(super) spec: &'static Spec,
}

/// A noun with its commands.
pub(super) struct Group {
    /// The noun.
    pub(super) name: &'static str,
    /// One line.
    pub(super) about: &'static str,
    /// Its commands.
    pub(super) entries: &'static [Entry],
}

const fn entry(words: &'static [&'static str], spec: &'static Spec) -> Entry {
    Entry { words, spec }
}

/// Commands without a noun.
pub(super) static FLAT: &[Entry] = &[
    entry(&["run"], &run::RUN),
    entry(&["exec"], &exec::EXEC),
    entry(&["ps"], &ps::PS),
    entry(&["images"], &image::IMAGES),
    entry(&["version"], &system::VERSION),
    entry(&["info"], &system::INFO),
    entry(&["attach"], &container::ATTACH),
    entry(&["commit"], &commit::COMMIT),
    entry(&["create"], &run::CREATE),
    entry(&["diff"], &export::DIFF),
    entry(&["doctor"], &doctor::DOCTOR),
    entry(&["events"], &events::EVENTS),
    entry(&["history"], &image::HISTORY),
    entry(&["inspect"], &inspect::INSPECT),
    entry(&["kill"], &container::KILL),
    entry(&["login"], &registry::LOGIN),
    entry(&["logout"], &registry::LOGOUT),
    entry(&["export"], &export::EXPORT),
    entry(&["import"], &import::IMPORT),
    entry(&["load"], &load::LOAD),
    entry(&["logs"], &logs::LOGS),
    entry(&["pause"], &container::PAUSE),
    entry(&["port"], &port::PORT),
    entry(&["pull"], &transfer::PULL),
    entry(&["push"], &transfer::PUSH),
    entry(&["rename"], &container::RENAME),
    entry(&["restart"], &container::RESTART),
    entry(&["rm"], &container::REMOVE),
    entry(&["rmi"], &image::REMOVE),
    entry(&["search"], &registry::SEARCH),
    entry(&["save"], &save::SAVE),
    entry(&["start"], &container::START),
    entry(&["stats"], &stats::STATS),
    entry(&["stop"], &container::STOP),
    entry(&["tag"], &image::TAG),
    entry(&["top"], &top::TOP),
    entry(&["unpause"], &container::UNPAUSE),
    entry(&["update"], &update::UPDATE),
    entry(&["wait"], &container::WAIT),
    entry(&["why"], &why::WHY),
];

/// Commands with a noun.
pub(super) static GROUPS: &[Group] = &[
    Group {
        name: "container",
        about: "Manage containers",
        entries: &[
            entry(&["attach"], &container::ATTACH),
            entry(&["commit"], &commit::COMMIT),
            entry(&["create"], &run::CREATE),
            entry(&["diff"], &export::DIFF),
            entry(&["exec"], &exec::EXEC),
            entry(&["export"], &export::EXPORT),
            entry(&["inspect"], &inspect::CONTAINER_INSPECT),
            entry(&["kill"], &container::KILL),
            entry(&["logs"], &logs::LOGS),
            entry(&["ls", "list", "ps"], &ps::PS),
            entry(&["pause"], &container::PAUSE),
            entry(&["port"], &port::PORT),
            entry(&["prune"], &prune::CONTAINER_PRUNE),
            entry(&["rename"], &container::RENAME),
            entry(&["restart"], &container::RESTART),
            entry(&["rm", "remove"], &container::REMOVE),
            entry(&["run"], &run::RUN),
            entry(&["start"], &container::START),
            entry(&["stats"], &stats::STATS),
            entry(&["stop"], &container::STOP),
            entry(&["top"], &top::TOP),
            entry(&["unpause"], &container::UNPAUSE),
            entry(&["update"], &update::UPDATE),
            entry(&["wait"], &container::WAIT),
            entry(&["why"], &why::WHY),
        ],
    },
    Group {
        name: "image",
        about: "Manage images",
        entries: &[
            entry(&["history"], &image::HISTORY),
            entry(&["import"], &import::IMPORT),
            entry(&["inspect"], &image::INSPECT),
            entry(&["load"], &load::LOAD),
            entry(&["ls", "list"], &image::IMAGES),
            entry(&["prune"], &image::PRUNE),
            entry(&["pull"], &transfer::PULL),
            entry(&["push"], &transfer::PUSH),
            entry(&["rm", "remove"], &image::REMOVE),
            entry(&["save"], &save::SAVE),
            entry(&["search"], &registry::IMAGE_SEARCH),
            entry(&["tag"], &image::TAG),
        ],
    },
    Group {
        name: "network",
        about: "Manage networks",
        entries: &[
            entry(&["connect"], &network::CONNECT),
            entry(&["create"], &network::CREATE),
            entry(&["disconnect"], &network::DISCONNECT),
            entry(&["inspect"], &network::INSPECT),
            entry(&["ls", "list"], &network::LIST),
            entry(&["prune"], &network::PRUNE),
            entry(&["rm", "remove"], &network::REMOVE),
        ],
    },
    Group {
        name: "system",
        about: "Manage the installation",
        entries: &[
            entry(&["df"], &usage::DF),
            entry(&["doctor"], &doctor::DOCTOR),
            entry(&["events"], &events::EVENTS),
            entry(&["info"], &system::INFO),
            entry(&["prune"], &system_prune::SYSTEM_PRUNE),
            entry(&["version"], &system::VERSION),
        ],
    },
];

/// What the first words of a command line name.
pub(super) enum Found<'a> {
    /// `help` and what it is asked about.
    Help(&'a [String]),
    /// A noun alone.
    Group(&'static Group),
    /// A command.
    Command {
        /// The command.
        spec: &'static Spec,
        /// How the user named it.
        path: String,
        /// The words after it.
        rest: &'a [String],
    },
}

/// Finds the command that `words` begin with.
pub(super) fn find(words: &[String]) -> Result<Found<'_>, Refusal> {
    let Some((first, rest)) = words.split_first() else { return Ok(Found::Help(words)) };
    if first == "help" {
        return Ok(Found::Help(rest));
    }
    if let Some(entry) = FLAT.iter().find(|entry| entry.words.contains(&first.as_str())) {
        return Ok(Found::Command { spec: entry.spec, path: first.clone(), rest });
    }
    let Some(group) = GROUPS.iter().find(|group| group.name == first) else {
        let names = FLAT.iter().flat_map(|entry| entry.words).chain(GROUPS.iter().map(|group| &group.name));
        return Err(unknown(first, "", names.copied()));
    };
    let Some((second, rest)) = rest.split_first() else { return Ok(Found::Group(group)) };
    if matches!(second.as_str(), "--help" | "-h" | "help") {
        return Ok(Found::Group(group));
    }
    let path = format!("{first} {second}");
    if second.starts_with('-') {
        return Err(Refusal::usage(format!("unknown flag: {second}"), first));
    }
    match group.entries.iter().find(|entry| entry.words.contains(&second.as_str())) {
        Some(entry) => Ok(Found::Command { spec: entry.spec, path, rest }),
        None => Err(unknown(&path, first, group.entries.iter().flat_map(|entry| entry.words).copied())),
    }
}

/// Docker's words and exit code, with the nearest command.
fn unknown<'a>(path: &str, group: &str, names: impl Iterator<Item = &'a str>) -> Refusal {
    let word = path.rsplit(' ').next().unwrap_or(path);
    let near = names.map(|name| (distance(word, name), name)).min().filter(|(d, n)| *d <= 2 && *d < n.len());
    let prefix = if group.is_empty() { String::new() } else { format!("{group} ") };
    let tip = near.map(|(_, name)| format!(" (did you mean 'mydocker {prefix}{name}'?)")).unwrap_or_default();
    let message = format!("unknown command: mydocker {path}{tip}");
    Refusal { message, help: Some(group.to_owned()), code: 1 }
}

/// Letters inserted, left out, replaced, or exchanged with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flat_and_grouped_forms_are_the_same_commands() {
        for (flat, grouped) in [
            ("ps", "container list"),
            ("ps", "container ls"),
            ("ps", "container ps"),
            ("rm", "container remove"),
            ("run", "container run"),
            ("images", "image list"),
            ("load", "image load"),
            ("pull", "image pull"),
            ("push", "image push"),
            ("rmi", "image rm"),
            ("rmi", "image remove"),
            ("history", "image history"),
            ("tag", "image tag"),
            ("info", "system info"),
            ("events", "system events"),
            ("why", "container why"),
            ("version", "system version"),
            ("port", "container port"),
            ("doctor", "system doctor"),
            ("network ls", "network list"),
            ("network rm", "network remove"),
        ] {
            let spec = |line: &str| match find(&words(line)) {
                Ok(Found::Command { spec, .. }) => std::ptr::from_ref(spec),
                _ => panic!("{line}"),
            };
            assert_eq!(spec(flat), spec(grouped), "{grouped}");
        }
    }

    #[test]
    fn an_unknown_word_gets_a_suggestion_and_code_1() {
        let refusal = find(&words("rnu")).err().unwrap();
        assert_eq!(refusal.message, "unknown command: mydocker rnu (did you mean 'mydocker run'?)");
        assert_eq!(refusal.code, 1);
        let refusal = find(&words("container lst")).err().unwrap();
        assert!(refusal.message.contains("did you mean 'mydocker container l"), "{}", refusal.message);
        assert!(!find(&words("frobnicate")).err().unwrap().message.contains("did you mean"));
    }
}
