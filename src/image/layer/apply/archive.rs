//! Reads the members of a tar stream and keeps account of every byte, so that the stream can be told again.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Crc;

use super::member::{Extensions, Member};
use super::{Bytes, Retold};
use crate::image::layer::recipe::{self, Class};
use crate::image::tar::header::{BLOCK, Header};
use crate::image::tar::pax::Pax;
use crate::image::tar::sparse::OldMap;
use crate::store::create_private;

/// Bytes that the headers of one member may take, long names and attributes included.
const MAX_HEADERS: u64 = 1 << 20;
/// The largest buffer kept from one member to the next, in bytes.
const KEPT: usize = 64 << 10;

/// A tar stream.
pub(super) struct Archive<'a> {
    input: &'a mut dyn BufRead,
    staging: PathBuf,
    bytes: Bytes,
    account: Account,
    position: u64,
    extensions: Extensions,
    /// What an extension header says.
    records: Vec<u8>,
    ended: bool,
}

/// Where the bytes go that were read.
enum Account {
    /// Into a recipe.
    Recipe(recipe::Writer),
    /// Into a file, since there can be no recipe.
    Copy(BufWriter<File>),
    /// Nowhere, since there can be no recipe and the bytes are kept elsewhere.
    Closed,
}

impl<'a> Archive<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead, staging: &Path, bytes: Bytes) -> Result<Archive<'a>> {
        let recipe = create_private(&staging.join("recipe")).context("create recipe of the layer")?;
        Ok(Archive {
            input,
            staging: staging.to_owned(),
            bytes,
            account: Account::Recipe(recipe::Writer::new(recipe)),
            position: 0,
            extensions: Extensions::default(),
            records: Vec::new(),
            ended: false,
        })
    }

    /// Fills in the next member; `false` after the last.
    pub(super) fn next(&mut self, member: &mut Member) -> Result<bool> {
        let mut headers = 0;
        self.extensions = Extensions::default();
        loop {
            let Some(block) = self.block()? else {
                if headers > 0 {
                    bail!("archive is truncated");
                }
                return Ok(false);
            };
            if block == [0; BLOCK] {
                if headers > 0 {
                    bail!("an extension header belongs to no member");
                }
                self.note_raw(&block)?;
                return self.end_mark();
            }
            let header = Header::new(&block).context("read archive")?;
            let kind = header.kind();
            headers += BLOCK as u64;
            if !matches!(kind, b'x' | b'L' | b'K') {
                self.note_block(Class::Member, &block)?;
                let old = if kind == b'S' { Some(self.old_map(&block, headers)?) } else { None };
                member.fill(header, &mut self.extensions, old).context("read archive")?;
                return Ok(true);
            }
            self.note_block(Class::Extension, &block)?;
            let size = header.size().context("read archive")?;
            headers = headers.saturating_add(size);
            if headers > MAX_HEADERS {
                bail!("read archive: headers of one member exceed the limit of {MAX_HEADERS} bytes");
            }
            self.extension(kind, size).context("read archive")?;
        }
    }

    /// What follows a block of zeros: a second one, or nothing. Go's reader takes nothing else either, and what
    /// one reader skips another might unpack.
    fn end_mark(&mut self) -> Result<bool> {
        self.ended = true;
        if let Some(block) = self.block()? {
            if block != [0; BLOCK] {
                bail!("read archive: the archive goes on after its end");
            }
            self.note_raw(&block)?;
        }
        Ok(false)
    }

    fn extension(&mut self, kind: u8, size: u64) -> Result<()> {
        self.records.clear();
        self.records.shrink_to(KEPT);
        let size = usize::try_from(size)?;
        while self.records.len() < size {
            let Some(block) = self.block()? else { bail!("archive is truncated") };
            if self.records.is_empty() {
                self.note_block(Class::Records, &block)?;
            } else {
                self.note_raw(&block)?;
            }
            let wanted = (size - self.records.len()).min(BLOCK);
            self.records.extend_from_slice(&block[..wanted]);
        }
        let text = || self.records.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            b'L' => self.extensions.name = Some(text()),
            b'K' => self.extensions.link = Some(text()),
            _ => {
                let mut pax = Pax::default();
                pax.read(&self.records)?;
                self.extensions.pax = Some(pax);
            }
        }
        Ok(())
    }

    fn old_map(&mut self, header: &[u8; BLOCK], mut headers: u64) -> Result<OldMap> {
        let mut map = OldMap::begin(header)?;
        while map.continues {
            headers += BLOCK as u64;
            if headers > MAX_HEADERS {
                bail!("read archive: headers of one member exceed the limit of {MAX_HEADERS} bytes");
            }
            let Some(block) = self.block()? else { bail!("archive is truncated") };
            self.note_raw(&block)?;
            map.extend(&block)?;
        }
        Ok(map)
    }

    /// The next block, of which the account knows nothing yet; `None` at the end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = fill(self.input).context("read archive")?;
            if bytes.is_empty() {
                if filled > 0 {
                    bail!("archive is truncated");
                }
                return Ok(None);
            }
            let count = bytes.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&bytes[..count]);
            self.input.consume(count);
            filled += count;
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    /// The next block of contents that is to be looked at.
    pub(super) fn content_block(&mut self) -> Result<[u8; BLOCK]> {
        let Some(block) = self.block()? else { bail!("archive is truncated") };
        self.note_raw(&block)?;
        Ok(block)
    }

    /// Hands on `length` bytes of contents, piece by piece; what they are is noted by [`Archive::note_file`].
    pub(super) fn content(&mut self, length: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<u32> {
        let mut crc = Crc::new();
        let mut left = length;
        while left > 0 {
            let bytes = fill(self.input).context("read archive")?;
            if bytes.is_empty() {
                bail!("archive is truncated");
            }
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let bytes = &bytes[..count];
            match &mut self.account {
                Account::Recipe(_) => crc.update(bytes),
                Account::Copy(copy) => copy.write_all(bytes).context("keep archive")?,
                Account::Closed => {}
            }
            each(bytes)?;
            self.input.consume(count);
            self.position += count as u64;
            left -= count as u64;
        }
        Ok(crc.sum())
    }

    /// Passes over `length` bytes that have no place, as far as they are there.
    pub(super) fn skip(&mut self, length: u64) -> Result<u64> {
        let mut left = length;
        while left > 0 {
            let bytes = fill(self.input).context("read archive")?;
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match &mut self.account {
                Account::Recipe(recipe) => recipe.raw(&bytes[..count]).context("write recipe of the layer")?,
                Account::Copy(copy) => copy.write_all(&bytes[..count]).context("keep archive")?,
                Account::Closed => {}
            }
            self.input.consume(count);
            self.position += count as u64;
            left -= count as u64;
        }
        Ok(length - left)
    }

    /// Passes over what fills a member's last block.
    pub(super) fn pad(&mut self) -> Result<()> {
        let padding = self.position.wrapping_neg() % BLOCK as u64;
        if self.skip(padding)? < padding {
            bail!("archive is truncated");
        }
        Ok(())
    }

    /// Reads to the end of the stream.
    pub(super) fn rest(&mut self, limit: u64) -> Result<()> {
        self.skip(limit)?;
        if !fill(self.input).context("read archive")?.is_empty() {
            bail!("read archive: contents exceed the limit of {limit} bytes");
        }
        Ok(())
    }

    /// The last `length` bytes of content are those of the file at `path`, from `offset` on.
    pub(super) fn note_file(&mut self, path: &[u8], offset: u64, length: u64, crc: u32) -> Result<()> {
        match &mut self.account {
            Account::Recipe(recipe) if length > 0 => {
                recipe.file(path, offset, length, crc).context("write recipe of the layer")
            }
            _ => Ok(()),
        }
    }

    fn note_block(&mut self, class: Class, block: &[u8; BLOCK]) -> Result<()> {
        match &mut self.account {
            Account::Recipe(recipe) => recipe.block(class, block).context("write recipe of the layer"),
            Account::Copy(copy) => copy.write_all(block).context("keep archive"),
            Account::Closed => Ok(()),
        }
    }

    fn note_raw(&mut self, block: &[u8]) -> Result<()> {
        match &mut self.account {
            Account::Recipe(recipe) => recipe.raw(block).context("write recipe of the layer"),
            Account::Copy(copy) => copy.write_all(block).context("keep archive"),
            Account::Closed => Ok(()),
        }
    }

    /// What earlier members made is about to go: from here on the recipe would not be true. What it told until
    /// now still is, so the tar's beginning is told once more, into a file that gets the rest as it comes.
    pub(super) fn give_up_recipe(&mut self) -> Result<()> {
        let Account::Recipe(recipe) = &mut self.account else { return Ok(()) };
        let told = recipe.told();
        recipe.flush().context("write recipe of the layer")?;
        self.account = match self.bytes {
            Bytes::Kept => Account::Closed,
            Bytes::Passing => {
                let blob = create_private(&self.staging.join("blob")).context("keep archive")?;
                let mut blob = BufWriter::with_capacity(KEPT, blob);
                let count = io::copy(&mut recipe::tar_so_far(&self.staging)?, &mut blob).context("keep archive")?;
                if count != told || count != self.position {
                    bail!("keep archive: {count} bytes of {} could be told", self.position);
                }
                Account::Copy(blob)
            }
        };
        std::fs::remove_file(self.staging.join("recipe")).context("remove recipe of the layer")
    }

    /// Completes the account; whether the archive had an end mark.
    pub(super) fn finish(self) -> Result<(bool, Retold)> {
        let retold = match self.account {
            Account::Recipe(recipe) => {
                recipe.finish().context("write recipe of the layer")?;
                Retold::Exact
            }
            Account::Copy(mut copy) => {
                copy.flush().context("keep archive")?;
                Retold::Not
            }
            Account::Closed => Retold::Not,
        };
        Ok((self.ended, retold))
    }
}

/// What the stream has next; nothing at its end.
fn fill(input: &mut dyn BufRead) -> io::Result<&[u8]> {
    // Asked twice, because the borrow of the answer would last: the second time it costs nothing.
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    input.fill_buf()
}
