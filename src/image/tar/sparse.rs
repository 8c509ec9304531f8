//! Files with holes: the maps of GNU tar's four formats (GNU tar manual, "Sparse Formats").

use anyhow::{Context, Result, bail};

use super::header::{BLOCK, number, numeric};

/// A stretch of a file that has data; between them are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) struct Segment {
    pub(in crate::image) offset: u64,
    pub(in crate::image) length: u64,
}

/// The most stretches a file may have: their map is kept in memory.
const MAX_SEGMENTS: usize = 1 << 19;

/// What PAX records say of a sparse file (formats 0.0, 0.1 and 1.0).
#[derive(Debug, Default)]
pub(in crate::image) struct Sparse {
    /// Whether there is any such record.
    pub(in crate::image) present: bool,
    /// The file's name; what stands in the header is one for readers that know no sparse files.
    pub(in crate::image) name: Option<Vec<u8>>,
    /// Size of the file with its holes, in bytes.
    pub(in crate::image) size: Option<u64>,
    version: (u64, u64),
    /// Offset and length in turn.
    numbers: Vec<u64>,
}

impl Sparse {
    /// Takes a record `GNU.sparse.<key>`.
    pub(in crate::image) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.present = true;
        let numeric = || number(value).context("malformed number in the map of a sparse file");
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(numeric()?),
            b"major" => self.version.0 = numeric()?,
            b"minor" => self.version.1 = numeric()?,
            b"offset" | b"numbytes" => self.numbers.push(numeric()?),
            b"map" => {
                self.numbers.clear();
                for text in value.split(|byte| *byte == b',') {
                    self.numbers.push(number(text).context("malformed map of a sparse file")?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the map stands before the contents (format 1.0).
    pub(in crate::image) fn map_is_in_contents(&self) -> Result<bool> {
        match self.version {
            (0, 0 | 1) => Ok(false),
            (1, 0) => Ok(true),
            (major, minor) => bail!("sparse files of format {major}.{minor} are not supported"),
        }
    }

    /// The map that the records give.
    pub(in crate::image) fn map(&self) -> Result<Vec<Segment>> {
        segments(&self.numbers)
    }
}

fn segments(numbers: &[u64]) -> Result<Vec<Segment>> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_SEGMENTS {
        bail!("malformed map of a sparse file");
    }
    Ok(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Checks that the stretches lie one behind the other within `size` bytes and have `stored` bytes together.
pub(in crate::image) fn check(map: &[Segment], size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0, 0_u64);
    for segment in map {
        let last = segment.offset.checked_add(segment.length).filter(|last| *last <= size);
        let (Some(last), true) = (last, segment.offset >= end) else {
            bail!("the map of a sparse file leads outside the file");
        };
        end = last;
        // No overflow: the stretches do not overlap.
        sum += segment.length;
    }
    if sum != stored {
        bail!("the archive contradicts itself about the size");
    }
    Ok(())
}

/// The map of the oldest format, which begins in the header block and goes on in further ones.
#[derive(Debug)]
pub(in crate::image) struct OldMap {
    pub(in crate::image) segments: Vec<Segment>,
    /// Size of the file with its holes, in bytes.
    pub(in crate::image) size: u64,
    /// Whether another block follows.
    pub(in crate::image) continues: bool,
}

impl OldMap {
    /// What the header block says.
    pub(in crate::image) fn begin(header: &[u8; BLOCK]) -> Result<OldMap> {
        let size = numeric(&header[483..495]).and_then(|size| u64::try_from(size).ok());
        let size = size.context("malformed size of a sparse file")?;
        let mut map = OldMap { segments: Vec::new(), size, continues: header[482] != 0 };
        map.entries(&header[386..482])?;
        Ok(map)
    }

    /// What a further block says.
    pub(in crate::image) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<()> {
        self.continues = block[504] != 0;
        self.entries(&block[..504])
    }

    fn entries(&mut self, entries: &[u8]) -> Result<()> {
        for entry in entries.chunks_exact(24) {
            // A blank one ends the map.
            if entry[0] == 0 || entry[12] == 0 {
                break;
            }
            let part = |field| numeric(field).and_then(|value| u64::try_from(value).ok());
            let (Some(offset), Some(length)) = (part(&entry[..12]), part(&entry[12..])) else {
                bail!("malformed map of a sparse file");
            };
            self.segments.push(Segment { offset, length });
        }
        Ok(())
    }
}

/// Reads a map that stands before the contents: decimal numbers, each with a line feed, first how many pairs
/// follow. It comes in as bytes, block by block.
#[derive(Debug, Default)]
pub(in crate::image) struct MapInContents {
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl MapInContents {
    /// Takes the next block; the map when it is complete.
    pub(in crate::image) fn block(&mut self, block: &[u8]) -> Result<Option<Vec<Segment>>> {
        for byte in block {
            if *byte != b'\n' {
                if self.digits.len() >= 20 {
                    bail!("malformed map of a sparse file");
                }
                self.digits.push(*byte);
                continue;
            }
            self.numbers.push(number(&self.digits).context("malformed map of a sparse file")?);
            self.digits.clear();
            let pairs = usize::try_from(self.numbers[0]).unwrap_or(usize::MAX);
            if pairs > MAX_SEGMENTS {
                bail!("a sparse file has more than {MAX_SEGMENTS} parts");
            }
            if self.numbers.len() == 1 + 2 * pairs {
                return segments(&self.numbers[1..]).map(Some);
            }
        }
        Ok(None)
    }
}
