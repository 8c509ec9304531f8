//! Who has the addresses of a window: one record of 128 bytes an address, in a sparse file.
//!
//! ```text
//!   0  length of the owner, 0 for nobody
//!   1  owner
//! 120  checksum of the bytes before
//! ```
//!
//! A record never crosses a page, so write(2) copies it in one go and a kill -9 leaves the old or
//! the new. A reader without the lock may meet one that is being written; the checksum says so and
//! it looks again. A file of records, and not a link an address, because making and removing an
//! inode costs ext4 50 µs when it is idle and a millisecond after many have been removed, and
//! writing into a file that is there costs one (`docs/performance.md`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::SeekFrom;

const RECORD: usize = 128;
const SUM_AT: usize = 120;
/// Longest owner.
pub(super) const LONGEST: usize = SUM_AT - 1;
/// So often a reader looks again at a record that is being written.
const LOOKS: usize = 8;
const CHUNK: u64 = 64 * 1024;

/// An open table.
#[derive(Debug)]
pub(super) struct Owners {
    file: File,
}

impl Owners {
    /// Opens the table for writing; an empty one when there is none.
    pub(super) fn open(path: &Path) -> io::Result<Owners> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Owners { file })
    }

    /// Opens the table for reading; `None` when there is none.
    pub(super) fn open_for_reading(path: &Path) -> io::Result<Option<Owners>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Owners { file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Who has a place; an owner without a name when the record is damaged.
    pub(super) fn get(&self, place: u32) -> io::Result<Option<String>> {
        let mut record = [0; RECORD];
        for _ in 0..LOOKS {
            // What was never written, or was cut off, belongs to nobody.
            match self.file.read_exact_at(&mut record, offset(place)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(owner) = decode(&record) {
                return Ok(owner);
            }
            std::thread::yield_now();
        }
        Ok(Some(String::new()))
    }

    /// Gives a place to `owner`, of at most [`LONGEST`] bytes.
    pub(super) fn set(&self, place: u32, owner: &str) -> io::Result<()> {
        let mut record = [0; RECORD];
        record[0] = owner.len() as u8;
        let text = record.get_mut(1..=owner.len()).filter(|text| text.len() <= LONGEST);
        text.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(owner.as_bytes());
        let sum = checksum(&record[..SUM_AT]);
        record[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&record, offset(place))
    }

    /// Gives a place to nobody.
    pub(super) fn clear(&self, place: u32) -> io::Result<()> {
        self.file.write_all_at(&[0; RECORD], offset(place))
    }

    /// Every place below `count` that somebody has, in order. Reads what is not a hole.
    pub(super) fn each(&self, count: u32, mut see: impl FnMut(u32, String)) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK as usize];
        let mut at = 0;
        while let Some(data) = self.next_data(at)? {
            // Whole chunks, so that holes end between records.
            at = data - data % CHUNK;
            let mut filled = 0;
            while filled < chunk.len() {
                match self.file.read_at(&mut chunk[filled..], at + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            for (index, record) in chunk[..filled].as_chunks::<RECORD>().0.iter().enumerate() {
                if record[0] == 0 && record[SUM_AT..] == [0; 8] {
                    continue;
                }
                let place = at / RECORD as u64 + index as u64;
                if place >= u64::from(count) {
                    return Ok(());
                }
                let owner = match decode(record) {
                    Some(owner) => owner,
                    None => self.get(place as u32)?,
                };
                if let Some(owner) = owner {
                    see(place as u32, owner);
                }
            }
            at += CHUNK;
        }
        Ok(())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(at) => Ok(Some(at)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn offset(place: u32) -> u64 {
    u64::from(place) * RECORD as u64
}

/// The owner in a record, or nobody; `None` when it is damaged or half-written.
fn decode(record: &[u8; RECORD]) -> Option<Option<String>> {
    if record.iter().all(|byte| *byte == 0) {
        return Some(None);
    }
    let (bytes, sum) = record.split_at(SUM_AT);
    let text = bytes.get(1..=usize::from(bytes[0])).filter(|text| !text.is_empty())?;
    let owner = std::str::from_utf8(text).ok()?;
    (sum == checksum(bytes).to_le_bytes()).then(|| Some(owner.to_owned()))
}

/// Tells a record that was written whole from one that was not (FNV-1a, 64 bits); no protection
/// against anybody, as whoever can write here is root.
pub(in crate::net) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
