//! Directory trees as tar archives: the upper directory of an overlay as a layer, or a whole root.
//!
//! Members come in the order of their names' bytes, a directory before what it holds, so the same tree gives the
//! same archive. A header says of a file what the archive then has: who writes into it meanwhile does not break
//! the archive, only his own file's contents. [`walk`] finds members, [`write`] puts them into the stream.

mod walk;
mod write;

use std::io::Write;
use std::os::fd::BorrowedFd;

use anyhow::Result;

use super::mount_points::MountPoints;
use walk::{View, Walk};

/// Writes `upper`, the upper directory of an overlay over `lowers` (the topmost first), as one OCI layer (OCI image
/// spec, layer.md): overlayfs's whiteouts and opaque directories become `.wh.` members, its other attributes are left out. The upper
/// directory itself is no member. Sockets are left out, with a warning in the log, as in Docker, and so are the
/// engine's mount points.
///
/// # Errors
/// What cannot be read; a directory that overlayfs renamed, or a file of which it copied only the metadata
/// (`redirect_dir` and `metacopy`, overlayfs.rst): a layer cannot say these.
pub(in crate::image) fn pack_upper(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    points: &MountPoints,
    sink: &mut dyn Write,
) -> Result<()> {
    Walk::new(upper, View::Upper { lowers, points }, sink).run()
}

/// Writes the whole tree below `root` as it is seen, without what other file systems mounted below have: a mount
/// point is an empty directory, or an empty file.
///
/// # Errors
/// What cannot be read.
pub(in crate::image) fn pack_tree(root: BorrowedFd<'_>, sink: &mut dyn Write) -> Result<()> {
    Walk::new(root, View::Merged, sink).run()
}
