//! Recipes as they are written while a layer is unpacked.

use std::fs::File;
use std::io::{self, Write};

use flate2::Crc;

use super::{
    BLOCK_OP, CLASS_SHIFT, COMPUTED, Class, END, FILE, MAGIC, OFFSET, PATH_HAS_PREFIX, PATH_IN_RECORDS, PATH_IS_GIVEN,
    PATH_IS_NAME, PATH_SHIFT, Previous, RAW, ZEROS, checksum_field, path_in,
};
use crate::image::tar::header::{BLOCK, CHECKSUM};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;
/// Equal bytes between two differences that are not worth an interruption: one costs two bytes.
const GAP: usize = 2;

/// A recipe being written.
pub(in crate::image) struct Writer {
    file: File,
    buffer: Vec<u8>,
    crc: Crc,
    previous: Box<Previous>,
    told: u64,
}

impl Writer {
    /// Begins a recipe in the empty `file`.
    pub(in crate::image) fn new(file: File) -> Writer {
        let mut buffer = Vec::with_capacity(BUFFER + 4096);
        buffer.extend_from_slice(MAGIC);
        Writer { file, buffer, crc: Crc::new(), previous: Box::new([[0; BLOCK]; 3]), told: 0 }
    }

    /// Bytes of the tar told until now.
    pub(in crate::image) fn told(&self) -> u64 {
        self.told
    }

    /// Next come these bytes.
    pub(in crate::image) fn raw(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            if zeros > 0 {
                self.buffer.push(ZEROS);
                self.number(zeros as u64);
                self.count(zeros as u64)?;
                bytes = &bytes[zeros..];
                continue;
            }
            // Up to where it pays to say zeros in short: skipped contents may be of any size.
            let run = bytes.windows(16).position(|window| window.iter().all(|byte| *byte == 0)).unwrap_or(bytes.len());
            let (literal, rest) = bytes.split_at(run.min(BUFFER));
            self.buffer.push(RAW);
            self.number(literal.len() as u64);
            self.buffer.extend_from_slice(literal);
            self.count(literal.len() as u64)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Next comes this block, which likely resembles the last of its class.
    pub(in crate::image) fn block(&mut self, class: Class, block: &[u8; BLOCK]) -> io::Result<()> {
        let mut flags = (class as u8) << CLASS_SHIFT;
        let previous = &mut self.previous[class as usize];
        if class != Class::Records && block[CHECKSUM] == checksum_field(block) {
            flags |= COMPUTED;
            // Not worth saying, so made equal.
            previous[CHECKSUM].copy_from_slice(&block[CHECKSUM]);
        }
        self.buffer.push(BLOCK_OP | flags);
        let mut at = 0;
        while at < BLOCK {
            let same = equal(&block[at..], &previous[at..]);
            let start = at + same;
            let mut end = start;
            while end < BLOCK {
                if block[end] != previous[end] {
                    end += 1;
                    continue;
                }
                let gap = equal(&block[end..], &previous[end..]);
                if gap > GAP || end + gap == BLOCK {
                    break;
                }
                end += gap;
            }
            number(&mut self.buffer, same as u64);
            // A run to the end needs no word of the differences that do not follow.
            if start < BLOCK {
                number(&mut self.buffer, (end - start) as u64);
                self.buffer.extend_from_slice(&block[start..end]);
            }
            at = end;
        }
        *previous = *block;
        self.count(BLOCK as u64)
    }

    /// Next come `length` bytes from `offset` on of the file at `path`, whose CRC-32 is `crc`.
    pub(in crate::image) fn file(&mut self, path: &[u8], offset: u64, length: u64, crc: u32) -> io::Result<()> {
        let records = &self.previous[Class::Records as usize];
        let start;
        let place = if is_path(&self.previous, PATH_IS_NAME, path) {
            start = 0;
            PATH_IS_NAME
        } else if is_path(&self.previous, PATH_HAS_PREFIX, path) {
            start = 0;
            PATH_HAS_PREFIX
        } else if let Some(found) = records.windows(path.len().max(1)).position(|window| window == path) {
            start = found;
            PATH_IN_RECORDS
        } else {
            start = 0;
            PATH_IS_GIVEN
        };
        self.buffer.push(FILE | place << PATH_SHIFT | if offset > 0 { OFFSET } else { 0 });
        match place {
            PATH_IN_RECORDS => {
                self.number(start as u64);
                self.number(path.len() as u64);
            }
            PATH_IS_GIVEN => {
                self.number(path.len() as u64);
                self.buffer.extend_from_slice(path);
            }
            _ => {}
        }
        if offset > 0 {
            self.number(offset);
        }
        self.number(length);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.count(length)
    }

    /// Ends the recipe.
    pub(in crate::image) fn finish(mut self) -> io::Result<()> {
        self.buffer.push(END);
        self.number(self.told);
        self.crc.update(&self.buffer);
        let crc = self.crc.sum();
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.file.write_all(&self.buffer)
    }

    /// Writes out what was gathered.
    pub(in crate::image) fn flush(&mut self) -> io::Result<()> {
        self.crc.update(&self.buffer);
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn number(&mut self, value: u64) {
        number(&mut self.buffer, value);
    }

    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.told += bytes;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }
}

fn is_path(previous: &Previous, place: u8, path: &[u8]) -> bool {
    // The first test spares an allocation for the most part.
    let header = &previous[Class::Member as usize];
    match place {
        PATH_IS_NAME => {
            path.len() <= 100 && header[..path.len()] == *path && (path.len() == 100 || header[path.len()] == 0)
        }
        _ => {
            header[345] != 0
                && header[345] == path.first().copied().unwrap_or_default()
                && path_in(previous, place) == path
        }
    }
}

fn number(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// How many bytes two slices of one length have in common at their beginning.
fn equal(a: &[u8], b: &[u8]) -> usize {
    let (words_a, words_b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let words = words_a.iter().zip(words_b).take_while(|(a, b)| a == b).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}
