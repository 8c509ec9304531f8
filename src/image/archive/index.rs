//! An archive of an image on disk, with the places of its members.
//!
//! Archives come as streams whose members stand in any order, so the stream is first written to a file
//! without a name. Member names are only ever keys of a map, never paths.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;

use crate::error::Failure;
use crate::image::layer::stream::{self, Section};
use crate::image::oci::config::MAX_DOCUMENT;
use crate::image::oci::digest::Digest;
use crate::image::tar::header::{components, shown};

/// The largest archive, uncompressed, in bytes.
const MAX_ARCHIVE: u64 = 256 << 30;
/// The most members that are kept in mind; an image's archive has a few per layer.
const MAX_MEMBERS: usize = 100_000;
/// The longest name that is kept in mind, in bytes; `blobs/sha256/<hex>` has 77.
const MAX_MEMBER_NAME: usize = 255;
/// Bytes that the headers of one member may take.
const MAX_HEADERS: u64 = 1 << 20;

/// An uncompressed archive in a file, and its index.
pub(in crate::image) struct Archive {
    file: File,
    members: HashMap<String, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    /// A regular file: where its bytes stand.
    File { offset: u64, size: u64 },
    /// A link to another member. Docker before version 25 writes a layer that occurs again as a symbolic link
    /// (`../<id>/layer.tar`), tar(1) a file that does as a hard one.
    Link { target: String },
    /// A device, a directory, a link that leads nowhere in here; refused when something refers to it.
    Other,
}

impl Archive {
    /// Writes `input`, decompressed, to a nameless file in `directory` and indexes it.
    pub(super) fn spool(input: impl Read, directory: &Path) -> Result<Archive> {
        let mut file = nameless(directory).with_context(|| format!("create file in {}", directory.display()))?;
        let mut input = stream::decompress(input)?.take(MAX_ARCHIVE);
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read archive"),
            };
            file.write_all(&buffer[..count]).with_context(|| format!("keep archive in {}", directory.display()))?;
        }
        if input.limit() == 0 {
            bail!("read archive: it has more than {MAX_ARCHIVE} bytes");
        }
        Archive::index(file)
    }

    /// Indexes the archive in `file`, in place; one that is compressed, or no regular file, is spooled to
    /// `directory` first.
    pub(in crate::image) fn open(file: File, directory: &Path) -> Result<Archive> {
        if !file.metadata().context("inspect archive")?.is_file() {
            return Archive::spool(file, directory);
        }
        let mut start = [0; 6];
        let count = file.read_at(&mut start, 0).context("read archive")?;
        match stream::is_plain(&start[..count]) {
            // What stands before the file's offset is not ours: `(read line; mydocker load) < FILE`.
            true if (&file).stream_position().context("read archive")? == 0 => Archive::index(file),
            _ => Archive::spool(file, directory),
        }
    }

    fn index(file: File) -> Result<Archive> {
        let length = file.metadata().context("inspect archive")?.len();
        let allowance = Cell::new(0);
        let mut members = HashMap::new();
        {
            let mut archive = tar::Archive::new(Bounded { file: &file, position: 0, allowance: &allowance });
            let mut entries = archive.entries_with_seek().context("read archive")?;
            loop {
                allowance.set(MAX_HEADERS);
                let Some(entry) = entries.next() else { break };
                // The library's words quote what it found, which may be anything.
                let entry =
                    entry.map_err(|error| match members.is_empty() && error.kind() == io::ErrorKind::Other {
                        true => Failure::engine("read archive: this is no tar archive")
                        .with_hint("expected is an archive of images as `docker save` writes it, or a tar of an OCI layout")
                        .into(),
                        false => anyhow::Error::new(error).context("read archive"),
                    })?;
                let (offset, size) = (entry.raw_file_position(), entry.size());
                let kind = entry.header().entry_type();
                let end = offset.checked_add(size).and_then(|end| end.checked_next_multiple_of(512));
                if end.is_none_or(|end| end > length) {
                    bail!("read archive: archive is truncated");
                }
                let name = entry.path_bytes();
                if name.len() > MAX_MEMBER_NAME || members.len() >= MAX_MEMBERS {
                    continue;
                }
                // Names that lead upwards, or are no text, are nobody's: no manifest can mean them.
                let Ok(parts) = components(&name) else { continue };
                let Ok(name) = String::from_utf8(parts.join(&b'/')) else { continue };
                let member = if kind.is_file() || kind.is_contiguous() {
                    Member::File { offset, size }
                } else {
                    let link = entry.link_name_bytes().unwrap_or_default();
                    let target = match kind {
                        tar::EntryType::Symlink => beside(&name, &link),
                        tar::EntryType::Link => inside(&link),
                        _ => None,
                    };
                    target.map_or(Member::Other, |target| Member::Link { target })
                };
                members.insert(name, member);
            }
        }
        Ok(Archive { file, members })
    }

    /// Whether there is a member of this name, of any kind.
    pub(in crate::image) fn contains(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The whole file, as a stream.
    pub(in crate::image) fn stream(&self) -> Result<Section<'_>> {
        Ok(Section::new(&self.file, 0, self.file.metadata().context("inspect archive")?.len()))
    }

    /// A member's bytes, as a stream, and their number.
    ///
    /// # Errors
    /// No such member; a member that is a link or anything but a file.
    pub(in crate::image) fn member(&self, name: &str) -> Result<(Section<'_>, u64)> {
        let found = inside(name.as_bytes()).and_then(|key| self.members.get(&key));
        // One step: no writer links to a link, and so no circle has to be looked for.
        let resolved = match found {
            Some(Member::Link { target }) => self.members.get(target),
            other => other,
        };
        match resolved {
            Some(Member::File { offset, size }) => Ok((Section::new(&self.file, *offset, *size), *size)),
            _ if found.is_some() => bail!("{} in the archive is not a regular file", shown(name.as_bytes())),
            _ => bail!("the archive lacks {}", shown(name.as_bytes())),
        }
    }

    /// Number of a member's bytes; `None` when there is no such file.
    pub(in crate::image) fn size(&self, name: &str) -> Option<u64> {
        self.member(name).ok().map(|(_, size)| size)
    }

    /// A member's bytes, when they are few enough for a document.
    pub(in crate::image) fn document(&self, name: &str) -> Result<Vec<u8>> {
        let (mut section, size) = self.member(name)?;
        if size > MAX_DOCUMENT {
            bail!("{} in the archive has more than {MAX_DOCUMENT} bytes", shown(name.as_bytes()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size)?);
        section.read_to_end(&mut bytes).with_context(|| format!("read {}", shown(name.as_bytes())))?;
        Ok(bytes)
    }

    /// The document with this digest, below `blobs/`, where OCI layouts keep everything.
    pub(in crate::image) fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let name = blob_name(digest);
        let bytes = self.document(&name)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            bail!("{} in the archive has the digest {found}: it is damaged", shown(name.as_bytes()));
        }
        Ok(bytes)
    }
}

/// The member that holds a blob (OCI image spec, image-layout.md).
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A member's name as the index has it; `None` when no member can be called so.
fn inside(name: &[u8]) -> Option<String> {
    String::from_utf8(components(name).ok()?.join(&b'/')).ok()
}

/// The member that the symbolic link `link` at `name` leads to, by its words alone: nothing outside the archive
/// is ever looked at.
fn beside(name: &str, link: &[u8]) -> Option<String> {
    let link = std::str::from_utf8(link).ok().filter(|link| !link.starts_with('/'))?;
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A file that vanishes with its descriptor.
fn nameless(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let flags = OFlags::TMPFILE.bits().cast_signed();
    match options.clone().custom_flags(flags).open(directory) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {}
        other => return other,
    }
    // The file system has no O_TMPFILE.
    let path = directory.join(format!(".archive-{}-{:?}", std::process::id(), std::thread::current().id()));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Reads headers and seeks over contents; no member's headers get more than the allowance.
struct Bounded<'a> {
    file: &'a File,
    position: u64,
    allowance: &'a Cell<u64>,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowance = self.allowance.get();
        let wanted = buffer.len().min(usize::try_from(allowance).unwrap_or(usize::MAX));
        if wanted == 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "headers of one member exceed the limit"));
        }
        let count = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += count as u64;
        self.allowance.set(allowance - count as u64);
        Ok(count)
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
