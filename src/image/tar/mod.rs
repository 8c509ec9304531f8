//! What archives say of files (pax(1), GNU tar manual): one header block, extended headers, maps of sparse files.
//!
//! Everything in here is what a stranger wrote; what is done about it is the business of [`super::layer`].

pub(in crate::image) mod header;
pub(in crate::image) mod pax;
pub(in crate::image) mod sparse;
