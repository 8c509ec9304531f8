//! New images out of what is here: a layer from a writable directory or from a tar, a changed config, a name.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use anyhow::{Context, Result};

use super::Store;
use super::edit::{Document, Step};
use super::layer::changes::{self, Change};
use super::layer::mount_points::MountPoints;
use super::layer::pack;
use super::layer::unpack::Keep;
use super::oci::digest::Digest;
use super::oci::reference::Reference;
use super::store::layers::Wanted;
use super::store::lease::Lease;
use super::store::tags::Arrival;

/// Digest of the tar without members: two empty blocks. A layer of this digest brings nothing, and Docker leaves
/// it away.
const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// A layer that is in the store and that no image names yet; it stays as long as this value lives.
#[derive(Debug)]
pub struct FreshLayer {
    lease: Lease,
    diff_id: Option<Digest>,
}

impl FreshLayer {
    /// Digest of its uncompressed tar; `None` when it holds nothing, and so is none.
    pub fn diff_id(&self) -> Option<&Digest> {
        self.diff_id.as_ref()
    }
}

impl Store {
    /// Makes a layer of `upper`, the upper directory of an overlay: it is packed and, through a pipe, unpacked at the
    /// same time, so that it is read once. `below` are the layers that it lies on (diff ids, the topmost last), which
    /// are kept meanwhile; `points` is where the engine mounts.
    ///
    /// # Errors
    /// What cannot be read or cannot be said in a layer; a full disk. No layer comes of it.
    pub fn take_upper(&self, upper: BorrowedFd<'_>, below: &[String], points: &[&str]) -> Result<FreshLayer> {
        let lease = self.lease()?;
        for layer in below {
            lease.hold(self, &Digest::parse(layer)?)?;
        }
        let lowers = self.open_layers(below)?;
        let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(AsFd::as_fd).collect();
        let points = MountPoints::find(upper, &lowers, points)?;
        let (reader, mut writer) = io::pipe().context("make a pipe")?;
        // As much as is to be had without asking (pipe(7)): fewer changes between the two. Less will do.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
        let (packed, obtained) = thread::scope(|scope| {
            // The writer ends with the thread: its end is what the reader sees as the end of the archive.
            let (points, lowers) = (&points, &lowers);
            let packing = scope.spawn(move || pack::pack_upper(upper, lowers, points, &mut writer));
            let obtained = self.take(&lease, Box::new(reader));
            (packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), obtained)
        });
        // Where one side fails, the other does for its sake: told is what was first. A reader that has gone is why
        // the packer's write failed; otherwise an archive that ends too early is the packer's.
        let diff_id = match (packed, obtained) {
            (Ok(()), obtained) => obtained?,
            (Err(error), Err(cause)) if is_broken_pipe(&error) => return Err(cause),
            (Err(error), _) => return Err(error),
        };
        Ok(FreshLayer { lease, diff_id })
    }

    /// Makes a layer of a tar, compressed or not.
    ///
    /// # Errors
    /// A tar that is truncated or malformed.
    pub fn take_tar(&self, input: &mut (dyn Read + Send)) -> Result<FreshLayer> {
        let lease = self.lease()?;
        let diff_id = self.take(&lease, Box::new(input))?;
        Ok(FreshLayer { lease, diff_id })
    }

    fn take<'a>(&self, lease: &Lease, input: Box<dyn Read + Send + 'a>) -> Result<Option<Digest>> {
        let wanted = Wanted { diff_id: None, blob: None, keep: Keep::Nothing };
        let (diff_id, _) = self.obtain(lease, wanted, || Ok(input), || {})?;
        Ok(Some(diff_id).filter(|diff_id| diff_id.to_string() != EMPTY))
    }

    /// Writes the whole tree below `root` as a tar, without what is mounted in it.
    ///
    /// # Errors
    /// What cannot be read; `out` that takes no more.
    pub fn export(&self, root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<()> {
        pack::pack_tree(root, out)
    }

    /// What `upper` changes of the layers below it, sorted by path; parameters as for [`Store::take_upper`].
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn changes(&self, upper: BorrowedFd<'_>, below: &[String], points: &[&str]) -> Result<Vec<(Change, Vec<u8>)>> {
        let lowers = self.open_layers(below)?;
        let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(AsFd::as_fd).collect();
        changes::changes(upper, &lowers, &MountPoints::find(upper, &lowers, points)?)
    }

    /// The directories of layers, the topmost first.
    fn open_layers(&self, layers: &[String]) -> Result<Vec<File>> {
        let open = |layer: &String| {
            let path = self.layer(layer);
            File::open(&path).with_context(|| format!("open {}", path.display()))
        };
        layers.iter().rev().map(open).collect()
    }

    /// The config of the image `id`, to be changed; `None` when the image is gone.
    ///
    /// # Errors
    /// A config that is damaged.
    pub fn document(&self, id: &str) -> Result<Option<Document>> {
        let id = Digest::parse(id)?;
        self.configs().read(&id)?.map(|bytes| Document::parse(&bytes)).transpose()
    }

    /// Records the image of this config with `layer` on top, and names it; gives its id. `step` tells how it came
    /// about; the layer that it tells is the one given.
    ///
    /// # Errors
    /// See [`Document::push`].
    pub fn derive(
        &self,
        mut document: Document,
        layer: FreshLayer,
        step: Step,
        reference: Option<&Reference>,
    ) -> Result<String> {
        // The lease is held until the image names its layers.
        let FreshLayer { lease: _held, diff_id } = layer;
        document.push(&Step { layer: diff_id, ..step })?;
        let config = document.to_bytes()?;
        let references = reference.map(std::slice::from_ref).unwrap_or_default();
        let id = self.record(&Arrival { config: &config, manifest: None, references, digests: &[] })?;
        Ok(id.to_string())
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |link: &(dyn std::error::Error + 'static)| {
        let kind = link.downcast_ref::<io::Error>().map(io::Error::kind);
        kind == Some(io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}
