//! What whoever waits for an image is told while it comes or goes.

use crate::image::oci::digest::Digest;

/// Something that happened to one layer on its way in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is known and will be fetched or sent.
    Pending,
    /// The store, or the registry when pushing, has it already.
    Exists,
    /// Another process is fetching it; its work will do.
    Waiting,
    /// So many bytes of so many are through. While pulling they are unpacked as they arrive.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// All bytes are there and are being digested, unpacked or flushed.
    Finishing,
    /// The connection broke; it goes on after a pause.
    Retrying {
        /// Seconds of the pause.
        seconds: u64,
        /// Why, in one line.
        reason: String,
    },
    /// The registry took it over from another of its repositories.
    Mounted {
        /// That repository.
        from: String,
    },
    /// It is where it belongs.
    Done,
}

/// Hears of layers; called from several threads at once. A layer is called, as Docker calls it, by the digest of its
/// blob when it comes, and by its diff id when it goes: before it is compressed it has no other.
pub trait Progress: Sync {
    /// `step` happened to `layer`.
    fn layer(&self, layer: &Digest, step: Step);

    /// A line about the whole (`latest: Pulling from library/busybox`).
    fn line(&self, text: &str);
}

/// Hears and says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn layer(&self, _layer: &Digest, _step: Step) {}
    fn line(&self, _text: &str) {}
}
