//! `image` and its commands.

mod history;
mod inspect;
mod list;
mod prune;
mod remove;
mod tree;

pub(super) use history::HISTORY;
pub(super) use inspect::INSPECT;
pub(super) use list::{Digests, IMAGES, created, names};
pub(super) use prune::{PRUNE, section};
pub(super) use remove::{REMOVE, TAG};
