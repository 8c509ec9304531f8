//! `image` and its commands.

mod history;
mod inspect;
mod list;
mod prune;
mod remove;
mod tree;

use anyhow::Result;
use clap::ArgMatches;

use super::spec;
use crate::image::oci::manifest::Platform;

pub(super) use history::HISTORY;
pub(super) use inspect::INSPECT;
pub(super) use list::{Digests, IMAGES, created, names, short_id};
pub(super) use prune::{PRUNE, section};
pub(super) use remove::{REMOVE, TAG};

/// `--platform`.
pub(super) fn platform(matches: &ArgMatches) -> Result<Option<Platform>> {
    let text = spec::text(matches, "platform").filter(|text| !text.is_empty());
    text.map(|text| text.parse()).transpose()
}
