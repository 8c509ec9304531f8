//! `image prune`.

use anyhow::Result;
use clap::ArgMatches;

use crate::cli::Session;
use crate::cli::confirm::confirm;
use crate::cli::output::{self, Refusal, printable};
use crate::cli::prune::{self, conclude};
use crate::cli::spec::{self, Arity, Spec};
use crate::engine::images::{Deletion, ImagePruneRequest};
use crate::image::Tags;

pub(in crate::cli) static PRUNE: Spec = Spec {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove unused images",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::switch("all", Some('a'), "Remove all unused images, not just dangling ones"))
            .arg(spec::list("filter", None, "filter", "Provide filter values (until, label, label!, dangling)"))
            .arg(spec::switch("force", Some('f'), "Do not prompt for confirmation"))
    },
    run: prune,
};

fn prune(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let (dangling, others): (Vec<_>, Vec<_>) =
        spec::texts(matches, "filter").into_iter().partition(|filter| filter.starts_with("dangling="));
    let filters = prune::filters(&others)?;
    let mut tags = if spec::is_set(matches, "all") { Tags::CountForNothing } else { Tags::Count };
    // What `--all` says in the words of Docker's API, which scripts use.
    for filter in dangling {
        tags = match filter.trim_start_matches("dangling=") {
            "false" | "0" => Tags::CountForNothing,
            "true" | "1" => Tags::Count,
            _ => return Err(Refusal::plain(format!("invalid filter '{filter}': write true or false")).into()),
        };
    }
    let warning = match tags {
        Tags::Count => "WARNING! This will remove all dangling images.",
        Tags::CountForNothing => {
            "WARNING! This will remove all images without at least one container associated to them."
        }
    };
    if !spec::is_set(matches, "force") && !confirm(&format!("{warning}\nAre you sure you want to continue?"))? {
        return Ok(0);
    }
    let pruned = session.engine()?.image_prune(&ImagePruneRequest { tags, filters })?;
    output::print(&section(&pruned.removed))?;
    conclude(pruned.bytes, &pruned.problems)
}

/// What went, in Docker's words.
pub(in crate::cli) fn section(removed: &[Deletion]) -> String {
    if removed.is_empty() {
        return String::new();
    }
    let line = |deletion: &Deletion| match deletion {
        Deletion::Untagged(name) => format!("untagged: {}\n", printable(name)),
        Deletion::Deleted(digest) => format!("deleted: {digest}\n"),
    };
    format!("Deleted Images:\n{}\n", removed.iter().map(line).collect::<String>())
}
