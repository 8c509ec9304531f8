//! The bytes of an archive: ustar headers, with PAX records for what they cannot say (pax(1)), and contents.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::image::tar::header::{BLOCK, CHECKSUM, checksum};
use crate::image::tar::pax::append;

/// Bytes gathered before they are written: files are read straight into them.
const BUFFER: usize = 256 << 10;

/// One member, as its header is to say it.
#[derive(Debug, Default)]
pub(super) struct Entry<'a> {
    /// A directory's ends with a slash.
    pub(super) name: &'a [u8],
    /// The type flag.
    pub(super) kind: u8,
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Major and minor number.
    pub(super) device: (u32, u32),
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// An archive being written.
pub(super) struct Archive<'a> {
    sink: &'a mut dyn Write,
    buffer: Vec<u8>,
    used: usize,
    records: Vec<u8>,
}

/// Whether a file still had the size that its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    Whole,
    /// It has become shorter: zeros stand for the rest.
    Short,
}

impl<'a> Archive<'a> {
    pub(super) fn new(sink: &'a mut dyn Write) -> Archive<'a> {
        Archive { sink, buffer: vec![0; BUFFER], used: 0, records: Vec::new() }
    }

    /// Writes a member's headers.
    pub(super) fn header(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let mut block = [0; BLOCK];
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[156] = entry.kind;
        let mut records = std::mem::take(&mut self.records);
        records.clear();

        match split(entry.name) {
            Some((prefix, name)) => {
                block[..name.len()].copy_from_slice(name);
                block[345..345 + prefix.len()].copy_from_slice(prefix);
            }
            None => {
                append(&mut records, b"path", entry.name);
                block[..100].copy_from_slice(&entry.name[..100]);
            }
        }
        let shown = &entry.link[..entry.link.len().min(100)];
        block[157..157 + shown.len()].copy_from_slice(shown);
        if shown.len() < entry.link.len() {
            append(&mut records, b"linkpath", entry.link);
        }
        octal(&mut block[100..108], entry.mode.into());
        let decimal = |value: u64| value.to_string().into_bytes();
        if !octal(&mut block[108..116], entry.uid.into()) {
            append(&mut records, b"uid", &decimal(entry.uid.into()));
        }
        if !octal(&mut block[116..124], entry.gid.into()) {
            append(&mut records, b"gid", &decimal(entry.gid.into()));
        }
        if !octal(&mut block[124..136], entry.size) {
            append(&mut records, b"size", &decimal(entry.size));
        }
        let (seconds, nanoseconds) = entry.mtime;
        let fits = u64::try_from(seconds).is_ok_and(|seconds| octal(&mut block[136..148], seconds));
        if !fits {
            octal(&mut block[136..148], 0);
        }
        if !fits || nanoseconds != 0 {
            append(&mut records, b"mtime", &time(seconds, nanoseconds));
        }
        if matches!(entry.kind, b'3' | b'4') {
            for (number, field) in [(entry.device.0, 329), (entry.device.1, 337)] {
                let field = &mut block[field..field + 8];
                if !octal(field, number.into()) {
                    // There is no record for these: the form that GNU tar and Go write and all read.
                    field.fill(0);
                    field[0] = 0x80;
                    field[4..].copy_from_slice(&number.to_be_bytes());
                }
            }
        }
        for (name, value) in entry.xattrs {
            append(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if !records.is_empty() {
            self.records_header(entry.name, &records)?;
        }
        self.records = records;
        seal(&mut block);
        self.bytes(&block)
    }

    fn records_header(&mut self, name: &[u8], records: &[u8]) -> io::Result<()> {
        let mut block = [0; BLOCK];
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[156] = b'x';
        // Who does not know such headers unpacks a file by this name.
        let shown = [b"PaxHeaders.0/", name].concat();
        let length = shown.len().min(100);
        block[..length].copy_from_slice(&shown[..length]);
        octal(&mut block[100..108], 0o644);
        octal(&mut block[108..116], 0);
        octal(&mut block[116..124], 0);
        octal(&mut block[124..136], records.len() as u64);
        octal(&mut block[136..148], 0);
        seal(&mut block);
        self.bytes(&block)?;
        self.bytes(records)?;
        self.pad(records.len() as u64)
    }

    /// Writes `size` bytes of a file, whatever it has become meanwhile.
    pub(super) fn contents(&mut self, mut file: &File, size: u64) -> io::Result<Contents> {
        let mut left = size;
        let mut contents = Contents::Whole;
        while left > 0 {
            if self.used == BUFFER {
                self.flush()?;
            }
            let wanted = (BUFFER - self.used).min(usize::try_from(left).unwrap_or(usize::MAX));
            match file.read(&mut self.buffer[self.used..self.used + wanted]) {
                Ok(0) => {
                    contents = Contents::Short;
                    self.zeros(left)?;
                    left = 0;
                }
                Ok(count) => {
                    self.used += count;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.pad(size)?;
        Ok(contents)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.zeros(2 * BLOCK as u64)?;
        self.flush()?;
        self.sink.flush()
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.zeros(size.wrapping_neg() % BLOCK as u64)
    }

    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            if self.used == BUFFER {
                self.flush()?;
            }
            let now = (BUFFER - self.used).min(usize::try_from(count).unwrap_or(usize::MAX));
            self.buffer[self.used..self.used + now].fill(0);
            self.used += now;
            count -= now as u64;
        }
        Ok(())
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.used == BUFFER {
                self.flush()?;
            }
            let now = (BUFFER - self.used).min(bytes.len());
            self.buffer[self.used..self.used + now].copy_from_slice(&bytes[..now]);
            self.used += now;
            bytes = &bytes[now..];
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.write_all(&self.buffer[..self.used])?;
        self.used = 0;
        Ok(())
    }
}

/// A name as ustar divides it, at a slash that neither part keeps; `None` when it does not fit.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // The last slash that leaves something behind it, as early as the rest fits.
    let first = name.len().checked_sub(101)?;
    let slash = first + name.get(first..name.len() - 1)?.iter().position(|byte| *byte == b'/')?;
    (slash > 0 && slash <= 155).then(|| (&name[..slash], &name[slash + 1..]))
}

/// Writes a number with a NUL behind it; `false`, and zero, when it does not fit.
fn octal(field: &mut [u8], mut value: u64) -> bool {
    let digits = field.len() - 1;
    field[digits] = 0;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    let fits = value == 0;
    if !fits {
        field[..digits].fill(b'0');
    }
    fits
}

fn seal(block: &mut [u8; BLOCK]) {
    let sum = checksum(block);
    octal(&mut block[CHECKSUM][..7], sum.into());
    block[CHECKSUM.end - 1] = b' ';
}

/// Seconds with a fraction; a negative time is said by its amount, so -0.25 is one second back and 0.75 on.
fn time(seconds: i64, nanoseconds: u32) -> Vec<u8> {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (sign, amount) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
    let (whole, fraction) = (amount / 1_000_000_000, amount % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{whole}").into_bytes();
    }
    format!("{sign}{whole}.{fraction:09}").trim_end_matches('0').as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal() {
        let text = |seconds, nanoseconds| String::from_utf8(time(seconds, nanoseconds)).unwrap();
        assert_eq!(text(12, 0), "12");
        assert_eq!(text(12, 500_000_000), "12.5");
        assert_eq!(text(12, 1), "12.000000001");
        assert_eq!(text(-1, 750_000_000), "-0.25");
        assert_eq!(text(-2, 0), "-2");
    }

    #[test]
    fn names_are_divided_at_a_slash() {
        let name = |parts: &[usize]| parts.iter().map(|length| "x".repeat(*length)).collect::<Vec<_>>().join("/");
        for (parts, expected) in [
            (&[100][..], Some((0, 100))),
            (&[101], None),
            (&[155, 100], Some((155, 100))),
            (&[156, 100], None),
            (&[50, 50, 50], Some((101, 50))),
            (&[100, 50, 100], Some((151, 100))),
            (&[150, 101], None),
        ] {
            let name = name(parts);
            let found = split(name.as_bytes()).map(|(prefix, rest)| (prefix.len(), rest.len()));
            assert_eq!(found, expected, "{parts:?}");
        }
        // A directory's own slash is none to divide at.
        let directory = format!("{}/", "x".repeat(120));
        assert_eq!(split(directory.as_bytes()), None);
    }
}
