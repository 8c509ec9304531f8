//! The index of a subnet: one bit an address, in a sparse file that is read and written in place.
//!
//! ```text
//!    0  magic and version            8 bytes
//!    8  number of addresses          u32, little-endian as all that follows
//!   12  cursor: where to look next   u32
//!   16  first address                u128
//!   32  full blocks                  one bit a block
//! 4096  blocks of 4096 bytes, one bit an address, set when taken
//! ```
//!
//! The largest window, 2^24 addresses, has 512 blocks, so that finding a free address takes one
//! read of the header, which tells the blocks that are full, and one or two of a block: the same
//! for an empty /30 and a nearly full /8.
//!
//! The file is a guess that is right nearly always: the truth are the owners (see the parent).
//! Whatever is damaged here costs time, never an address that is given twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::net::Subnet;
use crate::net::pools::{self, is_host};

const MAGIC: [u8; 8] = *b"mdipam\x00\x01";
const HEADER: usize = 96;
const BLOCK: usize = 4096;
const BLOCKS_AT: u64 = 4096;
const WORDS: usize = BLOCK / 8;
/// Addresses of a block.
const BITS: u32 = BLOCK as u32 * 8;
/// Most addresses of a window: those of an IPv4 /8.
const MOST: u128 = 1 << 24;

/// The addresses that are given without being asked for by number: those of the range, or of the
/// whole subnet, and of these the first 2^24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    first: u128,
    count: u32,
    ipv6: bool,
}

impl Window {
    pub(super) fn of(subnet: &Subnet) -> Window {
        let within = subnet.range.unwrap_or(subnet.subnet);
        let first = pools::number(within.network());
        let count = (pools::last_number(&within) - first).saturating_add(1).min(MOST) as u32;
        Window { first, count, ipv6: within.is_ipv6() }
    }

    pub(super) fn address(&self, number: u32) -> IpAddr {
        pools::address(self.first + u128::from(number), self.ipv6)
    }

    /// The place of `address`; `None` outside.
    pub(super) fn number(&self, address: IpAddr) -> Option<u32> {
        let number = pools::number(address).checked_sub(self.first)?;
        (address.is_ipv6() == self.ipv6 && number < u128::from(self.count)).then_some(number as u32)
    }

    /// How many addresses of the window can ever be given.
    pub(super) fn capacity(&self, subnet: &Subnet) -> u32 {
        self.count - self.reserved(subnet).len() as u32
    }

    /// Places that are never given, sorted: the subnet's own address, its broadcast address, the
    /// gateway, and auxiliary addresses.
    fn reserved(&self, subnet: &Subnet) -> Vec<u32> {
        let ends = [subnet.subnet.network(), subnet.subnet.broadcast()];
        let ends = ends.into_iter().filter(|address| !is_host(&subnet.subnet, *address));
        let others = subnet.gateway.into_iter().chain(subnet.auxiliary.values().copied());
        let mut places: Vec<u32> = ends.chain(others).filter_map(|address| self.number(address)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Its size.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn blocks(&self) -> u32 {
        self.count.div_ceil(BITS)
    }
}

/// An open index. Reading past the end of a file that was cut short gives `UnexpectedEof`.
#[derive(Debug)]
pub(super) struct Bitmap {
    file: File,
    window: Window,
    cursor: u32,
    full: [u8; 64],
    /// The block that was read last.
    block: Option<(u32, Box<[u8; BLOCK]>)>,
}

impl Bitmap {
    /// Opens the index; `None` when there is none, or one of another window or format.
    pub(super) fn open(path: &Path, window: Window) -> io::Result<Option<Bitmap>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; HEADER];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut bitmap = Bitmap { file, window, cursor: 0, full: [0; 64], block: None };
        bitmap.cursor = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        bitmap.full.copy_from_slice(&bytes[32..]);
        // The header it would have by now says whether it is of this format and window.
        Ok((bitmap.cursor < window.count && bitmap.header() == bytes).then_some(bitmap))
    }

    /// Makes the index anew from the places that are taken. The header comes last: a file whose
    /// making was interrupted has none, and is made again.
    pub(super) fn build(path: &Path, subnet: &Subnet, taken: &[u32], cursor: u32) -> io::Result<Bitmap> {
        let window = Window::of(subnet);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_len(BLOCKS_AT + u64::from(window.blocks()) * BLOCK as u64)?;
        let mut places = window.reserved(subnet);
        places.extend(taken.iter().filter(|place| **place < window.count));
        // What lies behind the window in its last block is taken, so that a search needs no bound.
        places.extend(window.count..window.blocks() * BITS);
        places.sort_unstable();
        let cursor = if cursor < window.count { cursor } else { 0 };
        let mut bitmap = Bitmap { file, window, cursor, full: [0; 64], block: None };
        for same_block in places.chunk_by(|a, b| a / BITS == b / BITS) {
            let block = same_block[0] / BITS;
            let mut bytes = Box::new([0_u8; BLOCK]);
            for place in same_block {
                bytes[(place % BITS / 8) as usize] |= 1 << (place % 8);
            }
            bitmap.file.write_all_at(&bytes[..], offset(block))?;
            if bytes.iter().all(|byte| *byte == 0xff) {
                bitmap.full[block as usize / 8] |= 1 << (block % 8);
            }
        }
        bitmap.file.write_all_at(&bitmap.header(), 0)?;
        Ok(bitmap)
    }

    /// The next free place from the cursor on, and then from the beginning; `None` when all are taken.
    pub(super) fn next_free(&mut self) -> io::Result<Option<u32>> {
        let blocks = self.window.blocks();
        let (start, behind) = (self.cursor / BITS, self.cursor % BITS);
        // The cursor's block comes twice: first behind the cursor, at last before it.
        for step in 0..=blocks {
            let block = (start + step) % blocks;
            if self.full[block as usize / 8] & (1 << (block % 8)) != 0 {
                continue;
            }
            let bytes = self.load(block)?;
            let from = if step == 0 { behind } else { 0 };
            if let Some(place) = first_zero(bytes, from) {
                return Ok(Some(block * BITS + place));
            }
            // Filled by somebody who was killed before saying so; written with the next header.
            if from == 0 {
                self.full[block as usize / 8] |= 1 << (block % 8);
            }
        }
        Ok(None)
    }

    /// Marks a place as taken, and nothing else: what [`Bitmap::next_free`] finds next is another.
    pub(super) fn mark(&mut self, place: u32) -> io::Result<()> {
        self.write(place, |byte, mask| *byte |= mask)
    }

    /// Marks a place that [`Bitmap::next_free`] found and goes on behind it next time, so that an
    /// address rests after its release until all others have had their turn.
    pub(super) fn take(&mut self, place: u32) -> io::Result<()> {
        self.mark(place)?;
        let block = place / BITS;
        if first_zero(self.load(block)?, 0).is_none() {
            self.full[block as usize / 8] |= 1 << (block % 8);
        }
        self.cursor = (place + 1) % self.window.count;
        self.file.write_all_at(&self.header(), 0)
    }

    /// Marks a place as free. The block's summary first: should the second write never come, the
    /// summary is only modest, which a search finds out; the other way round the place would be lost.
    pub(super) fn clear(&mut self, place: u32) -> io::Result<()> {
        let block = place / BITS;
        let mask = 1 << (block % 8);
        if self.full[block as usize / 8] & mask != 0 {
            self.full[block as usize / 8] &= !mask;
            self.file.write_all_at(&self.header(), 0)?;
        }
        self.write(place, |byte, mask| *byte &= !mask)
    }

    /// Where the search goes on.
    pub(super) fn cursor(&self) -> u32 {
        self.cursor
    }

    fn write(&mut self, place: u32, change: impl Fn(&mut u8, u8)) -> io::Result<()> {
        let (block, index, mask) = (place / BITS, (place % BITS / 8) as usize, 1 << (place % 8));
        let at = offset(block) + index as u64;
        let mut byte = [0];
        match &self.block {
            Some((loaded, bytes)) if *loaded == block => byte[0] = bytes[index],
            _ => self.file.read_exact_at(&mut byte, at)?,
        }
        change(&mut byte[0], mask);
        if let Some((loaded, bytes)) = &mut self.block
            && *loaded == block
        {
            bytes[index] = byte[0];
        }
        self.file.write_all_at(&byte, at)
    }

    fn load(&mut self, block: u32) -> io::Result<&[u8; BLOCK]> {
        let mut bytes = match self.block.take() {
            Some((loaded, bytes)) if loaded == block => bytes,
            other => {
                let mut bytes = other.map_or_else(|| Box::new([0; BLOCK]), |(_, bytes)| bytes);
                self.file.read_exact_at(&mut bytes[..], offset(block))?;
                bytes
            }
        };
        // Behind the window nothing is free, whatever the file says.
        let inside = self.window.count.saturating_sub(block * BITS).min(BITS);
        for place in inside..BITS.min(inside.next_multiple_of(8)) {
            bytes[(place / 8) as usize] |= 1 << (place % 8);
        }
        bytes[inside.div_ceil(8) as usize..].fill(0xff);
        Ok(&self.block.insert((block, bytes)).1)
    }

    fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.window.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.cursor.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.window.first.to_le_bytes());
        bytes[32..].copy_from_slice(&self.full);
        bytes
    }
}

fn offset(block: u32) -> u64 {
    BLOCKS_AT + u64::from(block) * BLOCK as u64
}

/// The first place of a block at or behind `from` whose bit is clear.
fn first_zero(bytes: &[u8; BLOCK], from: u32) -> Option<u32> {
    let (words, _) = bytes.as_chunks::<8>();
    debug_assert_eq!(words.len(), WORDS);
    let first = (from / 64) as usize;
    words.iter().enumerate().skip(first).find_map(|(index, word)| {
        let mut free = !u64::from_le_bytes(*word);
        if index == first {
            free &= u64::MAX << (from % 64);
        }
        (free != 0).then(|| index as u32 * 64 + free.trailing_zeros())
    })
}
