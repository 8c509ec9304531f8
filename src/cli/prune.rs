//! `container prune`; what all prunes have in common.

use anyhow::Result;
use clap::ArgMatches;
use jiff::Timestamp;

use super::confirm::confirm;
use super::output::{self, Codes, Refusal, printable};
use super::spec::{self, Arity, Spec};
use super::{Session, instant, quantity};
use crate::engine::prune::PruneFilter;

pub(super) static CONTAINER_PRUNE: Spec = Spec {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::list("filter", None, "filter", "Provide filter values (until, label, label!)"))
            .arg(spec::switch("force", Some('f'), "Do not prompt for confirmation"))
    },
    run: container_prune,
};

/// What the filters ask of the engine.
pub(super) fn filters(texts: &[String]) -> Result<Vec<PruneFilter>> {
    let now = Timestamp::now();
    let read = |text: &String| PruneFilter::parse(text, |moment| instant::parse(moment, now));
    texts.iter().map(|text| read(text).map_err(|why| Refusal::plain(why).into())).collect()
}

/// The last line, and what could not be removed; the exit code.
pub(super) fn conclude(bytes: u64, problems: &[anyhow::Error]) -> Result<i32> {
    output::print_line(&format!("Total reclaimed space: {}", quantity::human_sum(bytes)))?;
    problems.iter().for_each(|problem| _ = output::fail(problem, "", Codes::Plain));
    Ok(i32::from(!problems.is_empty()))
}

fn container_prune(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let filters = filters(&spec::texts(matches, "filter"))?;
    let warning = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?";
    if !spec::is_set(matches, "force") && !confirm(warning)? {
        return Ok(0);
    }
    let pruned = session.engine()?.container_prune(&filters)?;
    output::print(&section("Containers", &pruned.removed))?;
    conclude(pruned.bytes, &pruned.problems)
}

/// What went of one kind, in Docker's words.
pub(super) fn section(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let lines: String = names.iter().map(|name| format!("{}\n", printable(name))).collect();
    format!("Deleted {what}:\n{lines}\n")
}

#[cfg(test)]
mod tests {
    use super::section;

    #[test]
    fn what_went_is_told() {
        assert_eq!(section("Containers", &[]), "");
        assert_eq!(section("Containers", &["a".into(), "b".into()]), "Deleted Containers:\na\nb\n\n");
    }
}
