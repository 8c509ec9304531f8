//! Layers: from a tar to a directory and back.
//!
//! ```text
//! unpack    bytes as they come → all that the store keeps of a layer, in the stages of `stages`, read by `stream`
//! apply     tar → files below a directory, in overlayfs's form
//! recipe    files → the exact tar they came as
//! pack      files → a tar, made from nothing but them
//! changes   what a container changed, as `diff` tells it; `mount_points` are no changes; `lower` is
//!           what the layers below show
//! ```

pub(in crate::image) mod apply;
pub mod changes;
mod lower;
pub(in crate::image) mod mount_points;
pub(in crate::image) mod pack;
pub(in crate::image) mod parallel;
pub(in crate::image) mod recipe;
mod stages;
pub(in crate::image) mod stream;
pub(in crate::image) mod unpack;
