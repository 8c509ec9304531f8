//! `system prune`.

use anyhow::Result;
use clap::ArgMatches;
use jiff::Timestamp;

use super::confirm::confirm;
use super::output::{self, Refusal};
use super::prune::{conclude, filters, section};
use super::spec::{self, Arity, Spec};
use super::{Session, image, network};
use crate::engine::images::ImagePruneRequest;
use crate::engine::prune::PruneFilter;
use crate::image::Tags;

pub(super) static SYSTEM_PRUNE: Spec = Spec {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove unused data",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::switch("all", Some('a'), "Remove all unused images not just dangling ones"))
            .arg(spec::list("filter", None, "filter", "Provide filter values (label, label!, until)"))
            .arg(spec::switch("force", Some('f'), "Do not prompt for confirmation"))
            .arg(spec::switch("volumes", None, "Prune anonymous volumes"))
    },
    run: system_prune,
};

fn system_prune(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let filters = filters(&spec::texts(matches, "filter"))?;
    let networks = network::lower_prune(matches, Timestamp::now())?;
    let (all, volumes) = (spec::is_set(matches, "all"), spec::is_set(matches, "volumes"));
    if volumes && filters.iter().any(|filter| matches!(filter, PruneFilter::Until(_))) {
        return Err(Refusal::plain("ERROR: The \"until\" filter is not supported with \"--volumes\"").into());
    }
    if !spec::is_set(matches, "force") && !confirm(&warning(all, volumes, &spec::texts(matches, "filter")))? {
        return Ok(0);
    }
    let engine = session.engine()?;
    let mut problems = Vec::new();
    // Containers first: what they have is free for those that follow.
    let containers = engine.container_prune(&filters)?;
    output::print(&section("Containers", &containers.removed))?;
    let mut bytes = containers.bytes;
    problems.extend(containers.problems);
    match engine.network_prune(&networks) {
        Ok(removed) => output::print(&network::pruned(&removed))?,
        Err(error) => problems.push(error),
    }
    // Volumes have no labels, so none has the one that is asked for.
    let labelled = filters.iter().any(|filter| matches!(filter, PruneFilter::Label(..)));
    if volumes && !labelled {
        match engine.anonymous_volume_prune() {
            Ok(pruned) => {
                output::print(&section("Volumes", &pruned.removed))?;
                bytes += pruned.bytes;
                problems.extend(pruned.problems);
            }
            Err(error) => problems.push(error),
        }
    }
    let tags = if all { Tags::CountForNothing } else { Tags::Count };
    let images = engine.image_prune(&ImagePruneRequest { tags, filters })?;
    output::print(&image::section(&images.removed))?;
    bytes += images.bytes + engine.prune_leftovers()?;
    problems.extend(images.problems);
    conclude(bytes, &problems)
}

/// Docker's words, without what there is none of here.
fn warning(all: bool, volumes: bool, filters: &[String]) -> String {
    let mut text = String::from("WARNING! This will remove:\n");
    text.push_str("  - all stopped containers\n  - all networks not used by at least one container\n");
    if volumes {
        text.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    text.push_str(match all {
        true => "  - all images without at least one container associated to them\n",
        false => "  - all dangling images\n",
    });
    if !filters.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        filters.iter().for_each(|filter| text.push_str(&format!("  - {filter}\n")));
    }
    text.push_str("\nAre you sure you want to continue?");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_told_before() {
        assert_eq!(
            warning(true, true, &["label=x".into()]),
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n  \
             - all anonymous volumes not used by at least one container\n  \
             - all images without at least one container associated to them\n\n  \
             Items to be pruned will be filtered with:\n  - label=x\n\nAre you sure you want to continue?"
        );
        assert!(warning(false, false, &[]).contains("  - all dangling images\n\nAre you sure"));
    }
}
