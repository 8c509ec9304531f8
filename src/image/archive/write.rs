//! Members of an archive as they are written: the same bytes whenever the contents are the same.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::index::blob_name;
use crate::error::Failure;
use crate::image::oci::digest::Digest;

/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Bytes that are copied at a time.
const BUFFER: usize = 256 << 10;

/// A tar archive in the making.
pub(super) struct Members<'a> {
    out: &'a mut dyn Write,
    blobs: BTreeSet<Digest>,
    buffer: Vec<u8>,
}

impl<'a> Members<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Members { out, blobs: BTreeSet::new(), buffer: vec![0; BUFFER] }
    }

    /// A directory; `name` ends with a slash.
    pub(super) fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, EntryType::Directory, 0o755, 0)
    }

    /// A file of these bytes.
    pub(super) fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.header(name, EntryType::Regular, 0o644, bytes.len() as u64)?;
        self.put(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// A document below `blobs/`; one that is there already is not written again.
    pub(super) fn blob(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.blobs.insert(digest.clone()) {
            self.document(&blob_name(&digest), bytes)?;
        }
        Ok(digest)
    }

    /// A layer below `blobs/`, streamed and digested on its way; `open` is called only when it is not there.
    ///
    /// # Errors
    /// Bytes that are not `size` many or do not have this digest.
    pub(super) fn layer<R: Read>(
        &mut self,
        digest: &Digest,
        size: u64,
        open: impl FnOnce() -> Result<R>,
    ) -> Result<()> {
        if !self.blobs.insert(digest.clone()) {
            return Ok(());
        }
        let mut input = open()?;
        self.header(&blob_name(digest), EntryType::Regular, 0o644, size)?;
        let (mut hasher, mut length) = (Sha256::new(), 0_u64);
        loop {
            let count = match input.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| format!("read {digest}")),
            };
            length += count as u64;
            if length > size {
                return Err(damaged(digest).into());
            }
            hasher.update(&self.buffer[..count]);
            self.out.write_all(&self.buffer[..count]).context("write archive")?;
        }
        if length != size || Digest::finish(hasher) != *digest {
            return Err(damaged(digest).into());
        }
        self.pad(size)
    }

    /// Ends the archive with its two empty blocks.
    pub(super) fn finish(self) -> Result<()> {
        self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush()).context("write archive")
    }

    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        // The names are ours and short: no extension headers. The time is always the same one.
        let mut header = Header::new_gnu();
        header.set_path(name).context("write archive")?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK as u64)?;
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("write archive")
    }
}

fn damaged(digest: &Digest) -> Failure {
    Failure::engine(format!("{digest} is damaged: what the store has of it is not what it took in"))
        .with_hint("remove the image and pull or load it again")
}
