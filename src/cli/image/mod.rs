//! `image` and its commands.

mod list;

pub(super) use list::IMAGES;
