//! A table of names on disk: a hash table whose buckets are pages of a file, changed in place.
//!
//! ```text
//! page 0    magic and version 8 bytes · number of buckets u32 · bytes of records u32
//! page 1…   checksum u64 · flags u8 · 0 · bytes of records u16 · records
//! record    three lengths u8 · key · owner · value
//! ```
//!
//! A record stands in the page that its key's hash chooses, or in one behind it when that was full:
//! the page's flag then says that a search goes on. The table grows by writing a larger one beside
//! it and renaming, before it is half full, so that nearly all searches read one page.
//!
//! A page is written in one go, which kill -9 does not divide. A reader, who has no lock, may meet
//! one that is being written: the checksum says so, and it looks again. A page that stays wrong is
//! empty for everybody.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::net::ipam::checksum;

const MAGIC: [u8; 8] = *b"mdnames\x01";
const PAGE: usize = 4096;
const HEAD: usize = 12;
const ROOM: usize = PAGE - HEAD;
/// So often a reader looks again at a page that is being written.
const LOOKS: usize = 8;
const FEWEST: u32 = 4;
/// 256 MiB: three million names.
const MOST: u32 = 1 << 16;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) owner: String,
    pub(super) value: String,
}

impl Record {
    fn len(&self) -> usize {
        3 + self.key.len() + self.owner.len() + self.value.len()
    }
}

/// An open table.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    file: File,
    buckets: u32,
    used: u32,
}

#[derive(Debug, Default)]
struct Page {
    /// Records that belong here stand further on.
    overflowed: bool,
    records: Vec<Record>,
}

impl Page {
    fn used(&self) -> usize {
        self.records.iter().map(Record::len).sum()
    }

    /// The flag and the records; `None` when the page is damaged or half-written.
    fn check(bytes: &[u8; PAGE]) -> Option<(bool, &[u8])> {
        let (head, room) = bytes.split_at(HEAD);
        if head == [0; HEAD] {
            return Some((false, &[]));
        }
        let used = usize::from(u16::from_le_bytes([head[10], head[11]]));
        let records = room.get(..used)?;
        let whole = head[..8] == checksum(&bytes[8..HEAD + used]).to_le_bytes();
        whole.then_some((head[8] == 1, records))
    }

    /// The records that `wanted` says by their key.
    fn decode(bytes: &[u8; PAGE], wanted: impl Fn(&[u8]) -> bool) -> Option<Page> {
        let (overflowed, mut rest) = Page::check(bytes)?;
        let mut page = Page { overflowed, records: Vec::new() };
        while let Some((lengths, after)) = rest.split_first_chunk::<3>() {
            let [key, owner, value] = lengths.map(usize::from);
            let (key, after) = after.split_at_checked(key)?;
            let (owner, after) = after.split_at_checked(owner)?;
            let (value, after) = after.split_at_checked(value)?;
            rest = after;
            if wanted(key) {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
                page.records.push(Record { key: text(key)?, owner: text(owner)?, value: text(value)? });
            }
        }
        Some(page)
    }

    fn encode(&self) -> Box<[u8; PAGE]> {
        let mut records = Vec::with_capacity(ROOM);
        for record in &self.records {
            let texts = [&record.key, &record.owner, &record.value];
            // The writer has checked the lengths.
            records.extend(texts.map(|text| text.len() as u8));
            texts.iter().for_each(|text| records.extend_from_slice(text.as_bytes()));
        }
        let mut bytes = Box::new([0; PAGE]);
        bytes[8] = self.overflowed.into();
        bytes[10..12].copy_from_slice(&(records.len() as u16).to_le_bytes());
        bytes[HEAD..HEAD + records.len()].copy_from_slice(&records);
        let sum = checksum(&bytes[8..HEAD + records.len()]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

impl Table {
    /// Opens a table for reading; `None` when there is none, or one that is no table.
    pub(super) fn open(path: &Path) -> Option<Table> {
        Table::from_file(path, File::open(path).ok()?)
    }

    /// Opens a table for writing; `None` as with [`Table::open`].
    pub(super) fn open_for_writing(path: &Path) -> io::Result<Option<Table>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Table::from_file(path, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an empty table in the place of whatever is there.
    pub(super) fn create(path: &Path) -> io::Result<Table> {
        Table::make(path, FEWEST, &[])
    }

    fn from_file(path: &Path, file: File) -> Option<Table> {
        let mut head = [0; 16];
        file.read_exact_at(&mut head, 0).ok()?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (buckets, used) = (number(8), number(12));
        let good = head[..8] == MAGIC && buckets.is_power_of_two() && (FEWEST..=MOST).contains(&buckets);
        good.then(|| Table { path: path.to_owned(), file, buckets, used })
    }

    /// Writes a table beside `path` and renames it there. A temporary that a killed process left is
    /// overwritten: there is one writer at a time.
    fn make(path: &Path, buckets: u32, records: &[Record]) -> io::Result<Table> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.set_len((u64::from(buckets) + 1) * PAGE as u64)?;
        let mut table = Table { path: path.to_owned(), file, buckets, used: 0 };
        for record in records {
            if !table.insert(record, table.chain(&record.key))? {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        table.write_head()?;
        fs::rename(&temporary, path)?;
        Ok(table)
    }

    /// The records of `key`. Whatever cannot be read is not there.
    pub(super) fn find(&self, key: &str) -> Vec<Record> {
        let mut found = Vec::new();
        for bucket in self.chain(key) {
            let Ok(page) = self.read_some(bucket, |other| other == key.as_bytes()) else { break };
            let overflowed = page.overflowed;
            found.extend(page.records);
            if !overflowed {
                break;
            }
        }
        found
    }

    /// Puts a record in, in the place of that of the same key and owner. The texts have at most 255
    /// bytes each.
    pub(super) fn put(&mut self, record: &Record) -> io::Result<()> {
        if self.replace(record)? {
            return Ok(());
        }
        let room = self.buckets as usize * ROOM;
        if (self.used as usize + record.len()) * 2 > room || !self.insert(record, self.chain(&record.key))? {
            // An old one that `replace` had no room for, too, gives way to the new.
            let mut records = self.all()?;
            records.retain(|other| other.key != record.key || other.owner != record.owner);
            records.push(record.clone());
            let used: usize = records.iter().map(Record::len).sum();
            let buckets = (used * 4).div_ceil(ROOM).next_power_of_two() as u32;
            if buckets > MOST {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *self = Table::make(&self.path, buckets.max(FEWEST), &records)?;
            return Ok(());
        }
        self.write_head()
    }

    /// Removes the records of `key` that `goes` says.
    pub(super) fn remove(&mut self, key: &str, goes: impl Fn(&Record) -> bool) -> io::Result<()> {
        for bucket in self.chain(key) {
            let page = self.read(bucket)?;
            let overflowed = page.overflowed;
            self.retain(bucket, page, |record| record.key != key || !goes(record))?;
            if !overflowed {
                break;
            }
        }
        Ok(())
    }

    /// Removes every record that `goes` says.
    pub(super) fn remove_everywhere(&mut self, goes: impl Fn(&Record) -> bool) -> io::Result<()> {
        for bucket in 0..self.buckets {
            let page = self.read(bucket)?;
            self.retain(bucket, page, |record| !goes(record))?;
        }
        Ok(())
    }

    /// Every record.
    pub(super) fn all(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for bucket in 0..self.buckets {
            records.append(&mut self.read(bucket)?.records);
        }
        Ok(records)
    }

    fn retain(&mut self, bucket: u32, mut page: Page, stays: impl Fn(&Record) -> bool) -> io::Result<()> {
        let before = page.used();
        page.records.retain(stays);
        let gone = before - page.used();
        if gone == 0 {
            return Ok(());
        }
        self.write(bucket, &page)?;
        // A count that kill -9 has made wrong makes the table grow early or late, no more.
        self.used = self.used.saturating_sub(gone as u32);
        self.write_head()
    }

    /// Changes the value of a record; `false` when there is none, or no room for it from there on.
    fn replace(&mut self, record: &Record) -> io::Result<bool> {
        let same = |other: &Record| other.key == record.key && other.owner == record.owner;
        let mut chain = self.chain(&record.key);
        while let Some(bucket) = chain.next() {
            let mut page = self.read(bucket)?;
            if let Some(index) = page.records.iter().position(same) {
                if page.records[index].value == record.value {
                    return Ok(true);
                }
                page.records[index].value.clone_from(&record.value);
                if page.used() <= ROOM {
                    self.write(bucket, &page)?;
                    return Ok(true);
                }
                // The new one further on, and then the old one away: a reader, who goes the same
                // way, may see both and never none.
                if !page.overflowed {
                    let mut marked = self.read(bucket)?;
                    marked.overflowed = true;
                    self.write(bucket, &marked)?;
                }
                if !self.insert(record, chain)? {
                    return Ok(false);
                }
                let old = self.read(bucket)?;
                self.retain(bucket, old, |other| !same(other))?;
                return Ok(true);
            }
            if !page.overflowed {
                break;
            }
        }
        Ok(false)
    }

    /// Adds a record to the first page of `chain` that has room; `false` when there is none.
    fn insert(&mut self, record: &Record, chain: impl Iterator<Item = u32>) -> io::Result<bool> {
        for bucket in chain {
            let mut page = self.read(bucket)?;
            if page.used() + record.len() <= ROOM {
                page.records.push(record.clone());
                self.write(bucket, &page)?;
                self.used += record.len() as u32;
                return Ok(true);
            }
            // Before the record is written behind it: without the flag nobody would look there.
            if !page.overflowed {
                page.overflowed = true;
                self.write(bucket, &page)?;
            }
        }
        Ok(false)
    }

    /// The pages where `key` may stand, in order.
    fn chain(&self, key: &str) -> impl Iterator<Item = u32> + use<> {
        let buckets = self.buckets;
        let sum = checksum(key.as_bytes());
        let first = (sum ^ (sum >> 32)) as u32 & (buckets - 1);
        (0..buckets).map(move |step| (first + step) & (buckets - 1))
    }

    fn read(&self, bucket: u32) -> io::Result<Page> {
        self.read_some(bucket, |_| true)
    }

    fn read_some(&self, bucket: u32, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Page> {
        let mut bytes = [0; PAGE];
        for _ in 0..LOOKS {
            match self.file.read_exact_at(&mut bytes, offset(bucket)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Page::default()),
                Err(error) => return Err(error),
            }
            if let Some(page) = Page::decode(&bytes, &wanted) {
                return Ok(page);
            }
            std::thread::yield_now();
        }
        Ok(Page::default())
    }

    fn write(&self, bucket: u32, page: &Page) -> io::Result<()> {
        self.file.write_all_at(&page.encode()[..], offset(bucket))
    }

    fn write_head(&self) -> io::Result<()> {
        let mut head = [0; 16];
        head[..8].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&self.buckets.to_le_bytes());
        head[12..].copy_from_slice(&self.used.to_le_bytes());
        self.file.write_all_at(&head, 0)
    }
}

fn offset(bucket: u32) -> u64 {
    (u64::from(bucket) + 1) * PAGE as u64
}
