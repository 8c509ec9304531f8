//! Images: how they are stored, how they come and how they go.
//!
//! ```text
//! oci        digests, references, manifests, configs: what images say of themselves
//! tar        header blocks, extended headers, sparse maps: what archives say of files
//! layer      from a tar to a directory and back: unpack, recipe, pack, changes
//! store      what is kept below the data root, under which locks, and what is swept away
//! registry   the client of the distribution protocol
//! transfer   pull and push: a registry on one side, the store on the other
//! archive    load and save: an archive on one side, the store on the other
//! edit       changes to a config; derive: new images out of those
//! ```
//! A module uses those above it in this list, never those below.

pub mod archive;
mod derive;
pub mod edit;
mod layer;
pub mod oci;
pub mod registry;
mod store;
mod tar;
#[cfg(test)]
mod tests;
pub mod transfer;

pub use layer::changes;
pub use oci::config::{Defaults, Healthcheck, Image};
pub use store::{Force, Freed, Orphan, OrphanKind, Owner, Piece, Removed, Store, Summary, Survey, Tags, User};
