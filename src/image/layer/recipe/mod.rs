//! How the exact tar of a layer is told again.
//!
//! A layer is kept unpacked; the tar it came as is not. What the unpacked files do not say of it, `recipe`
//! keeps: header blocks, padding, members that have no place. It is a sequence of operations, each of which
//! puts out the next bytes of the tar:
//!
//! ```text
//! "mydocker recipe 1\n"
//! 1 RAW    length, bytes
//! 2 ZEROS  length
//! 3 BLOCK  512 bytes, as differences to the last block of its class (extension header, records, header)
//! 4 FILE   path, offset, length, CRC-32: so many bytes of a file below `diff`
//! 0 END    length of the tar, CRC-32 of the recipe up to here
//! ```
//! An operation's number stands in the low three bits of its first byte, flags in the others. Numbers are in
//! base 128, the low digits first, bit 7 saying that another follows; CRCs are four bytes, the low one first.
//! A path is not written down again when it stands in the last header or records.

mod read;
mod write;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::stream;
use crate::image::oci::digest::Digest;
use crate::image::tar::header::BLOCK;
pub(in crate::image) use write::Writer;

const MAGIC: &[u8] = b"mydocker recipe 1\n";

const END: u8 = 0;
const RAW: u8 = 1;
const ZEROS: u8 = 2;
const BLOCK_OP: u8 = 3;
const FILE: u8 = 4;
/// The bits of an operation's first byte that number it.
const OPERATION: u8 = 0b111;

/// Flags of BLOCK: two bits of class, and whether the checksum is computed.
const CLASS_SHIFT: u8 = 3;
const COMPUTED: u8 = 1 << 5;

/// Flags of FILE: two bits saying where the path is, and whether an offset is given.
const PATH_SHIFT: u8 = 3;
const PATH_IS_NAME: u8 = 0;
const PATH_HAS_PREFIX: u8 = 1;
const PATH_IN_RECORDS: u8 = 2;
const PATH_IS_GIVEN: u8 = 3;
const OFFSET: u8 = 1 << 5;

/// The longest path, in bytes: a name may be that long, and so may the one it leads to.
const MAX_PATH: usize = 4096;

/// Kinds of blocks that resemble each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Class {
    /// Header of an extension (`x`, `g`, `L`, `K`).
    Extension = 0,
    /// The first block of what an extension says.
    Records = 1,
    /// Header of a member.
    Member = 2,
}

/// The last block of each class.
type Previous = [[u8; BLOCK]; 3];

/// The path that a FILE means by `place`, from the blocks that came before.
fn path_in(previous: &Previous, place: u8) -> Vec<u8> {
    let text = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let header = &previous[Class::Member as usize];
    let name = text(&header[..100]);
    match place {
        PATH_HAS_PREFIX => [&text(&header[345..500])[..], b"/", &name].concat(),
        _ => name,
    }
}

/// The checksum field that most writers make: six octal digits, NUL, blank.
fn checksum_field(block: &[u8; BLOCK]) -> [u8; 8] {
    let sum = crate::image::tar::header::checksum(block);
    let mut field = *b"000000\0 ";
    for (i, digit) in field[..6].iter_mut().enumerate() {
        // At most 512 * 255: six digits are enough.
        *digit = b'0' + (sum >> (3 * (5 - i)) & 7) as u8;
    }
    field
}

/// The exact uncompressed tar of the layer in `layer_directory`, which holds `diff` and `recipe`. It is
/// streamed: memory does not grow with the layer.
///
/// # Errors
/// A recipe that is missing or not of this version. Reading fails where the recipe is damaged or cut short,
/// or a file of the layer is not as it was unpacked; the error names it.
pub(in crate::image) fn tar(layer_directory: &Path) -> Result<impl Read + Send + use<>> {
    open(layer_directory, read::Ending::Sealed)
}

/// What has been told until now of a layer that is still being unpacked.
pub(in crate::image) fn tar_so_far(layer_directory: &Path) -> Result<impl Read + Send + use<>> {
    open(layer_directory, read::Ending::Anywhere)
}

fn open(layer_directory: &Path, ending: read::Ending) -> Result<read::Teller> {
    let recipe = File::open(layer_directory.join("recipe")).context("open recipe of the layer")?;
    let root = File::open(layer_directory.join("diff")).context("open layer")?;
    read::Teller::new(recipe, root.into(), ending)
}

/// Bytes of the tar that the recipe in `layer_directory` tells, as its last operation says.
pub(in crate::image) fn length(layer_directory: &Path) -> Result<u64> {
    let path = layer_directory.join("recipe");
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let size = file.metadata().with_context(|| format!("inspect {}", path.display()))?.len();
    // At most the number of END, ten digits and the CRC.
    let mut end = vec![0; usize::try_from(size.min(15))?];
    let from = size - end.len() as u64;
    file.read_exact_at(&mut end, from).with_context(|| format!("read {}", path.display()))?;
    let digits = &end[..end.len().saturating_sub(4)];
    // Before the last digit all have bit 7, and END, the first byte without it, comes before them.
    let before = digits.iter().rev().skip(1).take_while(|byte| **byte & 0x80 != 0).count();
    let start = digits.len().checked_sub(before + 2).filter(|start| digits[*start] == END);
    let Some(start) = start else { bail!("{} is damaged", path.display()) };
    let digits = &digits[start + 1..];
    let add = |(i, byte): (usize, &u8)| u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(i).ok()?);
    digits.iter().enumerate().map(add).sum::<Option<u64>>().with_context(|| format!("{} is damaged", path.display()))
}

/// Tells the tar again and compares its digest with `diff_id`.
///
/// # Errors
/// See [`tar`]: a file that changed is named; a digest that is another, when all else seems right.
pub(in crate::image) fn verify(layer_directory: &Path, diff_id: &Digest) -> Result<()> {
    let damaged = || format!("layer {diff_id} is damaged");
    let found = stream::digest_of(tar(layer_directory).with_context(damaged)?).with_context(damaged)?;
    if found != *diff_id {
        bail!("layer {diff_id} is damaged: it now is {found}");
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}
